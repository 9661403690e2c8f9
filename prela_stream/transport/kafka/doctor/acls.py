"""The permissions that each role needs on a cluster, and which of them this client has, as the brokers report them.

Brokers report the permissions on topics and groups (KIP-430, Kafka 2.3), in versions of requests that aiokafka does not have. For
transactional ids they only report whether this client may describe them. Nothing is tried, because writing would fence a worker.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Bytes, Int16, Int32, Schema, String

from prela_stream.transport.findings import Role
from prela_stream.transport.kafka.admin.connection import check
from prela_stream.transport.options import TopicOptions

READ: Final = "Read"
WRITE: Final = "Write"
DESCRIBE: Final = "Describe"
DESCRIBE_CONFIGS: Final = "DescribeConfigs"
_BITS: Final = {READ: 3, WRITE: 4, DESCRIBE: 8, DESCRIBE_CONFIGS: 10}
_NOT_REPORTED: Final = -(2**31)
_NO_TOPIC_RIGHT: Final = 29


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """The permissions of one role."""

    topics: Mapping[str, tuple[str, ...]]
    """Operations on each topic. Read and Write include Describe."""
    groups: tuple[str, ...] = ()
    """The consumer groups that it reads as: Read."""
    transactional_id: str | None = None
    """The prefix of its transactional ids: Write."""


class ServiceGroups(msgspec.Struct, frozen=True, kw_only=True):
    """The groups of the services."""

    worker: str
    sinks: tuple[str, ...]


def needs(role: Role, topics: TopicOptions, groups: ServiceGroups) -> Needs:
    """What a role needs; docs/kafka.md has the table."""
    if role == "agent":
        return Needs(topics={topics.spans: (WRITE,)})
    if role == "sink":
        return Needs(topics={topics.sampled: (READ,), topics.decisions: (READ,)}, groups=groups.sinks)
    read_and_written = (READ, WRITE, DESCRIBE_CONFIGS)
    written = (WRITE, DESCRIBE_CONFIGS)
    return Needs(
        topics={
            topics.spans: read_and_written,
            topics.decisions: read_and_written,
            topics.sampled: written,
            topics.dlq: written,
        },
        groups=(groups.worker,),
        transactional_id=f"{groups.worker}-{topics.spans}-",
    )


class _MetadataResponse(Response):
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(("node_id", Int32), ("host", String()), ("port", Int32), ("rack", String()))),
        ("cluster_id", String()),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String()),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("authorized_operations", Int32),
    )


class _MetadataStruct(RequestStruct):
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", Array(String())),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class TopicRights(Request[_MetadataStruct]):
    """Requests the operations that this client is allowed on topics. It creates no topic."""

    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_MetadataStruct]) -> _MetadataStruct:
        """See aiokafka."""
        return request_struct_class(self._topics, False, False, True)


class _GroupsResponse(Response):
    API_KEY = 15
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "groups",
            Array(
                ("error_code", Int16),
                ("group", String()),
                ("state", String()),
                ("protocol_type", String()),
                ("protocol", String()),
                (
                    "members",
                    Array(
                        ("member_id", String()),
                        ("client_id", String()),
                        ("client_host", String()),
                        ("member_metadata", Bytes),
                        ("member_assignment", Bytes),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
    )


class _GroupsStruct(RequestStruct):
    API_KEY = 15
    API_VERSION = 3
    RESPONSE_TYPE = _GroupsResponse
    SCHEMA = Schema(("groups", Array(String())), ("include_authorized_operations", Boolean))


class GroupRights(Request[_GroupsStruct]):
    """Requests the operations that this client is allowed on groups, from their coordinator."""

    API_KEY = 15

    def __init__(self, groups: list[str]) -> None:
        self._groups = groups

    def build(self, request_struct_class: type[_GroupsStruct]) -> _GroupsStruct:
        """See aiokafka."""
        return request_struct_class(self._groups, True)


class TopicAnswer(msgspec.Struct, frozen=True):
    """What a broker reports about one topic."""

    error: int
    rights: frozenset[str] | None
    """None: not reported."""


def topic_answers(answer: Any) -> dict[str, TopicAnswer]:
    """Each topic of an answer to TopicRights. `rights` is empty if this client may not see it, None if it does not exist."""
    found = {}
    for code, name, _, _, operations in answer.topics:
        rights = frozenset() if code == _NO_TOPIC_RIGHT else None if code else _named(operations)
        found[name] = TopicAnswer(code, rights)
    return found


def group_rights(answer: Any) -> frozenset[str] | None:
    """The operations on the group of an answer to GroupRights; None: not reported. Raises KafkaError."""
    ((code, *_, operations),) = answer.groups
    check(code)
    return _named(operations)


def _named(operations: int) -> frozenset[str] | None:
    if operations == _NOT_REPORTED:
        return None
    return frozenset(name for name, bit in _BITS.items() if operations >> bit & 1)
