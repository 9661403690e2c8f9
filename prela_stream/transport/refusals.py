"""What every transport refuses before it writes, and the errors that both implementations raise for the same mistake."""

from collections.abc import Mapping, Sequence
from typing import Final

from prela_stream.errors import FencedError, TooLargeError, TransportError, UnknownTopicError
from prela_stream.transport.base import Record, TopicPartition, TopicSpec

METADATA_BYTES: Final = 4_000
"""Less than a Kafka broker accepts with an offset by default (offset.metadata.max.bytes, 4,096)."""
Batches = dict[TopicPartition, list[Record]]
"""The records of one commit, by partition."""


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


def checked_batches(records: Sequence[tuple[TopicPartition, Record]], offset: int, metadata: str) -> Batches:
    """The records of a commit by partition, in order. Raises TransportError if offset or metadata cannot be committed."""
    check_committed(offset, metadata)
    batches: Batches = {}
    for to, record in records:
        batches.setdefault(to, []).append(record)
    return batches


def check_send(records: Sequence[Record]) -> None:
    """Raise ValueError unless there is a record to send."""
    if not records:
        msg = "expected at least one record to send, got none"
        raise ValueError(msg)


def check_record(topic: TopicSpec, record: Record, setting: str) -> None:
    """Raise TooLargeError or TransportError if a topic cannot accept a record. `setting` names what limits its size."""
    if record.value is not None and len(record.value) > topic.max_record_bytes:
        msg = (
            f"a record of {len(record.value):,} bytes is too large for topic {topic.name}, which accepts values of at most "
            f"{topic.max_record_bytes:,} bytes ({setting}); nothing was written"
        )
        raise TooLargeError(msg)
    if record.key is None and topic.cleanup == "compact":
        msg = f"topic {topic.name} is compacted by key, so it accepts no record without a key; nothing was written"
        raise TransportError(msg)


def closed(what: str) -> TransportError:
    """The error for a use after `aclose`."""
    return TransportError(f"this {what} is closed; open a new one")


def no_group() -> TransportError:
    """The error for a commit of a consumer that has no group."""
    return TransportError(
        "a consumer without a group cannot commit offsets; open it with group=…; nothing was committed"
    )


def not_assigned(partition: TopicPartition, group: str | None) -> FencedError:
    """The error for a partition that is not assigned to this consumer, or no longer."""
    whose = "this consumer" if group is None else f"this member of group {group!r}"
    return FencedError(f"{partition} is not, or no longer, assigned to {whose}; nothing was changed")


def writer_fenced(source: TopicPartition, group: str, why: str) -> FencedError:
    """The error of a writer that can no longer write."""
    return FencedError(f"the writer of {source} for group {group!r} can no longer write: {why}; open a new one")


def unknown_topic(topic: str, partition: int | None, existing: Mapping[str, TopicSpec]) -> UnknownTopicError:
    """The error for a topic or partition that does not exist; it names what exists, as far as `existing` has it."""
    if topic in existing and partition is not None:
        msg = (
            f"topic {topic} has partitions 0 to {existing[topic].partitions - 1}; partition {partition} does not exist"
        )
        return UnknownTopicError(msg)
    others = f" (existing topics: {', '.join(sorted(existing))})" if existing else ""
    msg = f"topic {topic!r} does not exist, or this client may not see it{others}; create it with `prela-stream topics create`"
    return UnknownTopicError(msg)
