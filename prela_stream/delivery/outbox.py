"""The batches of the sender: those being filled, and a FIFO per partition of those that wait for an attempt.

Every decision of the sender is here, without an event loop and with time as an argument; `attempt.py` does the sending. Each
partition has its own FIFO and retry timer. A partition without a leader delays the others only while one of its attempts is in
progress, and it stops the intake only when the outbox holds half of the queue's capacity.
"""

import random
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from prela_stream.codec.spans import encode_item
from prela_stream.delivery.batch import Entry, Outcome, ProducerBatch
from prela_stream.delivery.batcher import Batcher
from prela_stream.delivery.ledger import Ledger
from prela_stream.delivery.options import PipelineOptions
from prela_stream.errors import logger
from prela_stream.model.span import ItemKind
from prela_stream.privacy.encoding import shortened

RECORD_HEADROOM: Final = 1_024
"""Bytes of a record that are kept free for its header and for what the transport adds."""
_CHUNK: Final = 32
"""Items between two readings of the clock: about 30 µs."""


class Delivery(msgspec.Struct, kw_only=True):
    """A batch and the attempts to send it."""

    batch: ProducerBatch
    attempts: int = 0
    retry_at: float = 0.0
    """Not to be sent before this time."""
    uncertain: bool = False
    """The outcome of at least one attempt is unknown."""


class Outbox:
    """Takes items from the ledger's queue, cuts batches and chooses the next one to send.

    Args:
        ledger: Where items come from, and where it is counted how they end.
        options: Batching, retries and deadlines.
        expected_partitions: Number of partitions that the topic should have.
        max_batch_bytes: Bytes of items that surely fit into a record.
    """

    def __init__(
        self, ledger: Ledger, options: PipelineOptions, *, expected_partitions: int, max_batch_bytes: int
    ) -> None:
        self._ledger = ledger
        self._options = options
        self._max_batch_bytes = max_batch_bytes
        self.topic_checked: bool = False
        """Whether the batches were compared with the topic's partitions and limits; see `repartition`."""
        self._next_partition = 0
        self._set_partitions(expected_partitions)
        self._held = 0
        self._held_bytes = 0
        self._lost_items = 0
        self._logged_too_large = False

    def __bool__(self) -> bool:
        return bool(self._batcher) or any(self._waiting)

    def matches(self, partitions: int, max_batch_bytes: int) -> bool:
        """Whether the batches are divided and cut for a topic like this."""
        return partitions == len(self._waiting) and self._max_batch_bytes <= max_batch_bytes

    def others_ready(self, delivery: Delivery, now: float) -> bool:
        """Whether another partition, of which no attempt has failed, has a batch to send now."""
        heads = [waiting[0] for waiting in self._waiting if waiting and waiting[0] is not delivery]
        return any(head.retry_at <= now and not head.attempts for head in heads)

    @property
    def retrying(self) -> bool:
        """Whether it holds a batch of which an attempt has failed."""
        return any(waiting[0].attempts for waiting in self._waiting if waiting)

    @property
    def full(self) -> bool:
        """Whether it holds half of the queue's capacity. Further items stay in the queue, where `drop_oldest` reaches them."""
        return self._held * 2 >= self._options.max_queue_items or self._held_bytes * 2 >= self._options.max_queue_bytes

    def fill(self, clock: Callable[[], float]) -> bool:
        """Move items from the queue into batches for one slice; returns whether the slice ended before the queue was empty."""
        now = clock()
        end = now + self._options.slice_us / 1e6
        if not self._lost_items:
            self._add_lost(now)
        while not self.full:
            entries = self._ledger.take(_CHUNK)
            for entry in map(self._fitting, entries):
                if entry is not None:
                    self._held += 1
                    self._held_bytes += len(entry[2])
                    self._batcher.add(entry, now)
            if len(entries) < _CHUNK:
                return False
            if clock() >= end:
                return True
        return False

    def next(self, now: float, *, flushing: bool = False) -> Delivery | None:
        """The batch to send now, if any; the partitions take turns. Gives up batches that are too old.

        Args:
            now: Seconds of the clock that `fill` was given.
            flushing: Do not wait for further items.
        """
        for batch in self._batcher.cut(now, everything=flushing):
            self._waiting[batch.partition].append(Delivery(batch=batch))
        partitions = len(self._waiting)
        for step in range(partitions):
            waiting = self._waiting[(self._next_partition + step) % partitions]
            while waiting and now - waiting[0].batch.created >= self._options.delivery_timeout_s:
                self._complete(waiting[0], "unknown" if waiting[0].uncertain else "too_old")
            if waiting and waiting[0].retry_at <= now:
                self._next_partition = (self._next_partition + step + 1) % partitions
                return waiting[0]
        return None

    def due(self) -> float | None:
        """When `next` may return a batch if nothing is added; None if there is none."""
        times = [waiting[0].retry_at for waiting in self._waiting if waiting]
        if (cut := self._batcher.due()) is not None:
            times.append(cut)
        return min(times, default=None)

    def acknowledge(self, delivery: Delivery) -> None:
        """The batch is durable."""
        self._complete(delivery, "acknowledged")

    def retry_later(self, delivery: Delivery, now: float, *, uncertain: bool) -> None:
        """An attempt failed: try again after a pause. `uncertain`: the batch may have been stored all the same.

        A retry after an uncertain attempt can store items twice. Workers remove duplicates by (trace id, span id).
        """
        delivery.uncertain |= uncertain
        options = self._options
        pause = min(options.backoff_max_ms, options.backoff_min_ms << min(delivery.attempts, 20)) / 1000
        delivery.attempts += 1
        delivery.retry_at = now + pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, guards no secret
        self._ledger.requeue(delivery.batch)

    def retry_now(self) -> None:
        """End the pause of every batch that waits for a retry."""
        for waiting in self._waiting:
            if waiting:
                waiting[0].retry_at = 0.0

    def repartition(self, partitions: int, max_batch_bytes: int) -> None:
        """Divide and cut all batches for the topic as it is, unless they already are.

        Args:
            partitions: Number of partitions.
            max_batch_bytes: Bytes of items that fit into a record; a limit that was smaller before stays.
        """
        if not self.matches(partitions, max_batch_bytes):
            deliveries = [delivery for waiting in self._waiting for delivery in waiting]
            deliveries += [Delivery(batch=batch) for batch in self._batcher.cut(0.0, everything=True)]
            deliveries.sort(key=lambda delivery: delivery.batch.created)  # keeps the order within a partition
            self._max_batch_bytes = min(self._max_batch_bytes, max_batch_bytes)
            self._set_partitions(partitions)
            # A warning without a trace id exists once for each former partition; there must be one for each new partition.
            warnings = [entry for delivery in deliveries for entry in delivery.batch.entries if entry[1] is None]
            self._lost_items -= len(warnings)
            for delivery in deliveries:
                self._add_again(delivery)
            if warnings:
                self._warn_every_partition(warnings[0][2], deliveries[0].batch.created)
        self.topic_checked = True

    def split(self, delivery: Delivery) -> None:
        """The topic rejected the batch as too large: send each half separately, or drop a single item."""
        batch = delivery.batch
        if len(batch.entries) == 1:
            self._log_too_large(batch.size, "less than that")
            self._complete(delivery, "encode_error")
            return
        waiting = self._waiting[batch.partition]
        assert waiting[0] is delivery  # only the head of a FIFO is sent
        self._ledger.requeue(batch)
        waiting.popleft()
        middle = len(batch.entries) // 2
        for half in (batch.entries[middle:], batch.entries[:middle]):
            waiting.appendleft(Delivery(batch=batch.part(half), uncertain=delivery.uncertain))

    def _add_again(self, delivery: Delivery) -> None:
        """Divide the items of a batch among the new partitions."""
        batcher = self._new_batcher(len(self._waiting))
        for entry in delivery.batch.entries:
            if entry[1] is None:
                continue
            fitting = self._fitting(entry)
            if fitting is None:
                self._held -= 1
                self._held_bytes -= len(entry[2])
            else:
                self._held_bytes -= len(entry[2]) - len(fitting[2])
                batcher.add(fitting, delivery.batch.created)
        for batch in batcher.cut(0.0, everything=True):
            self._waiting[batch.partition].append(Delivery(batch=batch, uncertain=delivery.uncertain))

    def _fitting(self, entry: Entry) -> Entry | None:
        """An entry that a record can have: a larger span is cut. None if it cannot be cut; then it is dropped."""
        sequence, trace_id, item, reserved = entry
        if len(item) <= self._max_batch_bytes:
            return entry
        self._log_too_large(len(item), f"{self._max_batch_bytes:,} bytes")
        cut = shortened(item, self._max_batch_bytes)
        if cut is None:
            self._ledger.drop(entry, "encode_error")
            return None
        self._ledger.queue.release(0, len(item) - len(cut))
        return sequence, trace_id, cut, reserved

    def _set_partitions(self, partitions: int) -> None:
        self._batcher = self._new_batcher(partitions)
        self._waiting: list[deque[Delivery]] = [deque() for _ in range(partitions)]

    def _new_batcher(self, partitions: int) -> Batcher:
        return Batcher(
            partitions=partitions,
            max_items=self._options.batch_items,
            max_bytes=min(self._options.batch_bytes, self._max_batch_bytes),
            linger=self._options.linger_ms / 1000,
        )

    def _complete(self, delivery: Delivery, outcome: Outcome) -> None:
        batch = delivery.batch
        removed = self._waiting[batch.partition].popleft()
        assert removed is delivery  # only the head of a FIFO is sent
        self._held -= batch.recorded
        self._held_bytes -= batch.recorded_size
        self._lost_items -= batch.lost_items
        self._ledger.complete(batch, outcome)

    def _add_lost(self, now: float) -> None:
        """Add LOST items for one chunk of the traces that lost items. The ledger keeps the others for the next chunk."""
        traces, everywhere = self._ledger.take_lost(_CHUNK)
        for trace_id in traces:
            self._batcher.add((0, trace_id, encode_item(ItemKind.LOST, trace_id), True), now)
        self._lost_items += len(traces)
        if everywhere:
            self._warn_every_partition(encode_item(ItemKind.LOST, None), now)

    def _warn_every_partition(self, item: bytes, now: float) -> None:
        for partition in range(len(self._waiting)):
            self._batcher.add((0, None, item, True), now, partition)
        self._lost_items += len(self._waiting)

    def _log_too_large(self, size: int, most: str) -> None:
        if not self._logged_too_large:
            self._logged_too_large = True
            logger.warning(
                "prela_stream: a span of %s bytes is cut, or dropped if that is not possible, because the items of a record may "
                "have %s. Raise topics.max_record_bytes and the topic's max.message.bytes. This is logged once.",
                f"{size:,}",
                most,
            )
