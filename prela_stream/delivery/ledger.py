"""The ledger of delivery: at every instant, read from any thread, every recorded item is in exactly one class.

`recorded = acknowledged + dropped + unknown + queued + in_flight`. Every move between classes happens under the queue's lock.
Each side is counted separately, so the equation is a check and not a definition.

The LOST items that the pipeline makes were not recorded, so they are not part of the equation. They are counted separately. If
one is not delivered, its trace is added to the lost traces again.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence

import anyio
import msgspec

from prela_stream import telemetry
from prela_stream.delivery.batch import DropReason, Entry, Outcome, ProducerBatch
from prela_stream.delivery.flush import FlushResult, PendingFlush, PendingFlushes, notify
from prela_stream.delivery.lost_traces import LostTraces
from prela_stream.delivery.options import PipelineOptions
from prela_stream.delivery.queue import BoundedQueue, Refusal
from prela_stream.delivery.timeouts import DEFAULT_FLUSH_S, seconds
from prela_stream.measures import Collected


class Dropped(msgspec.Struct, frozen=True, kw_only=True):
    """Items that were dropped, by reason."""

    queue_full: int = 0
    """Found no room, or made room for a newer one."""
    too_old: int = 0
    """Could not be delivered within `delivery_timeout_s`."""
    shutdown: int = 0
    """Still queued when the pipeline closed, or recorded after that."""
    encode_error: int = 0
    """Could not be encoded, or are larger than a record may be."""

    @property
    def total(self) -> int:
        """Items dropped for any reason."""
        return sum(msgspec.structs.astuple(self))


class LedgerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger at one instant, in items."""

    recorded: int
    acknowledged: int
    """Durable, as reported by the transport."""
    dropped: Dropped
    unknown: int
    """Sent, but the transport had not reported a result by the deadline."""
    queued: int
    in_flight: int
    lost_traces: int
    """Traces that lost items, and of which the workers have not been warned yet. Not part of the equation."""
    lost_items_sent: int
    """LOST items that were acknowledged. Not part of the equation."""

    @property
    def balances(self) -> bool:
        """Whether every item is in exactly one class."""
        ended = self.acknowledged + self.dropped.total + self.unknown
        return self.recorded == ended + self.queued + self.in_flight

    def __str__(self) -> str:
        dropped = ", ".join(f"{reason} {n}" for reason, n in msgspec.structs.asdict(self.dropped).items() if n)
        return (
            f"recorded {self.recorded} = acknowledged {self.acknowledged} + dropped "
            f"{self.dropped.total}{f' ({dropped})' if dropped else ''} + unknown {self.unknown} + queued {self.queued} "
            f"+ in flight {self.in_flight}{'' if self.balances else ' DOES NOT BALANCE'}"
        )


class Ledger:
    """Counts the items of a queue by class. It owns the queue, because both share one lock. Any thread may use it.

    Args:
        options: Bounds of the queue and of the lost traces that are remembered.
    """

    def __init__(self, options: PipelineOptions) -> None:
        self._options = options
        self.queue: BoundedQueue = BoundedQueue(
            max_items=options.max_queue_items,
            max_bytes=options.max_queue_bytes,
            overflow=options.overflow,
            block_timeout=options.block_timeout_ms / 1000,
            on_drop=self._on_drop,
        )
        self._reset_counts()
        telemetry.register(self)

    def _reset_counts(self) -> None:
        self.lost: LostTraces = LostTraces(self._options.max_lost_traces)
        self._unqueued = 0
        self._batched = 0
        self._in_flight = 0
        self._sending: ProducerBatch | None = None
        self._acknowledged = 0
        self._unknown = 0
        self._dropped: dict[DropReason, int] = {}
        self._lost_items_sent = 0
        self._published: dict[tuple[telemetry.Counter, tuple[str, ...]], int] = {}
        self._flushes = PendingFlushes()
        self._closed = False

    def reset(self) -> None:
        """Start at zero in a forked child. The parent process delivers what it had recorded."""
        self.queue.reset()
        self._reset_counts()

    @property
    def flushing(self) -> bool:
        """Whether a flush waits."""
        return bool(self._flushes)

    def snapshot(self) -> LedgerSnapshot:
        """All counts at one instant."""
        with self.queue.lock:
            return LedgerSnapshot(
                recorded=self.queue.accepted + self.queue.refused + self._unqueued,
                acknowledged=self._acknowledged,
                dropped=Dropped(**self._dropped),
                unknown=self._unknown,
                queued=len(self.queue) + self._batched,
                in_flight=self._in_flight,
                lost_traces=len(self.lost) + self.lost.everywhere,
                lost_items_sent=self._lost_items_sent,
            )

    def collect(self) -> Iterator[Collected]:
        """How full the queue is. Adds to the counters what they do not contain yet."""
        with self.queue.lock:
            self._publish()
            items, size = (0, 0) if self._closed else (self.queue.held_items, self.queue.held_bytes)
        yield telemetry.AGENT_QUEUE_ITEMS, items, ()
        yield telemetry.AGENT_QUEUE_BYTES, size, ()

    def _publish(self) -> None:
        counts: dict[tuple[telemetry.Counter, tuple[str, ...]], int] = {
            (telemetry.AGENT_ITEMS, ()): self.queue.accepted + self.queue.refused + self._unqueued,
            (telemetry.AGENT_ACKNOWLEDGED, ()): self._acknowledged,
            (telemetry.AGENT_UNKNOWN, ()): self._unknown,
            **{(telemetry.AGENT_DROPS, (reason,)): count for reason, count in self._dropped.items()},
        }
        for (counter, labels), count in counts.items():
            if new := count - self._published.get((counter, labels), 0):
                counter.add(new, *labels)
        self._published = counts

    def refuse(self, trace_id: bytes | None, reason: DropReason = "encode_error") -> None:
        """Count an item as recorded and dropped that could not be queued, because it has no bytes."""
        with self.queue.lock:
            self._unqueued += 1
            self._drop(reason, 1, (trace_id,))
        self.queue.wake()

    def take(self, limit: int) -> list[Entry]:
        """Take up to `limit` items from the queue. They still count as queued."""
        with self.queue.lock:
            if self._closed:
                return []
            entries = self.queue.take(limit)
            self._batched += len(entries)
            return entries

    def take_lost(self, limit: int) -> tuple[list[bytes], bool]:
        """Take up to `limit` traces to send LOST items for; and whether to warn every partition."""
        with self.queue.lock:
            everywhere, self.lost.everywhere = self.lost.everywhere, False
            return self.lost.take(limit), everywhere

    def mark_in_flight(self, batch: ProducerBatch) -> None:
        """Count the batch as in flight instead of queued. One batch is in flight at a time."""
        with self.queue.lock:
            if not self._closed:
                self._sending = batch
                self._batched -= batch.recorded
                self._in_flight += batch.recorded

    def requeue(self, batch: ProducerBatch) -> None:
        """Count the batch as queued again, because the attempt to send it failed."""
        with self.queue.lock:
            if not self._closed:
                self._uncount(batch)
                self._batched += batch.recorded

    def complete(self, batch: ProducerBatch, outcome: Outcome) -> None:
        """Count the items of a batch by how they ended. After `close` this has no effect."""
        with self.queue.lock:
            flushes = self._complete(batch, outcome)
        notify(flushes)

    def drop(self, entry: Entry, reason: DropReason) -> None:
        """Drop a single item that was taken from the queue."""
        self.complete(ProducerBatch(partition=-1, created=0.0, entries=[entry], size=len(entry[2])), reason)

    def close(self) -> None:
        """Nothing more is sent: drop what is queued for `shutdown`, and count what is in flight as unknown.

        A sender that was left behind has no effect on the counts after this.
        """
        with self.queue.lock:
            if self._closed:
                return
            self.queue.close()
            flushes = self._complete(self._sending, "unknown") if self._sending is not None else []
            rest = len(self.queue.take(len(self.queue))) + self._batched
            self._batched = 0
            self._dropped["shutdown"] = self._dropped.get("shutdown", 0) + rest
            flushes += self._flushes.shut_down()
            self._closed = True
            self._publish()
        notify(flushes)

    def flush(self, timeout: float) -> FlushResult:
        """Block this thread until everything recorded before has a result. Never call it on the sender's own loop."""
        flush = self._begin_flush()
        done = threading.Event()
        if self._notify_when_complete(flush, done.set):
            self.queue.wake()
            done.wait(seconds(timeout, DEFAULT_FLUSH_S))
        return self._end_flush(flush)

    async def aflush(self, timeout: float) -> FlushResult:
        """Wait, on any event loop, until everything recorded before has a result."""
        flush = self._begin_flush()
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        try:
            if self._notify_when_complete(flush, lambda: loop.call_soon_threadsafe(done.set)):
                self.queue.wake()
                with anyio.move_on_after(seconds(timeout, DEFAULT_FLUSH_S)):
                    await done.wait()
        finally:
            result = self._end_flush(flush)
        return result

    def _begin_flush(self) -> PendingFlush:
        with self.queue.lock:
            return self._flushes.add(self.queue.accepted, len(self.queue) + self._batched + self._in_flight)

    def _notify_when_complete(self, flush: PendingFlush, call: Callable[[], object]) -> bool:
        with self.queue.lock:
            flush.notify = call
            return flush.pending > 0

    def _end_flush(self, flush: PendingFlush) -> FlushResult:
        with self.queue.lock:
            return self._flushes.remove(flush)

    def _uncount(self, batch: ProducerBatch) -> None:
        """Subtract a batch from the class in which it is counted."""
        if self._sending is batch:
            self._sending = None
            self._in_flight -= batch.recorded
        else:
            self._batched -= batch.recorded

    def _complete(self, batch: ProducerBatch, outcome: Outcome) -> list[PendingFlush]:
        if self._closed:
            return []
        self._uncount(batch)
        self.queue.release(batch.recorded, batch.recorded_size)
        if outcome == "acknowledged":
            self._acknowledged += batch.recorded
            self._lost_items_sent += batch.lost_items
        else:
            trace_ids = [trace_id for _, trace_id, _, _ in batch.entries]
            if outcome == "unknown":
                self._unknown += batch.recorded
                self._remember_lost(trace_ids)
            else:
                self._drop(outcome, batch.recorded, trace_ids)
        return self._flushes.count([sequence for sequence, *_ in batch.entries], outcome) if self._flushes else []

    def _drop(self, reason: DropReason, items: int, trace_ids: Sequence[bytes | None]) -> None:
        self._dropped[reason] = self._dropped.get(reason, 0) + items
        self._remember_lost(trace_ids)

    def _remember_lost(self, trace_ids: Sequence[bytes | None]) -> None:
        for trace_id in trace_ids:
            self.lost.add(trace_id)

    def _on_drop(self, sequence: int, trace_id: bytes | None, reason: Refusal) -> None:
        self._drop(reason, 1, (trace_id,))
        if sequence:
            notify(self._flushes.count((sequence,), reason))
