"""Writes the ClickHouse store: at least once, and idempotent.

A batch is at most 10,000 records of `sampled`, so tens of thousands of rows. Spans, bodies and words are inserted first and the
rows of the traces last, so that a list shows no trace of which a part is missing. A batch that comes again inserts nothing.
"""

import time
from collections.abc import Sequence
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec

from prela_stream.codec.decisions import decode_decisions, encode_decisions
from prela_stream.model.decision import Decision
from prela_stream.sinks.base import SinkBatch
from prela_stream.sinks.briefs import decode_brief, encode_brief, merged_listed
from prela_stream.sinks.calls import counted_calls
from prela_stream.sinks.clickhouse.options import ClickhouseOptions
from prela_stream.sinks.clickhouse.schema import Connection
from prela_stream.sinks.clickhouse.words import words_of
from prela_stream.sinks.trace_rows import (
    LABEL_CHARS,
    STATUSES,
    SpanRow,
    TraceChange,
    changes_of,
    duration_bar,
    facts_of,
    int64,
    primary,
    times_of,
    trace_columns,
)
from prela_stream.transport.base import TopicPartition

_TRACES: Final = (
    "trace_id", "decision_id", "root_name", "service", "start_ns", "duration_ns", "duration_bar", "spans", "errors", "status",
    "input_tokens", "output_tokens", "tokens", "cost_usd", "policy", "kept_because", "weight", "trigger", "complete", "session",
    "listed", "labels", "decisions", "stored", "decided",
)  # fmt: skip
_SPANS: Final = (
    "trace_id", "span_id", "parent_id", "rank", "name", "span_type", "status", "start_ns", "end_ns", "brief", "call", "call_name",
    "input_tokens", "output_tokens", "cost_usd", "decided",
)  # fmt: skip
_BODIES: Final = ("trace_id", "span_id", "rank", "resource", "item", "decided")
_WORDS: Final = ("trace_id", "part", "words", "written", "decided")
_DECISIONS: Final = (
    "trace_id", "decision_id", "kept", "root_name", "service", "start_ns", "duration_ns", "spans", "status", "input_tokens",
    "output_tokens", "tokens", "cost_usd", "policy", "body", "written", "decided",
)  # fmt: skip
_listed: Final = msgspec.msgpack.Decoder(dict[str, list[str]])
_encoder: Final = msgspec.msgpack.Encoder()


class _Stored(msgspec.Struct):
    """A trace that is stored."""

    listed: dict[str, list[str]]
    labels: set[str]
    decisions: dict[bytes, Decision]
    decided: Any
    spans: dict[bytes, SpanRow] = {}


class ClickhouseSink:
    """Writes kept traces and all decisions into ClickHouse. At least once: rows are replaced by (trace, span, revision).

    Args:
        options: The server and the database, which is created with the first batch.
    """

    wants_decisions = True

    def __init__(self, options: ClickhouseOptions) -> None:
        self._connection = Connection(options, create=True)
        self._last = 0
        """The last mark."""
        self._lock = anyio.Lock()

    async def write(self, batch: SinkBatch) -> None:
        """Store the batch. Raises SinkError if ClickHouse fails; a part of the batch may be stored then."""
        async with self._lock:
            await anyio.to_thread.run_sync(self._write, batch)

    async def stored_offset(self, source: TopicPartition) -> int | None:  # noqa: ARG002 - of the interface
        """None: the consumer group has the offset."""
        return None

    async def aclose(self) -> None:
        """Disconnect."""
        with anyio.CancelScope(shield=True):
            async with self._lock:
                await anyio.to_thread.run_sync(self._connection.close)

    def _write(self, batch: SinkBatch) -> None:
        connection = self._connection
        connection.open()
        changes = changes_of(batch.traces)
        stored = self._stored([change.trace_id.hex() for change in changes])
        rows: dict[str, list[tuple[object, ...]]] = {name: [] for name in ("spans", "bodies", "words", "traces")}
        decisions = [*batch.decisions, *(one for change in changes for one in change.decisions.values())]
        for change in changes:
            self._add(change, stored.get(change.trace_id.hex()), rows)
        connection.insert("decisions", _DECISIONS, self._decision_rows(decisions))
        connection.insert("spans", _SPANS, rows["spans"])
        connection.insert("span_bodies", _BODIES, rows["bodies"])
        connection.insert("trace_words", _WORDS, rows["words"])
        connection.insert("traces", _TRACES, rows["traces"])

    def _add(self, change: TraceChange, before: _Stored | None, rows: dict[str, list[tuple[object, ...]]]) -> None:
        """The rows that a change adds; none if all of it is stored."""
        known = {} if before is None else before.spans
        new = {key: row for key, row in change.spans.items() if key not in known or known[key].rank < row.rank}
        decisions = {**({} if before is None else before.decisions), **change.decisions}
        listed, labels = change.labels.listed(), change.labels.tokens()
        if before is not None:
            listed, labels = merged_listed(before.listed, listed), before.labels | labels
            same = listed == before.listed and labels == before.labels
            if not new and same and decisions.keys() == before.decisions.keys():
                return
        trace_id, ordered = change.trace_id.hex(), primary(decisions.values())
        every = {**known, **new}
        facts = facts_of(every)
        decided = _day(ordered[0].decided_at_ms) if before is None else before.decided
        calls = counted_calls(new)
        for key, row in new.items():
            span_id = key.hex()
            rows["spans"].append(
                (*_span_values(trace_id, span_id, row), *calls.get(key, ("", "")), *_sums(row), decided)
            )
            rows["bodies"].append((trace_id, span_id, row.rank, row.resource, bytes(row.item), decided))
        if new:
            texts = [text for key in new for text in change.texts[key]]
            part = "" if before is None else min(new).hex()
            rows["words"].append((trace_id, part, words_of(texts), self._mark(), decided))
        _, duration = times_of(ordered, facts)
        line = {
            **trace_columns(ordered, facts),
            "trace_id": trace_id,
            "decision_id": ordered[0].decision_id.hex(),
            "duration_bar": duration_bar(duration),
            "session": next(iter(listed.get("session", ())), ""),
            "listed": _encoder.encode(listed),
            "labels": sorted(labels),
            "decisions": [encode_decisions([one]) for one in ordered],
            "stored": self._mark(),
            "decided": decided,
        }
        rows["traces"].append(tuple(line[name] for name in _TRACES))

    def _mark(self) -> int:
        """A number higher than those before, also of earlier processes, because it follows the clock."""
        self._last = max(self._last + 1, time.time_ns())
        return self._last

    def _stored(self, ids: Sequence[str]) -> dict[str, _Stored]:
        """What is stored of these traces."""
        if not ids:
            return {}
        query = "SELECT trace_id, listed, labels, decisions, decided FROM {db}.traces FINAL WHERE trace_id IN %(ids)s"
        found: dict[str, _Stored] = {}
        for trace_id, listed, labels, bodies, decided in self._connection.query(
            query, {"ids": tuple(ids)}, ("listed", "labels", "decisions")
        ):
            decisions = [decode_decisions(body)[0] for body in bodies]
            found[trace_id] = _Stored(
                listed=_listed.decode(listed),
                labels={label.decode() for label in labels},
                decisions={one.decision_id: one for one in decisions},
                decided=decided,
            )
        if found:
            for trace_id, row in stored_spans(self._connection, tuple(found)):
                found[trace_id].spans[row.span_id] = row
        return found

    def _decision_rows(self, decisions: Sequence[Decision]) -> list[tuple[object, ...]]:
        found: dict[bytes, tuple[object, ...]] = {}
        for one in decisions:
            summary = one.summary
            found[one.decision_id] = (
                one.trace_id.hex(), one.decision_id.hex(), one.kept, summary.root_name[:LABEL_CHARS],
                summary.service[:LABEL_CHARS],
                int64(summary.start_ns), int64(summary.duration_ns), int64(summary.spans),
                STATUSES.index("error" if summary.errors else "success"), int64(summary.input_tokens),
                int64(summary.output_tokens), int64(summary.input_tokens + summary.output_tokens), summary.cost_usd,
                one.policy[:LABEL_CHARS], encode_decisions([one]), self._mark(), _day(one.decided_at_ms),
            )  # fmt: skip
        return list(found.values())


def stored_spans(connection: Connection, ids: tuple[str, ...]) -> list[tuple[str, SpanRow]]:
    """The spans of these traces without their bodies, by start."""
    query = """
        SELECT trace_id, span_id, parent_id, rank, name, span_type, status, start_ns, end_ns, brief FROM {db}.spans FINAL
        WHERE trace_id IN %(ids)s ORDER BY start_ns, span_id
    """
    return [
        (
            trace_id,
            SpanRow(
                span_id=bytes.fromhex(span_id),
                parent_id=None if parent_id is None else bytes.fromhex(parent_id),
                rank=rank,
                name=name,
                span_type=span_type,
                status=status,
                start_ns=start_ns,
                end_ns=end_ns,
                resource=b"",
                brief=decode_brief(brief),
                item=msgspec.Raw(),
            ),
        )
        for trace_id, span_id, parent_id, rank, name, span_type, status, start_ns, end_ns, brief in connection.query(
            query, {"ids": ids}, ("brief",)
        )
    ]


def _span_values(trace_id: str, span_id: str, row: SpanRow) -> tuple[object, ...]:
    parent = None if row.parent_id is None else row.parent_id.hex()
    return (
        trace_id, span_id, parent, row.rank, row.name, row.span_type, row.status, row.start_ns, row.end_ns,
        encode_brief(row.brief),
    )  # fmt: skip


def _sums(row: SpanRow) -> tuple[object, ...]:
    return row.brief.input_tokens or 0, row.brief.output_tokens or 0, row.brief.cost_usd


def _day(ms: int) -> Any:
    """The day of a decision; ClickHouse has days from 1970 to 2149."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(min(max(ms, 0), 5_600_000_000_000) // 1_000, UTC).date()
