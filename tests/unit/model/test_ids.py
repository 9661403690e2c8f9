"""Ids, randomness and the partition of a trace, against the numbers of those who defined them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.model.ids import murmur2, partition_of, trace_randomness


@pytest.mark.parametrize(
    ("data", "signed"),
    # org.apache.kafka.common.utils.UtilsTest, testMurmur2
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_that_of_kafka(data: bytes, signed: int) -> None:
    assert murmur2(data) == signed % 2**32


@given(st.binary(min_size=16, max_size=16), st.integers(1, 1000))
def test_a_trace_has_one_partition(trace_id: bytes, partitions: int) -> None:
    assert partition_of(trace_id, partitions) == (murmur2(trace_id) & 0x7FFFFFFF) % partitions
    assert 0 <= partition_of(trace_id, partitions) < partitions


def test_randomness_is_the_last_56_bits() -> None:
    assert trace_randomness(bytes(range(16))) == 0x090A0B0C0D0E0F
    assert trace_randomness(b"\xff" * 16) == 2**56 - 1
