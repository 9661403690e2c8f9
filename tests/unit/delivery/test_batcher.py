"""Batcher: where batches are cut, and what they hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.delivery.batch import ProducerBatch
from prela_stream.delivery.batcher import Batcher
from prela_stream.model.ids import partition_of
from tests.unit.delivery.queues import entry, trace


def make_batcher(*, items: int = 100, size: int = 1_000, linger: float = 1.0) -> Batcher:
    return Batcher(partitions=4, max_items=items, max_bytes=size, linger=linger)


def test_a_batch_is_cut_when_it_is_full_by_count() -> None:
    batcher = make_batcher(items=3)
    for number in range(1, 8):
        batcher.add(entry(number), 0.0, 2)
    assert batcher.due() == 0.0
    assert [len(batch.entries) for batch in batcher.cut(0.0)] == [3, 3]
    assert batcher
    assert batcher.due() == 1.0


def test_a_batch_never_exceeds_its_bytes_and_a_larger_item_goes_alone() -> None:
    batcher = make_batcher(size=10)
    for size in (4, 4, 4, 25, 4):
        batcher.add(entry(1, b"x" * size), 0.0)
    assert [batch.size for batch in batcher.cut(0.0, everything=True)] == [8, 4, 25, 4]
    assert not batcher


def test_a_batch_waits_for_its_linger_and_no_longer() -> None:
    batcher = make_batcher(linger=0.5)
    batcher.add(entry(1), 10.0, 0)
    batcher.add(entry(2), 10.4, 1)
    assert batcher.due() == 10.5
    assert batcher.cut(10.49) == []
    assert [batch.partition for batch in batcher.cut(10.5)] == [0]
    assert batcher.due() == pytest.approx(10.9)


def test_lost_items_are_counted_separately() -> None:
    batcher = make_batcher()
    batcher.add(entry(1, b"xx"), 0.0, 3)
    batcher.add((0, None, b"lost", True), 0.0, 3)
    (batch,) = batcher.cut(0.0, everything=True)
    assert (batch.recorded, batch.recorded_size, batch.lost_items, batch.lost_items_size) == (1, 2, 1, 4)


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 40), st.floats(0, 0.3)), max_size=80),
    st.integers(1, 7),
    st.integers(1, 60),
)
def test_batches_hold_every_item_once_in_its_partition_in_order(
    steps: list[tuple[int, int, float]], max_items: int, max_bytes: int
) -> None:
    batcher = Batcher(partitions=5, max_items=max_items, max_bytes=max_bytes, linger=0.2)
    now = 0.0
    cut: list[ProducerBatch] = []
    for sequence, (number, size, pause) in enumerate(steps, start=1):
        now += pause
        batcher.add((sequence, trace(number), b"x" * size, False), now)
        cut += batcher.cut(now)
    cut += batcher.cut(now, everything=True)
    assert not batcher
    assert sorted(e[0] for batch in cut for e in batch.entries) == list(range(1, len(steps) + 1))
    last = dict.fromkeys(range(5), 0)
    for batch in cut:
        assert len(batch.entries) <= max_items
        assert batch.size == sum(len(e[2]) for e in batch.entries)
        assert batch.size <= max_bytes or len(batch.entries) == 1
        for sequence, trace_id, _, _ in batch.entries:
            assert trace_id is not None
            assert partition_of(trace_id, 5) == batch.partition
            assert sequence > last[batch.partition]
            last[batch.partition] = sequence
