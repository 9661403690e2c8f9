"""Reads the SQLite store: lists, whole traces, decisions and a tail, also while another process writes it."""

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import anyio
import anyio.to_thread

from prela_stream.codec.decisions import decode_decisions
from prela_stream.codec.spans import decode_resource, decode_span
from prela_stream.errors import CodecError, ConfigurationError, SinkError
from prela_stream.files import inode_of
from prela_stream.model.decision import Decision
from prela_stream.model.span import Resource, SpanData
from prela_stream.sinks.base import SortKey, StoredTrace, TraceFilter, TraceRow
from prela_stream.sinks.sqlite.list_query import ROW_COLUMNS, list_traces, row_of
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.schema import PAGE_BYTES, open_for_reading, transaction
from prela_stream.sinks.sqlite.trace_rows import primary

T = TypeVar("T")

_PREFIX: Final = re.compile(r"[0-9a-f]{4,32}")


class SqliteReader:
    """Reads the file that `SqliteSink` writes. Any number of tasks may use it at once.

    Every method raises ConfigurationError if there is no store at that path, and SinkError if SQLite cannot read it.

    Args:
        options: Where the store is. Nothing is opened before the first question.
    """

    def __init__(self, options: SqliteOptions) -> None:
        self._path = Path(options.path).absolute()
        self._idle: list[tuple[sqlite3.Connection, tuple[int, int] | None]] = []
        """Open connections, each with the inode of its file."""
        self._closed = False

    async def list_traces(
        self, where: TraceFilter, *, sort: SortKey = "newest", limit: int = 100, offset: int = 0
    ) -> list[TraceRow]:
        """Traces that match, sorted; at most `limit` after skipping `offset`."""
        return await self._ask(lambda connection: list_traces(connection, where, sort, limit, offset))

    async def get(self, trace_id: str) -> StoredTrace | None:
        """One trace by its id or a prefix; spans are ordered by start."""
        low, high = _id_range(trace_id)
        return await self._ask(lambda connection: _get(connection, trace_id, low, high))

    async def decision(self, trace_id: str) -> Decision | None:
        """The decision on a trace by its id or a prefix; of several, the one that holds for the trace."""
        low, high = _id_range(trace_id)
        return await self._ask(lambda connection: _decision(connection, trace_id, low, high))

    async def tail(self, after: int, *, limit: int = 100) -> list[TraceRow]:
        """Traces stored or extended after mark `after`, oldest first."""
        query = f"SELECT {ROW_COLUMNS} FROM traces WHERE stored > ? ORDER BY stored LIMIT ?"  # noqa: S608 - constants; values are bound
        return await self._ask(lambda connection: [row_of(row) for row in connection.execute(query, (after, limit))])

    async def newest_mark(self) -> int:
        """The mark of the last change; 0 if nothing is stored."""
        query = "SELECT value FROM counters WHERE name = 'stored'"
        return await self._ask(lambda connection: int(connection.execute(query).fetchone()[0]))

    async def totals(self) -> dict[str, int]:
        """Counts of what is stored: `traces`, `spans`, `decisions`, `kept`, `dropped`."""
        counts = await self._ask(lambda connection: dict(connection.execute("SELECT name, value FROM counters")))
        kept, dropped = int(counts["kept"]), int(counts["dropped"])
        traces, spans = int(counts["traces"]), int(counts["spans"])
        return {"traces": traces, "spans": spans, "decisions": kept + dropped, "kept": kept, "dropped": dropped}

    async def aclose(self) -> None:
        """Close the connections."""
        self._closed = True
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._close_idle)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        return await anyio.to_thread.run_sync(self._ask_blocking, question)

    def _ask_blocking(self, question: Callable[[sqlite3.Connection], T]) -> T:
        inode = inode_of(self._path, PAGE_BYTES)
        connection = self._connection(inode)
        try:
            with transaction(connection, "DEFERRED"):  # all statements of one question see the same moment
                answer = question(connection)
        except sqlite3.Error as error:
            connection.close()
            msg = f"cannot read the trace store {self._path}: {error}"
            raise SinkError(msg) from error
        except BaseException:
            connection.close()
            raise
        self._idle.append((connection, inode))
        if self._closed:
            self._close_idle()
        return answer

    def _connection(self, inode: tuple[int, int] | None) -> sqlite3.Connection:
        """An idle connection to this file, or a new one. A connection serves one thread at a time."""
        while self._idle:
            connection, of = self._idle.pop()
            if of == inode:
                return connection
            connection.close()  # the file was deleted or replaced
        return open_for_reading(self._path)

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop()[0].close()


def _id_range(prefix: str) -> tuple[bytes, bytes]:
    """The smallest and the largest trace id that begin with these hex digits."""
    digits = prefix.lower()
    if not _PREFIX.fullmatch(digits):
        msg = f"a trace id is 32 hex digits, or at least the first 4 of them, got {prefix!r}"
        raise ConfigurationError(msg)
    return bytes.fromhex(digits.ljust(32, "0")), bytes.fromhex(digits.ljust(32, "f"))


def _one_id(rows: list[tuple[bytes]], prefix: str) -> bytes | None:
    if len(rows) > 1:
        msg = f"several trace ids begin with {prefix!r}, for instance {rows[0][0].hex()} and {rows[1][0].hex()}"
        raise ConfigurationError(msg)
    return rows[0][0] if rows else None


def _get(connection: sqlite3.Connection, prefix: str, low: bytes, high: bytes) -> StoredTrace | None:
    query = "SELECT trace_id FROM traces WHERE trace_id BETWEEN ? AND ? LIMIT 2"
    trace_id = _one_id(connection.execute(query, (low, high)).fetchall(), prefix)
    if trace_id is None:
        return None
    one = f"SELECT id, decision_id, {ROW_COLUMNS} FROM traces WHERE trace_id = ?"  # noqa: S608 - constants; values are bound
    trace, decision_id, *row = connection.execute(one, (trace_id,)).fetchone()
    (body,) = connection.execute(
        "SELECT body FROM decisions WHERE trace_id = ? AND decision_id = ?", (trace_id, decision_id)
    ).fetchone()
    spans = _spans(connection, trace)
    return StoredTrace(row=row_of(row), decision=decode_decisions(body)[0], spans=spans)


def _spans(connection: sqlite3.Connection, trace: int) -> list[SpanData]:
    query = "SELECT item, resource FROM spans WHERE trace = ? ORDER BY start_ns, span_id"
    resources: dict[int, Resource] = {}
    spans: list[SpanData] = []
    for item, resource in connection.execute(query, (trace,)):
        if resource not in resources:
            (body,) = connection.execute("SELECT body FROM resources WHERE id = ?", (resource,)).fetchone()
            resources[resource] = _resource(body)
        spans.append(decode_span(item, resources[resource]))
    return spans


def _resource(body: bytes) -> Resource:
    try:
        return decode_resource(body)
    except CodecError:
        return Resource()  # the spans of a process stay readable if its resource is not


def _decision(connection: sqlite3.Connection, prefix: str, low: bytes, high: bytes) -> Decision | None:
    query = "SELECT DISTINCT trace_id FROM decisions WHERE trace_id BETWEEN ? AND ? LIMIT 2"
    trace_id = _one_id(connection.execute(query, (low, high)).fetchall(), prefix)
    if trace_id is None:
        return None
    bodies = connection.execute("SELECT body FROM decisions WHERE trace_id = ?", (trace_id,))
    return primary(decode_decisions(body)[0] for (body,) in bodies)[0]
