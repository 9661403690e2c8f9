"""A heap whose entries stop counting gives those that count in order, and does not grow with the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.assembly import lazy_heap
from prela_stream.assembly.lazy_heap import NEVER, LazyHeap
from tests.support.examples import examples

STEPS = st.lists(st.one_of(st.integers(0, 50), st.sampled_from(("pop", "drop"))), max_size=200)


@examples(200)
@given(STEPS, st.sampled_from((0, 1, 5)))
def test_entries_that_count_leave_in_order(steps: list[int | str], slack: int) -> None:
    counting: set[tuple[int, int]] = set()
    heap: LazyHeap[tuple[int, int]] = LazyHeap(counting.__contains__)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lazy_heap, "SLACK", slack)
        for number, step in enumerate(steps):
            if isinstance(step, int):
                counting.add((step, number))
                heap.push((step, number), len(counting))
            elif step == "drop" and counting:
                counting.remove(max(counting, key=lambda entry: entry[1]))  # the youngest, wherever it is in the heap
            elif step == "pop" and counting:
                while (popped := heap.pop()) not in counting:
                    assert popped < min(counting)
                assert popped == min(counting)
                counting.remove(popped)
            first = heap.first()
            assert heap.soonest == (NEVER if first is None else first[0])
            assert not counting or (first is not None and first <= min(counting))
    left = [heap.pop() for _ in range(len(heap))]
    assert left == sorted(left)
    assert counting <= set(left)


def test_it_does_not_grow_with_entries_that_do_not_count() -> None:
    heap: LazyHeap[tuple[int, int]] = LazyHeap(lambda entry: entry[1] == 0)
    for number in range(100_000):
        heap.push((number, number % 100), 1_000)
    assert len(heap) < 2 * 1_000 + 2 * lazy_heap.SLACK
