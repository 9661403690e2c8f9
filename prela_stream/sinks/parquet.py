"""The Parquet sink: a row for each span and each decision, in files that DuckDB, Spark and the like read (extra `parquet`).

Files are in `spans/` and `decisions/`, in Hive partitions by day (`date=2026-11-27`, UTC, of the start of the trace) and service
of the trace. A file appears whole, by a rename, and never changes. docs/sinks.md has the columns and queries.
"""

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import anyio
import anyio.to_thread
import msgspec

from prela_stream.errors import ConfigurationError, SinkError
from prela_stream.model.decision import Decision
from prela_stream.model.plain import plain, safe_text
from prela_stream.model.span import SpanData
from prela_stream.sinks.base import SinkBatch
from prela_stream.sinks.briefs import Labels, brief_of
from prela_stream.sinks.kept_trace import KeptTrace, SpanItem
from prela_stream.sinks.trace_rows import int64
from prela_stream.transport.base import TopicPartition

_DIRECTORY_BYTES: Final = 200
_NO_SERVICE: Final = "__HIVE_DEFAULT_PARTITION__"
_json: Final = msgspec.json.Encoder(enc_hook=safe_text)

# Column → type; the row functions below have the values in the same order.
_SPANS: Final = {
    "trace_id": "string", "span_id": "string", "parent_span_id": "string", "name": "string", "span_type": "string",
    "status": "string", "status_message": "string", "start_time": "time", "start_ns": "int64", "duration_ms": "float64",
    "revision": "int64", "late": "bool", "service_name": "string", "agent": "string", "model": "string", "tool": "string",
    "error_type": "string", "finish_reason": "string", "input_tokens": "int64", "output_tokens": "int64", "cost_usd": "float64",
    "session": "string", "user": "string", "attributes": "string", "events": "string", "links": "string", "resource": "string",
    "decision_id": "string", "weight": "float64", "policy": "string", "reason": "string",
}  # fmt: skip
_DECISIONS: Final = {
    "trace_id": "string", "decision_id": "string", "kept": "bool", "probability": "float64", "weight": "float64",
    "policy": "string", "reason": "string", "trigger": "string", "complete": "bool", "repeated": "bool", "decided_time": "time",
    "root_name": "string", "start_time": "time", "duration_ms": "float64", "spans": "int64", "errors": "int64",
    "input_tokens": "int64", "output_tokens": "int64", "cost_usd": "float64", "shape_hash": "string",
}  # fmt: skip


class ParquetOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the Parquet sink."""

    path: str = ".prela/parquet"
    """Folder of the files; it is made if it is missing."""


class ParquetSink:
    """Writes kept spans and all decisions as Parquet files. At least once: after a crash, rows may be in two files.

    A file is named after its partition, its offset and its rows, so the same batch written again replaces its own file. Identify
    a span by `(trace_id, span_id)`, and a decision by `decision_id`.

    Args:
        options: The folder, which is created with the first batch.
    """

    wants_decisions = True

    def __init__(self, options: ParquetOptions) -> None:
        self._folder = Path(options.path).absolute()
        self._lock = anyio.Lock()

    async def write(self, batch: SinkBatch) -> None:
        """Write the files of a batch. Raises SinkError if one cannot be written; the batch may come again."""
        async with self._lock:
            try:
                await anyio.to_thread.run_sync(self._write, batch)
            except OSError as error:
                msg = f"cannot write to {self._folder}: {error}. Check its disk, its owner and its permissions"
                raise SinkError(msg) from error

    async def stored_offset(self, source: TopicPartition) -> int | None:  # noqa: ARG002 - of the interface
        """None: the consumer group has the offset."""
        return None

    async def aclose(self) -> None:
        """Nothing is open between two batches."""

    def _write(self, batch: SinkBatch) -> None:
        spans: dict[tuple[str, str], list[tuple[object, ...]]] = {}
        for trace in batch.traces:
            rows = spans.setdefault(_partition_of(trace.decision), [])
            rows.extend(_span_row(trace, span, item) for span, item in zip(trace.spans, trace.items, strict=True))
        decisions: dict[tuple[str, str], list[tuple[object, ...]]] = {}
        for decision in batch.decisions:
            decisions.setdefault(_partition_of(decision), []).append(_decision_row(decision))
        for table, columns, partitions in (("spans", _SPANS, spans), ("decisions", _DECISIONS, decisions)):
            for (date, service), rows in partitions.items():
                if rows:
                    folder = self._folder / table / f"date={date}" / f"service={service}"
                    self._write_file(folder, _file_name(batch, rows), columns, rows)

    def _write_file(self, folder: Path, name: str, columns: Mapping[str, str], rows: list[tuple[object, ...]]) -> None:
        """Write a file under another name, make it durable, and rename it: a reader finds all of it or nothing."""
        arrow, parquet = _libraries()
        types = {
            "string": arrow.string(), "int64": arrow.int64(), "float64": arrow.float64(), "bool": arrow.bool_(),
            "time": arrow.timestamp("us", tz="UTC"),
        }  # fmt: skip
        arrays = [
            arrow.array(list(values), type=types[kind])
            for values, kind in zip(zip(*rows, strict=True), columns.values(), strict=True)
        ]
        table = arrow.Table.from_arrays(arrays, names=list(columns))
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{name}.parquet"
        temporary = folder / f".{name}.tmp"
        descriptor = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            parquet.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        _sync_folder(folder)


def _libraries() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        msg = "a sink of type parquet needs pyarrow, which is not installed: pip install 'prela-stream[parquet]'"
        raise ConfigurationError(msg) from error
    return pa, pq


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _partition_of(decision: Decision) -> tuple[str, str]:
    """Day and service as names of directories."""
    start_ns = decision.summary.start_ns or decision.decided_at_ms * 1_000_000
    try:
        date = datetime.fromtimestamp(start_ns // 1_000_000_000, UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        date = "1970-01-01"
    service = quote(decision.summary.service, safe=" ")
    if len(service) > _DIRECTORY_BYTES:
        digest = blake2b(decision.summary.service.encode(), digest_size=4).hexdigest()
        service = f"{quote(decision.summary.service[:16], safe=' ')}-{digest}"
    return date, service or _NO_SERVICE


def _file_name(batch: SinkBatch, rows: Iterable[tuple[object, ...]]) -> str:
    """The same for the same rows of the same batch. The offset alone is not enough: an incomplete trace holds it back."""
    digest = blake2b(digest_size=8)
    for row in rows:
        digest.update(repr(row[:3]).encode())
    return f"{batch.source.topic}-{batch.source.partition}-{batch.next_offset:012d}-{digest.hexdigest()}"


def _span_row(trace: KeptTrace, span: SpanData, item: SpanItem) -> tuple[object, ...]:
    brief = brief_of(span, len(item.raw))
    labels = Labels()
    labels.add(span)
    decision, listed = trace.decision, labels.listed()
    events = [{"name": one.name, "time_ns": one.time_ns, "attributes": one.attributes} for one in span.events]
    links = [
        {"trace_id": one.trace_id.hex(), "span_id": one.span_id.hex(), "attributes": one.attributes}
        for one in span.links
    ]
    return (
        span.trace_id, span.span_id, span.parent_span_id, span.name, str(span.span_type), str(span.status),
        span.status_message, _time(span.start_ns), span.start_ns, span.duration_ms, span.revision, trace.late,
        span.resource.service_name, brief.agent or None, brief.model or None, brief.tool or None, brief.error_type or None,
        brief.finish_reason or None, brief.input_tokens, brief.output_tokens, brief.cost_usd,
        next(iter(listed.get("session", ())), None), next(iter(listed.get("user", ())), None), _text(span.attributes),
        _text(events), _text(links), _text(msgspec.to_builtins(span.resource, enc_hook=safe_text)),
        decision.decision_id.hex(), decision.weight, decision.policy, decision.reason,
    )  # fmt: skip


def _decision_row(one: Decision) -> tuple[object, ...]:
    summary = one.summary
    return (
        one.trace_id.hex(), one.decision_id.hex(), one.kept, one.probability, one.weight, one.policy, one.reason,
        str(one.trigger), one.complete, one.repeated, _time(one.decided_at_ms * 1_000_000), summary.root_name,
        _time(summary.start_ns), summary.duration_ns / 1e6, int64(summary.spans), int64(summary.errors),
        int64(summary.input_tokens), int64(summary.output_tokens), summary.cost_usd, summary.shape_hash,
    )  # fmt: skip


def _time(ns: int) -> int:
    """Microseconds, within what a timestamp holds."""
    return int64(ns // 1_000)


def _text(value: object) -> str:
    return _json.encode(plain(value)).decode()
