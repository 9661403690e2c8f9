"""Batches of zstd are decompressed as aiokafka does, into memory of the right size."""

import sys
import zlib
from typing import Final

import cramjam
import pytest
from aiokafka import codec
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.transport.kafka.client.zstd import Decode, ZstdDecode, use_sized_decompression

MAGIC: Final = b"\x28\xb5\x2f\xfd"
decode: Final = ZstdDecode(codec.zstd_decode)
contents = st.binary(max_size=300) | st.builds(
    bytes.__mul__, st.binary(max_size=20), st.integers(0, 30_000) | st.integers(200_000, 300_000)
)


@given(contents, contents)
def test_any_frames(one: bytes, two: bytes) -> None:
    frames = codec.zstd_encode(one) + codec.zstd_encode(two)
    assert bytes(decode(frames)) == one + two


def result(decoder: Decode, payload: bytes) -> bytes | str:
    try:
        return bytes(decoder(payload))
    except cramjam.DecompressionError as error:
        return str(error)


@given(st.binary(max_size=60) | st.binary(max_size=60).map(MAGIC.__add__))
def test_what_is_no_zstd_has_the_error_of_aiokafka(junk: bytes) -> None:
    assert result(decode, junk) == result(codec.zstd_decode, junk)


def test_a_cut_frame_is_refused() -> None:
    whole = codec.zstd_encode(zlib.compress(b"text" * 1_000))
    with pytest.raises(cramjam.DecompressionError):
        decode(whole[:-3])


def test_the_batches_of_aiokafka_are_decompressed_so() -> None:
    use_sized_decompression()
    use_sized_decompression()
    module = sys.modules[DefaultRecordBatch.__module__]
    assert isinstance(vars(module)["zstd_decode"], ZstdDecode)
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=4, is_transactional=False, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=1 << 20,
    )  # fmt: skip
    values = [b"%02d" % number * 10_000 for number in range(40)]
    for number, value in enumerate(values):
        builder.append(number, 1_790_000_000_000, None, value, [])
    batch = DefaultRecordBatch(bytes(builder.build()))
    found = [record.value for record in batch]
    assert found == values
    assert {type(value) for value in found} == {bytes}
