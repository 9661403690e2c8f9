"""Builds traces for tests of policies. Each span has only the fields that the test needs."""

from typing import Any

from prela_stream.model.decision import Trigger
from prela_stream.model.span import SPAN_STATUS_CODES, SPAN_TYPE_CODES, Resource, SpanHead, SpanStatus, SpanType
from prela_stream.model.trace import Trace

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


class PlannedSpan:
    """One span of a trace to be built; `start` and `seconds` are in seconds."""

    def __init__(
        self,
        name: str = "step",
        *,
        status: SpanStatus = SpanStatus.SUCCESS,
        span_type: SpanType = SpanType.CUSTOM,
        start: float = 0.0,
        seconds: float | None = 1.0,
        resource: Resource | None = None,
        threshold: int | None = None,
        randomness: int | None = None,
        **attributes: Any,
    ) -> None:
        self.name = name
        self.attributes = attributes.pop("attributes", attributes)
        self.resource = resource or Resource(service_name="shop")
        self._head: dict[str, Any] = {
            "status": SPAN_STATUS_CODES[status],
            "span_type": SPAN_TYPE_CODES[span_type],
            "start_ns": START + int(start * SECOND),
            "duration_ns": None if seconds is None else int(seconds * SECOND),
            "threshold": threshold,
            "randomness": randomness,
        }

    def head(self, trace_id: bytes, number: int) -> SpanHead:
        """The span as the `number`-th child of the trace's root, which is number 0."""
        parent = None if number == 0 else (1).to_bytes(8, "big")
        return SpanHead(0, trace_id, (number + 1).to_bytes(8, "big"), parent, name=self.name, **self._head)


def make_trace(
    *spans: PlannedSpan,
    trace_id: bytes = b"\x01" * 16,
    trigger: Trigger = Trigger.COMPLETE,
    complete: bool = True,
) -> Trace:
    """A trace of these spans, the first one its root; of one plain span if there are none."""
    made = spans or (PlannedSpan(),)
    return Trace(
        trace_id=trace_id,
        heads=[span.head(trace_id, number) for number, span in enumerate(made)],
        attributes=[span.attributes for span in made],
        resources=[span.resource for span in made],
        trigger=trigger,
        complete=complete,
    )


def trace_id_of(randomness: int) -> bytes:
    """A trace id whose last 56 bits are `randomness`."""
    return b"\xaa" * 9 + randomness.to_bytes(7, "big")
