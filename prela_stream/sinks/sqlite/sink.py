"""Writes the SQLite store: kept traces, decisions and offsets in one transaction, so exactly once.

`SqliteReader` reads it, in this or another process; `schema` has the tables. All work is done in a thread, because SQLite blocks.
"""

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from prela_stream.codec.decisions import decode_decisions, encode_decisions
from prela_stream.errors import SinkError
from prela_stream.files import inode_of, is_first_of_its_folder
from prela_stream.model.decision import Decision
from prela_stream.model.span import ERROR, PENDING
from prela_stream.sinks.base import SinkBatch
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.retention import purge
from prela_stream.sinks.sqlite.schema import LABEL_CHARS, PAGE_BYTES, StoreCounts, open_for_writing, transaction
from prela_stream.sinks.sqlite.search import join_texts
from prela_stream.sinks.sqlite.trace_rows import (
    SpanFacts,
    SpanRow,
    TraceChange,
    changes_of,
    facts_of,
    primary,
    trace_columns,
)
from prela_stream.transport.base import TopicPartition

logger = logging.getLogger(__name__)

_PURGE_EVERY_S: Final = 60.0
_PURGE_TRACES: Final = 200  # in one transaction; a longer one would delay the next batch
_COLUMNS: Final = (
    "trace_id", "decision_id", "root_name", "service", "start_ns", "duration_ns", "spans", "errors", "input_tokens",
    "output_tokens", "tokens", "cost_usd", "policy", "kept_because", "weight", "trigger", "complete", "stored", "id",
)  # fmt: skip
_PLACES: Final = ", ".join(f":{name}" for name in _COLUMNS)
_CHANGES: Final = ", ".join(f"{name} = :{name}" for name in _COLUMNS[1:-1])
_INSERT_TRACE: Final = f"INSERT INTO traces ({', '.join(_COLUMNS)}) VALUES ({_PLACES})"  # noqa: S608 - constants
_UPDATE_TRACE: Final = f"UPDATE traces SET {_CHANGES} WHERE id = :id"  # noqa: S608 - constants
_PUT_SPAN: Final = """
    INSERT INTO spans (trace, span_id, parent_id, rank, name, span_type, status, start_ns, end_ns, resource, item)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (trace, span_id) DO UPDATE SET
        parent_id = excluded.parent_id, rank = excluded.rank, name = excluded.name, span_type = excluded.span_type,
        status = excluded.status, start_ns = excluded.start_ns, end_ns = excluded.end_ns, resource = excluded.resource,
        item = excluded.item
    WHERE excluded.rank > spans.rank
"""


class SqliteSink:
    """Writes kept traces and all decisions into one SQLite file. Exactly once: offsets are stored with the data.

    Args:
        options: The file, which is created with the first batch, and its retention.
    """

    wants_decisions = True

    def __init__(self, options: SqliteOptions) -> None:
        self._path = Path(options.path).absolute()
        self._retention_s = None if options.retention_days is None else options.retention_days * 86_400
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        """Of the open file."""
        self._wal = Path(
            f"{os.path.realpath(self._path)}-wal"
        )  # SQLite puts it beside the file, not beside a symlink to it
        self._wal_inode: tuple[int, int] | None = None
        self._resources: dict[bytes, int] = {}
        self._next_purge = 0.0
        self._lock = anyio.Lock()

    async def write(self, batch: SinkBatch) -> None:
        """Store the batch and its offset. Raises SinkError if SQLite fails; then nothing of the batch is stored."""
        async with self._lock:
            await anyio.to_thread.run_sync(self._write, batch)

    async def stored_offset(self, source: TopicPartition) -> int | None:
        """The `next_offset` of the last batch of `source`; None if there was none."""
        async with self._lock:
            return await anyio.to_thread.run_sync(self._stored_offset, source)

    async def aclose(self) -> None:
        """Close the file."""
        with anyio.CancelScope(shield=True):
            async with self._lock:
                await anyio.to_thread.run_sync(self._close)

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._is_replaced():
            logger.log(
                logging.WARNING if is_first_of_its_folder(self._path) else logging.DEBUG,
                "the trace store %s or its WAL was deleted, truncated or replaced; continuing with the files at this path. "
                "Traces that were only in the former files are lost",
                self._path,
            )
            self._rescue()
            self._remove_truncated()
            self._close()
        if self._connection is None:
            self._connection = open_for_writing(self._path)
            self._inode, self._wal_inode = inode_of(self._path, PAGE_BYTES), None
        return self._connection

    def _is_replaced(self) -> bool:
        """Whether the store or its WAL at the path are others than those that are open."""
        return inode_of(self._path, PAGE_BYTES) != self._inode or self._wal_inode not in (None, inode_of(self._wal))

    def _remove_truncated(self) -> None:
        """Remove what is left of a truncated store, before the close of the connection writes the pages of its WAL into it."""
        if inode_of(self._path) is not None and inode_of(self._path, PAGE_BYTES) is None:
            real = os.path.realpath(self._path)
            for file in (real, f"{real}-wal", f"{real}-shm"):
                Path(file).unlink(missing_ok=True)

    def _rescue(self) -> None:
        """Move what is in a deleted WAL to the store, while the connection still has it open."""
        if self._connection is not None and inode_of(self._path, PAGE_BYTES) == self._inode:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _close(self) -> None:
        self._resources.clear()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        """Raise what SQLite raises as SinkError. The next attempt opens the file again, since it may be another one then."""
        try:
            yield
        except sqlite3.Error as error:
            self._close()
            msg = f"the trace store {self._path} cannot {doing}: {error}"
            raise SinkError(msg) from error

    def _stored_offset(self, source: TopicPartition) -> int | None:
        query = "SELECT next_offset FROM offsets WHERE topic = ? AND partition = ?"
        with self._errors("be read"):
            row = self._open().execute(query, (source.topic, source.partition)).fetchone()
        return None if row is None else int(row[0])

    def _write(self, batch: SinkBatch) -> None:
        with self._errors(f"store a batch of {batch.source}"):
            self._store(batch, changes_of(batch.traces))
            self._purge_if_due()

    def _store(self, batch: SinkBatch, changes: Sequence[TraceChange]) -> None:
        connection = self._open()
        offset = (batch.source.topic, batch.source.partition, batch.next_offset)
        try:
            with transaction(connection):
                counters = StoreCounts(connection)
                _put_decisions(connection, batch.decisions, counters)
                fresh = [change for change in changes if not self._merge(connection, change, counters)]
                self._insert(connection, fresh, counters)
                counters.save(connection)
                connection.execute("INSERT OR REPLACE INTO offsets VALUES (?, ?, ?)", offset)
        except BaseException:
            self._resources.clear()  # their rows are rolled back too
            raise
        self._wal_inode = self._wal_inode or inode_of(self._wal)
        if self._is_replaced():
            msg = f"the trace store {self._path} or its WAL was deleted, truncated or replaced during a write"
            raise SinkError(msg)

    def _insert(self, connection: sqlite3.Connection, changes: Sequence[TraceChange], counters: StoreCounts) -> None:
        """Insert traces that are not stored yet."""
        lines: list[dict[str, object]] = []
        spans: list[tuple[object, ...]] = []
        documents: list[tuple[int, str]] = []
        for change in changes:
            decisions = primary(change.decisions.values())
            _put_decisions(connection, decisions, counters)
            trace = counters.next("last_trace")
            line = trace_columns(decisions, facts_of(change.spans.values()), LABEL_CHARS)
            lines.append({**line, "trace_id": change.trace_id, "id": trace, "stored": counters.next("stored")})
            spans.extend(self._span_values(connection, trace, change.spans.values()))
            documents.append((trace, join_texts(change.texts)))
        connection.executemany(_INSERT_TRACE, lines)
        connection.executemany(_PUT_SPAN, spans)
        connection.executemany("INSERT INTO trace_text (rowid, text) VALUES (?, ?)", documents)
        connection.executemany(
            "UPDATE decisions SET has_spans = 1 WHERE trace_id = ? AND decision_id = ?",
            [(change.trace_id, decision_id) for change in changes for decision_id in change.decisions],
        )
        counters.add("traces", len(lines))
        counters.add("spans", len(spans))

    def _merge(self, connection: sqlite3.Connection, change: TraceChange, counters: StoreCounts) -> bool:
        """Add to a trace that is stored; False if it is not stored. What is stored already changes nothing."""
        found = connection.execute("SELECT id, spans FROM traces WHERE trace_id = ?", (change.trace_id,)).fetchone()
        if found is None:
            return False
        trace, spans_before = found
        _put_decisions(connection, list(change.decisions.values()), counters)
        decided = connection.executemany(
            "UPDATE decisions SET has_spans = 1 WHERE trace_id = ? AND decision_id = ? AND has_spans = 0",
            [(change.trace_id, decision_id) for decision_id in change.decisions],
        ).rowcount
        values = self._span_values(connection, trace, change.spans.values())
        changed = connection.executemany(_PUT_SPAN, values).rowcount if change.spans else 0
        if decided <= 0 and changed <= 0:
            return True
        facts = _stored_facts(connection, trace)
        bodies = connection.execute("SELECT body FROM decisions WHERE trace_id = ? AND has_spans", (change.trace_id,))
        decisions = primary(decode_decisions(body)[0] for (body,) in bodies)
        line = trace_columns(decisions, facts, LABEL_CHARS)
        connection.execute(_UPDATE_TRACE, {**line, "id": trace, "stored": counters.next("stored")})
        counters.add("spans", facts.spans - spans_before)
        _extend_document(connection, trace, change.texts)
        return True

    def _span_values(
        self, connection: sqlite3.Connection, trace: int, rows: Iterable[SpanRow]
    ) -> list[tuple[object, ...]]:
        return [
            (
                trace, row.span_id, row.parent_id, row.rank, row.name, row.span_type, row.status, row.start_ns,
                row.end_ns, self._resource(connection, row.resource), row.item,
            )
            for row in rows
        ]  # fmt: skip

    def _resource(self, connection: sqlite3.Connection, body: bytes) -> int:
        """The id of a resource that many spans share."""
        known = self._resources.get(body)
        if known is not None:
            return known
        digest = blake2b(body, digest_size=16).digest()
        connection.execute("INSERT OR IGNORE INTO resources (digest, body) VALUES (?, ?)", (digest, body))
        (found,) = connection.execute("SELECT id FROM resources WHERE digest = ?", (digest,)).fetchone()
        if len(self._resources) >= 10_000:
            self._resources.clear()
        self._resources[body] = int(found)
        return int(found)

    def _purge_if_due(self) -> None:
        if self._retention_s is None or time.monotonic() < self._next_purge:
            return
        before_ns = time.time_ns() - int(self._retention_s * 1e9)
        if purge(self._open(), before_ns, limit=_PURGE_TRACES) < _PURGE_TRACES:
            self._next_purge = time.monotonic() + _PURGE_EVERY_S


def _put_decisions(connection: sqlite3.Connection, decisions: Sequence[Decision], counters: StoreCounts) -> None:
    for kept in (True, False):
        rows = [
            (one.trace_id, one.decision_id, kept, min(one.decided_at_ms, 1 << 62), encode_decisions([one]))
            for one in decisions
            if one.kept == kept
        ]
        if rows:
            new = connection.executemany("INSERT OR IGNORE INTO decisions VALUES (?, ?, ?, 0, ?, ?)", rows).rowcount
            counters.add("kept" if kept else "dropped", max(new, 0))


def _stored_facts(connection: sqlite3.Connection, trace: int) -> SpanFacts:
    """As `facts_of`, of the rows that are stored."""
    spans, errors, start_ns, end_ns = connection.execute(
        "SELECT count(*), coalesce(sum(status = ?), 0),"
        " coalesce(min(start_ns) FILTER (WHERE start_ns > 0), 0), coalesce(max(end_ns) FILTER (WHERE start_ns > 0), 0)"
        " FROM spans WHERE trace = ?",
        (ERROR, trace),
    ).fetchone()
    tops = connection.execute(
        "SELECT name, start_ns, end_ns, status, parent_id IS NULL FROM spans AS one WHERE trace = ? AND (parent_id IS NULL OR"
        " NOT EXISTS (SELECT 1 FROM spans AS other WHERE other.trace = one.trace AND other.span_id = one.parent_id))"
        " ORDER BY parent_id IS NOT NULL, status = ?, start_ns <= 0, start_ns, span_id LIMIT 2",
        (trace, PENDING),
    ).fetchall()
    name, root_start_ns, root_end_ns, status, has_no_parent = tops[0] if tops else ("", 0, 0, PENDING, False)
    is_root = has_no_parent or len(tops) == 1
    if not is_root:
        query = "SELECT name FROM spans WHERE trace = ? ORDER BY start_ns, span_id LIMIT 1"
        (name,) = connection.execute(query, (trace,)).fetchone() or ("",)
    return SpanFacts(
        spans=spans,
        errors=errors,
        start_ns=start_ns,
        end_ns=end_ns,
        root_name=name,
        root_start_ns=max(root_start_ns, 0) if is_root else 0,
        root_duration_ns=root_end_ns - root_start_ns if is_root and status != PENDING else None,
    )


def _extend_document(connection: sqlite3.Connection, trace: int, texts: Iterable[str]) -> None:
    row = connection.execute("SELECT text FROM trace_text WHERE rowid = ?", (trace,)).fetchone()
    before = "" if row is None else row[0]
    after = join_texts(texts, before)
    if after != before:
        connection.execute("DELETE FROM trace_text WHERE rowid = ?", (trace,))
        connection.execute("INSERT INTO trace_text (rowid, text) VALUES (?, ?)", (trace, after))
