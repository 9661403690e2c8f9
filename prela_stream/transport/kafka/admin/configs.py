"""Converts a TopicSpec to the configuration entries of Kafka and back, and reports the mistakes in existing topics.

Kafka limits the bytes of a batch on the network (`max.message.bytes`), a TopicSpec those of a value. A batch is sent
uncompressed if compression does not make it smaller, so the two differ by key, headers and framing only: `HEADROOM_BYTES`
are reserved for these.
"""

from collections.abc import Mapping
from typing import Final

from prela_stream.transport.base import TopicSpec
from prela_stream.transport.options import KafkaOptions

HEADROOM_BYTES: Final = 16_384
"""`max.message.bytes` less the largest value. Kafka's default (1,048,588) then accepts values of 1,000,000 bytes."""
READ: Final = (
    *("cleanup.policy", "retention.ms", "retention.bytes", "delete.retention.ms", "max.message.bytes"),
    *("message.timestamp.type", "min.insync.replicas"),
)
"""The entries that `read_spec` needs."""
_FOREVER: Final = 2**63 - 1
_SEGMENT_BYTES: Final = 64 << 20
_SEGMENT_MS: Final = 3_600_000


def entries(topic: TopicSpec, replication: int) -> dict[str, str]:
    """The configuration entries of a topic that will be created."""
    found: dict[str, object] = {
        "cleanup.policy": topic.cleanup,
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": topic.max_record_bytes + HEADROOM_BYTES,
    }
    if topic.cleanup == "compact":
        # Compaction ignores the open segment: small segments keep short what has to be read back.
        found["delete.retention.ms"] = _FOREVER if topic.retention_ms is None else topic.retention_ms
        found["segment.bytes"] = _SEGMENT_BYTES
        found["segment.ms"] = _SEGMENT_MS
    else:
        found["retention.ms"] = -1 if topic.retention_ms is None else topic.retention_ms
        found["retention.bytes"] = -1 if topic.retention_bytes is None else topic.retention_bytes
    if replication >= 3:
        found["min.insync.replicas"] = 2
    return {name: str(value) for name, value in found.items()}


def read_spec(
    name: str, partitions: int, replication: int, found: Mapping[str, str] | None, options: KafkaOptions
) -> TopicSpec:
    """An existing topic. `found` are its entries, None if this client may not read them."""
    if found is None:
        problem = "its settings cannot be read: allow this client DescribeConfigs on the topic"
        return TopicSpec(
            name=name, partitions=partitions, max_record_bytes=_FOREVER, problems=(problem,), readable=False
        )
    compact = "compact" in found["cleanup.policy"]
    kept_ms = int(found["delete.retention.ms" if compact else "retention.ms"])
    kept_bytes = int(found["retention.bytes"])
    return TopicSpec(
        name=name,
        partitions=partitions,
        cleanup="compact" if compact else "delete",
        retention_ms=None if kept_ms in (-1, _FOREVER) else kept_ms,
        retention_bytes=None if compact or kept_bytes == -1 else kept_bytes,
        max_record_bytes=max(int(found["max.message.bytes"]) - HEADROOM_BYTES, 0),
        problems=tuple(_problems(name, found, replication, options.replication)),
    )


def _problems(name: str, found: Mapping[str, str], replication: int, wanted: int | None) -> list[str]:
    lines = []
    stamped, policy = found["message.timestamp.type"], found["cleanup.policy"]
    in_sync = int(found["min.insync.replicas"])
    if stamped != "LogAppendTime":
        lines.append(
            f"expected message.timestamp.type LogAppendTime, found {stamped}: decisions depend on the times of the log; run "
            f"kafka-configs.sh --alter --topic {name} --add-config message.timestamp.type=LogAppendTime"
        )
    if policy not in ("compact", "delete"):
        lines.append(f"expected cleanup.policy delete or compact, found {policy}: correct the topic's cleanup.policy")
    if wanted is not None and replication < wanted:
        lines.append(
            f"expected {wanted} replicas (kafka.replication), found {replication}: add replicas, or lower kafka.replication"
        )
    if in_sync > replication:
        lines.append(
            f"expected min.insync.replicas of at most {replication}, the number of replicas, found {in_sync}: nothing can be "
            "written; lower it, or add replicas"
        )
    if wanted is not None and wanted >= 3 and in_sync < 2:
        lines.append(
            f"expected min.insync.replicas of 2 or more with {wanted} replicas, found {in_sync}: a record that only one broker "
            "has acknowledged can be lost; raise it"
        )
    return lines
