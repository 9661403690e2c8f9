"""Appends records to `spans` and reports when they are acknowledged.

Each partition has its own task and producer, so that a partition without a leader delays no other. Requests that wait for one
partition share a batch.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from time import monotonic
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.abc

from prela_stream import telemetry
from prela_stream.errors import OutcomeUnknownError, PrelaError, TooLargeError, TransportError, UnknownTopicError, guard
from prela_stream.measures import Collected
from prela_stream.otlp.records import PackedRecord
from prela_stream.otlp.topics import require_topics
from prela_stream.transport.base import Producer, Record, TopicPartition, Transport
from prela_stream.transport.options import TopicOptions

_RETRY_S: Final = 1.0
_CLOSE_S: Final = 0.5
_NOT_REACHED: Final = "the log has not been reached yet"


class QueueFullError(PrelaError):
    """Too many bytes wait in memory. Nothing of the request was appended; a retry may succeed."""


class _Answer:
    """What a request waits for."""

    def __init__(self, records: int) -> None:
        self._left = records
        self.done = anyio.Event()
        self.error: TransportError | None = None
        self.abandoned = False

    def add(self, error: TransportError | None) -> None:
        self._left -= 1
        self.error = self.error or error
        if error is not None or not self._left:
            self.done.set()


class Sender:
    """Appends records. Use as `async with Sender(…) as sender:`.

    Args:
        transport: Where to send; the caller closes it.
        topics: The names of the topics.
        max_bytes: What may wait in memory.
        answer_s: Seconds that `send` waits.
    """

    def __init__(self, transport: Transport, topics: TopicOptions, *, max_bytes: int, answer_s: float) -> None:
        self._transport = transport
        self._topics = topics
        self._max_bytes = max_bytes
        self._answer_s = answer_s
        self._lanes: dict[int, _Lane] = {}
        self._tasks: anyio.abc.TaskGroup | None = None
        self._bytes = 0
        self.failure = _NOT_REACHED
        """Why nothing can be appended now; empty if the last attempt succeeded."""
        self._checked = False
        telemetry.register(self)

    async def __aenter__(self) -> Self:
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self._check_topics)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel()
        try:
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            with anyio.CancelScope(shield=True):
                for lane in self._lanes.values():
                    await lane.close()

    def reserve(self, size: int) -> None:
        """Count bytes that wait in memory; raises QueueFullError if they are too many."""
        if self._bytes and self._bytes + size > self._max_bytes:
            msg = (
                f"{self._bytes:,} bytes wait for the log already, of {self._max_bytes:,} (otlp.max_queue_bytes): "
                "send again later"
            )
            raise QueueFullError(msg)
        self._bytes += size

    def release(self, size: int) -> None:
        """The opposite of `reserve`."""
        self._bytes -= size

    async def send(self, records: Sequence[PackedRecord]) -> None:
        """Append records, and return once all of them are acknowledged.

        Raises:
            QueueFullError: Too much waits already; nothing was appended.
            TransportError: Some of them may not be stored. If they are sent again, workers remove what is there twice.
        """
        if not records:
            return
        if not self._checked:
            msg = f"spans cannot be stored: {self.failure}"
            raise TransportError(msg)
        self.reserve(sum(one.size for one in records))
        answer = _Answer(len(records))
        began = monotonic()
        for one in records:
            self._lane(one.partition).add(one, answer)
        try:
            with anyio.fail_after(self._answer_s):
                await answer.done.wait()
        except TimeoutError as error:
            msg = f"the log did not acknowledge all records within {self._answer_s:g} s (otlp.answer_timeout_ms)"
            raise OutcomeUnknownError(msg) from error
        finally:
            answer.abandoned = True
        if answer.error is not None:
            raise answer.error
        telemetry.OTLP_ACK_LATENCY.observe(monotonic() - began)

    async def refresh(self) -> None:
        """Nothing: the numbers are always up to date."""

    def problems(self, max_lag_s: float) -> list[str]:  # noqa: ARG002 - the interface
        """Why spans cannot be taken now; empty if they can."""
        return [f"spans cannot be stored: {self.failure}"] if self.failure else []

    def collect(self) -> Iterator[Collected]:
        """The bytes that wait."""
        yield telemetry.OTLP_QUEUE_BYTES, self._bytes, ()

    def _lane(self, partition: int) -> "_Lane":
        lane = self._lanes.get(partition)
        if lane is None:
            assert self._tasks is not None  # `send` is called inside of the block
            to = TopicPartition(self._topics.spans, partition)
            lane = self._lanes[partition] = _Lane(
                self, self._transport, to, self._topics.max_record_bytes, self._answer_s
            )
            self._tasks.start_soon(lane.run, name=f"otlp {to}")
        return lane

    async def _check_topics(self) -> None:
        """Read the topics until it succeeds. Raises UnknownTopicError or TopicMismatchError."""
        while True:
            try:
                await require_topics(self._transport, self._topics)
            except UnknownTopicError:
                raise
            except TransportError as error:
                self.failure = str(error)
                await anyio.sleep(_RETRY_S)
                continue
            self.failure, self._checked = "", True
            return


class _Lane:
    """The records of one partition, in order."""

    def __init__(
        self, sender: Sender, transport: Transport, to: TopicPartition, max_bytes: int, timeout_s: float
    ) -> None:
        self._sender = sender
        self._transport = transport
        self._to = to
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._waiting: deque[tuple[PackedRecord, _Answer]] = deque()
        self._wakeup = anyio.Event()
        self._producer: Producer | None = None

    def add(self, record: PackedRecord, answer: _Answer) -> None:
        """Queue a record."""
        self._waiting.append((record, answer))
        self._wakeup.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            if not self._waiting:
                self._wakeup = anyio.Event()
                await self._wakeup.wait()
            batch = self._take()
            if batch:
                await self._deliver(batch)

    def _take(self) -> list[tuple[PackedRecord, _Answer]]:
        """The next records that fit into one batch. Those whose request has given up are removed: it sends them again."""
        batch: list[tuple[PackedRecord, _Answer]] = []
        size = 0
        while self._waiting:
            record, answer = self._waiting[0]
            if answer.abandoned:
                self._waiting.popleft()
                self._sender.release(record.size)
                continue
            if batch and size + record.size > self._max_bytes:
                break
            size += record.size
            batch.append(self._waiting.popleft())
        return batch

    async def _deliver(self, batch: list[tuple[PackedRecord, _Answer]]) -> None:
        error = await self._attempt([record.record for record, _ in batch])
        if isinstance(error, TooLargeError) and len(batch) > 1:
            for one in batch:
                await self._deliver([one])
            return
        self._sender.failure = "" if error is None else str(error)
        telemetry.OTLP_SENDS.add(1, "acknowledged" if error is None else "failed")
        for record, answer in batch:
            self._sender.release(record.size)
            answer.add(error)

    async def _attempt(self, records: Sequence[Record]) -> TransportError | None:
        """Send once. Returns why the records may not be stored."""
        problem = TransportError(f"records for {self._to} were not stored, because of a defect that the log names")
        with guard("otlp.send"):
            try:
                with anyio.fail_after(self._timeout_s):
                    if self._producer is None:
                        self._producer = await self._transport.producer()
                    await self._producer.send(self._to, records)
                return None
            except TimeoutError:
                problem = OutcomeUnknownError(f"{self._to} did not answer within {self._timeout_s:g} s")
            except TransportError as error:
                problem = error
            if isinstance(problem, OutcomeUnknownError):
                await self.close()
        return problem

    async def close(self) -> None:
        """Close the producer; the next attempt opens another one."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with guard("otlp.close"), anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSE_S):
                await producer.aclose()
