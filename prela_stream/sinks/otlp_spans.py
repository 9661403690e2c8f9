"""What the sinks that write OTLP share: the spans of a batch in messages of bounded size, and spans that are refused for good."""

import logging
from collections.abc import Iterable, Iterator, Sequence

from prela_stream import telemetry
from prela_stream.otel.otlp.encode import Marked, marks_of
from prela_stream.sinks.kept_trace import KeptTrace

logger = logging.getLogger(__name__)


def marked(traces: Sequence[KeptTrace], sample_rate: str) -> Iterator[tuple[list[Marked], int]]:
    """The spans of each trace with the marks of its decision, and about how many bytes they have.

    Args:
        traces: Kept traces and late spans.
        sample_rate: As in `marks_of`.
    """
    for trace in traces:
        marks = marks_of(trace.decision, late=trace.late, sample_rate=sample_rate)
        yield [(span, marks) for span in trace.spans], sum(len(bytes(item.raw)) for item in trace.items)


def divided(parts: Iterable[tuple[list[Marked], int]], limit: int) -> Iterator[list[Marked]]:
    """The spans of each message: whole traces up to the limit; a trace that is larger is divided evenly."""
    spans: list[Marked] = []
    size = 0
    for part, more in parts:
        if spans and size + more > limit:
            yield spans
            spans, size = [], 0
        pieces = min(-(-more // limit), len(part)) if more > limit else 1
        if pieces > 1:
            step = -(-len(part) // pieces)
            yield from (part[at : at + step] for at in range(0, len(part), step))
            continue
        spans += part
        size += more
    if spans:
        yield spans


def reject(destination: str, spans: int, line: str) -> None:
    """Count spans that are left out, and log the first ones of a destination."""
    if telemetry.SINK_REJECTED_SPANS.value(destination) == 0:
        logger.warning("%s. Further rejected spans are counted in prela_sink_rejected_spans_total", line)
    telemetry.SINK_REJECTED_SPANS.add(spans, destination)
