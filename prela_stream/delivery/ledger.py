"""The ledger of delivery: every recorded item is in exactly one class, at every instant and read from any thread.

`recorded = acknowledged + dropped + unknown + queued + in_flight` (design: Delivery). Every move between
classes happens under the queue's lock, and each side is counted on its own, so that the equation is a check and not a definition.

Items that the pipeline makes itself, the LOST items, are no part of the equation: nobody recorded them. They are counted apart,
and one that does not get through goes back among the traces still to be told about.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import anyio
import msgspec

from prela_stream import telemetry
from prela_stream.delivery.options import PipelineOptions
from prela_stream.delivery.queue import Batch, BoundedQueue, Entry, LostTraces
from prela_stream.errors import guard
from prela_stream.measures import Collected

DropReason = Literal["queue_full", "too_old", "shutdown", "encode_error"]
Fate = DropReason | Literal["acknowledged", "unknown"]

_NOTIFY_GUARD = guard("pipeline.flush")


class Dropped(msgspec.Struct, frozen=True, kw_only=True):
    """Items that were given up, by reason."""

    queue_full: int = 0
    """Found no room, or made room for a newer one."""
    too_old: int = 0
    """Could not be delivered within `delivery_timeout_s`."""
    shutdown: int = 0
    """Left over when the pipeline closed, or recorded after that."""
    encode_error: int = 0
    """Could not be encoded, or are larger than a Record may be."""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(msgspec.structs.astuple(self))


class LedgerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger at one instant, in items."""

    recorded: int
    acknowledged: int
    """Durable, by the transport's own word."""
    dropped: Dropped
    unknown: int
    """Sent, but nobody said whether they were stored, until the deadline."""
    queued: int
    in_flight: int
    lost_traces: int
    """Traces that lost items and of which the workers have not been told yet. Not part of the equation."""
    lost_items_sent: int
    """LOST items that were acknowledged. Not part of the equation."""

    @property
    def balances(self) -> bool:
        """Whether every item is in exactly one class."""
        settled = self.acknowledged + self.dropped.total + self.unknown
        return self.recorded == settled + self.queued + self.in_flight

    def __str__(self) -> str:
        dropped = ", ".join(f"{reason} {n}" for reason, n in msgspec.structs.asdict(self.dropped).items() if n)
        return (
            f"recorded {self.recorded} = acknowledged {self.acknowledged} + dropped "
            f"{self.dropped.total}{f' ({dropped})' if dropped else ''} + unknown {self.unknown} + queued {self.queued} "
            f"+ in flight {self.in_flight}{'' if self.balances else ' DOES NOT BALANCE'}"
        )


class FlushResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the items that were under way when the flush was asked for; later ones are not in these numbers."""

    acknowledged: int
    dropped: int
    unknown: int
    pending: int
    """No result yet when the time was over."""

    @property
    def complete(self) -> bool:
        """Whether every one of them was acknowledged."""
        return not (self.dropped or self.unknown or self.pending)


class Ticket:
    """One flush: the items up to a sequence number that were not settled at that moment, and what becomes of them."""

    __slots__ = ("acknowledged", "dropped", "last", "notify", "pending", "unknown")

    def __init__(self, last: int, pending: int) -> None:
        self.last = last
        self.pending = pending
        self.acknowledged = self.dropped = self.unknown = 0
        self.notify: Callable[[], object] | None = None

    def settle(self, items: int, fate: Fate) -> bool:
        """Count items of this flush as settled; whether they were the last ones."""
        self.pending -= items
        if fate == "acknowledged":
            self.acknowledged += items
        elif fate == "unknown":
            self.unknown += items
        else:
            self.dropped += items
        return self.pending == 0


class Ledger:
    """The queue and the account of what was put into it. Safe to use from any thread.

    Args:
        options: Bounds of the queue and of the memory of lost traces.
    """

    def __init__(self, options: PipelineOptions) -> None:
        self._options = options
        self.queue = BoundedQueue(
            max_items=options.max_queue_items,
            max_bytes=options.max_queue_bytes,
            overflow=options.overflow,
            block_timeout=options.block_timeout_ms / 1000,
            on_drop=self._on_drop,
        )
        self._reset_counts()
        telemetry.register(self)

    def _reset_counts(self) -> None:
        self.lost = LostTraces(self._options.max_lost_traces)
        self._refused = 0
        self._batched = 0
        self._in_flight = 0
        self._sending: Batch | None = None
        self._acknowledged = 0
        self._unknown = 0
        self._dropped: dict[DropReason, int] = {}
        self._lost_items_sent = 0
        self._published: dict[tuple[telemetry.Counter, tuple[str, ...]], int] = {}
        self._tickets: list[Ticket] = []
        self._closed = False

    def reset(self) -> None:
        """Start at zero in a forked child: the parent still owns and delivers what it had recorded."""
        self.queue.reset()
        self._reset_counts()

    @property
    def flushing(self) -> bool:
        """Whether somebody waits for items to be settled."""
        return bool(self._tickets)

    def snapshot(self) -> LedgerSnapshot:
        """All counts at one instant."""
        with self.queue.lock:
            return LedgerSnapshot(
                recorded=self.queue.accepted + self.queue.refused + self._refused,
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
            items, size = self.queue.unsettled, self.queue.unsettled_bytes
        yield telemetry.AGENT_QUEUE_ITEMS, items, ()
        yield telemetry.AGENT_QUEUE_BYTES, size, ()

    def _publish(self) -> None:
        counts: dict[tuple[telemetry.Counter, tuple[str, ...]], int] = {
            (telemetry.AGENT_ITEMS, ()): self.queue.accepted + self.queue.refused + self._refused,
            (telemetry.AGENT_ACKNOWLEDGED, ()): self._acknowledged,
            (telemetry.AGENT_UNKNOWN, ()): self._unknown,
            **{(telemetry.AGENT_DROPS, (reason,)): count for reason, count in self._dropped.items()},
        }
        for (counter, labels), count in counts.items():
            if new := count - self._published.get((counter, labels), 0):
                counter.add(new, *labels)
        self._published = counts

    def refuse(self, trace_id: bytes | None, reason: DropReason = "encode_error") -> None:
        """Count an item that was to be recorded and never could be queued."""
        with self.queue.lock:
            self._refused += 1
            self._drop(reason, 1, (trace_id,))
        self.queue.wake()

    def take(self, limit: int) -> list[Entry]:
        """Up to `limit` items from the queue; they still count as queued."""
        with self.queue.lock:
            if self._closed:
                return []
            entries = self.queue.take(limit)
            self._batched += len(entries)
            return entries

    def take_lost(self, limit: int) -> tuple[list[bytes], bool]:
        """Up to `limit` traces to send LOST items for, and whether every partition has to be warned."""
        with self.queue.lock:
            everywhere, self.lost.everywhere = self.lost.everywhere, False
            return self.lost.take(limit), everywhere

    def send(self, batch: Batch) -> None:
        """Its items are in flight now."""
        with self.queue.lock:
            if not self._closed:
                self._sending = batch
                self._batched -= batch.recorded
                self._in_flight += batch.recorded

    def postpone(self, batch: Batch) -> None:
        """Its items were not sent and are queued again."""
        with self.queue.lock:
            if not self._closed:
                self._land(batch)
                self._batched += batch.recorded

    def settle(self, batch: Batch, fate: Fate) -> None:
        """Its items have come to an end."""
        with self.queue.lock:
            done = self._settle(batch, fate)
        _announce(done)

    def reject(self, entry: Entry, reason: DropReason) -> None:
        """Give up a single item that was taken."""
        batch = Batch(partition=-1, created=0.0, entries=[entry], size=len(entry[2]))
        self.settle(batch, reason)

    def close(self) -> None:
        """Nothing more will be sent: what is queued is dropped for `shutdown`, what is in flight is unknown.

        Whatever a sender that was left behind says afterwards is ignored.
        """
        with self.queue.lock:
            if self._closed:
                return
            self.queue.close()
            done = self._settle(self._sending, "unknown") if self._sending is not None else []
            left = self.queue.take(len(self.queue))
            rest = len(left) + self._batched
            self._batched = 0
            self._dropped["shutdown"] = self._dropped.get("shutdown", 0) + rest
            for ticket in self._tickets:
                ticket.settle(ticket.pending, "shutdown")
            done, self._tickets = done + self._tickets, []
            self._closed = True
            self._publish()
        _announce(done)

    def flush(self, timeout: float) -> FlushResult:
        """Wait, blocking this thread, until everything recorded before is settled; never on the sender's own loop."""
        ticket = self._open_ticket()
        done = threading.Event()
        if self._watch(ticket, done.set):
            self.queue.wake()
            done.wait(timeout)
        return self._close_ticket(ticket)

    async def aflush(self, timeout: float) -> FlushResult:
        """Wait, on any event loop, until everything recorded before is settled."""
        ticket = self._open_ticket()
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        try:
            if self._watch(ticket, lambda: loop.call_soon_threadsafe(done.set)):
                self.queue.wake()
                with anyio.move_on_after(timeout):
                    await done.wait()
        finally:
            result = self._close_ticket(ticket)
        return result

    def _open_ticket(self) -> Ticket:
        with self.queue.lock:
            pending = len(self.queue) + self._batched + self._in_flight
            ticket = Ticket(self.queue.accepted, pending)
            if pending:
                self._tickets.append(ticket)
            return ticket

    def _watch(self, ticket: Ticket, notify: Callable[[], object]) -> bool:
        with self.queue.lock:
            ticket.notify = notify
            return ticket.pending > 0

    def _close_ticket(self, ticket: Ticket) -> FlushResult:
        with self.queue.lock:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
            return FlushResult(
                acknowledged=ticket.acknowledged,
                dropped=ticket.dropped,
                unknown=ticket.unknown,
                pending=ticket.pending,
            )

    def _land(self, batch: Batch) -> None:
        """Take a batch out of the class that it is in."""
        if self._sending is batch:
            self._sending = None
            self._in_flight -= batch.recorded
        else:
            self._batched -= batch.recorded

    def _settle(self, batch: Batch, fate: Fate) -> list[Ticket]:
        if self._closed:
            return []
        self._land(batch)
        self.queue.release(batch.recorded, batch.recorded_size)
        if fate == "acknowledged":
            self._acknowledged += batch.recorded
            self._lost_items_sent += batch.own
        else:
            trace_ids = [trace_id for _, trace_id, _, _ in batch.entries]
            if fate == "unknown":
                self._unknown += batch.recorded
                self._remember_lost(trace_ids)
            else:
                self._drop(fate, batch.recorded, trace_ids)
        return self._punch([sequence for sequence, *_ in batch.entries], fate) if self._tickets else []

    def _drop(self, reason: DropReason, items: int, trace_ids: Sequence[bytes | None]) -> None:
        self._dropped[reason] = self._dropped.get(reason, 0) + items
        self._remember_lost(trace_ids)

    def _remember_lost(self, trace_ids: Sequence[bytes | None]) -> None:
        for trace_id in trace_ids:
            self.lost.add(trace_id)

    def _punch(self, sequences: Sequence[int], fate: Fate) -> list[Ticket]:
        """Count settled items in the flushes that wait for them; returns those that wait for nothing more."""
        done = [t for t in self._tickets if (n := sum(0 < s <= t.last for s in sequences)) and t.settle(n, fate)]
        self._tickets = [ticket for ticket in self._tickets if ticket not in done]
        return done

    def _on_drop(self, sequence: int, trace_id: bytes | None, reason: Literal["queue_full", "shutdown"]) -> None:
        self._drop(reason, 1, (trace_id,))
        if sequence and self._tickets:
            _announce(self._punch((sequence,), reason))


def _announce(tickets: list[Ticket]) -> None:
    for ticket in tickets:
        with _NOTIFY_GUARD:
            if ticket.notify is not None:
                ticket.notify()
