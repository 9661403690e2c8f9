"""The JSON documents in the bytes of a file: one, one on each line, or one after the other; compressed or not, in any Unicode."""

import gzip
import io
import json
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from prela_stream.errors import CodecError
from prela_stream.otel.spans import Rejected

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_LENGTH: Final = struct.Struct(">I")
MOST_BYTES: Final = 2 << 30
"""Of a file, decompressed: its spans take several times as much memory."""
_BETWEEN: Final = re.compile(r"[\s,\x1e\0]*")
"""What may be between documents: nothing, a line end, a comma, or what RFC 7464 has there."""
_START: Final = re.compile(r"^[ \t]*(?=[\[{])", re.MULTILINE)
_AGAIN: Final = re.compile(r"^(?=[\[{])", re.MULTILINE)
"""Without spaces before it: a document that was printed over several lines has them before its inner objects."""
_MOST_GAPS: Final = 1_000
_NOT_JSON: Final = (ValueError, RecursionError)
_decoder: Final = json.JSONDecoder(strict=False)


def text_of(data: bytes) -> bytes:
    """The bytes as UTF-8 without compression. Raises CodecError if they cannot be decompressed, or are too many."""
    if data.startswith(_GZIP):
        data = _gunzip(data)
    elif data[:4] == _ZSTD:
        data = _unzstd(data)
    elif data[4:8] == _ZSTD:
        data = b"\n".join(_unzstd(frame) for frame in _framed(data))
    if (encoding := json.detect_encoding(data[:4])) not in ("utf-8", "utf-8-sig"):
        data = data.decode(encoding, "replace").encode()
    return data.removeprefix(b"\xef\xbb\xbf")


def _gunzip(data: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as file:
            found = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        msg = f"the file begins like gzip data, which cannot be decompressed: {error}"
        raise CodecError(msg) from error
    return _checked(found)


def _unzstd(data: bytes) -> bytes:
    from cramjam import DecompressionError, zstd

    size = max(len(data) * 16, 1 << 20)
    while True:
        space = bytearray(min(size, MOST_BYTES + 1))
        try:
            number = zstd.decompress_into(data, space)
        except (DecompressionError, OSError) as error:
            if "whole buffer" in str(error) and len(space) <= MOST_BYTES:
                size *= 8
                continue
            if "whole buffer" not in str(error):
                msg = f"the file begins like zstd data, which cannot be decompressed: {error}"
                raise CodecError(msg) from error
            number = len(space)
        return _checked(bytes(memoryview(space)[:number]))


def _framed(data: bytes) -> Iterator[bytes]:
    """The frames of a file of the Collector's file exporter with compression: each has its length before it."""
    at = 0
    while at + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        yield data[at : at + length]
        at += length


def _checked(data: bytes) -> bytes:
    if len(data) > MOST_BYTES:
        msg = f"the file has more than {MOST_BYTES:,} bytes after decompression: split it into several files"
        raise CodecError(msg)
    return data


def decoded(data: bytes) -> Any:
    """A JSON document, also with NaN, lone surrogates and control characters in texts, which Python and others write.

    Raises:
        CodecError: It is none.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        reason = str(problem)
    try:
        return _decoder.decode(data.decode("utf-8", "replace"))
    except _NOT_JSON as error:
        raise CodecError(reason) from error


def one_after_the_other(data: bytes) -> tuple[list[tuple[int, Any]], list[Rejected]]:
    """Documents that follow one another, each over any number of lines, with their first lines. Python's SDK prints spans so.

    A list that does not end, as of a writer that was stopped, gives its members. What comes before the first line that begins
    with a document is passed over; the caller reports it. After a text that is none, reading goes on at the next line that
    begins with one.

    Returns:
        The documents, and the texts after the first one that are none.
    """
    text = data.decode("utf-8", "replace")
    found: list[tuple[int, Any]] = []
    gaps: list[Rejected] = []
    start = _START.search(text)
    first = at = 0 if start is None else start.end()
    line, counted = 1, 0
    while (at := _end_of(text, at)) < len(text):
        line, counted = line + text.count("\n", counted, at), at
        try:
            document, at = _decoder.raw_decode(text, at)
        except _NOT_JSON as error:
            if text[at] == "[" and at == first:
                at += 1
                continue
            if text[at] == "]" and not text[at + 1 :].strip():
                break
            gaps.append(Rejected(place=f"line {line}", reason=f"not JSON: {error}"))
            after = _AGAIN.search(text, at + 1)
            if not found or after is None or len(gaps) >= _MOST_GAPS:
                break
            at = after.end()
            continue
        found.append((line, document))
    return found, gaps


def _end_of(text: str, at: int) -> int:
    between = _BETWEEN.match(text, at)
    return at if between is None else between.end()
