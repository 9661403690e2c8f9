"""`LocalTransport`: where producers, consumers and writers of one log file come from."""

import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from prela_stream.transport.base import Committed, TopicPartition, TopicSpec
from prela_stream.transport.local import catalog
from prela_stream.transport.local.consumer import LocalConsumer
from prela_stream.transport.local.database import Database
from prela_stream.transport.local.group import committed
from prela_stream.transport.local.retention import Sweeper
from prela_stream.transport.local.thread import DatabaseThread
from prela_stream.transport.local.writers import Desk, LocalProducer, LocalWriter, open_writer
from prela_stream.transport.options import LocalOptions


def wall_ms() -> int:
    """The time of day, ms since the epoch."""
    return time.time_ns() // 1_000_000


class LocalTransport:
    """An append-only partitioned log in one SQLite file, used by many processes of one machine at once.

    Everything that is opened here writes through one thread of the transport, and every consumer reads in one of its own. After
    a fork the child opens a transport of its own.

    Args:
        options: Where the file is and how long to wait.
        clock: Time of day, ms since the epoch; for Records, leases and retention.
    """

    def __init__(self, options: LocalOptions, *, clock: Callable[[], int] = wall_ms) -> None:
        self._options = options
        self._clock = clock
        self._thread = DatabaseThread(options, "writing thread")
        self._desk = Desk(self._thread, Sweeper(), clock)
        self._consumers: list[LocalConsumer] = []

    async def producer(self) -> LocalProducer:
        """See `Transport.producer`."""
        return LocalProducer(self._desk)

    async def consumer(self, topics: Sequence[str], *, group: str | None = None) -> LocalConsumer:
        """See `Transport.consumer`."""
        places = await self._thread.run(lambda database: catalog.places_of(database, topics))
        thread = DatabaseThread(self._options, "consumer")
        consumer = LocalConsumer(self._options, thread, places, group, self._clock)
        self._consumers = [*(other for other in self._consumers if not other.closed), consumer]
        return consumer

    async def writer(self, group: str, source: TopicPartition) -> LocalWriter:
        """See `Transport.writer`."""
        return await open_writer(self._desk, group, source)

    async def committed(self, group: str, partition: TopicPartition) -> Committed | None:
        """See `Transport.committed`."""

        def look(database: Database) -> Committed | None:
            at = catalog.place(database, partition)
            return database.read(lambda connection: committed(connection, group, at))

        return await self._thread.run(look)

    async def topics(self, names: Sequence[str] | None = None) -> dict[str, TopicSpec]:
        """See `Transport.topics`. A file that is not there has none, and is not made."""

        def look(database: Database) -> dict[str, TopicSpec]:
            return database.read(catalog.topics) if database.path.exists() else {}

        found = await self._thread.run(look)
        return found if names is None else {name: found[name] for name in names if name in found}

    async def create_topics(self, specs: Sequence[TopicSpec]) -> list[str]:
        """See `Transport.create_topics`."""
        return await self._thread.run(
            lambda database: database.write(lambda connection: catalog.create(connection, specs))
        )

    async def aclose(self) -> None:
        """Close what was opened here."""
        async with AsyncExitStack() as stack:  # all of it, also when one of the closes is cancelled
            stack.push_async_callback(self._thread.aclose)
            for consumer in self._consumers:
                stack.push_async_callback(consumer.aclose)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
