"""Imports files with spans of other tools: reads them, and appends their spans to `spans` like an agent would."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from prela_stream.app.adapters import make_topics, open_transport
from prela_stream.app.otlp import privacy_of
from prela_stream.config import Settings
from prela_stream.errors import CodecError
from prela_stream.model import semconv
from prela_stream.model.span import SpanData, SpanType
from prela_stream.model.tree import SpanTree
from prela_stream.otel.files.formats import read_text
from prela_stream.otel.items import span_data_of
from prela_stream.otel.spans import ForeignSpan, Rejected
from prela_stream.otlp.records import PackedRecord, SpanRecords
from prela_stream.transport.base import TopicPartition


class ImportedFile(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a file."""

    name: str
    spans: list[ForeignSpan]
    rejected: list[Rejected]


class ImportSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a file holds, in numbers."""

    file: str
    spans: int
    traces: int
    roots: int
    """Spans without a parent."""
    types: dict[str, int]
    """Spans by type."""
    model_calls: int
    """Model calls, each once, whatever number of tracers recorded it."""
    input_tokens: int
    output_tokens: int
    """Tokens of these calls."""
    readable_calls: int
    """Model calls with readable messages."""
    rejected: list[Rejected]


def read_import(name: str, data: bytes) -> ImportedFile:
    """Read a file. If nothing in it can be read, the whole of it is one rejected part."""
    spans: list[ForeignSpan] = []
    rejected: list[Rejected] = []
    try:
        for one in read_text(data):
            if isinstance(one, ForeignSpan):
                spans.append(one)
            else:
                rejected.append(one)
    except CodecError as error:
        rejected.append(Rejected(place="$", reason=str(error)))
    return ImportedFile(name=name, spans=spans, rejected=rejected)


def summarize_import(file: ImportedFile) -> ImportSummary:
    """Count what a file holds. A span that is there twice counts once."""
    spans: dict[tuple[str, str], SpanData] = {}
    for one in file.spans:
        span = span_data_of(one)
        spans[span.trace_id, span.span_id] = span
    traces: dict[str, list[SpanData]] = {}
    for span in spans.values():
        traces.setdefault(span.trace_id, []).append(span)
    calls = [call for trace in traces.values() for call in SpanTree(trace).leaf_llm]
    return ImportSummary(
        file=file.name,
        spans=len(spans),
        traces=len(traces),
        roots=sum(span.parent_span_id is None for span in spans.values()),
        types=dict(sorted(Counter(str(span.span_type) for span in spans.values()).items())),
        model_calls=len(calls),
        input_tokens=sum(_count(call, semconv.INPUT_TOKENS) for call in calls),
        output_tokens=sum(_count(call, semconv.OUTPUT_TOKENS) for call in calls),
        readable_calls=sum(_is_readable(call, spans) for call in calls),
        rejected=file.rejected,
    )


def _count(call: SpanData, key: str) -> int:
    value = call.attributes.get(key)
    return value if isinstance(value, int) else 0


def _is_readable(call: SpanData, spans: Mapping[tuple[str, str], SpanData]) -> bool:
    """Whether it has messages. Of a call that two tracers recorded, one inside the other, either may have them."""
    seen: set[str] = set()
    span: SpanData | None = call
    while span is not None and span.span_type is SpanType.LLM and span.span_id not in seen:
        if _has_messages(span):
            return True
        seen.add(span.span_id)
        span = spans.get((span.trace_id, span.parent_span_id or ""))
    return False


def _has_messages(call: SpanData) -> bool:
    for key in (semconv.INPUT_MESSAGES, semconv.OUTPUT_MESSAGES):
        messages = call.attributes.get(key)
        if isinstance(messages, list) and any(one.get("parts") for one in messages if isinstance(one, dict)):
            return True
    return False


async def import_spans(
    settings: Settings, spans: Sequence[ForeignSpan], *, on_sent: Callable[[int], None] | None = None
) -> int:
    """Append spans to the log.

    Args:
        settings: The transport, the topics, and whether content is captured.
        spans: In any order.
        on_sent: Called with the number of spans of each record that the log has acknowledged.

    Returns:
        The number of spans that the log has acknowledged: all of them.

    Raises:
        TransportError: The log could not take a record. The records before it are appended.
    """
    sent = 0
    async with open_transport(settings) as transport:
        await make_topics(settings, transport)
        async with await transport.producer() as producer:
            records = SpanRecords(settings.topics, privacy_of(settings))
            for packed in _packed(records, spans):
                await producer.send(TopicPartition(settings.topics.spans, packed.partition), [packed.record])
                sent += packed.spans
                if on_sent is not None:
                    on_sent(packed.spans)
    return sent


def _packed(records: SpanRecords, spans: Iterable[ForeignSpan]) -> Iterator[PackedRecord]:
    for span in spans:
        records.add(span)
        yield from records.take_full()
    yield from records.take()


def read_path(path: Path) -> ImportedFile:
    """Read a file by its path; raises OSError."""
    return read_import(str(path), path.read_bytes())
