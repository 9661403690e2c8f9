"""`KafkaTransport`: where producers, consumers and writers of one Kafka cluster come from."""

from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self, TypeVar

import anyio

from prela_stream.errors import TransportError
from prela_stream.transport.base import Committed, TopicPartition, TopicSpec
from prela_stream.transport.kafka.admin.groups import Groups
from prela_stream.transport.kafka.admin.offsets import Offsets
from prela_stream.transport.kafka.admin.requests import Wire
from prela_stream.transport.kafka.admin.topics import Catalog
from prela_stream.transport.kafka.consumer import KafkaConsumer
from prela_stream.transport.kafka.producer import KafkaProducer
from prela_stream.transport.kafka.writer import KafkaWriter
from prela_stream.transport.options import KafkaOptions

_PATIENCE_S: Final = 1.0
"""How long to wait for a commit that is under way, for those who watch."""
Part = TypeVar("Part", KafkaProducer, KafkaConsumer, KafkaWriter)


class KafkaTransport:
    """The topics of one Kafka cluster.

    Records of one commit become visible partition by partition: a reader of two partitions may see those of one a moment before
    those of the other, but never any of a commit that does not stand. Record times are those of the partition's leader; they can
    go back where that broker's clock does, or where another one becomes leader.

    Args:
        options: Where the cluster is, how to log in, how long to wait.
    """

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options
        self._wire = Wire(options)
        self._catalog = Catalog(self._wire, options)
        self._offsets = Offsets(self._wire, self._catalog)
        self._groups = Groups(self._wire, self._catalog)
        self._opened: list[KafkaProducer | KafkaConsumer | KafkaWriter] = []
        self._closed = False

    async def producer(self) -> KafkaProducer:
        """See `Transport.producer`. It connects with its first send."""
        self._require_open()
        return self._keep(KafkaProducer(self._options, self._catalog))

    async def consumer(self, topics: Sequence[str], *, group: str | None = None) -> KafkaConsumer:
        """See `Transport.consumer`."""
        specs = await self._catalog.specs(topics, anew=True)
        places = [TopicPartition(name, number) for name, spec in specs.items() for number in range(spec.partitions)]
        if group is not None:
            await self._groups.require(group)
        self._require_open()
        consumer = KafkaConsumer(self._options, self._offsets, self._groups, list(specs), group)
        await consumer.open(places)
        return self._keep(consumer)

    async def writer(self, group: str, source: TopicPartition) -> KafkaWriter:
        """See `Transport.writer`."""
        await self._catalog.place(source)
        self._require_open()
        writer = KafkaWriter(self._options, self._catalog, self._offsets, self._groups, group, source)
        await writer.open()
        return self._keep(writer)

    def _require_open(self) -> None:
        if self._closed:
            msg = "this Kafka transport is closed"
            raise TransportError(msg)

    def _keep(self, part: Part) -> Part:
        """Have it closed with the transport; what was closed by itself meanwhile is forgotten."""
        self._opened = [*(other for other in self._opened if not other.closed), part]
        return part

    async def committed(self, group: str, partition: TopicPartition) -> Committed | None:
        """See `Transport.committed`."""
        return (await self._groups.committed(group, [partition], patience_s=_PATIENCE_S)).get(partition)

    async def topics(self, names: Sequence[str] | None = None) -> dict[str, TopicSpec]:
        """See `Transport.topics`."""
        return await self._catalog.topics(names)

    async def create_topics(self, specs: Sequence[TopicSpec]) -> list[str]:
        """See `Transport.create_topics`."""
        return await self._catalog.create(specs)

    async def aclose(self) -> None:
        """Close what was opened here."""
        self._closed = True
        with anyio.CancelScope(shield=True):  # each takes seconds at most, wherever its broker is
            async with anyio.create_task_group() as tasks:
                for part in (*self._opened, self._wire):
                    tasks.start_soon(part.aclose)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
