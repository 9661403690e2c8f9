"""Batches of a fetch: what a decompressed one takes is known before it is decompressed, and one that is too large is replaced."""

import random
from collections.abc import Callable

import aiokafka.codec as codecs
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.codec.spans import decode_batch
from prela_stream.transport.base import why_unread
from prela_stream.transport.kafka.client.batches import check_batches, decompressed_size
from tests.support.examples import examples

CODECS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "gzip": (1, codecs.gzip_encode),
    "snappy": (2, codecs.snappy_encode),
    "lz4": (3, codecs.lz4_encode),
    "zstd": (4, codecs.zstd_encode),
}
LIMIT = 2 << 20


@pytest.mark.parametrize(("codec", "encode"), CODECS.values(), ids=CODECS)
@given(seed=st.integers(), size=st.integers(0, 300_000), share=st.sampled_from([0, 1, 30, 100]))
@examples(25)
def test_the_size_is_never_underestimated(
    codec: int, encode: Callable[[bytes], bytes], seed: int, size: int, share: int
) -> None:
    rng = random.Random(seed)
    piece = rng.randbytes(max(1, size * share // 100))
    payload = encode((piece * (size // len(piece) + 1))[:size])
    assert decompressed_size(codec, memoryview(payload), LIMIT) >= size


@pytest.mark.parametrize(("codec", "encode"), CODECS.values(), ids=CODECS)
def test_the_limit_is_exact(codec: int, encode: Callable[[bytes], bytes]) -> None:
    for filler in (bytes(LIMIT + 1), random.Random(1).randbytes(LIMIT + 1)):
        assert decompressed_size(codec, memoryview(encode(filler[:LIMIT])), LIMIT) <= LIMIT
        assert decompressed_size(codec, memoryview(encode(filler)), LIMIT) > LIMIT


@pytest.mark.parametrize("codec", [1, 2, 3, 4, 5])
@given(
    payload=st.binary(max_size=200),
    magic=st.sampled_from([b"", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"\x1f\x8b\x08\0"]),
)
def test_junk_has_some_size(codec: int, payload: bytes, magic: bytes) -> None:
    assert decompressed_size(codec, memoryview(magic + payload), LIMIT) >= 0


def _batch(base: int, codec: int, *values: bytes) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=0,
        producer_id=7,
        producer_epoch=1,
        base_sequence=0,
        batch_size=1 << 30,
    )
    for offset, value in enumerate(values):
        builder.append(offset, 1_000, None, value, [("k", b"v")])
    data = bytearray(builder.build())
    data[:8] = base.to_bytes(8, "big")  # the broker sets it; the checksum does not cover it
    return bytes(data)


def _read(data: bytes) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    records = MemoryRecords(data)
    while records.has_next():
        batch = records.next_batch()
        assert batch is not None
        assert batch.validate_crc()
        found += [(record.offset, record.value or b"") for record in batch]
    return found


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_a_batch_that_is_too_large_is_one_unreadable_record_between_its_neighbours(codec: int) -> None:
    first, last = _batch(5, codec, b"a", b"b"), _batch(110, 0, b"z")
    hostile = _batch(7, codec, *[bytes(LIMIT // 2)] * 3)
    checked = check_batches(first + hostile + last, LIMIT)
    assert checked.replaced == 1
    records = _read(checked.data)
    assert [records[0], records[1], records[3]] == [(5, b"a"), (6, b"b"), (110, b"z")]
    offset, value = records[2]
    assert offset == 9, "its last offset, so that a reader that starts within the batch receives it"
    assert value.endswith(hostile[61:])
    reason = (
        "a batch of 3 records up to this offset has more than 2,097,152 bytes decompressed (kafka.max_batch_bytes); its "
        "compressed bytes follow"
    )
    assert why_unread(value) == (reason, 3)
    (bad,) = decode_batch(value).bad
    assert (bad.index, bad.items, bad.reason, bad.raw) == (-1, 3, reason, value)


def test_usual_batches_are_not_changed_and_not_large() -> None:
    data = _batch(5, 4, b"a", b"b") + _batch(7, 0, b"c") + _batch(8, 4, b"cut off")[:-3]
    checked = check_batches(data, LIMIT)
    assert (checked.data, checked.replaced, checked.large_until) == (data, 0, -1)


def test_records_of_a_large_batch_are_recognised() -> None:
    large = _batch(7, 4, *[bytes(LIMIT // 2 - 100)] * 2)
    assert check_batches(_batch(5, 4, b"a", b"b") + large + _batch(9, 4, b"c"), LIMIT).large_until == 8


@given(st.binary(max_size=300))
def test_junk_is_left_to_aiokafka(data: bytes) -> None:
    assert check_batches(data, LIMIT).data == data
