"""One partition that is ours: its writer, its state, and the task that takes it over, commits and ticks.

A group that shares its partitions out anew takes all of them back first, and most come straight back to where they were. So what
is taken back is parked: it commits what it has decided and keeps its state. Whether that is still good when the partition comes
back needs no question: had anybody else opened a writer meanwhile, ours would be fenced with its next commit.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from time import monotonic

import anyio

from prela_stream import telemetry
from prela_stream.errors import FencedError, PrelaError, TransportError
from prela_stream.transport.base import CommitOutcome, Consumer, LogRecord, Producer, TopicPartition, Writer
from prela_stream.worker.options import WorkerOptions
from prela_stream.worker.partition import PartitionState, tick_record

logger = logging.getLogger("prela_stream.worker")

RETRY_S = 0.5
"""Pause before a take-over that failed is tried again."""


class Ticks:
    """Appends ticks for all partitions of a worker: a producer takes one send at a time.

    Args:
        producer: What they are sent with.
        timeout_s: How long one may take.
    """

    def __init__(self, producer: Producer, timeout_s: float) -> None:
        self._producer = producer
        self._timeout_s = timeout_s
        self._sending = anyio.Lock()

    async def send(self, to: TopicPartition) -> None:
        """One tick, or none if that takes too long: somebody ticks again. Raises TransportError."""
        with anyio.move_on_after(self._timeout_s):
            async with self._sending:
                await self._producer.send(to, [tick_record()])


class AssignedPartition:
    """One partition that is ours.

    Args:
        source: The partition.
        options: Limits of the worker.
        consumer: What the partition is read with; shared with the others.
        ticks: What moves the log's clock; shared with the others.
        open_writer: Takes the partition over.
        restore: Makes the state at the last commit, as the writer found it.
    """

    def __init__(
        self,
        source: TopicPartition,
        *,
        options: WorkerOptions,
        consumer: Consumer,
        ticks: Ticks,
        open_writer: Callable[[TopicPartition], Awaitable[Writer]],
        restore: Callable[[TopicPartition, Writer], Awaitable[PartitionState]],
    ) -> None:
        self._source = source
        self._options = options
        self._consumer = consumer
        self._ticks = ticks
        self._open_writer = open_writer
        self._restore = restore
        self._writer: Writer | None = None
        self._state: PartitionState | None = None
        self._restored: PartitionState | None = None
        self._scope = anyio.CancelScope()
        self._committing = anyio.Lock()
        self._wake = anyio.Event()
        self._parked = False
        self._paused = False
        self._complained = ""
        self._last_commit = self._last_record = self._last_tick = monotonic()

    @property
    def state(self) -> PartitionState | None:
        """The live state; None while it is being restored."""
        return self._state

    def apply(self, record: LogRecord) -> None:
        """Apply one Record of this partition."""
        state = self._state
        assert state is not None
        state.apply(record)
        self._last_record = monotonic()
        if state.pending_bytes >= self._options.commit_bytes:
            self._wake.set()

    async def settle(self) -> None:
        """Between two polls: start what was restored, stop what broke, hold back what is too far ahead of its commits."""
        if self._restored is not None:
            try:
                await self._consumer.seek(self._source, self._restored.position)
            except FencedError:
                return  # lost meanwhile: the next poll says so, or brings it again
            self._state, self._restored = self._restored, None
            self._consumer.resume(self._source)
            self._paused = False
            self._last_commit = self._last_record = monotonic()
        elif self._state is None:
            self._consumer.pause(self._source)
        else:
            # in a replay nothing is committed, so waiting for that would be for ever
            full = not self._state.replaying and self._state.pending_bytes >= 4 * self._options.commit_bytes
            if full and not self._paused:
                self._consumer.pause(self._source)
            elif self._paused and not full:
                self._consumer.resume(self._source)
            self._paused = full

    def park(self) -> bool:
        """The group is sharing out anew: take in nothing, until `unpark` or `give_up`. False: there is nothing to keep."""
        self._parked = self._has_something
        return self._parked

    @property
    def _has_something(self) -> bool:
        return self._writer is not None and (self._state is not None or self._restored is not None)

    def unpark(self) -> bool:
        """It came back, and goes on where it was. False: that is lost, it has to be taken over anew, by a new object."""
        if not self._has_something:
            return False
        if self._state is not None:
            self._state, self._restored = None, self._state
        self._parked = False
        return True

    async def run(self) -> None:
        """Take the partition over and keep it going until it is given up, or lost while it is parked."""
        with self._scope:
            while not self._parked or self._writer is not None:
                try:
                    if self._writer is None:
                        began = monotonic()
                        self._writer = await self._open_writer(self._source)
                        self._restored = await self._restore(self._source, self._writer)
                        telemetry.WORKER_RESTORE_SECONDS.observe(monotonic() - began)
                    await self._turn()
                except FencedError:
                    telemetry.WORKER_FENCES.add()
                    logger.info("%s was taken over by another worker", self._source)
                    await self._fail()
                except TransportError as error:
                    self._complain(error, "restoring from the log")
                    await self._fail()

    def _complain(self, error: TransportError, consequence: str) -> None:
        if self._complained != str(error):  # once, until a commit has gone well
            self._complained = str(error)
            logger.warning("%s: %s; %s", self._source, error, consequence)

    async def _fail(self) -> None:
        telemetry.WORKER_FAILURES.add()
        await self._discard()
        if not self._parked:
            await anyio.sleep(RETRY_S)  # if the group still says that it is ours, take it back

    async def _turn(self) -> None:
        wait = self._options.tick_min_ms / 1000
        with anyio.move_on_after(wait):
            await self._wake.wait()
        self._wake = anyio.Event()
        state = self._state
        if state is None:
            return
        due = monotonic() - self._last_commit >= self._options.commit_interval_ms / 1000
        if (due or state.pending_bytes >= self._options.commit_bytes) and state.has_news:
            await self._commit(state)
        if self._state is state and not state.replaying and not self._parked:
            await self._tick(state)

    async def _commit(self, state: PartitionState) -> None:
        assert self._writer is not None
        async with self._committing:
            frozen = state.freeze()
            began = self._last_commit = monotonic()
            outcome, ended = CommitOutcome.UNKNOWN, "fenced"
            try:
                with anyio.move_on_after(self._options.commit_timeout_s, shield=True):  # half a commit helps nobody
                    outcome = await self._writer.commit(frozen.records, frozen.offset, frozen.metadata)
                ended = outcome.value
            finally:
                telemetry.WORKER_COMMITS.add(1, ended)
                telemetry.WORKER_COMMIT_SECONDS.observe(monotonic() - began, ended)
        if outcome is not CommitOutcome.COMMITTED:
            msg = f"the commit of {self._source} up to offset {frozen.offset} was {outcome.value}"
            raise TransportError(msg)
        frozen.tally.publish(time.time() * 1000)
        self._complained = ""

    async def _tick(self, state: PartitionState) -> None:
        """Move the log's clock where nobody else does and somebody waits for it."""
        now = monotonic()
        silent_ms = (now - self._last_record) * 1000
        wait = state.ms_to_next_deadline()
        if wait is None or (now - self._last_tick) * 1000 < self._options.tick_min_ms:
            return
        if silent_ms >= min(wait, self._options.tick_max_ms):
            self._last_tick = now
            try:
                await self._ticks.send(self._source)
            except TransportError as error:  # the clock stands still a little longer, and nothing is lost
                self._complain(error, "the log's clock was not moved")

    async def _discard(self) -> None:
        self._state = self._restored = None
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.aclose()

    async def give_up(self) -> None:
        """The partition is somebody else's now: drop everything without writing."""
        self._scope.cancel()
        with anyio.CancelScope(shield=True):
            async with self._committing:
                await self._discard()

    async def stop(self) -> None:
        """A clean stop: commit what is decided. Stopping is no reason to decide anything."""
        self._scope.cancel()
        state = self._state or self._restored
        try:
            if state is not None and self._writer is not None and state.has_news and not state.replaying:
                await self._commit(state)
        except PrelaError as error:
            telemetry.WORKER_FENCES.add(isinstance(error, FencedError))
            logger.warning("%s: the last commit failed (%s); the next worker does it again", self._source, error)
        await self._discard()
