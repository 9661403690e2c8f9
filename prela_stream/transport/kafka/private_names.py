"""Every private name of aiokafka that this package uses, and why. An upgrade of aiokafka has to keep them, or change this
package.

tests/unit/transport/kafka/test_private_names.py checks that each of them exists in the installed version and that no other
is used.
"""

import re
from typing import Final

import msgspec

from prela_stream.transport.options import AIOKAFKA_TESTED


class PrivateName(msgspec.Struct, frozen=True):
    """A private name of aiokafka."""

    owner: str
    """The module and the class that define it."""
    names: tuple[str, ...]
    purpose: str
    """What this package needs it for."""


PRIVATE_NAMES: Final = (
    PrivateName(
        "aiokafka.client:AIOKafkaClient",
        ("_get_conn",),
        "wraps each connection, so that no metadata request creates a topic",
    ),
    PrivateName(
        "aiokafka.client:AIOKafkaClient",
        ("_conns",),
        "closes the sockets of a consumer whose broker does not answer",
    ),
    PrivateName(
        "aiokafka.conn:AIOKafkaConnection",
        ("_protocol",),
        "finds the socket of a connection, to close it without the broker",
    ),
    PrivateName(
        "asyncio.streams:StreamReaderProtocol",
        ("_transport",),
        "closes the socket of a connection without the broker; the protocol of aiokafka's connections is a subclass",
    ),
    PrivateName(
        "aiokafka.conn:OAuthAuthenticator",
        ("_token_sent", "_sasl_oauth_token_provider"),
        "detects a refused token: aiokafka treats the challenge as success",
    ),
    PrivateName(
        "aiokafka.protocol.metadata:MetadataRequest",
        ("_allow_auto_topic_creation",),
        "forbids that a metadata request creates a topic",
    ),
    PrivateName(
        "aiokafka.protocol.api:Request",
        ("_CLASSES",),
        "lists the versions of a request that aiokafka knows, to compare them with those of a broker",
    ),
    PrivateName(
        "aiokafka.consumer.consumer:AIOKafkaConsumer",
        ("_client", "_coordinator", "_fetcher", "_subscription"),
        "reaches the parts of a consumer that follow",
    ),
    PrivateName(
        "aiokafka.consumer.group_coordinator:GroupCoordinator",
        ("_coordination_task", "_heartbeat_task", "_commit_refresh_task"),
        "detects a membership that has ended with an error, and ends it in bounded time",
    ),
    PrivateName(
        "aiokafka.consumer.group_coordinator:NoGroupCoordinator",
        ("_reset_committed_task",),
        "ends a consumer without a group in bounded time",
    ),
    PrivateName(
        "aiokafka.consumer.fetcher:Fetcher",
        ("_fetch_task", "_pending_tasks", "_create_fetch_waiter"),
        "detects a fetcher that has ended, ends it in bounded time, and waits for records together with other events",
    ),
    PrivateName(
        "aiokafka.consumer.fetcher:Fetcher",
        ("_fetch_min_bytes", "_fetch_max_wait_ms"),
        "fetches records that trickle in together",
    ),
    PrivateName(
        "aiokafka.consumer.fetcher:Fetcher",
        ("_records",),
        "sees which partitions have records, before it asks for them",
    ),
    PrivateName(
        "aiokafka.producer.producer:AIOKafkaProducer",
        ("_sender", "_message_accumulator", "_txn_manager", "_closed"),
        "reaches the parts of a producer that follow, and discards it: its stop() waits for every delivery",
    ),
    PrivateName(
        "aiokafka.producer.sender:Sender",
        (
            "_send_produce_req",
            "_do_add_partitions_to_txn",
            "_do_add_offsets_to_txn",
            "_do_txn_offset_commit",
            "_do_txn_commit",
        ),
        "keeps the background tasks, to cancel them, and counts how often the end of a transaction was requested",
    ),
    PrivateName(
        "aiokafka.producer.message_accumulator:MessageAccumulator",
        ("_batches", "_pending_batches"),
        "fails batches that are discarded, so that no future stays without a result",
    ),
    PrivateName(
        "aiokafka.producer.message_accumulator:MessageBatch",
        ("_drain_waiter",),
        "marks the error of a discarded batch as seen",
    ),
    PrivateName(
        "aiokafka.producer.transaction_manager:TransactionManager",
        ("_transaction_waiter", "_pid_waiter"),
        "marks the error of a discarded transaction as seen",
    ),
)


def is_tested(version: str) -> bool:
    """Whether a version of aiokafka is within `AIOKAFKA_TESTED`."""
    least, below = (_numbers(bound) for bound in re.findall(r"[\d.]+", AIOKAFKA_TESTED))
    return least <= _numbers(version) < below


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
