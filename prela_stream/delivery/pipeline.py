"""The pipeline behind `record()`: one task that takes items from the bounded queue and sends them as records.

It runs in a task group of the event loop that opens it: the application's own, or that of `background.BackgroundPipeline`.
Between two slices of Python it sleeps for a millisecond. With `sleep(0)` the thread may get the interpreter back at once. That
is reasoning: bench/stall.py measures the sender as it is and not the alternative.
"""

import asyncio
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.abc

from prela_stream import telemetry
from prela_stream.delivery.attempt import CLOSE_TIMEOUT, AttemptResult, Attempts
from prela_stream.delivery.flush import FlushResult
from prela_stream.delivery.ledger import Ledger, LedgerSnapshot
from prela_stream.delivery.outbox import Delivery, Outbox
from prela_stream.delivery.setup import PipelineSetup
from prela_stream.delivery.timeouts import seconds
from prela_stream.errors import guard
from prela_stream.tracing.forking import Step, at_fork
from prela_stream.tracing.open_spans import OpenSpans
from prela_stream.transport.base import Transport

_PAUSE: Final = 0.001
"""Seconds between two slices: at 0.3 ms of work the sender has about a quarter of the interpreter at most."""
_LONGEST_SLEEP: Final = 0.1
"""Seconds of sleep while items wait: large items fill the queue by bytes before there are enough of them to wake the sender."""


class Pipeline:
    """Delivers items to the `spans` topic. Use as `async with Pipeline(…) as pipeline:`.

    A child that is forked inside the block cannot use it: every item of the child is dropped for `shutdown`. A
    `BackgroundPipeline` can be used there.
    Leaving the block waits up to `shutdown_timeout_s` for what is queued and counts the rest as dropped for `shutdown`. Errors of
    the transport never leave the pipeline: it retries, also if the transport cannot be reached at the start.

    Args:
        transport: Where to send; the caller closes it.
        setup: Topic, options, resource.
        ledger: Queue and counts, if items are recorded before the pipeline runs; default: new ones.
        outbox: Batches of a parked pipeline, with the same `ledger`.
    """

    def __init__(
        self,
        transport: Transport,
        setup: PipelineSetup,
        *,
        ledger: Ledger | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        self._open_spans = setup.open_spans
        self._options = setup.options
        self._ledger = Ledger(setup.options) if ledger is None else ledger
        self._attempts = Attempts(transport, setup, self._ledger, outbox)
        self._outbox = self._attempts.outbox
        self._parking = False
        self._tasks: anyio.abc.TaskGroup | None = None
        # Shielded, because `aclose` still delivers after the caller was cancelled, and then cancels it.
        self._sender_scope = anyio.CancelScope(shield=True)
        self._heartbeat_scope = anyio.CancelScope()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wakeup = anyio.Event()
        self._stopped = anyio.Event()
        self._was_flushing = False
        self.record: Callable[..., None] = self._ledger.queue.put
        """Takes an item; see `recorder.Recorder`. The method of the queue, so the hot path has no further call."""

    async def __aenter__(self) -> Self:
        loop = self._loop = asyncio.get_running_loop()
        self._ledger.queue.attach(lambda: loop.call_soon_threadsafe(self._wake))
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self._run)
        if self._open_spans is not None and self._options.heartbeat_ms:
            self._tasks.start_soon(self._send_heartbeats, self._open_spans, self._options.heartbeat_ms / 1000)
        _open.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._tasks is not None  # __aenter__ made it
        try:
            await self.aclose()
        finally:
            # The tasks of the group have ended: an error of the block passes unchanged, not in a group.
            await self._tasks.__aexit__(None, None, None)

    async def aclose(self, timeout: float | None = None) -> None:
        """End the open spans, record no more, deliver what can be delivered in `timeout` seconds (default: the option).

        The rest is counted. Safe to call twice and under cancellation.
        """
        if self._parking:
            return
        if self._open_spans is not None and not self._ledger.queue.closed:
            self._open_spans.cancel("shutdown")
        self._ledger.queue.close()
        await self._end_sender(seconds(timeout, self._options.shutdown_timeout_s))
        self._ledger.close()

    async def park(self, timeout: float) -> Outbox:
        """Stop sending, so that another pipeline can continue with the same ledger and the outbox that is returned."""
        self._parking = True
        await self._end_sender(timeout)
        return self._outbox

    async def _end_sender(self, timeout: float) -> None:
        self._wake()
        if self._tasks is not None:
            with anyio.CancelScope(shield=True):
                with anyio.move_on_after(timeout):
                    await self._stopped.wait()
                self._sender_scope.cancel()
                with anyio.move_on_after(2 * CLOSE_TIMEOUT):
                    await self._stopped.wait()
        self._ledger.queue.attach(None)

    def ledger(self) -> LedgerSnapshot:
        """Every recorded item by its class, at this instant. Any thread."""
        return self._ledger.snapshot()

    def refuse(self, trace_id: bytes | None) -> None:
        """Count an item as recorded and dropped that could not be encoded. Any thread."""
        self._ledger.refuse(trace_id, "encode_error")

    async def aflush(self, timeout: float = 5.0) -> FlushResult:
        """Wait up to `timeout` seconds until everything recorded before this call has a result. Any event loop."""
        return await self._ledger.aflush(timeout)

    def flush(self, timeout: float = 5.0) -> FlushResult:
        """As `aflush`, blocking the calling thread. On the pipeline's own loop it cannot wait and returns at once."""
        return self._ledger.flush(0.0 if asyncio._get_running_loop() is self._loop else timeout)

    def _wake(self) -> None:
        self._wakeup.set()

    async def _run(self) -> None:
        try:
            with self._sender_scope:
                while not self._finished():
                    with guard("pipeline.sender"):
                        await self._round()
                        continue
                    await anyio.sleep(1.0)  # an error was swallowed: do not repeat it in a busy loop
        finally:
            self._heartbeat_scope.cancel()
            await self._attempts.close_producer()
            self._stopped.set()

    async def _send_heartbeats(self, spans: OpenSpans, interval: float) -> None:
        """Send heartbeats every `interval` seconds, in slices: there may be many thousands of open spans."""
        with self._heartbeat_scope:
            while True:
                await anyio.sleep(interval)
                with guard("pipeline.heartbeats"):
                    await self._send_heartbeats_once(spans)

    async def _send_heartbeats_once(self, spans: OpenSpans) -> None:
        longest = self._options.slice_us / 1e6
        began = time.monotonic()
        for _ in spans.heartbeats():
            if time.monotonic() - began >= longest:
                await anyio.sleep(_PAUSE)
                began = time.monotonic()

    def _finished(self) -> bool:
        queue = self._ledger.queue
        return self._parking or (queue.closed and not (len(queue) or self._outbox or self._ledger.lost))

    @property
    def _flushing(self) -> bool:
        """Whether a flush or the end of the pipeline waits for what is queued."""
        return self._ledger.flushing or self._ledger.queue.closed

    async def _round(self) -> None:
        """Fill batches for one slice, send one batch, and sleep if there is nothing to do."""
        flushing = self._flushing
        if flushing and not self._was_flushing:
            self._outbox.retry_now()
        self._was_flushing = flushing
        sliced = self._outbox.fill(time.monotonic)
        delivery = self._outbox.next(time.monotonic(), flushing=flushing and not sliced)
        if delivery is not None:
            await self._deliver(delivery)
        if sliced:
            await anyio.sleep(_PAUSE)
        elif delivery is None:
            await self._sleep()
        else:
            await anyio.lowlevel.checkpoint()

    async def _sleep(self) -> None:
        """Sleep until a batch is due or the sender is woken: by enough queued items, a flush, or the end."""
        self._wakeup = anyio.Event()
        due = self._outbox.due()
        idle = due is None
        if not self._outbox.full and not self._ledger.queue.wake_at(1 if idle else self._options.batch_items):
            return
        if self._flushing and not self._was_flushing:
            return
        if self._parking or (idle and self._ledger.lost):
            return
        with anyio.move_on_after(None if due is None else min(max(due - time.monotonic(), 0.0), _LONGEST_SLEEP)):
            await self._wakeup.wait()

    async def _deliver(self, delivery: Delivery) -> None:
        """Make one attempt and count its result. If it is cancelled at the end, `Ledger.close` counts it as unknown."""
        self._ledger.mark_in_flight(delivery.batch)
        result = AttemptResult.UNCERTAIN  # if the guard swallows an error that no transport may raise
        try:
            with guard("pipeline.send"):
                result = await self._attempts.send(delivery, time.monotonic())
        except anyio.get_cancelled_exc_class():
            if self._parking:
                self._outbox.retry_later(delivery, time.monotonic(), uncertain=True)
            raise
        telemetry.AGENT_SENDS.add(1, result.name.lower())
        if result is AttemptResult.ACKNOWLEDGED:
            telemetry.AGENT_ACK_LATENCY.observe(time.monotonic() - delivery.batch.created)
            self._outbox.acknowledge(delivery)
            self._attempts.log_recovery()
        elif result is AttemptResult.TOO_LARGE:
            self._outbox.split(delivery)
        elif result is AttemptResult.OTHER_PARTITIONS:
            self._ledger.requeue(delivery.batch)
            self._attempts.repartition()
        else:
            uncertain = result is AttemptResult.UNCERTAIN
            self._outbox.retry_later(delivery, time.monotonic(), uncertain=uncertain)
            if uncertain:
                await self._attempts.close_producer()


_open: "weakref.WeakSet[Pipeline]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """The parent process delivers its items, and its event loop does not run here."""
    for pipeline in list(_open):
        with guard("pipeline.fork"):
            pipeline._ledger.reset()
            pipeline._ledger.queue.attach(None)
            pipeline._ledger.close()


at_fork(Step.PIPELINE, in_child=_after_fork_in_child)
