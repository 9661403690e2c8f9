"""One assigned partition of a worker: its writer, its state, and the task that takes it over, commits and ticks.

During a rebalance a group first revokes all partitions, and then assigns most of them to the same member again. So a revoked
partition is parked: it commits what is decided and keeps its state. If it is assigned again, its state is still valid, or another
worker has opened a writer. In the second case the next commit is fenced.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from time import monotonic

import anyio

from prela_stream import telemetry
from prela_stream.assembly.base import CoreError
from prela_stream.errors import FencedError, PrelaError, TransportError
from prela_stream.transport.base import CommitOutcome, Consumer, LogRecord, TopicPartition, Writer
from prela_stream.worker.backoff import Backoff
from prela_stream.worker.commit_limit import CommitLimit
from prela_stream.worker.fault_log import FaultLog
from prela_stream.worker.intake import PoisonLimitError
from prela_stream.worker.options import WorkerOptions
from prela_stream.worker.pace import Pace
from prela_stream.worker.partition import PartitionState
from prela_stream.worker.partition_data import PartitionStatus
from prela_stream.worker.phase import APPLYING, COMMITTING, Phase
from prela_stream.worker.schedule import Schedule
from prela_stream.worker.ticks import Ticks

logger = logging.getLogger("prela_stream.worker")

_ABORT_S = 2.0
"""What a writer needs to close after a commit without a result."""
RETRY_S = 0.5
"""Pause before a failed takeover is retried."""
_CLOCK_REPORT_S = 60.0
"""Shortest time between two log lines about wrong log-append times of a partition."""


def _log_core_error(error: CoreError) -> None:
    logger.error("%s; restoring from the log", error)


class AssignedPartition:
    """One partition that the group assigned to this worker.

    ```
    TAKING_OVER ─► RESTORED ─► RUNNING ◄─► FULL
         ▲             ▲  │       │          │
         │     unpark  │  ▼       ▼          ▼   park
         │             └──────── PARKED ◄────┘
         └── a failure in RESTORED, RUNNING or FULL         give_up, stop, a failure in PARKED: ENDED
    ```

    Args:
        source: The partition.
        options: Limits of the worker.
        consumer: Reads the partition; shared with the other partitions.
        ticks: Appends ticks; shared with the other partitions.
        pace: The slices in which the worker applies records; shared with the other partitions.
        faults: What is logged about the transport; shared with the other partitions.
        open_writer: Opens a writer, which fences the earlier one.
        restore: Restores the state at the last commit that the writer found.
        on_core_error: Called if a core failed, before the partition is restored.
    """

    def __init__(
        self,
        source: TopicPartition,
        *,
        options: WorkerOptions,
        consumer: Consumer,
        ticks: Ticks,
        pace: Pace,
        faults: FaultLog,
        open_writer: Callable[[TopicPartition], Awaitable[Writer]],
        restore: Callable[[TopicPartition, Writer], Awaitable[PartitionState]],
        on_core_error: Callable[[CoreError], None] = _log_core_error,
    ) -> None:
        self._source = source
        self._options = options
        self._consumer = consumer
        self._ticks = ticks
        self._pace = pace
        self._faults = faults
        self._open_writer = open_writer
        self._restore = restore
        self._on_core_error = on_core_error
        self._phase = Phase.TAKING_OVER
        self._writer: Writer | None = None
        self._state: PartitionState | None = None
        """Present in every phase except TAKING_OVER and ENDED."""
        self._backoff = Backoff(options, RETRY_S)
        self._scope = anyio.CancelScope()
        self._committing = anyio.Lock()
        self._limit: CommitLimit | None = None
        """Of the last commit, which may be in progress."""
        self._wake = anyio.Event()
        self._core_error: CoreError | None = None
        """Why the core of the present state failed, until the partition is restored."""
        self._reported = ""
        self.poison: str | None = None
        """Why the partition is reported as poisoned; None if it is not."""
        self._clock_reported = -_CLOCK_REPORT_S
        self._schedule = Schedule(options)

    @property
    def phase(self) -> Phase:
        """What the partition does."""
        return self._phase

    @property
    def is_running(self) -> bool:
        """Whether records of this partition are applied."""
        return self._phase in APPLYING

    @property
    def is_stalled(self) -> bool:
        """Whether the partition was restored several times without a commit between."""
        return self._backoff.stalled

    def status(self) -> PartitionStatus | None:
        """The state in numbers; None unless records are applied."""
        return None if self._state is None or not self.is_running else self._state.status()

    @property
    def open_bytes(self) -> int:
        """See `PartitionState.open_bytes`; 0 in a replay, in which no trace can be decided early."""
        state = self._state
        return 0 if state is None or state.replaying or not self.is_running else state.open_bytes

    @property
    def pending_bytes(self) -> int:
        """See `PartitionState.pending_bytes`."""
        return 0 if self._state is None else self._state.pending_bytes

    def relieve(self, most_bytes: int) -> Iterator[int]:
        """Decide traces in steps until `open_bytes` is at most this; see `PartitionState.relieve`."""
        return iter(()) if (state := self._state) is None else self._in_steps(state, state.relieve(most_bytes))

    def apply(self, records: Sequence[LogRecord]) -> Iterator[int]:
        """Apply the records of a poll in steps; see `PartitionState.steps`. It ends early if the partition fails between two."""
        if (state := self._state) is None:
            return
        yield from self._in_steps(state, state.steps(records))
        if self._state is state:
            self._schedule.records_applied()
            self._report_clock(state)

    def _in_steps(self, state: PartitionState, steps: Iterator[int]) -> Iterator[int]:
        if not self.is_running or state.stopping or self._core_error is not None:
            return
        try:
            for size in steps:
                yield size
                if self._state is not state:
                    return
                if state.is_sealed or state.stopping:
                    self._wake.set()
        except CoreError as error:
            self._core_error = error
            self._wake.set()

    async def between_polls(self, *, memory_is_full: bool = False) -> None:
        """Start reading after a restore, and pause the consumer during a takeover or while too much output is pending.

        It also wakes the task of the partition if a commit or a tick is due, so that many partitions need no timers for that.
        If `memory_is_full`, any pending output is too much.
        """
        if self._phase is Phase.RESTORED and self._state is not None:
            try:
                await self._consumer.seek(self._source, self._state.position)
            except FencedError:
                return  # revoked: the next poll reports it
            self._phase = Phase.RUNNING
            self._consumer.resume(self._source)
            self._schedule.begin()
            self._wake.set()
        elif self._phase is Phase.TAKING_OVER:
            self._consumer.pause(self._source)
        elif self.is_running and self._state is not None:
            # a replay cannot commit, so it must not wait for a commit
            most = 1 if memory_is_full else self._backoff.most_pending_bytes
            full = not self._state.replaying and self._state.pending_bytes >= most
            if full and self._phase is Phase.RUNNING:
                self._phase = Phase.FULL
                self._consumer.pause(self._source)
            elif not full and self._phase is Phase.FULL:
                self._phase = Phase.RUNNING
                self._consumer.resume(self._source)
            self._wake_if_due(self._state)

    def _wake_if_due(self, state: PartitionState) -> None:
        try:
            if not self._schedule.commit_is_due(state) and not self._schedule.tick_is_due(state):
                return
        except CoreError as error:
            self._core_error = error
        self._wake.set()

    def park(self) -> bool:
        """A rebalance revoked the partition: apply no records until `unpark` or `give_up`. False: there is no state to keep."""
        if self._state is None:
            return False
        self._phase = Phase.PARKED
        self._wake.set()  # from now on `between_polls` does not
        return True

    def unpark(self) -> bool:
        """The partition is assigned again. False: its state was lost, and a new object has to take it over."""
        if self._phase is not Phase.PARKED or self._state is None:
            return False
        self._phase = Phase.RESTORED
        return True

    async def run(self) -> None:
        """Take the partition over and work on it, until it is given up or fails while it is parked."""
        with self._scope:
            while self._phase is not Phase.ENDED:
                try:
                    if self._phase is Phase.TAKING_OVER:
                        await self._take_over()
                    await self._turn()
                except FencedError as error:
                    telemetry.WORKER_FENCES.add()
                    logger.info("%s: this worker lost the partition: %s", self._source, error)
                    await self._fail()
                except TransportError as error:
                    self._report(error, "restoring from the log")
                    await self._fail()
                except CoreError as error:
                    self._on_core_error(error)
                    await self._fail()

    async def _take_over(self) -> None:
        began = monotonic()
        self._writer = await self._open_writer(self._source)
        self._state = await self._restore(self._source, self._writer)
        self._state.commit_bytes = self._backoff.commit_bytes
        self._phase = Phase.RESTORED
        telemetry.WORKER_RESTORE_SECONDS.observe(monotonic() - began)

    def _report_clock(self, state: PartitionState) -> None:
        for jump in state.take_clock_jumps():
            if state.replaying:
                continue
            telemetry.WORKER_CLOCK_JUMPS.add(1, "ahead" if jump.jump_ms > 0 else "back")
            if monotonic() - self._clock_reported >= _CLOCK_REPORT_S:
                self._clock_reported = monotonic()
                logger.warning(
                    "%s: the log-append time of offset %d is %.0f s %s; stream time does not follow it. Check the "
                    "clock of the broker, or of the machine that writes the local log",
                    self._source,
                    jump.offset,
                    abs(jump.jump_ms) / 1000,
                    "ahead of the next record" if jump.jump_ms > 0 else "behind stream time",
                )

    def _report_poison(self, poison: str | None) -> None:
        if self._options.poison_action == "stop" and poison is not None:
            raise PoisonLimitError(poison)
        if poison is not None and self.poison is None:
            logger.error("%s", poison)
        elif poison is None and self.poison is not None:
            logger.warning("%s: the share of unreadable items is below worker.poison_limit again", self._source)
        self.poison = poison

    def _report(self, error: TransportError, consequence: str) -> None:
        if self._reported != str(error):  # once, until a commit lands
            self._reported = str(error)
            if self._faults.is_new(str(error)):
                logger.warning("%s: %s; %s", self._source, error, consequence)

    async def _fail(self) -> None:
        telemetry.WORKER_FAILURES.add()
        stalled = self._backoff.stalled
        self._backoff.failed(restored=self._writer is not None)
        await self._discard(Phase.ENDED if self._phase is Phase.PARKED else Phase.TAKING_OVER)
        if self._phase is Phase.ENDED:
            return
        if self._backoff.stalled and not stalled and self._faults.is_new(f"no progress: {self._reported}"):
            logger.error(
                "%s makes no progress: it failed %d times without a commit. The last error: %s. The next commit has "
                "%.0f s (worker.commit_timeout_s: %g). If commits are too slow, check the load of this machine and of brokers",
                self._source,
                self._backoff.failures,
                self._reported or "none was reported",
                self._backoff.commit_timeout_s,
                self._options.commit_timeout_s,
            )
        await anyio.sleep(self._backoff.retry_s)

    async def _turn(self) -> None:
        if rest_s := self._schedule.rest_s(self._state, can_commit=self._phase in COMMITTING):
            with anyio.move_on_after(rest_s):
                await self._wake.wait()
        self._wake = anyio.Event()
        if self._core_error is not None:
            raise self._core_error
        state = self._state
        if state is None or self._phase not in COMMITTING:
            return
        if self._schedule.commit_is_due(state):
            await self._commit(state, self._backoff.commit_timeout_s)
        if self._state is state and self.is_running and self._schedule.tick_is_due(state):
            await self._tick()

    async def _commit(self, state: PartitionState, within_s: float) -> None:
        async with self._committing:
            writer = self._writer
            if writer is None or self._state is not state:
                return  # a commit failed just now, so this state is no longer valid
            pending = state.freeze()
            began = self._schedule.commit_begins()
            outcome, ended = CommitOutcome.UNKNOWN, "fenced"
            self._limit = CommitLimit(within_s)
            try:
                with self._pace.committing(), self._limit.applies_to(writer):
                    outcome = await writer.commit(pending.records, pending.offset, pending.metadata)
                ended = outcome.value
            finally:
                took = monotonic() - began
                telemetry.WORKER_COMMITS.add(1, ended)
                telemetry.WORKER_COMMIT_SECONDS.observe(took, ended)
        if outcome is not CommitOutcome.COMMITTED:
            if outcome is CommitOutcome.UNKNOWN:
                self._backoff.unknown()
            msg = f"the commit of {self._source} up to offset {pending.offset} was {outcome.value}"
            raise TransportError(msg)
        self._backoff.landed(took)
        state.commit_bytes = self._backoff.commit_bytes
        self._reported = ""
        self._faults.clear()
        pending.tally.publish(time.time() * 1000)
        if pending.poison_known:
            self._report_poison(pending.poison)

    async def _tick(self) -> None:
        self._schedule.tick_begins()
        try:
            await self._ticks.send(self._source)
        except TransportError as error:  # a later tick moves the clock; nothing is lost
            self._report(error, "no tick was appended; decisions of this partition are delayed")

    async def _discard(self, phase: Phase) -> None:
        self._phase = phase
        self._state = self._core_error = None
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.aclose()

    def hurry(self, within_s: float) -> None:
        """Limit the time that a commit in progress still has, because the worker or the assignment ends."""
        if self._limit is not None:
            self._limit.hurry(within_s)

    async def give_up(self) -> None:
        """The partition belongs to another worker now: discard everything without a commit."""
        self._scope.cancel()
        self.hurry(self._options.commit_timeout_s)
        with anyio.CancelScope(shield=True):
            async with self._committing:
                await self._discard(Phase.ENDED)

    async def stop(self, within_s: float) -> None:
        """Commit what is decided, if that takes no longer than `within_s`, and close the writer.

        A stop is not a reason to decide a trace.
        """
        self._scope.cancel()
        state = self._state
        try:
            until = monotonic() + within_s
            while state is not None and state.has_news and self._state is state and (left := until - monotonic()) > 0:
                await self._commit(state, min(max(left / 2, left - _ABORT_S), self._backoff.commit_timeout_s))
        except PoisonLimitError as error:
            logger.warning("%s", error)
        except PrelaError as error:
            telemetry.WORKER_FENCES.add(isinstance(error, FencedError))
            logger.warning(
                "%s: the last commit before the stop failed (%s); the next worker repeats its work", self._source, error
            )
        await self._discard(Phase.ENDED)
