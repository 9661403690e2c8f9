"""Offsets of the log and of groups, asked for on the transport's own connection: no group is joined and no topic is created."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import aiokafka.errors as kafka
import anyio
from aiokafka.errors import KafkaError
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.offset import OffsetRequest

from prela_stream.errors import FencedError, OutcomeUnknownError, TransportError
from prela_stream.transport.base import Committed, TopicPartition
from prela_stream.transport.kafka.catalog import Catalog
from prela_stream.transport.kafka.wire import Wire, check

METADATA_BYTES: Final = 4_000
_READ_COMMITTED: Final = 1
_END: Final = -1
_BEGINNING: Final = -2
_FENCED: Final = (kafka.UnknownMemberIdError, kafka.IllegalGenerationError, kafka.RebalanceInProgressError)
_BACKOFF_S: Final = 0.1


class Offsets:
    """Where logs begin and end, and how far groups are."""

    def __init__(self, wire: Wire, catalog: Catalog) -> None:
        self._wire = wire
        self._catalog = catalog

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

    async def _at(self, partitions: Iterable[TopicPartition], time: int) -> dict[TopicPartition, int]:
        wanted = list(partitions)
        for partition in wanted:
            await self._catalog.place(partition)
        found: dict[TopicPartition, int] = {}

        async def attempt() -> None:
            for node, part in (await self._by_leader(place for place in wanted if place not in found)).items():
                where = _by_topic({place: (place.partition, time) for place in part})
                answer = await self._wire.ask(OffsetRequest(-1, _READ_COMMITTED, where), node=node)
                for topic, rows in answer.topics:
                    for number, code, _, offset in rows:
                        check(code)
                        found[TopicPartition(topic, number)] = offset

        await self._asked(f"asking for offsets of {', '.join(map(str, wanted))}", attempt)
        return found

    async def _by_leader(self, partitions: Iterable[TopicPartition]) -> dict[int, list[TopicPartition]]:
        wanted = set(partitions)
        found: dict[int, list[TopicPartition]] = {}
        if not wanted:
            return found
        answer = await self._wire.metadata(sorted({place.topic for place in wanted}))
        for code, topic, _, rows in answer.topics:
            check(code)
            for part_code, number, leader, *_ in rows:
                if TopicPartition(topic, number) in wanted:
                    check(part_code)
                    if leader < 0:
                        raise kafka.LeaderNotAvailableError
                    found.setdefault(leader, []).append(TopicPartition(topic, number))
        return found

    async def _asked(self, what: str, attempt: Any) -> Any:
        try:
            return await self._wire.repeat(what, attempt)
        except KafkaError as error:
            msg = f"kafka: {what} was refused: {error}"
            raise TransportError(msg) from error

    async def committed(self, group: str, partitions: list[TopicPartition]) -> dict[TopicPartition, Committed]:
        """What a group has committed, of those of `partitions` where it has. Raises UnknownTopicError, TransportError."""
        for partition in partitions:
            await self._catalog.place(partition)

        async def attempt() -> dict[TopicPartition, Committed]:
            request = OffsetFetchRequest(group, _by_topic({place: place.partition for place in partitions}))
            answer = await self._wire.ask(request, node=await self._wire.coordinator(group))
            check(answer.error_code)
            found = {}
            for topic, parts in answer.topics:
                for number, offset, metadata, code in parts:
                    check(code)
                    if offset >= 0:
                        found[TopicPartition(topic, number)] = Committed(offset=offset, metadata=metadata or "")
            return found

        result: dict[TopicPartition, Committed] = await self._asked(f"asking what {group} has committed", attempt)
        return result

    async def commit(
        self, group: str, generation: int, member: str, offsets: Mapping[TopicPartition, Committed]
    ) -> None:
        """Commit as the member that has its partitions since `generation`: the group refuses it once it has moved on.

        Raises FencedError, TransportError, OutcomeUnknownError.
        """
        rows = {place: (place.partition, one.offset, one.metadata) for place, one in offsets.items()}
        request = OffsetCommitRequest(group, generation, member, -1, _by_topic(rows))
        unanswered = before = False
        last = "no answer came"
        with anyio.move_on_after(self._wire.options.request_timeout_ms / 1000):
            while True:
                try:
                    node = await self._wire.coordinator(group)
                    before, unanswered = unanswered, True
                    answer = await self._wire.ask(request, node=node)
                    unanswered = before  # this one has an answer
                    for _, parts in answer.topics:
                        for _, code in parts:
                            check(code)
                    return
                except _FENCED as error:
                    if unanswered:
                        last = str(error)
                        break
                    msg = (
                        f"{', '.join(map(str, offsets))}: group {group!r} has shared its partitions out anew since this member "
                        f"got them ({type(error).__name__}); nothing was committed"
                    )
                    raise FencedError(msg) from error
                except KafkaError as error:
                    if not error.retriable:
                        msg = f"kafka: committing offsets of {group} was refused: {error}"
                        raise TransportError(msg) from error
                    if isinstance(error, kafka.NodeNotReadyError):
                        unanswered = before  # nothing was sent
                    last = str(error)
                    await anyio.sleep(_BACKOFF_S)
        if unanswered:
            msg = f"kafka: no broker has answered whether offsets of {group} are committed ({last}); committing again is safe"
            raise OutcomeUnknownError(msg)
        msg = f"kafka: offsets of {group} could not be committed ({last}); trying again is safe"
        raise TransportError(msg)


def _by_topic(rows: Mapping[TopicPartition, Any]) -> list[tuple[str, list[Any]]]:
    found: dict[str, list[Any]] = {}
    for place, row in rows.items():
        found.setdefault(place.topic, []).append(row)
    return list(found.items())


def check_committed(offset: int, metadata: str) -> None:
    """Raise TransportError if this cannot be committed."""
    size = len(metadata.encode())
    if size > METADATA_BYTES:
        msg = (
            f"expected at most {METADATA_BYTES:,} bytes of metadata with an offset, got {size:,}; nothing was committed"
        )
        raise TransportError(msg)
    if offset < 0:
        msg = f"expected an offset of 0 or more, got {offset}; nothing was committed"
        raise TransportError(msg)
