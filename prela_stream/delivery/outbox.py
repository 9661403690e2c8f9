"""What the sender has in hand: batches being filled, and one lane a partition of those that wait to be sent or sent again.

Everything the sender decides is here, without an event loop and with time as an argument; `exporter.py` does the sending. A lane
is served in order and waits by itself between its attempts: a partition without a leader holds the others back no longer than its
attempts last, and the queue not before it has gathered half of the queue's room.
"""

import logging
import random
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from prela_stream.codec.spans import encode_item
from prela_stream.delivery.ledger import Ledger
from prela_stream.delivery.options import PipelineOptions
from prela_stream.delivery.queue import Batch, Batcher, Entry
from prela_stream.model.span import ItemKind

logger = logging.getLogger("prela_stream")

RECORD_HEADROOM: Final = 1_024
"""Bytes of a Record that are kept free for its header and for what the transport adds."""
_CHUNK: Final = 32
"""Items between two looks at the clock: about 30 µs."""


class Delivery(msgspec.Struct, kw_only=True):
    """A batch on its way, and what has been tried."""

    batch: Batch
    attempts: int = 0
    retry_at: float = 0.0
    """Not to be sent before this time."""
    uncertain: bool = False
    """The outcome of at least one attempt is not known."""


class Outbox:
    """Takes items from the ledger's queue, cuts batches and says which is to be sent next.

    Args:
        ledger: Where items come from and where their fate is written.
        options: Batching, retries and deadlines.
        expected_partitions: Number of partitions that the topic should have.
        max_batch_bytes: Bytes of items that surely fit into a Record.
    """

    def __init__(
        self, ledger: Ledger, options: PipelineOptions, *, expected_partitions: int, max_batch_bytes: int
    ) -> None:
        self._ledger = ledger
        self._options = options
        self._max_batch_bytes = max_batch_bytes
        self.placed = False
        """Whether somebody has looked what the topic is like; see `place`."""
        self._turn = 0
        self._divide(expected_partitions)
        self._held = 0
        self._held_bytes = 0
        self._own = 0
        self._told_too_large = False

    def __bool__(self) -> bool:
        return bool(self._batcher) or any(self._lanes)

    def fits(self, partitions: int, max_batch_bytes: int) -> bool:
        """Whether what is here is divided and cut for a topic like this."""
        return partitions == len(self._lanes) and self._max_batch_bytes <= max_batch_bytes

    def others_wait(self, delivery: Delivery, now: float) -> bool:
        """Whether another lane, of which nothing has failed, has something to be sent now."""
        heads = [lane[0] for lane in self._lanes if lane and lane[0] is not delivery]
        return any(head.retry_at <= now and not head.attempts for head in heads)

    @property
    def troubled(self) -> bool:
        """Whether anything is here of which an attempt has failed."""
        return any(lane[0].attempts for lane in self._lanes if lane)

    @property
    def full(self) -> bool:
        """Whether half of the queue's room is in here: the rest stays in line, where `drop_oldest` can reach it."""
        return self._held * 2 >= self._options.max_queue_items or self._held_bytes * 2 >= self._options.max_queue_bytes

    def fill(self, clock: Callable[[], float]) -> bool:
        """Move items from the queue into batches for one slice; whether the slice ended before the queue did."""
        now = clock()
        end = now + self._options.slice_us / 1e6
        if not self._own:
            self._add_lost(now)
        while not self.full:
            entries = self._ledger.take(_CHUNK)
            for entry in entries:
                size = len(entry[2])
                if size > self._max_batch_bytes:
                    self._tell_too_large(size, f"{self._max_batch_bytes:,} bytes")
                    self._ledger.reject(entry, "encode_error")
                    continue
                self._held += 1
                self._held_bytes += size
                self._batcher.add(entry, now)
            if len(entries) < _CHUNK:
                return False
            if clock() >= end:
                return True
        return False

    def next(self, now: float, *, hurry: bool = False) -> Delivery | None:
        """The batch to be sent now, if any, in turn by partition. Gives up those that are too old.

        Args:
            now: Seconds of the clock that `fill` was given.
            hurry: Wait for no further items: somebody flushes.
        """
        for batch in self._batcher.cut(now, everything=hurry):
            self._lanes[batch.partition].append(Delivery(batch=batch))
        lanes = len(self._lanes)
        for step in range(lanes):
            lane = self._lanes[(self._turn + step) % lanes]
            while lane and now - lane[0].batch.created >= self._options.delivery_timeout_s:
                self._give_up(lane[0])
            if lane and lane[0].retry_at <= now:
                self._turn = (self._turn + step + 1) % lanes
                return lane[0]
        return None

    def due(self) -> float | None:
        """When `next` may have something if nothing is added; None if nothing is here."""
        times = [lane[0].retry_at for lane in self._lanes if lane]
        if (cut := self._batcher.due()) is not None:
            times.append(cut)
        return min(times, default=None)

    def acknowledge(self, delivery: Delivery) -> None:
        """It is durable."""
        self._remove(delivery)
        self._ledger.settle(delivery.batch, "acknowledged")

    def fail(self, delivery: Delivery, now: float, *, uncertain: bool) -> None:
        """An attempt did not succeed: try again later. `uncertain`: it may have succeeded all the same.

        A retry after an uncertain attempt can store items twice; workers remove duplicates by (trace id, span id).
        """
        delivery.uncertain |= uncertain
        options = self._options
        pause = min(options.backoff_max_ms, options.backoff_min_ms << min(delivery.attempts, 20)) / 1000
        delivery.attempts += 1
        delivery.retry_at = now + pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, guards no secret
        self._ledger.postpone(delivery.batch)

    def hasten(self) -> None:
        """Let every waiting batch be tried once more at once."""
        for lane in self._lanes:
            if lane:
                lane[0].retry_at = 0.0

    def place(self, partitions: int, max_batch_bytes: int) -> None:
        """The topic is like this: divide and cut what is here anew where it is not so.

        Args:
            partitions: Number of partitions.
            max_batch_bytes: Bytes of items that fit into a Record; never more than was allowed before.
        """
        if not self.fits(partitions, max_batch_bytes):
            tried = [delivery for lane in self._lanes for delivery in lane]
            tried += [Delivery(batch=batch) for batch in self._batcher.cut(0.0, everything=True)]
            tried.sort(key=lambda delivery: delivery.batch.created)  # those of one partition stay in order
            self._max_batch_bytes = min(self._max_batch_bytes, max_batch_bytes)
            self._divide(partitions)
            # one a partition, of those that there were
            warnings = [entry for delivery in tried for entry in delivery.batch.entries if entry[1] is None]
            self._own -= len(warnings)
            for delivery in tried:
                self._put_back(delivery)
            if warnings:
                self._warn_everywhere(warnings[0][2], tried[0].batch.created)
        self.placed = True

    def split(self, delivery: Delivery) -> None:
        """The topic did not take it at once: send each half by itself, and give a single item up."""
        batch = delivery.batch
        if len(batch.entries) == 1:
            self._tell_too_large(batch.size, "less than that")
            self._remove(delivery)
            self._ledger.settle(batch, "encode_error")
            return
        lane = self._lanes[batch.partition]
        assert lane[0] is delivery  # a lane is served in order
        self._ledger.postpone(batch)
        lane.popleft()
        middle = len(batch.entries) // 2
        for half in (batch.entries[middle:], batch.entries[:middle]):
            lane.appendleft(Delivery(batch=_batch_of(half, batch), uncertain=delivery.uncertain))

    def _put_back(self, delivery: Delivery) -> None:
        """Divide what is in a batch among the partitions that there are, now that they are others."""
        batcher = self._new_batcher(len(self._lanes))
        for entry in delivery.batch.entries:
            size = len(entry[2])
            if entry[1] is None:
                continue
            if size > self._max_batch_bytes:
                self._held -= 1
                self._held_bytes -= size
                self._tell_too_large(size, f"{self._max_batch_bytes:,} bytes")
                self._ledger.reject(entry, "encode_error")
            else:
                batcher.add(entry, delivery.batch.created)
        for batch in batcher.cut(0.0, everything=True):
            self._lanes[batch.partition].append(Delivery(batch=batch, uncertain=delivery.uncertain))

    def _divide(self, partitions: int) -> None:
        self._batcher = self._new_batcher(partitions)
        self._lanes: list[deque[Delivery]] = [deque() for _ in range(partitions)]

    def _new_batcher(self, partitions: int) -> Batcher:
        return Batcher(
            partitions=partitions,
            max_items=self._options.batch_items,
            max_bytes=min(self._options.batch_bytes, self._max_batch_bytes),
            linger=self._options.linger_ms / 1000,
        )

    def _give_up(self, delivery: Delivery) -> None:
        self._remove(delivery)
        self._ledger.settle(delivery.batch, "unknown" if delivery.uncertain else "too_old")

    def _remove(self, delivery: Delivery) -> None:
        batch = delivery.batch
        removed = self._lanes[batch.partition].popleft()
        assert removed is delivery  # a lane is served in order
        self._held -= batch.recorded
        self._held_bytes -= batch.recorded_size
        self._own -= batch.own

    def _add_lost(self, now: float) -> None:
        """Add LOST items for traces that lost something. One lot at a time: what happens meanwhile gathers in the ledger."""
        traces, everywhere = self._ledger.take_lost(_CHUNK)
        for trace_id in traces:
            self._batcher.add((0, trace_id, encode_item(ItemKind.LOST, trace_id), True), now)
        self._own += len(traces)
        if everywhere:
            self._warn_everywhere(encode_item(ItemKind.LOST, None), now)

    def _warn_everywhere(self, item: bytes, now: float) -> None:
        for partition in range(len(self._lanes)):
            self._batcher.add((0, None, item, True), now, partition)
        self._own += len(self._lanes)

    def _tell_too_large(self, size: int, most: str) -> None:
        if not self._told_too_large:
            self._told_too_large = True
            logger.warning(
                "prela_stream: an item of %s bytes is larger than a Record of items may be (%s) and was dropped; raise "
                "max_record_bytes of the topic or lower the limit of a span. Further ones are only counted.",
                f"{size:,}",
                most,
            )


def _batch_of(entries: list[Entry], whole: Batch) -> Batch:
    """A part of a batch."""
    own = [entry for entry in entries if entry[0] == 0]
    return Batch(
        partition=whole.partition,
        created=whole.created,
        entries=entries,
        size=sum(len(entry[2]) for entry in entries),
        own=len(own),
        own_size=sum(len(entry[2]) for entry in own),
    )
