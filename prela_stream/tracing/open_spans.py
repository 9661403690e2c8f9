"""The spans that have not ended yet: who tells the workers that they are alive, and who ends them when the process does.

Roots and AGENT spans are known, since heartbeats name them. All others are found when they are needed, once, at the end: keeping
a list of them would cost every span.
"""

import gc
import time
from collections.abc import Iterator
from typing import Any, Final

from prela_stream.errors import guard
from prela_stream.model.span import CANCELLED
from prela_stream.tracing.forking import Step, at_fork
from prela_stream.tracing.span import Span
from prela_stream.tracing.tracer import Tracer
from prela_stream.tracing.unsampled import UnsampledSpan

CANCELLED_BY: Final = "prela.cancelled_by"
"""Attribute of a span that was ended from outside: `exit` (of the process) or `shutdown`."""
_MESSAGES: Final = {
    "exit": "the process ended while this span was open",
    "shutdown": "tracing was shut down while this span was open",
}
_clock: Final = time.perf_counter_ns


class OpenSpans:
    """The open spans of a tracer, for the pipeline behind it."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def heartbeats(self) -> Iterator[object]:
        """Send a heartbeat, or the START that was not sent yet, of each open root and AGENT span: one a step."""
        return self._tracer.heartbeats()

    def cancel(self, reason: str) -> int:
        """End every open span whose item goes where this tracer's go now: CANCELLED, unless it was said how it went.

        Args:
            reason: `exit` or `shutdown`.

        Returns:
            How many have ended by this. What a forked child has from its parent is the parent's to end.
        """
        found: list[Span] = []
        recorder = self._tracer.recorder
        if recorder is None:
            return 0
        with guard("open_spans.cancel"):
            found = [span for span in _all_spans() if span._began > _began_here and span._output.recorder is recorder]
        found.sort(key=lambda span: -span._began)  # children before their parents
        for span in found:
            with guard("open_spans.cancel"):
                _cancel(span, reason)
        return len(found)


def _all_spans() -> list[Span]:
    """Every open span of the process."""
    kinds: dict[type, bool] = {}

    def is_kind(kind: type) -> bool:
        if kind not in kinds:
            kinds[kind] = issubclass(kind, Span) and not issubclass(kind, UnsampledSpan)
        return kinds[kind]

    found: list[Any] = [one for one in gc.get_objects() if is_kind(type(one))]
    return [span for span in found if hasattr(span, "_open")]  # it is there until the end


def _cancel(span: Span, reason: str) -> None:
    if span.is_ended:
        return
    span._attributes[CANCELLED_BY] = reason
    if not span._status:
        span._status = CANCELLED
    if span.status_message is None:
        span._extras().message = _MESSAGES[reason]
    span._finish(_clock() - span._began)


_began_here = -1
"""Monotonic ns since which spans are this process's own; a forked child starts anew."""


def _continue_in_child() -> None:
    global _began_here  # noqa: PLW0603 - one moment a process
    _began_here = _clock()


at_fork(Step.OPEN_SPANS, in_child=_continue_in_child)
