"""Offsets of the log, asked for on the transport's own connection: where partitions begin, end, and stood at a time."""

from collections.abc import Iterable, Mapping
from typing import Final

import aiokafka.errors as kafka
import anyio
from aiokafka.errors import KafkaError
from aiokafka.protocol.offset import OffsetRequest

from prela_stream.errors import TransportError
from prela_stream.transport.base import TopicPartition
from prela_stream.transport.kafka.admin.requests import NotYetError, Wire, by_topic, check
from prela_stream.transport.kafka.admin.topics import Catalog

_READ_COMMITTED: Final = 1
_END: Final = -1
_BEGINNING: Final = -2


class Offsets:
    """Where logs begin and end."""

    def __init__(self, wire: Wire, catalog: Catalog) -> None:
        self._wire = wire
        self._catalog = catalog
        self._leaders: dict[TopicPartition, int] = {}

    async def beginning(self, partition: TopicPartition) -> int:
        """Offset of the first kept Record, or the end. Raises UnknownTopicError, TransportError."""
        return (await self.beginnings([partition]))[partition]

    async def beginnings(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """As `beginning`, of several."""
        return await self._at(partitions, _BEGINNING)

    async def end(self, partition: TopicPartition) -> int:
        """Offset that everything which can be read lies below: that of the oldest open transaction, or the log's end."""
        return (await self._at([partition], _END))[partition]

    async def at(self, partition: TopicPartition, timestamp_ms: int) -> int:
        """Offset of the first Record of that time or later, or the end."""
        found = (await self._at([partition], max(timestamp_ms, 0)))[partition]
        return found if found >= 0 else await self.end(partition)

    async def wait_readable(self, ends: Mapping[TopicPartition, int], patience_s: float) -> None:
        """Wait until partitions can be read up to these offsets, but not longer than that. Raises nothing of its own."""

        async def attempt() -> None:
            there = await self._ask(ends, _END)
            if any(there[place] < end for place, end in ends.items()):
                raise NotYetError

        with anyio.move_on_after(patience_s):
            try:
                await self._wire.repeat("waiting for the end of transactions", attempt)
            except (KafkaError, TransportError):
                return  # whoever reads will find out

    async def _at(self, partitions: Iterable[TopicPartition], time: int) -> dict[TopicPartition, int]:
        wanted = list(partitions)
        for partition in wanted:
            await self._catalog.place(partition)
        what = f"asking for offsets of {', '.join(map(str, wanted))}"
        try:
            found: dict[TopicPartition, int] = await self._wire.repeat(what, lambda: self._ask(wanted, time))
        except KafkaError as error:
            msg = f"kafka: {what} was refused: {error}"
            raise TransportError(msg) from error
        return found

    async def _ask(self, partitions: Iterable[TopicPartition], time: int) -> dict[TopicPartition, int]:
        found: dict[TopicPartition, int] = {}
        try:
            for node, part in (await self._by_leader(partitions)).items():
                where = by_topic({place: (place.partition, time) for place in part})
                answer = await self._wire.ask(OffsetRequest(-1, _READ_COMMITTED, where), node=node)
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
        if unknown := sorted({place.topic for place in wanted if place not in self._leaders}):
            answer = await self._wire.metadata(unknown)
            for code, topic, _, rows in answer.topics:
                check(code)
                self._leaders |= {TopicPartition(topic, number): leader for _, number, leader, *_ in rows}
        found: dict[int, list[TopicPartition]] = {}
        for place in wanted:
            leader = self._leaders.get(place, -1)
            if leader < 0:
                raise kafka.LeaderNotAvailableError
            found.setdefault(leader, []).append(place)
        return found
