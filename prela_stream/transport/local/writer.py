"""Writing to the log: producers, and the writer of a group and partition. They share the writing thread of their transport."""

import logging
import sqlite3
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from prela_stream.errors import FencedError, OutcomeUnknownError, TransportError
from prela_stream.transport.base import CommitOutcome, Committed, Record, TopicPartition
from prela_stream.transport.local import group, log
from prela_stream.transport.local.database import Database
from prela_stream.transport.local.database_thread import DatabaseThread
from prela_stream.transport.local.retention import Sweeper
from prela_stream.transport.local.schema import PartitionRow
from prela_stream.transport.refusals import (
    Batches,
    check_record,
    check_send,
    checked_batches,
    closed,
    writer_fenced,
)

logger = logging.getLogger("prela_stream.transport.local")


class WriterShared:
    """What the producers and writers of one transport share: the writing thread, the clock and retention."""

    def __init__(self, thread: DatabaseThread, sweeper: Sweeper, clock: Callable[[], int]) -> None:
        self.thread = thread
        self.clock = clock
        self._sweeper = sweeper

    def wrote(self, batches: Batches) -> None:
        """Count what was written, and delete a slice of expired records if that is due."""
        values = [record.value or b"" for records in batches.values() for record in records]
        if values and self._sweeper.wrote(len(values), sum(map(len, values))):
            self.thread.run_later(lambda database: self._sweeper.sweep(database, self.clock()))


class LocalProducer:
    """A Producer of the local transport."""

    def __init__(self, shared: WriterShared) -> None:
        self._shared = shared
        self._closed = False

    async def send(self, to: TopicPartition, records: Sequence[Record]) -> int:
        """See `Producer.send`."""
        if self._closed:
            raise closed("producer of the local transport")
        check_send(records)

        def append(database: Database) -> int:
            row = _checked(database, {to: list(records)})[to]

            def write(connection: sqlite3.Connection) -> int:
                database.require_current(row)
                return log.append(connection, row, records, self._shared.clock())

            return database.write(write)

        last = await self._shared.thread.run(append)
        self._shared.wrote({to: list(records)})
        return last

    async def aclose(self) -> None:
        """Send nothing more. The transport's thread finishes a send that it has started."""
        self._closed = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class LocalWriter:
    """A Writer of the local transport: each commit is one SQLite transaction, fenced by an epoch in the log file."""

    def __init__(
        self, shared: WriterShared, group_name: str, source: PartitionRow, epoch: int, committed: Committed | None
    ) -> None:
        self._shared = shared
        self._group = group_name
        self._source = source
        self._epoch = epoch
        self._committed = committed
        self._dead = ""
        """Why this writer can no longer write; empty while it can."""
        self._fence = ""
        self.on_answer: Callable[[], None] | None = None
        """See `Writer.on_answer`. A commit here is one step, so it is never called."""

    @property
    def committed(self) -> Committed | None:
        """See `Writer.committed`."""
        return self._committed

    async def commit(
        self, records: Sequence[tuple[TopicPartition, Record]], offset: int, metadata: str = ""
    ) -> CommitOutcome:
        """See `Writer.commit`."""
        if self._dead:
            raise self._fenced(self._dead)
        batches = checked_batches(records, offset, metadata)

        def job(database: Database) -> TransportError | None:
            try:
                rows = _checked(database, batches)
            except TransportError as error:
                return error  # nothing was started
            database.write(lambda connection: self._commit(database, connection, rows, batches, offset, metadata))
            return None

        self._dead = "a commit of it was cancelled"  # unless it returns
        try:
            refused = await self._shared.thread.run(job)
        except FencedError as error:
            self._dead = self._fence or str(error)
            raise
        except OutcomeUnknownError as error:
            return self._died(CommitOutcome.UNKNOWN, error)
        except TransportError as error:
            return self._died(CommitOutcome.ABORTED, error)
        self._dead = ""
        if refused is not None:
            raise refused
        self._shared.wrote(batches)
        return CommitOutcome.COMMITTED

    def _commit(
        self,
        database: Database,
        connection: sqlite3.Connection,
        rows: dict[TopicPartition, PartitionRow],
        batches: Batches,
        offset: int,
        metadata: str,
    ) -> None:
        if not database.is_current(self._source):
            self._fence = "the log file was removed or replaced"
            raise self._fenced(self._fence)
        done = connection.execute(
            "UPDATE claims SET committed = ?, metadata = ? WHERE group_name = ? AND partition_id = ? AND epoch = ?",
            (offset, metadata, self._group, self._source.id, self._epoch),
        )
        if not done.rowcount:
            self._fence = "another writer has taken over the partition"
            raise self._fenced(self._fence)
        now_ms = self._shared.clock()
        for to, records in batches.items():
            log.append(connection, rows[to], records, now_ms)

    def _died(self, outcome: CommitOutcome, error: TransportError) -> CommitOutcome:
        self._dead = f"a commit of it ended {outcome.value}"
        logger.warning("commit of %s for group %s: %s (%s)", self._source.name, self._group, outcome.value, error)
        return outcome

    def _fenced(self, why: str) -> FencedError:
        return writer_fenced(self._source.name, self._group, why)

    async def aclose(self) -> None:
        """Write nothing more. The partition stays as it is until another writer is opened."""
        self._dead = self._dead or "it was closed"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def open_writer(shared: WriterShared, group_name: str, source: TopicPartition) -> LocalWriter:
    """Take over `source`: the epoch grows, so the next commit of the former writer finds another epoch and is refused."""

    def take_over(
        database: Database, connection: sqlite3.Connection, row: PartitionRow
    ) -> tuple[int, Committed | None]:
        database.require_current(row)
        epoch = connection.execute(
            "INSERT INTO claims (group_name, partition_id, epoch) VALUES (?, ?, 1) "
            "ON CONFLICT DO UPDATE SET epoch = epoch + 1 RETURNING epoch",
            (group_name, row.id),
        ).fetchone()[0]
        return epoch, group.committed(connection, group_name, row)

    def job(database: Database) -> tuple[PartitionRow, int, Committed | None]:
        row = database.partition(source)
        return row, *database.write(lambda connection: take_over(database, connection, row))

    row, epoch, committed = await shared.thread.run(job)
    return LocalWriter(shared, group_name, row, epoch, committed)


def _checked(database: Database, batches: Batches) -> dict[TopicPartition, PartitionRow]:
    """The partitions of the records; raises UnknownTopicError or TransportError if one of them cannot be written."""
    rows = {to: database.partition(to) for to in batches}
    for to, row in rows.items():
        for record in batches[to]:
            check_record(row.spec, record, "max_record_bytes")
    return rows
