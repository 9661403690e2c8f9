"""Committed offsets of groups: reading them without joining the group, and committing as a member.

aiokafka reads committed offsets without regard to transactions: the answer may be the offset before a commit that is already
certain. The version of the request that waits for open transactions is added here.
"""

from collections.abc import Mapping
from typing import Any, Final

import aiokafka.errors as kafka
import anyio
from aiokafka.errors import KafkaError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest, OffsetFetchRequest_v3
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
)

from prela_stream.errors import FencedError, OutcomeUnknownError, TransportError
from prela_stream.transport.base import Committed, TopicPartition
from prela_stream.transport.kafka.admin.connection import AdminConnection, NotYetError, by_topic, check
from prela_stream.transport.kafka.admin.tags import Flexible, Tags
from prela_stream.transport.kafka.admin.topics import Topics

_FENCED: Final = (kafka.UnknownMemberIdError, kafka.IllegalGenerationError, kafka.RebalanceInProgressError)
_BACKOFF_S: Final = 0.1
_LASTING: Final = (
    "a transaction that commits an offset there has not ended; if this persists, a broker has lost it: find it with "
    "`kafka-transactions.sh find-hanging`"
)
_UNSTABLE: Final = 88
"""Error code: a transaction with an offset of this partition has not ended."""


class _StableResponse(Response):
    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", CompactString("utf-8")),
                        ("error_code", Int16),
                        ("tags", Tags),
                    ),
                ),
                ("tags", Tags),
            ),
        ),
        ("error_code", Int16),
        ("tags", Tags),
    )


class _StableRequest_v7(Flexible, RequestStruct):  # noqa: N801 - named like the requests of aiokafka
    API_KEY = 9
    API_VERSION = 7
    RESPONSE_TYPE = _StableResponse
    SCHEMA = Schema(
        ("group", CompactString("utf-8")),
        (
            "topics",
            CompactArray(("topic", CompactString("utf-8")), ("partitions", CompactArray(Int32)), ("tags", Tags)),
        ),
        ("require_stable", Boolean),
        ("tags", Tags),
    )


class _StableRequest(Request[OffsetFetchRequest_v3 | _StableRequest_v7]):
    """OffsetFetch that waits for open transactions (KIP-447), if the broker is of Kafka 2.5 or newer."""

    API_KEY = 9

    def __init__(self, group: str, topics: list[tuple[str, list[int]]]) -> None:
        self._group = group
        self._topics = topics

    def build(self, request_struct_class: Any) -> Any:
        if request_struct_class.API_VERSION < 7:
            return request_struct_class(self._group, self._topics)
        return request_struct_class(self._group, [(*row, {}) for row in self._topics], True, {})


class Groups:
    """Reads and commits the offsets of groups."""

    def __init__(self, admin: AdminConnection, topics: Topics) -> None:
        self._admin = admin
        self._topics = topics

    async def require(self, group: str) -> None:
        """Raise TransportError if this client may not join a group. aiokafka would try to join without end."""
        try:
            await self._admin.repeat(
                f"finding the coordinator of group {group}", lambda: self._admin.coordinator(group)
            )
        except kafka.GroupAuthorizationFailedError as error:
            msg = f"kafka: this client may not read as group {group!r}: allow it Read on the group"
            raise TransportError(msg) from error

    async def committed(
        self, group: str, partitions: list[TopicPartition], *, patience_s: float | None = None
    ) -> dict[TopicPartition, Committed]:
        """What a group has committed, for those of `partitions` where it has.

        It waits for open transactions that commit offsets there, for at most `patience_s` seconds if that is given: after
        that their offsets are ignored. Raises UnknownTopicError, TransportError.
        """
        for partition in partitions:
            await self._topics.spec_of(partition)
        topics = by_topic({partition: partition.partition for partition in partitions})
        with anyio.move_on_after(patience_s):
            return await self._ask(group, _StableRequest(group, topics))
        return await self._ask(group, OffsetFetchRequest(group, topics))

    async def _ask(self, group: str, request: Any) -> dict[TopicPartition, Committed]:
        async def attempt() -> dict[TopicPartition, Committed]:
            answer = await self._admin.ask(request, node=await self._admin.coordinator(group))
            check(answer.error_code)
            found = {}
            for topic, parts, *_ in answer.topics:
                for number, offset, metadata, code in map(_plain, parts):
                    if code == _UNSTABLE:
                        raise NotYetError(_LASTING)
                    check(code)
                    if offset >= 0:
                        found[TopicPartition(topic, number)] = Committed(offset=offset, metadata=metadata or "")
            return found

        what = f"reading the committed offsets of group {group}"
        try:
            result: dict[TopicPartition, Committed] = await self._admin.repeat(what, attempt)
        except KafkaError as error:
            msg = f"kafka: {what} was refused: {error}"
            raise TransportError(msg) from error
        return result

    async def commit(
        self, group: str, generation: int, member: str, offsets: Mapping[TopicPartition, Committed]
    ) -> None:
        """Commit as a member of `generation`: the group refuses it after the next rebalance.

        Raises FencedError, TransportError, OutcomeUnknownError.
        """
        rows = {at: (at.partition, one.offset, one.metadata) for at, one in offsets.items()}
        request = OffsetCommitRequest(group, generation, member, -1, by_topic(rows))
        unanswered = before = False
        last = "no answer came"
        with anyio.move_on_after(self._admin.options.request_timeout_ms / 1000):
            while True:
                try:
                    node = await self._admin.coordinator(group)
                    before, unanswered = unanswered, True
                    answer = await self._admin.ask(request, node=node)
                    unanswered = before  # this request was answered
                    for _, parts in answer.topics:
                        for _, code in parts:
                            check(code)
                    return
                except _FENCED as error:
                    if unanswered:
                        last = str(error)
                        break
                    msg = (
                        f"{', '.join(map(str, offsets))}: group {group!r} has rebalanced since these partitions were assigned "
                        f"({type(error).__name__}); nothing was committed"
                    )
                    raise FencedError(msg) from error
                except KafkaError as error:
                    if not error.retriable:
                        msg = f"kafka: committing offsets of group {group} was refused: {error}"
                        raise TransportError(msg) from error
                    if isinstance(error, kafka.NodeNotReadyError):
                        unanswered = before  # nothing was sent
                    last = str(error)
                    await anyio.sleep(_BACKOFF_S)
        if unanswered:
            msg = f"kafka: no broker answered whether offsets of group {group} are committed ({last}); retrying is safe"
            raise OutcomeUnknownError(msg)
        msg = f"kafka: offsets of group {group} could not be committed ({last}); retrying is safe"
        raise TransportError(msg)


def _plain(row: tuple[Any, ...]) -> tuple[int, int, str | None, int]:
    """Partition, offset, metadata and error code, from a row of either answer."""
    if len(row) == 4:
        return row
    number, offset, _, metadata, code, _ = row
    return number, offset, metadata, code
