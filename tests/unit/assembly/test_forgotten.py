"""The set of traces whose decisions were forgotten early: it forgets none too early, and rarely finds what it never had."""

import random

from hypothesis import given
from hypothesis import strategies as st

from prela_stream.assembly.forgotten import ForgottenTraces


@given(st.sets(st.binary(min_size=16, max_size=16), max_size=40))
def test_what_was_added_is_found(trace_ids: set[bytes]) -> None:
    found = ForgottenTraces(10_000, 1_000)
    found.add(trace_ids, 5)
    assert all(trace_id in found for trace_id in trace_ids)


def test_the_error_rate_is_at_most_one_in_ten_thousand_if_both_filters_are_full() -> None:
    rng = random.Random(3)
    found = ForgottenTraces(40_000, 1 << 60)
    ids = [rng.randbytes(16) for _ in range(2 * found._capacity)]
    found.add(ids, 0)
    assert all(trace_id in found for trace_id in ids)
    tries = 100_000
    assert sum(rng.randbytes(16) in found for _ in range(tries)) <= tries * 1e-4


def test_it_takes_no_more_than_its_bytes_and_replaces_the_older_filter() -> None:
    rng = random.Random(4)
    found = ForgottenTraces(2_000, 1_000)
    first = [rng.randbytes(16) for _ in range(100)]
    found.add(first, 0)
    found.add([rng.randbytes(16)], 1_000)
    assert all(trace_id in found for trace_id in first), "the older filter"
    found.add([rng.randbytes(16)], 2_000)
    assert sum(trace_id in found for trace_id in first) <= 1
    found.add((rng.randbytes(16) for _ in range(5_000)), 2_000)
    assert len(found._young) + len(found._old) <= 2_000 + 2
