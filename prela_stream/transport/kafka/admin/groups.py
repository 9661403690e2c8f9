"""What groups have committed, asked and said on the transport's own connection, without becoming a member.

aiokafka asks for committed offsets in a way that knows nothing of transactions: the answer may be the offset before a commit that
is already certain. The request that waits for those is added here.
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
    TaggedFields,
)

from prela_stream.errors import FencedError, OutcomeUnknownError, TransportError
from prela_stream.transport.base import Committed, TopicPartition
from prela_stream.transport.kafka.admin.requests import NotYetError, Wire, by_topic, check
from prela_stream.transport.kafka.admin.topics import Catalog

_FENCED: Final = (kafka.UnknownMemberIdError, kafka.IllegalGenerationError, kafka.RebalanceInProgressError)
_BACKOFF_S: Final = 0.1
_LASTING: Final = (
    "a transaction that commits there has not ended; if that lasts, a broker has forgotten it, and `kafka-transactions.sh "
    "find-hanging` shows it"
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
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("error_code", Int16),
        ("tags", TaggedFields),
    )


class _StableRequest_v7(RequestStruct):  # noqa: N801 - as its like in aiokafka
    API_KEY = 9
    API_VERSION = 7
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _StableResponse
    SCHEMA = Schema(
        ("group", CompactString("utf-8")),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")), ("partitions", CompactArray(Int32)), ("tags", TaggedFields)
            ),
        ),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )


class _StableRequest(Request[OffsetFetchRequest_v3 | _StableRequest_v7]):
    """OffsetFetch that waits for open transactions (KIP-447), where the broker knows it: since Kafka 2.5."""

    API_KEY = 9

    def __init__(self, group: str, topics: list[tuple[str, list[int]]]) -> None:
        self._group = group
        self._topics = topics

    def build(self, request_struct_class: Any) -> Any:
        if request_struct_class.API_VERSION < 7:
            return request_struct_class(self._group, self._topics)
        return request_struct_class(self._group, [(*row, {}) for row in self._topics], True, {})


class Groups:
    """How far groups are."""

    def __init__(self, wire: Wire, catalog: Catalog) -> None:
        self._wire = wire
        self._catalog = catalog

    async def require(self, group: str) -> None:
        """Raise TransportError if this client may not be a member of a group: asked once, for joining is tried for ever."""
        try:
            await self._wire.repeat(
                f"finding the broker that keeps group {group}", lambda: self._wire.coordinator(group)
            )
        except kafka.GroupAuthorizationFailedError as error:
            msg = f"kafka: this client may not read as group {group!r}: allow it Read on the group"
            raise TransportError(msg) from error

    async def committed(
        self, group: str, partitions: list[TopicPartition], *, patience_s: float | None = None
    ) -> dict[TopicPartition, Committed]:
        """What a group has committed, of those of `partitions` where it has.

        It waits for the end of transactions that commit there, but not longer than `patience_s` seconds, if there is such a
        bound: after that their offsets do not count. Raises UnknownTopicError, TransportError.
        """
        for partition in partitions:
            await self._catalog.place(partition)
        topics = by_topic({place: place.partition for place in partitions})
        with anyio.move_on_after(patience_s):
            return await self._ask(group, _StableRequest(group, topics))
        return await self._ask(group, OffsetFetchRequest(group, topics))

    async def _ask(self, group: str, request: Any) -> dict[TopicPartition, Committed]:
        async def attempt() -> dict[TopicPartition, Committed]:
            answer = await self._wire.ask(request, node=await self._wire.coordinator(group))
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

        what = f"asking what {group} has committed"
        try:
            result: dict[TopicPartition, Committed] = await self._wire.repeat(what, attempt)
        except KafkaError as error:
            msg = f"kafka: {what} was refused: {error}"
            raise TransportError(msg) from error
        return result

    async def commit(
        self, group: str, generation: int, member: str, offsets: Mapping[TopicPartition, Committed]
    ) -> None:
        """Commit as the member that has its partitions since `generation`: the group refuses it once it has moved on.

        Raises FencedError, TransportError, OutcomeUnknownError.
        """
        rows = {place: (place.partition, one.offset, one.metadata) for place, one in offsets.items()}
        request = OffsetCommitRequest(group, generation, member, -1, by_topic(rows))
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


def _plain(row: tuple[Any, ...]) -> tuple[int, int, str | None, int]:
    """Partition, offset, metadata and error code, from a row of either answer."""
    if len(row) == 4:
        return row
    number, offset, _, metadata, code, _ = row
    return number, offset, metadata, code
