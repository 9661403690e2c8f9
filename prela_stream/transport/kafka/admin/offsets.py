"""Offsets of partitions: the beginning, the end, and the offset at a time."""

from collections.abc import Iterable
from typing import Final

import aiokafka.errors as kafka
from aiokafka.errors import KafkaError
from aiokafka.protocol.offset import OffsetRequest

from prela_stream.errors import TransportError
from prela_stream.transport.base import TopicPartition
from prela_stream.transport.kafka.admin.connection import AdminConnection, by_topic, check
from prela_stream.transport.kafka.admin.topics import Topics

_READ_UNCOMMITTED: Final = 0
_READ_COMMITTED: Final = 1
_END: Final = -1
_BEGINNING: Final = -2


class Offsets:
    """Reads the offsets of partitions."""

    def __init__(self, admin: AdminConnection, topics: Topics) -> None:
        self._admin = admin
        self._topics = topics
        self._leaders: dict[TopicPartition, int] = {}

    async def beginning(self, partition: TopicPartition) -> int:
        """Offset of the first retained record, or the end. Raises UnknownTopicError, TransportError."""
        return (await self.beginnings([partition]))[partition]

    async def beginnings(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """As `beginning`, for several partitions."""
        return await self._at(partitions, _BEGINNING)

    async def end(self, partition: TopicPartition) -> int:
        """The offset of the oldest open transaction, or the end of the log: every readable record has a smaller offset."""
        return (await self._at([partition], _END))[partition]

    async def high_watermark(self, partition: TopicPartition) -> int:
        """The end of the log, transactions that have not ended included."""
        return (await self._at([partition], _END, _READ_UNCOMMITTED))[partition]

    async def at(self, partition: TopicPartition, timestamp_ms: int) -> int:
        """Offset of the first record of that time or later, or the end."""
        found = (await self._at([partition], max(timestamp_ms, 0)))[partition]
        return found if found >= 0 else await self.end(partition)

    async def _at(
        self, partitions: Iterable[TopicPartition], time: int, isolation: int = _READ_COMMITTED
    ) -> dict[TopicPartition, int]:
        wanted = list(partitions)
        for partition in wanted:
            await self._topics.spec_of(partition)
        what = f"asking for offsets of {', '.join(map(str, wanted))}"
        try:
            found: dict[TopicPartition, int] = await self._admin.repeat(
                what, lambda: self._ask(wanted, time, isolation)
            )
        except KafkaError as error:
            msg = f"kafka: {what} was refused: {error}"
            raise TransportError(msg) from error
        return found

    async def _ask(self, partitions: Iterable[TopicPartition], time: int, isolation: int) -> dict[TopicPartition, int]:
        found: dict[TopicPartition, int] = {}
        try:
            for node, part in (await self._by_leader(partitions)).items():
                where = by_topic({partition: (partition.partition, time) for partition in part})
                answer = await self._admin.ask(OffsetRequest(-1, isolation, where), node=node)
                for topic, rows in answer.topics:
                    for number, code, _, offset in rows:
                        check(code)
                        found[TopicPartition(topic, number)] = offset
        except KafkaError:
            self._leaders.clear()
            raise
        return found

    async def _by_leader(self, partitions: Iterable[TopicPartition]) -> dict[int, list[TopicPartition]]:
        wanted = list(partitions)
        if unknown := sorted({partition.topic for partition in wanted if partition not in self._leaders}):
            answer = await self._admin.metadata(unknown)
            for code, topic, _, rows in answer.topics:
                check(code)
                self._leaders |= {TopicPartition(topic, number): leader for _, number, leader, *_ in rows}
        found: dict[int, list[TopicPartition]] = {}
        for partition in wanted:
            leader = self._leaders.get(partition, -1)
            if leader < 0:
                raise kafka.LeaderNotAvailableError
            found.setdefault(leader, []).append(partition)
        return found
