"""Groups items into batches, one partition each. Pure: time is an argument."""

from prela_stream.delivery.batch import Entry, ProducerBatch
from prela_stream.model.ids import partition_of


class Batcher:
    """Groups items by partition and cuts batches by count, bytes and age.

    Args:
        partitions: Number of partitions of the topic.
        max_items: Most items of a batch.
        max_bytes: Most bytes of a batch; a larger item makes a batch alone.
        linger: Seconds that a batch waits for more items.
    """

    def __init__(self, *, partitions: int, max_items: int, max_bytes: int, linger: float) -> None:
        self.partitions = partitions
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._linger = linger
        self._open: dict[int, ProducerBatch] = {}
        self._full: list[ProducerBatch] = []

    def __bool__(self) -> bool:
        return bool(self._open or self._full)

    def add(self, entry: Entry, now: float, partition: int | None = None) -> None:
        """Add an item to its trace's partition, or to `partition`, which an item without a trace id needs."""
        sequence, trace_id, item, _ = entry
        if partition is None:
            assert trace_id is not None  # the caller names a partition for an item without one
            partition = partition_of(trace_id, self.partitions)
        size = len(item)
        batch = self._open.get(partition)
        if batch is not None and batch.size + size > self._max_bytes:
            self._full.append(self._open.pop(partition))
            batch = None
        if batch is None:
            batch = self._open[partition] = ProducerBatch(partition=partition, created=now)
        batch.entries.append(entry)
        batch.size += size
        if sequence == 0:
            batch.lost_items += 1
            batch.lost_items_size += size
        if len(batch.entries) >= self._max_items or batch.size >= self._max_bytes:
            self._full.append(self._open.pop(partition))

    def cut(self, now: float, *, everything: bool = False) -> list[ProducerBatch]:
        """Remove and return the batches that are full or have waited for `linger`, or all batches."""
        cut, self._full = self._full, []
        for batch in list(self._open.values()):
            if everything or now - batch.created >= self._linger:
                cut.append(self._open.pop(batch.partition))
        return cut

    def due(self) -> float | None:
        """When `cut` will return a batch if nothing is added; None if there is no batch."""
        if self._full:
            return 0.0
        if not self._open:
            return None
        return min(batch.created for batch in self._open.values()) + self._linger
