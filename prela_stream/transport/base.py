"""The interface between the pipeline and the log that carries its records.

The words are those of Kafka. A transport that is not Kafka has to provide what they name:

- A *topic* is divided into *partitions*. Each partition is an append-only sequence of records. The caller chooses the partition.
- An *offset* numbers a record within its partition. A consumer's *position* is the offset of the next record to read.
- A *committed* offset is the position that a consumer group has stored for a partition: the offset of the next record to consume.
- *Lag* is the distance from the committed offset to the end of the partition.
- The members of a *consumer group* divide the partitions between them. The partitions of one member are its *assignment*. A
  *rebalance* divides them again after a member joined, left or timed out. Each rebalance starts a new *generation* of the group.
- To *fence* a writer or a member is to refuse whatever it writes from then on, because another one has taken over its partition.

The log stamps every record, not its sender: `LogRecord.timestamp_ms` is log-append time. It does not decrease within a
partition unless the clock of the log is set back.

One contract suite (tests/contracts/transport_contract.py) runs on every implementation, so nothing above this module depends on
the one in use.
"""

import enum
import struct
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Protocol, Self

import msgspec

from prela_stream.transport.options import POLL_BYTES, CleanupPolicy

UNREAD: Final = 0
"""First byte of a value that stands for a batch of records that is too large to be read. No format has this version."""
_UNREAD: Final = struct.Struct(">BIH")


def unread_value(reason: str, records: int, raw: bytes | memoryview) -> bytes:
    """The value that a consumer returns in place of a batch that is too large: why, how many records it has, and its bytes."""
    text = reason.encode()
    return b"".join((_UNREAD.pack(UNREAD, max(records, 0), len(text)), text, raw))


def why_unread(value: bytes | memoryview) -> tuple[str, int]:
    """The reason in a value of `unread_value`, and the number of records; also of a value that only begins like one."""
    if len(value) < _UNREAD.size:
        return "the value begins with 0, as a batch that could not be read does", 1
    _, records, length = _UNREAD.unpack_from(value)
    return bytes(value[_UNREAD.size : _UNREAD.size + length]).decode(errors="replace"), max(records, 1)


class TopicPartition(msgspec.Struct, frozen=True, order=True):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A record to send. A compacted topic requires a key; a value of None there deletes the key."""

    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


class LogRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record as it is stored in the log."""

    topic: str
    partition: int
    offset: int
    """Offset in the partition. Offsets grow; they may have gaps."""
    timestamp_ms: int
    """Log-append time, ms since the epoch. Less than that of an earlier offset only if the log's clock was set back."""
    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


class TopicSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A topic: its size and its settings."""

    name: str
    partitions: int
    cleanup: CleanupPolicy = "delete"
    retention_ms: int | None = None
    """How long a record is kept at least; None: forever. With `compact`: how long a deleted key stays visible as deleted."""
    retention_bytes: int | None = None
    """Bytes per partition; None: no limit. Ignored with `compact`, which keeps the last record of each key."""
    max_record_bytes: int = 1_000_000
    """Largest value, bytes."""
    problems: tuple[str, ...] = ()
    """Further settings that make an existing topic unusable. Each line has what was expected, what was found and what to do."""
    readable: bool = True
    """Whether this client may read the settings of an existing topic. If not, only the name and the partitions are known."""


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """What a group has committed for a partition."""

    offset: int
    """Offset of the next record to consume."""
    metadata: str = ""
    """At most 4,000 bytes, for the committer's use."""


class CommitOutcome(enum.Enum):
    """The result of `Writer.commit`."""

    COMMITTED = "committed"
    """All of it is durable, and readers will see it: those of Kafka some milliseconds later."""
    ABORTED = "aborted"
    """None of it is or ever will be visible."""
    UNKNOWN = "unknown"
    """It may or may not take effect. A new writer resolves it: what that writer finds committed is the result."""


class Poll(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `Consumer.poll`: changes of the assignment, which apply first, and records."""

    assigned: tuple[TopicPartition, ...] = ()
    """Newly assigned. They are paused at the group's committed offset (or the beginning) until `resume`."""
    revoked: tuple[TopicPartition, ...] = ()
    """No longer assigned. Neither this Poll nor a later one has their records. A Poll may revoke and assign one partition."""
    records: tuple[LogRecord, ...] = ()
    """In offset order within each partition."""
    rebalanced: bool = False
    """A rebalance has finished: the assignment after this Poll is the full share of this member, and may be empty.

    Before it has finished, a revoked partition may be assigned again.
    """


class _Closing(Protocol):
    async def aclose(self) -> None:
        """Release everything held. Safe to call twice and under cancellation."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Producer(_Closing, Protocol):
    """Appends records outside any transaction. One task sends at a time; several producers may exist."""

    async def send(self, to: TopicPartition, records: Sequence[Record]) -> int:
        """Append `records` (at least one) in this order, all or none, and return the offset of the last once they are durable.

        If it is cancelled, the outcome is as unknown as after OutcomeUnknownError.

        Raises:
            UnknownTopicError: the topic or partition does not exist.
            TooLargeError: the topic does not accept records or batches of this size; nothing was appended.
            TransportError: nothing was appended; retrying is safe. Also if a record for a compacted topic has no key.
            OutcomeUnknownError: they may have been appended; retrying may create duplicates.
        """
        ...


class Consumer(_Closing, Protocol):
    """Reads committed records. One task polls; the other methods may be called at any time, also while it waits.

    The assignment changes only in `poll`, which returns what was revoked and what was assigned. If a topic was deleted and
    created again, or the log was replaced, `poll` revokes its partitions and assigns them again: their old offsets have no
    meaning.
    """

    async def poll(
        self,
        *,
        max_records: int = 500,
        max_bytes: int = POLL_BYTES,
        timeout: float = 1.0,
    ) -> Poll:
        """Wait up to `timeout` seconds for an assignment change or records of partitions that are not paused.

        At most `max_bytes` of keys, headers and values are returned, uncompressed, but always at least one record, however large.
        A few more may be held for the next poll. A batch that is too large to be decompressed is returned as one record with the
        offset of its last one, and a value of `unread_value`. Records of an unfinished, aborted or fenced commit are never
        returned.

        Polling keeps this member in its group: a member that has not polled for five minutes may lose its partitions.

        If a poll is cancelled, the next one returns what it had found.

        Raises TransportError: nothing was returned and nothing is lost; poll again.
        """
        ...

    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that are assigned now, paused ones included."""
        ...

    def pause(self, *partitions: TopicPartition) -> None:
        """Return no records of these until `resume`. The position stays. Partitions that are not assigned are ignored."""
        ...

    def resume(self, *partitions: TopicPartition) -> None:
        """Undo `pause`, or start newly assigned partitions. Partitions that are not assigned are ignored."""
        ...

    async def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read from `offset` on, or from the first retained record if `offset` is older. FencedError if it is not assigned."""
        ...

    async def position(self, partition: TopicPartition) -> int:
        """Offset of the next record that `poll` will return of this partition, or a smaller one in a gap before it.

        Once nothing is left to read it reaches `end_offset`, even if the last records were compacted away, so a loop "read
        until position >= end" ends. FencedError if the partition is not assigned.
        """
        ...

    async def committed(self, partition: TopicPartition) -> Committed | None:
        """What this consumer's group has committed for any partition. None if nothing, or if the consumer has no group."""
        ...

    async def commit(self, offsets: dict[TopicPartition, Committed]) -> None:
        """Commit offsets of partitions that are assigned.

        Raises:
            FencedError: one of them is not assigned, or no longer; none of them is committed.
            TransportError: none of them is committed. Also if the consumer has no group or metadata is too long.
            OutcomeUnknownError: they may have been committed; committing them again is safe.
        """
        ...

    async def beginning_offset(self, partition: TopicPartition) -> int:
        """Offset of the first retained record, or the end if there is none. UnknownTopicError, as for the next two."""
        ...

    async def end_offset(self, partition: TopicPartition) -> int:
        """The smallest offset that the next committed record can have: every readable record has a smaller one."""
        ...

    async def high_watermark(self, partition: TopicPartition) -> int:
        """The offset after all records that were written, also by transactions of any writer that have not ended.

        Until they end, no later record is readable, even if it is committed. The position reaches it after that.
        """
        ...

    async def offset_at(self, partition: TopicPartition, timestamp_ms: int) -> int:
        """Offset of the first record with log-append time >= `timestamp_ms`, or the end."""
        ...


class Writer(_Closing, Protocol):
    """Writes records and a consumed offset atomically. Opening it fences every other writer of its group and partition."""

    on_answer: Callable[[], None] | None
    """Called at each answer of the log to a part of a commit in progress. The caller may set it, to distinguish a commit that is
    slow from one without progress."""

    @property
    def committed(self) -> Committed | None:
        """What the group had committed when this writer opened. Final, because every earlier writer is fenced."""
        ...

    async def commit(
        self, records: Sequence[tuple[TopicPartition, Record]], offset: int, metadata: str = ""
    ) -> CommitOutcome:
        """Write all `records` and commit `offset` with `metadata`, or nothing.

        If a log shows a commit partition by partition (Kafka does), a reader may see one part a moment before the rest.

        After any outcome but COMMITTED this writer is unusable and raises FencedError from then on: open a new one. If the
        call is cancelled, the same holds as after UNKNOWN. The reason of an aborted commit is logged.

        Raises:
            FencedError: another writer was opened for this partition, or this one is unusable or closed; nothing was written.
            UnknownTopicError: the topic or partition of a record does not exist; nothing was written, this writer stays usable.
            TransportError: a topic cannot accept one of the records (as for `Producer.send`), or the metadata is longer than
            4,000
                bytes; nothing was written, this writer stays usable.
        """
        ...


class Transport(_Closing, Protocol):
    """Creates producers, consumers and writers. Opening one connects to nothing; closing it closes what it created."""

    async def producer(self) -> Producer:
        """A new producer."""
        ...

    async def consumer(self, topics: Sequence[str], *, group: str | None = None) -> Consumer:
        """A consumer of all partitions of `topics`, or with `group` of this member's share of them.

        Without a group every partition is in the first Poll's `assigned` and stays assigned. Raises UnknownTopicError.
        """
        ...

    async def writer(self, group: str, source: TopicPartition) -> Writer:
        """Take over `source` for `group`: fence the previous writer, resolve its unfinished commit, return a new writer.

        Raises UnknownTopicError. Raises ConfigurationError if this client has no permission, or if a setting can never work.
        """
        ...

    async def committed(self, group: str, partition: TopicPartition) -> Committed | None:
        """What `group` has committed for `partition`, without joining it; None if nothing.

        For observers: a commit of a Writer may be in progress. Raises UnknownTopicError.
        """
        ...

    async def topics(self, names: Sequence[str] | None = None) -> dict[str, TopicSpec]:
        """Those of `names` that exist, or every topic that this client may see. Never creates one.

        Raises TransportError: also if this client may not describe one of `names`.
        """
        ...

    async def create_topics(self, specs: Sequence[TopicSpec]) -> list[str]:
        """Create those that are missing and return their names. An existing topic is not changed.

        Many processes may do so at once: each topic is created once, and named in one of the answers.
        """
        ...
