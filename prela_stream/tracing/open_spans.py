"""The spans that have not ended: their heartbeats, and their end when the process or the pipeline ends.

Roots and AGENT spans are registered, because they have heartbeats. All others are found once, at the end: a list of all open
spans would add a cost to each span.
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
"""Attribute of a span that the SDK has ended: `exit` (of the process) or `shutdown`."""
_MESSAGES: Final = {
    "exit": "the process ended while this span was open",
    "shutdown": "tracing was shut down while this span was open",
}
_clock: Final = time.perf_counter_ns


class OpenSpans:
    """The open spans of a tracer, for the pipeline that takes its items."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def heartbeats(self) -> Iterator[Span]:
        """Send a heartbeat for each open root and AGENT span, or its START item if it was not sent yet.

        The pipeline runs it every `Resource.heartbeat_ms`, one span per step, so that it never blocks the loop for long.
        """
        output = self._tracer._output
        output.hold_weakly()
        for reference in output.open_spans.valuerefs():
            span = reference()  # None: the span was dropped without an end, so its heartbeats stop
            if span is not None and not span.is_ended:
                span._send_heartbeat()
                yield span

    def cancel(self, reason: str) -> int:
        """End every open span whose item goes to this tracer's recorder, as CANCELLED unless its status was set.

        Spans that a forked child inherited are not ended: the parent process ends them.

        Args:
            reason: `exit` or `shutdown`.

        Returns:
            How many spans were ended.
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
    """Every open span of the process.

    Not by gc.get_objects(): while its list exists, `tuple(generator)` raises SystemError in every other thread (gh-59313).
    """
    kinds = _kinds(Span)
    found: list[Any] = [one for one in gc.get_referrers(*kinds) if type(one) in kinds]  # a span refers to its class
    return [span for span in found if hasattr(span, "_open")]  # the slot exists until the end


def _kinds(kind: type[Span]) -> set[type]:
    """The class and its subclasses whose spans are recorded."""
    below = [found for one in kind.__subclasses__() if not issubclass(one, UnsampledSpan) for found in _kinds(one)]
    return {kind, *below}


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
"""Monotonic ns of the fork: spans that started before belong to the parent process. -1 in a process that was not forked."""


def _continue_in_child() -> None:
    global _began_here  # noqa: PLW0603 - one moment per process
    _began_here = _clock()


at_fork(Step.OPEN_SPANS, in_child=_continue_in_child)
