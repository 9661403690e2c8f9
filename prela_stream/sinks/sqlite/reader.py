"""Reads the SQLite store: lists, traces, decisions, statistics and a tail, also while another process writes it."""

import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, TypeVar

import anyio
import anyio.to_thread

from prela_stream.errors import QueryTimeoutError, SinkError
from prela_stream.files import inode_of, is_first_of_its_folder
from prela_stream.model.decision import Decision
from prela_stream.model.span import SpanData
from prela_stream.sinks.query import (
    DecidedTotals,
    Histograms,
    SessionRow,
    SortKey,
    StatisticKey,
    Statistics,
    StoredTrace,
    TraceOutline,
    TraceQuery,
    TraceRow,
)
from prela_stream.sinks.sqlite import aggregates, one_trace
from prela_stream.sinks.sqlite.dropped import decided_totals, list_dropped
from prela_stream.sinks.sqlite.list_query import ROW_COLUMNS, list_traces, row_of
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.schema import PAGE_BYTES, open_for_reading
from prela_stream.sinks.sqlite.transactions import transaction

T = TypeVar("T")

logger = logging.getLogger(__name__)

_INSTRUCTIONS: Final = 20_000
"""SQLite checks the time limit after so many instructions of its virtual machine: less than a millisecond."""


class SqliteReader:
    """Reads the file that `SqliteSink` writes. Any number of tasks may use it at once; see `TraceReader`.

    Args:
        options: Where the store is. Nothing is opened before the first question.
    """

    def __init__(self, options: SqliteOptions) -> None:
        self._path = Path(options.path).absolute()
        self._query_s = options.query_s
        self._idle: list[tuple[sqlite3.Connection, tuple[int, int] | None]] = []
        """Open connections, each with the inode of its file."""
        self._inode: tuple[int, int] | None = None
        """Of the file that was read last. While the file is missing, each question reports that."""
        self._closed = False

    async def list_traces(
        self,
        where: TraceQuery,
        *,
        sort: SortKey = "newest",
        limit: int = 100,
        offset: int = 0,
        after: str | None = None,
    ) -> list[TraceRow]:
        """Traces that match, sorted; at most `limit` after skipping `offset`, below the cursor `after`."""
        ask = list_dropped if where.dropped else list_traces
        return await self._ask(lambda connection: ask(connection, where, sort, limit, offset, after))

    async def count(self, where: TraceQuery, *, at_most: int = 10_000) -> int:
        """How many traces match, counted up to `at_most`."""
        return await self._ask(lambda connection: aggregates.count(connection, where, at_most))

    async def histograms(self, where: TraceQuery, *, bars: int = 60) -> Histograms:
        """The traces that match, over time and over latency."""
        return await self._ask(lambda connection: aggregates.histograms(connection, where, bars))

    async def sessions(self, where: TraceQuery, *, limit: int = 100, after: str | None = None) -> list[SessionRow]:
        """Sessions with a trace that matches, the most recent first."""
        return await self._ask(lambda connection: aggregates.sessions(connection, where, limit, after))

    async def statistics(self, where: TraceQuery, by: StatisticKey, *, limit: int = 100) -> Statistics:
        """The calls by model or tool."""
        return await self._ask(lambda connection: aggregates.statistics(connection, where, by, limit))

    async def decided_totals(
        self, by: Literal["service", "policy"], *, since_ns: int | None = None, until_ns: int | None = None
    ) -> list[DecidedTotals]:
        """Exact sums over all decided traces."""
        return await self._ask(lambda connection: decided_totals(connection, by, since_ns, until_ns))

    async def get(self, trace_id: str) -> StoredTrace | None:
        """One kept trace by its id or a prefix; spans are ordered by start."""
        return await self._ask(lambda connection: one_trace.get(connection, trace_id))

    async def outline(self, trace_id: str) -> TraceOutline | None:
        """One trace without the bodies of its spans, by its id or a prefix."""
        return await self._ask(lambda connection: one_trace.outline(connection, trace_id))

    async def span(self, trace_id: str, span_id: str) -> SpanData | None:
        """One span with everything."""
        return await self._ask(lambda connection: one_trace.span(connection, trace_id, span_id))

    async def decision(self, trace_id: str) -> Decision | None:
        """The decision on a trace by its id or a prefix; of several, the one that holds for the trace."""
        return await self._ask(lambda connection: one_trace.decision_of(connection, trace_id))

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
        until = time.monotonic() + self._query_s
        connection.set_progress_handler(lambda: time.monotonic() > until, _INSTRUCTIONS)
        try:
            with transaction(connection, "DEFERRED"):  # all statements of one question see the same moment
                answer = question(connection)
        except sqlite3.Error as error:
            connection.close()
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                msg = (
                    f"the query of the trace store {self._path} took longer than {self._query_s:g} s and was stopped: narrow "
                    "it, for instance by time, or raise query_s of the sink"
                )
                raise QueryTimeoutError(msg) from error
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
        if inode is not None and inode != self._inode:
            reader = self._path.with_name(f"{self._path.name} for reading")  # a sink in this process reports it too
            if self._inode is not None and is_first_of_its_folder(reader):
                logger.warning("the trace store %s was deleted and created again, or replaced; reading it", self._path)
            self._inode = inode
        while self._idle:
            connection, of = self._idle.pop()
            if of == inode:
                return connection
            connection.close()
        return open_for_reading(self._path)

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop()[0].close()
