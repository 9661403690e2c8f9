"""Writes the SQLite store: kept traces, decisions and offsets in one transaction, so exactly once.

`SqliteReader` reads it, in this or another process; `schema` has the tables. All work is done in a thread, because SQLite blocks.
"""

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import anyio
import anyio.from_thread
import anyio.to_thread

from prela_stream.errors import SinkError
from prela_stream.files import inode_of, is_first_of_its_folder
from prela_stream.sinks.base import PreparedBatch, SinkBatch
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.retention import purge, purge_oldest, used_bytes
from prela_stream.sinks.sqlite.rows import batch_rows
from prela_stream.sinks.sqlite.schema import PAGE_BYTES, open_for_writing
from prela_stream.sinks.sqlite.transactions import transaction
from prela_stream.sinks.sqlite.writing import StoreWriter
from prela_stream.transport.base import TopicPartition

logger = logging.getLogger(__name__)

_PURGE_EVERY_S: Final = 5.0
_PURGE_S: Final = 0.2  # after one batch; longer would delay the next one
_PURGE_TRACES: Final = 200  # in one transaction


class SqliteSink:
    """Writes kept traces and all decisions into one SQLite file. Exactly once: offsets are stored with the data.

    Args:
        options: The file, which is created with the first batch, and its retention.
    """

    wants_decisions = True

    def __init__(self, options: SqliteOptions) -> None:
        self._path = Path(options.path).absolute()
        self._retention_s = options.retention_days * 86_400
        self._retention_bytes = int(options.retention_gb * 1e9)
        self._has_reported = False
        """Whether the retention was logged."""
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
        prepared = await anyio.to_thread.run_sync(self.prepare, batch)
        await self.write_together([prepared], lambda: None)

    def prepare(self, batch: SinkBatch) -> PreparedBatch:
        """Make the rows of a batch; see `GroupingSink`."""
        return PreparedBatch(source=batch.source, next_offset=batch.next_offset, content=batch_rows(batch))

    async def write_together(self, batches: Sequence[PreparedBatch], began: Callable[[], None]) -> None:
        """Store the batches and their offsets in one transaction; see `GroupingSink`."""
        async with self._lock:
            await anyio.to_thread.run_sync(self._write, batches, began)

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
            self._report_retention()
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

    def _write(self, batches: Sequence[PreparedBatch], began: Callable[[], None]) -> None:
        sources = ", ".join(dict.fromkeys(str(batch.source) for batch in batches))
        with self._errors(f"store a batch of {sources}"):
            self._store(batches, began)
            self._purge_if_due()

    def _store(self, batches: Sequence[PreparedBatch], began: Callable[[], None]) -> None:
        connection = self._open()
        offsets = [(batch.source.topic, batch.source.partition, batch.next_offset) for batch in batches]
        try:
            with transaction(connection):
                anyio.from_thread.run_sync(began)
                writer = StoreWriter(connection, self._resources)
                writer.write(batch.content for batch in batches)
                writer.save()
                connection.executemany("INSERT OR REPLACE INTO offsets VALUES (?, ?, ?)", offsets)
        except BaseException:
            self._resources.clear()  # their rows are rolled back too
            raise
        self._wal_inode = self._wal_inode or inode_of(self._wal)
        if self._is_replaced():
            msg = f"the trace store {self._path} or its WAL was deleted, truncated or replaced during a write"
            raise SinkError(msg)

    def _report_retention(self) -> None:
        if self._has_reported:
            return
        self._has_reported = True
        age = f"{self._retention_s / 86_400:g} days" if self._retention_s else "any time"
        size = f"at most {self._retention_bytes / 1e9:g} GB" if self._retention_bytes else "any size"
        logger.info(
            "the trace store %s keeps traces for %s and %s (retention_days, retention_gb)", self._path, age, size
        )

    def _purge_if_due(self) -> None:
        """Delete what is too old, and the oldest while the store is too large. What is left waits for the next batch."""
        if time.monotonic() < self._next_purge:
            return
        connection, until, rest = self._open(), time.monotonic() + _PURGE_S, True
        while rest and time.monotonic() < until:
            rest = False
            if self._retention_s:
                before_ms = int((time.time() - self._retention_s) * 1e3)
                rest = purge(connection, before_ms, limit=_PURGE_TRACES) >= _PURGE_TRACES
            if self._retention_bytes and used_bytes(connection) > self._retention_bytes:
                rest = purge_oldest(connection, limit=_PURGE_TRACES) > 0 or rest
        self._resources.clear()  # some of them may be deleted
        if not rest:
            self._next_purge = time.monotonic() + _PURGE_EVERY_S
