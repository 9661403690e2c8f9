"""For tests of your own code: catch the spans that it makes, and compare their tree with the one you expect.

with prela_stream.testing.capture_spans() as captured:
    run_my_agent()
assert_tree(captured.spans, '''
    agent
      plan [LLM]
      search [TOOL] ERROR
''')
"""

import difflib
import textwrap
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, overload

from prela_stream.codec.spans import decode_head, decode_span
from prela_stream.model.span import ItemKind, SpanData, SpanStatus, SpanType
from prela_stream.tracing.context import attach
from prela_stream.tracing.sampler import BaseSampler
from prela_stream.tracing.tracer import get_tracer


class CapturedSpans(Sequence[SpanData]):
    """The spans that have ended, in the order of their ends: `len(captured)`, `captured[0]`, `for span in captured`.

    It is a recorder in memory. Each span is decoded from the bytes that a worker would read.
    """

    def __init__(self) -> None:
        self._items: list[bytes] = []
        self.refused: list[str] = []
        """Trace ids of spans that could not be encoded, and so are in no other property."""
        self._lock = threading.RLock()  # a finalizer can end a span while this thread holds it

    def record(self, trace_id: bytes, item: bytes, reserved: bool = False) -> None:  # noqa: ARG002 - the seam
        """Keep an item."""
        with self._lock:
            self._items.append(item)

    def refuse(self, trace_id: bytes) -> None:
        """Count a span that could not be encoded."""
        with self._lock:
            self.refused.append(trace_id.hex())

    def __getstate__(self) -> dict[str, Any]:
        return {"_items": self.items, "refused": list(self.refused)}  # a lock cannot be copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]  # for the lock
        self.__dict__.update(state)

    def __len__(self) -> int:
        return len(self.spans)

    @overload
    def __getitem__(self, index: int) -> SpanData: ...
    @overload
    def __getitem__(self, index: slice) -> list[SpanData]: ...
    def __getitem__(self, index: int | slice) -> SpanData | list[SpanData]:
        return self.spans[index]

    def __iter__(self) -> Iterator[SpanData]:
        return iter(self.spans)

    def __repr__(self) -> str:
        return f"<CapturedSpans: {', '.join(span.name for span in self.spans) or 'none has ended'}>"

    @property
    def items(self) -> list[bytes]:
        """Every item as bytes, control items (START, HEARTBEAT, …) included."""
        with self._lock:
            return list(self._items)

    @property
    def spans(self) -> list[SpanData]:
        """The spans that have ended, in the order of their ends: children before their parents."""
        return [decode_span(item) for item in self.items if decode_head(item).kind == ItemKind.SPAN]

    @property
    def roots(self) -> list[SpanData]:
        """The spans whose parent is not among these, in the order of their starts."""
        spans = self.spans
        known = {span.span_id for span in spans}
        return sorted((span for span in spans if span.parent_span_id not in known), key=lambda span: span.start_ns)

    def named(self, name: str) -> list[SpanData]:
        """Every span of this name, in the order of their ends."""
        return [span for span in self.spans if span.name == name]

    def find(self, name: str) -> SpanData:
        """The one span of this name; raises AssertionError with the captured tree if there are none or several."""
        found = self.named(name)
        if len(found) == 1:
            return found[0]
        what = f"{len(found)} spans are" if found else "no span is"
        msg = f"{what} named {name!r}; expected exactly one. Captured:\n{self.tree() or '(nothing has ended)'}"
        raise AssertionError(msg)

    def children(self, parent: SpanData) -> list[SpanData]:
        """The children of a span, in the order of their starts."""
        return sorted((s for s in self.spans if s.parent_span_id == parent.span_id), key=lambda span: span.start_ns)

    def tree(self) -> str:
        """The spans as `assert_tree` writes them."""
        return render_tree(self.spans)

    def clear(self) -> None:
        """Forget what was captured so far."""
        with self._lock:
            self._items.clear()


@contextmanager
def capture_spans(sampler: BaseSampler | None = None) -> Iterator[CapturedSpans]:
    """Send the spans of the global tracer to memory for the block, instead of where they would go.

    Works in sync and in async tests, with and without `init()`, and starts outside of any trace.

    Args:
        sampler: The head sampler of the block; None: every trace is recorded.
    """
    tracer = get_tracer()
    before, sampler_before = tracer.recorder, tracer.sampler
    captured = CapturedSpans()
    tracer.configure(recorder=captured, sampler=sampler)
    try:
        with attach(None, scope="caller"):  # in a fixture, for the test
            yield captured
    finally:
        tracer.configure(recorder=before, sampler=sampler_before)


def assert_tree(spans: Sequence[SpanData], expected: str) -> None:
    """Check names, types, statuses, order and nesting of spans.

    Args:
        spans: Those of one or more traces.
        expected: One span a line, children indented by two spaces, siblings in the order of their starts: `name`, then
            `[TYPE]` unless it is CUSTOM, then the status unless it is SUCCESS. Common indentation does not count.

    Raises:
        AssertionError: With a line by line difference.
    """
    wanted = textwrap.dedent(expected).strip().splitlines()
    got = render_tree(spans).splitlines()
    wanted = [line.rstrip() for line in wanted if line.strip()]
    if wanted != got:
        difference = "\n".join(difflib.ndiff(wanted, got))
        msg = f"the spans do not form the expected tree (- expected, + captured):\n{difference}"
        raise AssertionError(msg)


def render_tree(spans: Sequence[SpanData]) -> str:
    """Spans as indented text, in the form that `assert_tree` takes. A span in a cycle of parents appears nowhere."""
    below: dict[str | None, list[SpanData]] = {}
    known = {span.span_id for span in spans}
    for span in sorted(spans, key=lambda span: span.start_ns):
        below.setdefault(span.parent_span_id if span.parent_span_id in known else None, []).append(span)
    lines: list[str] = []
    pending = [(span, 0) for span in reversed(below.get(None, []))]
    while pending:
        span, depth = pending.pop()
        lines.append("  " * depth + _line(span))
        pending += [(child, depth + 1) for child in reversed(below.get(span.span_id, []))]
    return "\n".join(lines)


def _line(span: SpanData) -> str:
    kind = "" if span.span_type is SpanType.CUSTOM else f" [{span.span_type}]"
    status = "" if span.status is SpanStatus.SUCCESS else f" {span.status}"
    return f"{span.name}{kind}{status}"
