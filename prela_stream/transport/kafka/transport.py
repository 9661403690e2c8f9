"""`KafkaTransport` creates the producers, consumers and writers of one Kafka cluster."""

from collections.abc import Sequence
from time import monotonic
from types import TracebackType
from typing import Final, Self, TypeVar

import anyio
import msgspec

from prela_stream.errors import TransportError
from prela_stream.transport.base import Committed, TopicPartition, TopicSpec
from prela_stream.transport.kafka.admin.connection import AdminConnection
from prela_stream.transport.kafka.admin.groups import Groups
from prela_stream.transport.kafka.admin.offsets import Offsets
from prela_stream.transport.kafka.admin.topics import Topics
from prela_stream.transport.kafka.consumer import KafkaConsumer
from prela_stream.transport.kafka.producer import KafkaProducer
from prela_stream.transport.kafka.writer import KafkaWriter
from prela_stream.transport.options import KafkaOptions
from prela_stream.transport.refusals import closed

_PATIENCE_S: Final = 1.0
"""How long an observer waits for a commit in progress."""
_LONGEST_CONNECT_MS: Final = 60_000
Part = TypeVar("Part", KafkaProducer, KafkaConsumer, KafkaWriter)


class KafkaTransport:
    """The topics of one Kafka cluster.

    Records of one commit become visible partition by partition: a reader of two partitions may see those of one a moment before
    those of the other, but never any of a commit that was not committed. Record times are those of the partition's leader. They
    can decrease if that broker's clock does, or if another broker becomes the leader.

    Args:
        options: The addresses of the cluster, the login and the timeouts.
    """

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options
        self._admin = AdminConnection(options)
        self._topics = Topics(self._admin, options)
        self._offsets = Offsets(self._admin, self._topics)
        self._groups = Groups(self._admin, self._topics)
        self._opened: list[KafkaProducer | KafkaConsumer | KafkaWriter] = []
        self._closed = False
        self._connect_ms = options.connect_timeout_ms
        """Longest time to open a writer, which takes a dozen answers. If it was too short, the next one has twice the time."""

    async def producer(self) -> KafkaProducer:
        """See `Transport.producer`. Its first send connects."""
        self._require_open()
        return self._keep(KafkaProducer(self._options, self._topics))

    async def consumer(self, topics: Sequence[str], *, group: str | None = None) -> KafkaConsumer:
        """See `Transport.consumer`."""
        specs = await self._topics.specs(topics, refresh=True)
        partitions = [TopicPartition(name, number) for name, spec in specs.items() for number in range(spec.partitions)]
        if group is not None:
            await self._groups.require(group)
        self._require_open()
        consumer = KafkaConsumer(
            self._options, self._admin, self._topics, self._offsets, self._groups, list(specs), group
        )
        await consumer.open(partitions)
        return self._keep(consumer)

    async def writer(self, group: str, source: TopicPartition) -> KafkaWriter:
        """See `Transport.writer`."""
        await self._topics.spec_of(source)
        self._require_open()
        options = msgspec.structs.replace(self._options, connect_timeout_ms=self._connect_ms)
        writer = KafkaWriter(options, self._topics, self._groups, group, source)
        began = monotonic()
        try:
            await writer.open()
        except TransportError:
            if (monotonic() - began) * 1000 >= options.connect_timeout_ms:
                self._connect_ms = max(
                    options.connect_timeout_ms, min(2 * options.connect_timeout_ms, _LONGEST_CONNECT_MS)
                )
            raise
        self._connect_ms = self._options.connect_timeout_ms
        return self._keep(writer)

    def _require_open(self) -> None:
        if self._closed:
            raise closed("Kafka transport")

    def _keep(self, part: Part) -> Part:
        """Close it together with the transport, unless it was closed before."""
        self._opened = [*(other for other in self._opened if not other.closed), part]
        return part

    async def committed(self, group: str, partition: TopicPartition) -> Committed | None:
        """See `Transport.committed`."""
        return (await self._groups.committed(group, [partition], patience_s=_PATIENCE_S)).get(partition)

    async def topics(self, names: Sequence[str] | None = None) -> dict[str, TopicSpec]:
        """See `Transport.topics`."""
        return await self._topics.topics(names)

    async def create_topics(self, specs: Sequence[TopicSpec]) -> list[str]:
        """See `Transport.create_topics`."""
        return await self._topics.create(specs)

    async def aclose(self) -> None:
        """Close what this transport created."""
        self._closed = True
        with anyio.CancelScope(shield=True):  # each takes seconds at most, even if its broker does not answer
            async with anyio.create_task_group() as tasks:
                for part in (*self._opened, self._admin):
                    tasks.start_soon(part.aclose)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
