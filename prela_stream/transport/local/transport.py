"""`LocalTransport` creates the producers, consumers and writers of one log file."""

import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from prela_stream.transport.base import Committed, TopicPartition, TopicSpec
from prela_stream.transport.local import topic_table
from prela_stream.transport.local.consumer import LocalConsumer
from prela_stream.transport.local.database import Database, LogFile
from prela_stream.transport.local.database_thread import DatabaseThread
from prela_stream.transport.local.group import committed
from prela_stream.transport.local.retention import Sweeper
from prela_stream.transport.local.writer import LocalProducer, LocalWriter, WriterShared, open_writer
from prela_stream.transport.options import LocalOptions


def wall_ms() -> int:
    """The time of day, ms since the epoch."""
    return time.time_ns() // 1_000_000


class LocalTransport:
    """An append-only partitioned log in one SQLite file, used by many processes of one machine at once.

    All producers and writers share one thread, and each consumer has another one. After a fork the child has to open a new
    transport. If the file is removed or replaced, the transport continues with the file that is there, or creates one, together
    with the topics that it created before.

    Args:
        options: Where the file is and how long to wait.
        clock: Time of day, ms since the epoch; for records, leases and retention.
    """

    def __init__(self, options: LocalOptions, *, clock: Callable[[], int] = wall_ms) -> None:
        self._options = options
        self._clock = clock
        self._file = LogFile(options)
        self._thread = DatabaseThread(self._file, "writing thread")
        self._shared = WriterShared(self._thread, Sweeper(), clock)
        self._consumers: list[LocalConsumer] = []

    async def producer(self) -> LocalProducer:
        """See `Transport.producer`."""
        return LocalProducer(self._shared)

    async def consumer(self, topics: Sequence[str], *, group: str | None = None) -> LocalConsumer:
        """See `Transport.consumer`."""
        names = sorted(set(topics))
        await self._thread.run(lambda database: database.partitions_of(names))
        thread = DatabaseThread(self._file, "consumer")
        consumer = LocalConsumer(self._options, thread, names, group, self._clock)
        self._consumers = [*(other for other in self._consumers if not other.closed), consumer]
        return consumer

    async def writer(self, group: str, source: TopicPartition) -> LocalWriter:
        """See `Transport.writer`."""
        return await open_writer(self._shared, group, source)

    async def committed(self, group: str, partition: TopicPartition) -> Committed | None:
        """See `Transport.committed`."""

        def read(database: Database) -> Committed | None:
            row = database.partition(partition)
            return database.read(lambda connection: committed(connection, group, row))

        return await self._thread.run(read)

    async def topics(self, names: Sequence[str] | None = None) -> dict[str, TopicSpec]:
        """See `Transport.topics`. A file that does not exist has none, and is not created."""

        def read(database: Database) -> dict[str, TopicSpec]:
            return database.read(topic_table.topics) if database.path.exists() else {}

        found = await self._thread.run(read)
        return found if names is None else {name: found[name] for name in names if name in found}

    async def create_topics(self, specs: Sequence[TopicSpec]) -> list[str]:
        """See `Transport.create_topics`."""
        created = await self._thread.run(
            lambda database: database.write(lambda connection: topic_table.create(connection, specs))
        )
        self._file.require(specs)
        return created

    async def aclose(self) -> None:
        """Close what this transport created."""
        async with AsyncExitStack() as stack:  # closes all of it, even if one of the closes is cancelled
            stack.push_async_callback(self._thread.aclose)
            for consumer in self._consumers:
                stack.push_async_callback(consumer.aclose)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
