"""The ids of topics (KIP-516, Kafka 2.8). If a topic is deleted and created again, its name stays and its id changes.

aiokafka does not have the version of the metadata request that returns ids, so it is added here.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import Any, Final

from aiokafka.errors import UnknownTopicOrPartitionError
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema

from prela_stream.transport.kafka.admin.connection import AdminConnection, check
from prela_stream.transport.kafka.admin.tags import Flexible, Tags

UNKNOWN_ID: Final = ""
"""The id of a topic on brokers that do not report ids."""


class _Uuid(AbstractType[bytes]):
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)


_NAME: Final = CompactString("utf-8")
_TAGS: Final = ("tags", Tags)


class _IdsResponse(Response):
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(("node_id", Int32), ("host", _NAME), ("port", Int32), ("rack", _NAME), _TAGS),
        ),
        ("cluster_id", _NAME),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", _NAME),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        _TAGS,
                    ),
                ),
                ("authorized_operations", Int32),
                _TAGS,
            ),
        ),
        ("authorized_operations", Int32),
        _TAGS,
    )


class _IdsStruct(Flexible, RequestStruct):
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = _IdsResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("topic", _NAME), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        _TAGS,
    )


class _IdsRequest(Request[_IdsStruct]):
    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_IdsStruct]) -> _IdsStruct:
        rows: list[Any] = [(bytes(16), topic, {}) for topic in self._topics]
        return request_struct_class(rows, False, False, False, {})


async def topic_ids(admin: AdminConnection, topics: Sequence[str]) -> dict[str, str]:
    """The id of each of these topics that exists, or UNKNOWN_ID. It creates none. Raises KafkaError, TransportError."""
    try:
        answer = await admin.ask(_IdsRequest(topics))
    except NotImplementedError:  # aiokafka's answer if the broker has no common version
        return await _existing(admin, topics)
    found = {}
    for code, topic, id_, *_ in answer.topics:
        if code == UnknownTopicOrPartitionError.errno:
            continue
        check(code)
        found[topic] = id_.hex()
    return found


async def _existing(admin: AdminConnection, topics: Sequence[str]) -> dict[str, str]:
    answer: Any = await admin.metadata(list(topics))
    found = {}
    for code, topic, *_ in answer.topics:
        if code == UnknownTopicOrPartitionError.errno:
            continue
        check(code)
        found[topic] = UNKNOWN_ID
    return found
