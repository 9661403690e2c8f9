"""The pipeline behind `record()`: one task that takes items from the bounded queue and sends them as Records.

It runs in a task group of whichever event loop opens it: the application's own, or that of `host.BackgroundPipeline`. Between two
slices of Python it sleeps for a millisecond rather than `sleep(0)`: a thread that gives the interpreter up for an instant may
well be the first to have it back. That is reasoning; bench/stall.py measures the sender as it is and not the alternative.
"""

import asyncio
import enum
import logging
import time
import weakref
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.abc

from prela_stream import telemetry
from prela_stream.codec.spans import SPANS_FORMAT, encode_batch, encode_resource
from prela_stream.codec.versions import FORMAT_HEADER
from prela_stream.delivery.ledger import FlushResult, Ledger, LedgerSnapshot
from prela_stream.delivery.options import PipelineOptions
from prela_stream.delivery.outbox import RECORD_HEADROOM, Delivery, Outbox
from prela_stream.errors import OutcomeUnknownError, TooLargeError, TransportError, UnknownTopicError, guard
from prela_stream.model.span import Resource
from prela_stream.tracing.forking import Step, at_fork
from prela_stream.tracing.open_spans import OpenSpans
from prela_stream.transport.base import Producer, Record, TopicPartition, TopicSpec, Transport
from prela_stream.transport.options import TopicOptions

logger = logging.getLogger("prela_stream")

_HEADERS: Final = ((FORMAT_HEADER, SPANS_FORMAT),)
_PAUSE: Final = 0.001
"""Seconds between two slices: at 0.3 ms of work the sender has about a quarter of the interpreter at most."""
_LOOK: Final = 0.1
"""Longest sleep while items wait: large items fill the queue by bytes before there are enough of them to wake the sender."""
_CLOSE_TIMEOUT: Final = 0.5
_SUSPECT: Final = 0.1
"""Part of `send_timeout_s` that the second attempt may take while healthy partitions wait; the third may take twice as much."""


class _Attempt(enum.Enum):
    """How one attempt to send ended."""

    ACKNOWLEDGED = enum.auto()
    FAILED = enum.auto()
    UNCERTAIN = enum.auto()
    TOO_LARGE = enum.auto()
    MISPLACED = enum.auto()
    """Nothing was tried: the topic is not what this was divided and cut for."""


class Pipeline:
    """Delivers items to the `spans` topic. Use as `async with Pipeline(…) as pipeline:`.

    A child that is forked meanwhile cannot use it: there every item is dropped for `shutdown` (`host.BackgroundPipeline` can).
    Leaving the block waits up to `shutdown_timeout_s` for what is queued and counts the rest as dropped for `shutdown`. Errors of
    the transport never leave the pipeline: it retries, also when the transport cannot be reached at the start.

    Args:
        transport: Where to send; stays the caller's to close.
        topics: Name and sizes of the `spans` topic.
        options: Bounds, batching, deadlines.
        resource: What all spans of this process share.
        ledger: Queue and account, for a host that records before the pipeline runs; default: new ones.
        outbox: What a parked pipeline had in hand; goes with its `ledger`.
        prepare: Awaited with the transport before the first producer is opened, and again if it raised TransportError: the place
            to create local topics.
        spans: Those to send heartbeats for, every `heartbeat_ms`, and to end when the pipeline closes; None: neither is done.
    """

    def __init__(
        self,
        transport: Transport,
        topics: TopicOptions,
        options: PipelineOptions,
        resource: Resource,
        *,
        ledger: Ledger | None = None,
        outbox: Outbox | None = None,
        prepare: Callable[[Transport], Awaitable[object]] | None = None,
        spans: OpenSpans | None = None,
    ) -> None:
        self._spans = spans
        self._transport = transport
        self._topics = topics
        self._options = options
        self._resource = encode_resource(resource)
        self._ledger = Ledger(options) if ledger is None else ledger
        self._prepare = prepare
        if outbox is None:
            room = self._room(topics.max_record_bytes)
            outbox = Outbox(self._ledger, options, expected_partitions=topics.partitions, max_batch_bytes=room)
        self._outbox = outbox
        self._parking = False
        self._tasks: anyio.abc.TaskGroup | None = None
        self._sender = anyio.CancelScope(
            shield=True
        )  # when the host is cancelled, `aclose` still delivers and then ends it
        self._beating = anyio.CancelScope()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wakeup = anyio.Event()
        self._stopped = anyio.Event()
        self._producer: Producer | None = None
        self._there: TopicSpec | None = None
        """The topic, as of the last look at it."""
        self._told_failure = False
        self._hurried = False
        self.record = self._ledger.queue.put
        """Takes an item; see `recorder.Recorder`. It is the queue's own method: nothing stands in between on the hot path."""

    async def __aenter__(self) -> Self:
        loop = self._loop = asyncio.get_running_loop()
        self._ledger.queue.attach(lambda: loop.call_soon_threadsafe(self._wake))
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self._run)
        if self._spans is not None and self._options.heartbeat_ms:
            self._tasks.start_soon(self._beat, self._spans, self._options.heartbeat_ms / 1000)
        _open.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._tasks is not None  # __aenter__ made it
        try:
            await self.aclose()
        finally:
            # What ran in the group has ended: an error of the block passes as it is, not in a group.
            await self._tasks.__aexit__(None, None, None)

    async def aclose(self, timeout: float | None = None) -> None:
        """End the open spans, record no more, deliver what can be delivered in `timeout` seconds (default: the option).

        The rest is counted. Safe to call twice and under cancellation.
        """
        if self._parking:
            return
        if self._spans is not None and not self._ledger.queue.closed:
            self._spans.cancel("shutdown")
        self._ledger.queue.close()
        await self._end_sender(self._options.shutdown_timeout_s if timeout is None else timeout)
        self._ledger.close()

    async def park(self, timeout: float) -> Outbox:
        """Stop sending, so that another pipeline can go on with the same ledger and the outbox that is returned."""
        self._parking = True
        await self._end_sender(timeout)
        return self._outbox

    async def _end_sender(self, timeout: float) -> None:
        self._wake()
        if self._tasks is not None:
            with anyio.CancelScope(shield=True):
                with anyio.move_on_after(timeout):
                    await self._stopped.wait()
                self._sender.cancel()
                with anyio.move_on_after(2 * _CLOSE_TIMEOUT):
                    await self._stopped.wait()
        self._ledger.queue.attach(None)

    def ledger(self) -> LedgerSnapshot:
        """Every recorded item by what became of it, at this instant. Any thread."""
        return self._ledger.snapshot()

    def refuse(self, trace_id: bytes | None) -> None:
        """Count an item that was to be recorded but could not be encoded. Any thread."""
        self._ledger.refuse(trace_id, "encode_error")

    async def aflush(self, timeout: float = 5.0) -> FlushResult:
        """Wait up to `timeout` seconds until everything recorded before this call is settled. Any event loop."""
        return await self._ledger.aflush(timeout)

    def flush(self, timeout: float = 5.0) -> FlushResult:
        """As `aflush`, blocking the calling thread. On the pipeline's own loop it cannot wait and returns at once."""
        return self._ledger.flush(0.0 if asyncio._get_running_loop() is self._loop else timeout)

    def _wake(self) -> None:
        self._wakeup.set()

    async def _run(self) -> None:
        try:
            with self._sender:
                while not self._finished():
                    with guard("pipeline.sender"):
                        await self._round()
                        continue
                    await anyio.sleep(1.0)  # an error of ours was swallowed: do not spin on it
        finally:
            self._beating.cancel()
            await self._close_producer()
            self._stopped.set()

    async def _beat(self, spans: OpenSpans, interval: float) -> None:
        """Heartbeats every `interval` seconds, in slices: there may be many thousands of open spans."""
        with self._beating:
            while True:
                await anyio.sleep(interval)
                with guard("pipeline.heartbeats"):
                    await self._beat_once(spans)

    async def _beat_once(self, spans: OpenSpans) -> None:
        longest = self._options.slice_us / 1e6
        began = time.monotonic()
        for _ in spans.heartbeats():
            if time.monotonic() - began >= longest:
                await anyio.sleep(_PAUSE)
                began = time.monotonic()

    def _finished(self) -> bool:
        queue = self._ledger.queue
        return self._parking or (queue.closed and not (len(queue) or self._outbox or self._ledger.lost))

    async def _round(self) -> None:
        """Fill for one slice, send one batch, and sleep if there is nothing to do."""
        hurry = self._ledger.flushing or self._ledger.queue.closed
        if hurry and not self._hurried:
            self._outbox.hasten()
        self._hurried = hurry
        sliced = self._outbox.fill(time.monotonic)
        delivery = self._outbox.next(time.monotonic(), hurry=hurry and not sliced)
        if delivery is not None:
            await self._deliver(delivery)
        if sliced:
            await anyio.sleep(_PAUSE)
        elif delivery is None:
            await self._sleep()
        else:
            await anyio.lowlevel.checkpoint()

    async def _sleep(self) -> None:
        """Until a batch is due, or somebody wants the sender: enough items in line, a flush, the end."""
        self._wakeup = anyio.Event()
        due = self._outbox.due()
        idle = due is None
        if not self._outbox.full and not self._ledger.queue.arm(1 if idle else self._options.batch_items):
            return
        if (self._ledger.flushing or self._ledger.queue.closed) and not self._hurried:
            return
        if self._parking or (idle and self._ledger.lost):
            return
        with anyio.move_on_after(None if due is None else min(max(due - time.monotonic(), 0.0), _LOOK)):
            await self._wakeup.wait()

    async def _deliver(self, delivery: Delivery) -> None:
        """One attempt. If it is cancelled at the end, its outcome is unknown, and `Ledger.close` says so."""
        batch = delivery.batch
        to = TopicPartition(self._topics.spans, batch.partition)
        value = encode_batch(self._resource, [item for _, _, item, _ in batch.entries])
        self._ledger.send(batch)
        attempt = _Attempt.UNCERTAIN  # what it is if the guard has to swallow an error that no transport may raise
        try:
            with guard("pipeline.send"):
                attempt = await self._attempt(to, Record(value=value, headers=_HEADERS), self._patience(delivery))
        except anyio.get_cancelled_exc_class():
            if self._parking:
                self._outbox.fail(delivery, time.monotonic(), uncertain=True)
            raise
        telemetry.AGENT_SENDS.add(1, attempt.name.lower())
        if attempt is _Attempt.ACKNOWLEDGED:
            telemetry.AGENT_BATCH_ITEMS.observe(len(batch.entries))
            telemetry.AGENT_BATCH_BYTES.observe(len(value))
            telemetry.AGENT_ACK_LATENCY.observe(time.monotonic() - batch.created)
            self._outbox.acknowledge(delivery)
            self._tell_recovery()
        elif attempt is _Attempt.TOO_LARGE:
            self._outbox.split(delivery)
        elif attempt is _Attempt.MISPLACED:
            assert self._there is not None  # somebody has just looked
            self._ledger.postpone(batch)
            self._outbox.place(self._there.partitions, self._room(self._there.max_record_bytes))
        else:
            self._outbox.fail(delivery, time.monotonic(), uncertain=attempt is _Attempt.UNCERTAIN)
        if attempt is _Attempt.UNCERTAIN:
            await self._close_producer()

    def _patience(self, delivery: Delivery) -> float:
        """Seconds that a send may take: fewer where the one before it failed and healthy partitions would have to wait."""
        longest = self._options.send_timeout_s
        if delivery.attempts and self._outbox.others_wait(delivery, time.monotonic()):
            return min(longest, longest * _SUSPECT * delivery.attempts)
        return longest

    async def _attempt(self, to: TopicPartition, record: Record, patience: float) -> _Attempt:
        sending = False
        try:
            with anyio.fail_after(self._options.send_timeout_s) as scope:
                producer = await self._open_producer()
                if not self._outbox.placed and not await self._fits():
                    return _Attempt.MISPLACED
                sending = True
                scope.deadline = min(scope.deadline, anyio.current_time() + patience)
                await producer.send(to, (record,))
        except OutcomeUnknownError as error:
            self._tell_failure(str(error))
            return _Attempt.UNCERTAIN
        except TooLargeError:
            return _Attempt.TOO_LARGE
        except UnknownTopicError as error:
            self._outbox.placed = False  # it may have been made anew, with other partitions
            self._tell_failure(str(error))
            return _Attempt.FAILED
        except TransportError as error:
            self._tell_failure(str(error))
            return _Attempt.FAILED
        except TimeoutError:
            longest = patience if sending else self._options.send_timeout_s
            self._tell_failure(f"no answer within {longest:g} s (pipeline.send_timeout_s)")
            return _Attempt.UNCERTAIN if sending else _Attempt.FAILED
        return _Attempt.ACKNOWLEDGED

    async def _open_producer(self) -> Producer:
        if self._prepare is not None:
            await self._prepare(self._transport)
            self._prepare = None
        if self._producer is None:
            self._producer = await self._transport.producer()
        return self._producer

    async def _fits(self) -> bool:
        """Look at the topic: a trace is whole only where all who record of it count its partitions alike."""
        topic = self._topics.spans
        there = (await self._transport.topics([topic])).get(topic)
        if there is None or there.partitions < 1:
            msg = f"there is no topic {topic!r}; make it with `prela-stream topics create`"
            raise UnknownTopicError(msg)
        before = self._topics.partitions if self._there is None else self._there.partitions
        self._there = there
        if there.partitions != before:
            logger.warning(
                "prela_stream: topic %s has %d partitions, not %d: spans are spread over those that there are, as its other "
                "producers do; set topics.partitions to %d, the workers insist on it.",
                topic,
                there.partitions,
                before,
                there.partitions,
            )
        if self._outbox.fits(there.partitions, self._room(there.max_record_bytes)):
            self._outbox.placed = True
            return True
        return False

    def _room(self, max_record_bytes: int) -> int:
        """Bytes of items that surely fit into a Record."""
        return max(1, max_record_bytes - len(self._resource) - RECORD_HEADROOM)

    async def _close_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with (
                guard("pipeline.close_producer"),
                anyio.CancelScope(shield=True),
                anyio.move_on_after(_CLOSE_TIMEOUT),
            ):
                await producer.aclose()

    def _tell_failure(self, reason: str) -> None:
        """Once from the first attempt that fails until nothing that failed is left."""
        if not self._told_failure:
            self._told_failure = True
            logger.warning(
                "prela_stream: spans cannot be sent (%s); they are kept in a queue of at most %d bytes and tried again for %g s. "
                "The application is not affected.",
                reason,
                self._options.max_queue_bytes,
                self._options.delivery_timeout_s,
            )

    def _tell_recovery(self) -> None:
        if self._told_failure and not self._outbox.troubled:
            self._told_failure = False
            logger.info("prela_stream: the transport accepts spans again")


_open: "weakref.WeakSet[Pipeline]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """The parent's items are the parent's to deliver, and its event loop does not run here."""
    for pipeline in list(_open):
        with guard("pipeline.fork"):
            pipeline._ledger.reset()
            pipeline._ledger.queue.attach(None)
            pipeline._ledger.close()


at_fork(Step.PIPELINE, in_child=_after_fork_in_child)
