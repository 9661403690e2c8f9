"""The seam between the pipeline and what carries its Records.

One contract suite (tests/contracts/transport_contract.py) runs over every implementation, so that nothing above this module knows
which one it is on. Partitions are chosen by the caller, never by the transport. Every Record is stamped by the log, not by who
sent it: `LogRecord.timestamp_ms` is log-append time, and it never goes backwards within a partition.
"""

import enum
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

import msgspec

from prela_stream.transport.options import CleanupPolicy


class TopicPartition(msgspec.Struct, frozen=True, order=True):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent. A topic with compaction needs a key; there a value of None deletes what the key had."""

    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


class LogRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A Record as the log holds it."""

    topic: str
    partition: int
    offset: int
    """Position in the partition. Offsets grow; they may have gaps."""
    timestamp_ms: int
    """Log-append time, ms since the epoch; never less than that of an earlier offset of the partition."""
    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


class TopicSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A topic as it should be."""

    name: str
    partitions: int
    cleanup: CleanupPolicy = "delete"
    retention_ms: int | None = None
    """How long a Record is kept at least; None: forever. With `compact`: how long a key's deletion can be seen."""
    retention_bytes: int | None = None
    """A partition's bytes; None: no bound. Nothing to `compact`, which keeps the last Record of each key."""
    max_record_bytes: int = 1_000_000
    """Largest value, bytes."""
    flaws: tuple[str, ...] = ()
    """What else keeps a topic that is there from being used: a line each, with what was expected, what it is, what to do."""
    readable: bool = True
    """Whether the settings of a topic that is there may be read. If not, nothing but name and partitions is known of it."""


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """What a group has committed for a partition."""

    offset: int
    """Offset of the next Record to consume."""
    metadata: str = ""
    """At most 4,000 bytes of the committer's own."""


class CommitOutcome(enum.Enum):
    """What became of `Writer.commit`."""

    COMMITTED = "committed"
    """All of it is durable and visible."""
    ABORTED = "aborted"
    """None of it is or ever will be visible."""
    UNKNOWN = "unknown"
    """It may or may not land. A new writer settles it: what that one finds committed is what happened."""


class Poll(msgspec.Struct, frozen=True, kw_only=True):
    """What `Consumer.poll` found: changes of the assignment, which come first, and Records."""

    assigned: tuple[TopicPartition, ...] = ()
    """Newly ours. They stand paused, at the group's committed offset (or the beginning), until `resume`."""
    revoked: tuple[TopicPartition, ...] = ()
    """Not ours any more; no Record of them is in this or a later Poll. A partition may be revoked and assigned in one Poll."""
    records: tuple[LogRecord, ...] = ()
    """In offset order within each partition."""
    rebalanced: bool = False
    """The partitions have just been shared out (anew): what is ours after this Poll is all of our share, and may be nothing.

    Until it says so, what was revoked may come straight back.
    """


class _Closing(Protocol):
    async def aclose(self) -> None:
        """Give back everything held. Safe to call twice and under cancellation."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Producer(_Closing, Protocol):
    """Appends Records outside any transaction. One task sends at a time; several producers may exist."""

    async def send(self, to: TopicPartition, records: Sequence[Record]) -> int:
        """Append `records` (at least one) in this order, all or none, and return the offset of the last once they are durable.

        Cancelled, it is as unknown as after OutcomeUnknownError.

        Raises:
            UnknownTopicError: there is no such topic or partition.
            TooLargeError: the topic does not take so much; nothing was appended.
            TransportError: nothing was appended; trying again is safe. Also where one has no key in a topic with compaction.
            OutcomeUnknownError: they may have been appended; trying again may make duplicates.
        """
        ...


class Consumer(_Closing, Protocol):
    """Reads committed Records. One task polls; the other methods may be called at any time, also while it waits."""

    async def poll(self, *, max_records: int = 500, max_bytes: int = 8 << 20, timeout: float = 1.0) -> Poll:
        """Wait up to `timeout` seconds for an assignment change or Records of partitions that are not paused.

        At least one Record is returned however large it is. Polling is also what keeps this member in its group: one that has
        not polled for five minutes may lose its partitions. Records of an unfinished, aborted or fenced commit are never
        returned. A poll that is cancelled loses nothing: the next one returns it.

        Raises TransportError: nothing was found out and nothing is lost; poll again.
        """
        ...

    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that are ours now, paused ones included."""
        ...

    def pause(self, *partitions: TopicPartition) -> None:
        """Return no Records of these until `resume`. The position stays. What is not ours (any more) is passed over."""
        ...

    def resume(self, *partitions: TopicPartition) -> None:
        """Undo `pause`, or begin with newly assigned partitions. What is not ours (any more) is passed over."""
        ...

    async def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read from `offset` on. An offset before the first kept Record stands for that one. FencedError if it is not ours."""
        ...

    async def position(self, partition: TopicPartition) -> int:
        """Offset of the next Record that `poll` will return of this partition, or a smaller one in a gap before it.

        Once nothing is left to read it reaches `end_offset`, also where the last Records were compacted away, so that "read
        until position >= end" ends. FencedError if the partition is not ours.
        """
        ...

    async def committed(self, partition: TopicPartition) -> Committed | None:
        """What this consumer's group has committed, of any partition; None if nothing was, or for a consumer without a group."""
        ...

    async def commit(self, offsets: dict[TopicPartition, Committed]) -> None:
        """Commit offsets of partitions that are ours.

        Raises:
            FencedError: one of them is not ours, or not any more; none of them is committed.
            TransportError: none of them is committed. Also for a consumer without a group, and for metadata that is too long.
            OutcomeUnknownError: they may have been committed; committing them again is safe.
        """
        ...

    async def beginning_offset(self, partition: TopicPartition) -> int:
        """Offset of the first Record that is still kept, or the end if there is none. UnknownTopicError, as for the next two."""
        ...

    async def end_offset(self, partition: TopicPartition) -> int:
        """The offset that the next committed Record will have at the earliest: everything readable lies below."""
        ...

    async def offset_at(self, partition: TopicPartition, timestamp_ms: int) -> int:
        """Offset of the first Record with log-append time >= `timestamp_ms`, or the end."""
        ...


class Writer(_Closing, Protocol):
    """Writes Records and a consumed offset atomically, as the only one allowed to for its group and partition."""

    @property
    def committed(self) -> Committed | None:
        """What the group had committed when this writer opened; final, for whoever might have changed it is fenced."""
        ...

    async def commit(
        self, records: Sequence[tuple[TopicPartition, Record]], offset: int, metadata: str = ""
    ) -> CommitOutcome:
        """Write all `records` and commit `offset` with `metadata`, or nothing.

        Where a log shows a commit partition by partition (Kafka does), a reader may see one part a moment before the rest.

        After anything but COMMITTED this writer is dead and raises FencedError from then on: open a new one. Cancelled, it is
        dead as after UNKNOWN. Why a commit was aborted is logged.

        Raises:
            FencedError: another writer has been opened for this partition, or this one is dead or closed; nothing was written.
            UnknownTopicError: a Record's topic or partition does not exist; nothing was written, and this writer lives on.
            TransportError: a topic cannot take one of the Records (as for `Producer.send`), or the metadata is longer than 4,000
                bytes; nothing was written, and this writer lives on.
        """
        ...


class Transport(_Closing, Protocol):
    """Where everything else of a transport comes from. Opening one connects to nothing; closing it closes what came from it."""

    async def producer(self) -> Producer:
        """A producer of its own."""
        ...

    async def consumer(self, topics: Sequence[str], *, group: str | None = None) -> Consumer:
        """A consumer of all partitions of `topics`, or with `group` of this member's share of them.

        Without a group every partition is in the first Poll's `assigned` and stays ours. Raises UnknownTopicError.
        """
        ...

    async def writer(self, group: str, source: TopicPartition) -> Writer:
        """Take `source` over for `group`: fence whoever had it, settle that one's unfinished commit, return a writer.

        Raises UnknownTopicError; ConfigurationError where this client lacks the right to, or a setting can never work.
        """
        ...

    async def committed(self, group: str, partition: TopicPartition) -> Committed | None:
        """What `group` has committed for `partition`, without becoming a member of it; None if nothing was.

        For those who watch: a Writer's commit may be under way. Raises UnknownTopicError.
        """
        ...

    async def topics(self, names: Sequence[str] | None = None) -> dict[str, TopicSpec]:
        """Those of `names` that there are, or every topic that we may see: as they are now. Never creates one.

        Raises TransportError: also where one of `names` may not be looked at.
        """
        ...

    async def create_topics(self, specs: Sequence[TopicSpec]) -> list[str]:
        """Create those that are missing and return their names. One that exists is left as it is.

        Many processes may do so at once: each topic is created once, and named in one of the answers.
        """
        ...
