"""The producing side of a transport in memory, with faults on demand that no real broker shows at a chosen moment.

It keeps what it stored, acknowledged or not. It has no consumers and writers: tests of those run on the real transports.
"""

from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Self

import anyio
import msgspec

from prela_stream.codec.spans import decode_batch
from prela_stream.errors import OutcomeUnknownError, TooLargeError, TransportError, UnknownTopicError
from prela_stream.model.span import ItemHead, ItemKind
from prela_stream.transport.base import (
    Committed,
    Consumer,
    Producer,
    Record,
    TopicPartition,
    TopicSpec,
    Transport,
    Writer,
)

Fault = Literal["fail", "unknown_stored", "unknown_lost", "hang", "surprise"]


class Sent(msgspec.Struct, frozen=True):
    """A record that reached the log."""

    to: TopicPartition
    record: Record


class MemoryTransport:
    """Args:
    topics: Name and number of partitions of each topic there is.
    """

    def __init__(self, topics: dict[str, int]) -> None:
        self.known = dict(topics)
        self.log: list[Sent] = []
        self.faults: deque[Fault] = deque()
        """What happens to the next sends, one fault each; after that `every_send`."""
        self.every_send: Fault | None = None
        """What happens to each send without another fault; None: it succeeds."""
        self.partition_faults: dict[int, Fault] = {}
        """What happens to every send to a partition."""
        self.limit = 1 << 40
        """Most bytes of a record's value."""
        self.reports_limit = True
        """Whether `topics` reports that limit."""
        self.reachable = True
        """Whether producers can be opened."""
        self.topic_reads = 0
        self.attempts = 0
        self.tried: list[tuple[int, float]] = []
        """The partition of each attempt, and for how many seconds the caller would wait for it."""
        self.opened = 0
        self.closed = 0

    async def producer(self) -> Producer:
        """A new producer; raises TransportError while not reachable."""
        await anyio.lowlevel.checkpoint()
        if not self.reachable:
            msg = "connection refused"
            raise TransportError(msg)
        self.opened += 1
        return _MemoryProducer(self)

    async def consumer(self, topics: Sequence[str], *, group: str | None = None) -> Consumer:
        """Not supported."""
        msg = "the transport in memory only produces"
        raise TransportError(msg)

    async def writer(self, group: str, source: TopicPartition) -> Writer:
        """Not supported."""
        msg = "the transport in memory only produces"
        raise TransportError(msg)

    async def committed(self, group: str, partition: TopicPartition) -> Committed | None:
        """Not supported."""
        msg = "the transport in memory only produces"
        raise TransportError(msg)

    async def topics(self, names: Sequence[str] | None = None) -> dict[str, TopicSpec]:
        """Those of `names` that exist, or every topic."""
        self.topic_reads += 1
        wanted = self.known if names is None else [name for name in names if name in self.known]
        limit = self.limit if self.reports_limit else 1 << 40
        return {name: TopicSpec(name=name, partitions=self.known[name], max_record_bytes=limit) for name in wanted}

    async def create_topics(self, specs: Sequence[TopicSpec]) -> list[str]:
        """Create those that are missing and return their names."""
        made = [spec.name for spec in specs if spec.name not in self.known]
        self.known.update((spec.name, spec.partitions) for spec in specs if spec.name in made)
        return made

    async def aclose(self) -> None:
        """Nothing is held."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def heads(self) -> list[tuple[int, ItemHead]]:
        """Partition and head of every stored item, in order."""
        found: list[tuple[int, ItemHead]] = []
        for sent in self.log:
            assert sent.record.value is not None
            batch = decode_batch(sent.record.value)
            assert not batch.bad, batch.bad[0].reason
            found += [(sent.to.partition, head) for head in batch.heads]
        return found

    def spans(self) -> list[bytes]:
        """Span ids of the stored spans, in order, duplicates included."""
        return [head.span_id for _, head in self.heads() if head.kind == ItemKind.SPAN and head.span_id is not None]

    def lost(self) -> list[tuple[int, bytes | None]]:
        """Partition and trace id of the stored LOST items."""
        return [(partition, head.trace_id) for partition, head in self.heads() if head.kind == ItemKind.LOST]


class _MemoryProducer:
    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport
        self._closed = False

    async def send(self, to: TopicPartition, records: Sequence[Record]) -> int:
        transport = self._transport
        assert not self._closed, "send on a closed producer"
        transport.attempts += 1
        transport.tried.append((to.partition, anyio.current_effective_deadline() - anyio.current_time()))
        await anyio.lowlevel.checkpoint()
        if not 0 <= to.partition < transport.known.get(to.topic, 0):
            msg = f"no {to.topic}/{to.partition}"
            raise UnknownTopicError(msg)
        if any(len(record.value or b"") > transport.limit for record in records):
            msg = "the topic does not accept a record of this size"
            raise TooLargeError(msg)
        fault = (
            transport.faults.popleft()
            if transport.faults
            else transport.partition_faults.get(to.partition, transport.every_send)
        )
        if fault == "hang":
            await anyio.sleep_forever()
        if fault == "fail":
            msg = "the broker refused"
            raise TransportError(msg)
        if fault == "surprise":
            msg = "an error that no transport may raise"
            raise RuntimeError(msg)
        if fault != "unknown_lost":
            transport.log += [Sent(to, record) for record in records]
        if fault is not None:
            msg = "the broker did not answer"
            raise OutcomeUnknownError(msg)
        return len(transport.log) - 1

    async def aclose(self) -> None:
        self._transport.closed += not self._closed
        self._closed = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def as_transport(transport: MemoryTransport) -> Transport:
    """The same object as the Protocol, so that the type checker compares the two."""
    return transport
