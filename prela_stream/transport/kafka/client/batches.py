"""Bounds how much memory a fetched batch of records takes when it is decompressed, before it is decompressed.

A batch of 150 bytes may contain 4 MB, and one of 1 MB may contain gigabytes. aiokafka decompresses each batch as a whole. So
each batch of a fetch is measured first: from the sizes of its compressed blocks, or by decompressing it piece by piece. A batch
that is too large is replaced by one unreadable record with its compressed bytes. Readers dead-letter it and continue after it.
"""

import struct
import zlib
from collections.abc import Callable
from typing import Any, Final

import cramjam
import msgspec
from aiokafka.record.util import calc_crc32c, encode_varint

from prela_stream.transport.base import unread_value

_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
"""Base offset, length, leader epoch, magic, CRC, attributes, last offset delta, times, producer id and epoch, sequence, count."""
_PREFIX: Final = struct.Struct(">qi")
_CRC_AT: Final = 17
_CODEC_BITS: Final = 0x07
_GZIP, _SNAPPY, _LZ4, _ZSTD = 1, 2, 3, 4
_LARGE: Final = 1 << 20
"""A larger batch is read one record at a time: each of its records may be as large."""

_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_BLOCK: Final = 128 << 10
"""Most bytes of a compressed block of zstd, by its format (RFC 8878, 3.1.1.2.4)."""
_GZIP_RATIO: Final = 1_032
"""Most bytes that deflate can make of one."""
_SNAPPY_RATIO: Final = 22
_LZ4_RATIO: Final = 255
_LZ4_MAGIC: Final = 0x184D2204
_PIECE: Final = 1 << 20


class Checked(msgspec.Struct, frozen=True):
    """The batches of one partition in a fetch."""

    data: bytes
    """With each batch that is too large replaced."""
    large_until: int
    """The last offset of the last batch that may be larger than a usual one; -1 if there is none."""
    replaced: int
    """How many batches were too large."""


def check_batches(data: bytes, limit: int) -> Checked:
    """Check the batches of a partition in a fetch.

    Args:
        data: Batches of format version 2, the last one possibly cut. Older formats are left as they are.
        limit: Most bytes of a decompressed batch.
    """
    at, large_until, replaced = 0, -1, 0
    parts: list[bytes | memoryview] = []
    view = memoryview(data)
    kept = 0
    while at + _HEADER.size <= len(data):
        base, length, _, magic, _, attributes, delta, *_, count = _HEADER.unpack_from(data, at)
        end = at + _PREFIX.size + length
        if magic != 2 or end > len(data) or end < at + _HEADER.size:
            break
        if codec := attributes & _CODEC_BITS:
            payload = view[at + _HEADER.size : end]
            size = decompressed_size(codec, payload, limit)
            if size > _LARGE:
                large_until = base + delta
            if size > limit:
                parts += [view[kept:at], _replacement(data, at, payload, count, limit)]
                kept, replaced = end, replaced + 1
        elif length > _LARGE:
            large_until = base + delta
        at = end
    return Checked(b"".join([*parts, view[kept:]]) if parts else data, large_until, replaced)


def decompressed_size(codec: int, payload: memoryview, limit: int) -> int:
    """How large a payload is at most when it is decompressed. More than `limit` only if it really is larger than `limit`.

    A payload that is invalid has some size: its decoder will reject it.
    """
    try:
        bound = _BOUNDS[codec](payload)
        return bound if bound <= limit else _MEASURES[codec](payload, limit)
    except (KeyError, IndexError, struct.error, zlib.error, cramjam.DecompressionError):
        return 0


def _replacement(data: bytes, at: int, payload: memoryview, count: int, limit: int) -> bytes:
    """A batch like the one at `at`, with one record in place of all: at its last offset, with the compressed bytes."""
    head = list(_HEADER.unpack_from(data, at))
    delta = head[6]
    reason = (
        f"a batch of {count:,} records up to this offset has more than {limit:,} bytes decompressed "
        "(kafka.max_batch_bytes); its compressed bytes follow"
    )
    value = unread_value(reason, count, payload)
    body = bytearray(b"\0\0")  # attributes, time delta
    encode_varint(delta, body.append)
    encode_varint(-1, body.append)  # no key
    encode_varint(len(value), body.append)
    body += value
    encode_varint(0, body.append)  # no headers
    record = bytearray()
    encode_varint(len(body), record.append)
    record += body
    head[1] = _HEADER.size - _PREFIX.size + len(record)
    head[5] &= ~_CODEC_BITS
    head[-1] = 1
    batch = bytearray(_HEADER.pack(*head)) + record
    struct.pack_into(">I", batch, _CRC_AT, calc_crc32c(bytes(batch[_CRC_AT + 4 :])))
    return bytes(batch)


def zstd_bound(payload: memoryview) -> int:
    """Most bytes of a decompressed payload, by its blocks. Raises IndexError if it is cut."""
    at = total = 0
    while at < len(payload):
        if bytes(payload[at : at + 4]) != _ZSTD_MAGIC:  # a skippable frame; anything else is invalid
            at += 8 + int.from_bytes(payload[at + 4 : at + 8], "little")
            continue
        descriptor = payload[at + 4]
        single = descriptor >> 5 & 1
        content = (single, 2, 4, 8)[descriptor >> 6]
        at += 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + content
        last = 0
        while not last:
            block = payload[at] | payload[at + 1] << 8 | payload[at + 2] << 16
            last, kind, size = block & 1, block >> 1 & 3, block >> 3
            total += _ZSTD_BLOCK if kind == 2 else size
            at += 3 + (1 if kind == 1 else size)
        at += 4 * (descriptor >> 2 & 1)
    return total


def _zstd_size(payload: memoryview, limit: int) -> int:
    return _into(cramjam.zstd.decompress_into, payload, limit)


def _lz4_bound(payload: memoryview) -> int:
    at = total = 0
    while at < len(payload):
        if int.from_bytes(payload[at : at + 4], "little") != _LZ4_MAGIC:
            at += 8 + int.from_bytes(payload[at + 4 : at + 8], "little")
            continue
        flags, block = payload[at + 4], 1 << (8 + 2 * (payload[at + 5] >> 4 & 7))
        at += 7 + 8 * (flags >> 3 & 1) + 4 * (flags & 1)
        while size := int.from_bytes(payload[at : at + 4], "little"):
            total += block
            at += 4 + (size & 0x7FFFFFFF) + 4 * (flags >> 4 & 1)
            if at >= len(payload):
                break
        at += 4 + 4 * (flags >> 2 & 1)
    return min(total, len(payload) * _LZ4_RATIO)


def _lz4_size(payload: memoryview, limit: int) -> int:
    return _into(cramjam.lz4.decompress_into, payload, limit)


def _into(decompress: Callable[[Any, Any], int], payload: memoryview, limit: int) -> int:
    """The size, or `limit` + 1 if it does not fit."""
    room = bytearray(limit)
    try:
        return decompress(bytes(payload), room)
    except cramjam.DecompressionError:
        return limit + 1


def _gzip_size(payload: memoryview, limit: int) -> int:
    total, rest = 0, bytes(payload)
    while rest and total <= limit:
        stream = zlib.decompressobj(31)
        while not stream.eof and total <= limit:
            piece = stream.decompress(rest, _PIECE)
            total += len(piece)
            rest = stream.unconsumed_tail
            if not piece and not rest:
                break
        rest = stream.unused_data if stream.eof else b""
    return total


def _snappy_size(payload: memoryview, _limit: int) -> int:
    """The sum of the sizes that its blocks declare; a decoder allocates just these."""
    if bytes(payload[:8]) != b"\x82SNAPPY\0":
        return _declared(payload)
    at, total = 16, 0
    while at + 4 <= len(payload):
        size = int.from_bytes(payload[at : at + 4], "big")
        total += _declared(payload[at + 4 : at + 4 + size])
        at += 4 + size
    return total


def _declared(block: memoryview) -> int:
    total = 0
    for place, byte in enumerate(block[:5]):
        total |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            break
    return total


_BOUNDS: Final[dict[int, Callable[[memoryview], int]]] = {
    _GZIP: lambda payload: len(payload) * _GZIP_RATIO,
    _SNAPPY: lambda payload: len(payload) * _SNAPPY_RATIO,
    _LZ4: _lz4_bound,
    _ZSTD: zstd_bound,
}
_MEASURES: Final[dict[int, Callable[[memoryview, int], int]]] = {
    _GZIP: _gzip_size,
    _SNAPPY: _snappy_size,
    _LZ4: _lz4_size,
    _ZSTD: _zstd_size,
}
