"""Writing the log: producers, and the one writer of a group and partition. All of a transport's share its writing thread."""

import logging
import sqlite3
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from prela_stream.errors import FencedError, OutcomeUnknownError, TransportError
from prela_stream.transport.base import CommitOutcome, Committed, Record, TopicPartition
from prela_stream.transport.checks import check_committed
from prela_stream.transport.local import catalog, group, log
from prela_stream.transport.local.database import Database
from prela_stream.transport.local.retention import Sweeper
from prela_stream.transport.local.schema import Place
from prela_stream.transport.local.thread import DatabaseThread

logger = logging.getLogger("prela_stream.transport.local")
Batches = dict[TopicPartition, list[Record]]


class Desk:
    """What producers and writers of one transport have in common: its writing thread, its clock and its housekeeping."""

    def __init__(self, thread: DatabaseThread, sweeper: Sweeper, clock: Callable[[], int]) -> None:
        self.thread = thread
        self.clock = clock
        self._sweeper = sweeper

    def wrote(self, batches: Batches) -> None:
        """Count what was written and have a slice of old Records deleted when it is time."""
        values = [record.value or b"" for records in batches.values() for record in records]
        if values and self._sweeper.wrote(len(values), sum(map(len, values))):
            self.thread.spare(lambda database: self._sweeper.sweep(database, self.clock()))


class LocalProducer:
    """A Producer of the local transport."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._closed = False

    async def send(self, to: TopicPartition, records: Sequence[Record]) -> int:
        """See `Producer.send`."""
        if self._closed:
            msg = "this producer of the local transport is closed"
            raise TransportError(msg)
        if not records:
            msg = "expected at least one Record to send, got none"
            raise ValueError(msg)

        def append(database: Database) -> int:
            at = catalog.place(database, to)
            log.check(at, records)
            return database.write(lambda connection: log.append(connection, at, records, self._desk.clock()))

        last = await self._desk.thread.run(append)
        self._desk.wrote({to: list(records)})
        return last

    async def aclose(self) -> None:
        """Send nothing more. What was begun is finished by the transport's thread."""
        self._closed = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class LocalWriter:
    """A Writer of the local transport: one SQLite transaction a commit, fenced by an epoch in the log file."""

    def __init__(self, desk: Desk, group_name: str, source: Place, epoch: int, committed: Committed | None) -> None:
        self._desk = desk
        self._group = group_name
        self._source = source
        self._epoch = epoch
        self._committed = committed
        self._dead = ""

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
        check_committed(offset, metadata)
        batches: Batches = {}
        for to, record in records:
            batches.setdefault(to, []).append(record)

        def job(database: Database) -> TransportError | None:
            try:
                places = _checked(database, batches)
            except TransportError as error:
                return error  # refused before anything began
            database.write(lambda connection: self._commit(connection, places, batches, offset, metadata))
            return None

        self._dead = "a commit of it was cancelled"  # until we know better
        try:
            refused = await self._desk.thread.run(job)
        except FencedError:
            self._dead = "another writer has taken the partition over"
            raise
        except OutcomeUnknownError as error:
            return self._died(CommitOutcome.UNKNOWN, error)
        except TransportError as error:
            return self._died(CommitOutcome.ABORTED, error)
        self._dead = ""
        if refused is not None:
            raise refused
        self._desk.wrote(batches)
        return CommitOutcome.COMMITTED

    def _commit(
        self,
        connection: sqlite3.Connection,
        places: dict[TopicPartition, Place],
        batches: Batches,
        offset: int,
        metadata: str,
    ) -> None:
        done = connection.execute(
            "UPDATE claims SET committed = ?, metadata = ? WHERE group_name = ? AND partition_id = ? AND epoch = ?",
            (offset, metadata, self._group, self._source.id, self._epoch),
        )
        if not done.rowcount:
            raise self._fenced("another writer has taken the partition over")
        now_ms = self._desk.clock()
        for to, records in batches.items():
            log.append(connection, places[to], records, now_ms)

    def _died(self, outcome: CommitOutcome, error: TransportError) -> CommitOutcome:
        self._dead = f"a commit of it ended {outcome.value}"
        logger.warning("commit of %s for group %s: %s (%s)", self._source.name, self._group, outcome.value, error)
        return outcome

    def _fenced(self, why: str) -> FencedError:
        name = self._source.name
        msg = (
            f"the writer of {name.topic}/{name.partition} for group {self._group!r} (epoch {self._epoch}) can write nothing "
            f"any more: {why}; open a new one"
        )
        return FencedError(msg)

    async def aclose(self) -> None:
        """Write nothing more. The partition stays as it is until another writer is opened."""
        self._dead = self._dead or "it was closed"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def open_writer(desk: Desk, group_name: str, source: TopicPartition) -> LocalWriter:
    """Take `source` over: the epoch grows, so that the former writer's next commit finds that it is not its own."""

    def take_over(connection: sqlite3.Connection, at: Place) -> tuple[int, Committed | None]:
        epoch = connection.execute(
            "INSERT INTO claims (group_name, partition_id, epoch) VALUES (?, ?, 1) "
            "ON CONFLICT DO UPDATE SET epoch = epoch + 1 RETURNING epoch",
            (group_name, at.id),
        ).fetchone()[0]
        return epoch, group.committed(connection, group_name, at)

    def job(database: Database) -> tuple[Place, int, Committed | None]:
        at = catalog.place(database, source)
        return at, *database.write(lambda connection: take_over(connection, at))

    at, epoch, committed = await desk.thread.run(job)
    return LocalWriter(desk, group_name, at, epoch, committed)


def _checked(database: Database, batches: Batches) -> dict[TopicPartition, Place]:
    """Where the Records go; raises UnknownTopicError or TransportError if one cannot go there."""
    places = {to: catalog.place(database, to) for to in batches}
    for to, at in places.items():
        log.check(at, batches[to])
    return places
