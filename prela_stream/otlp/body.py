"""Reads the body of a request as a stream, and stops at a limit: a small compressed body may expand a thousand times."""

import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from prela_stream.errors import PrelaError

_STEP: Final = 256 << 10
_GZIP: Final = 16 + zlib.MAX_WBITS
CODINGS: Final = ("", "identity", "gzip", "x-gzip")
"""Values of Content-Encoding that are read."""


class BodyTooLargeError(PrelaError):
    """The body, decompressed, is larger than the limit."""


class BodyError(PrelaError):
    """The body is not compressed as its header names."""


async def read_body(chunks: AsyncIterator[bytes], coding: str, limit: int, reserve: Callable[[int], None]) -> bytes:
    """The body, decompressed.

    Args:
        chunks: As received.
        coding: One of `CODINGS`.
        limit: Most bytes, before and after decompression.
        reserve: Called with the number of bytes before they are kept; what it raises passes.

    Raises:
        BodyTooLargeError: There are more bytes than `limit`.
        BodyError: The bytes are no gzip.
    """
    parts: list[bytes] = []
    size = received = 0
    gunzip = _Gunzip() if coding in ("gzip", "x-gzip") else None
    async for chunk in chunks:
        received += len(chunk)
        if received > limit:
            raise _too_large(limit)
        for part in (chunk,) if gunzip is None else gunzip.decompress(chunk):
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            if part:
                reserve(len(part))
                parts.append(part)
    if gunzip is not None and not gunzip.is_complete:
        msg = f"the body ends inside of its gzip data, after {received:,} bytes"
        raise BodyError(msg)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(
        f"the body is larger than {limit:,} bytes after decompression (otlp.max_body_bytes): send fewer spans in a request"
    )


class _Gunzip:
    """Decompresses gzip in pieces of bounded size. The data may have several members."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(_GZIP)
        self._started = False

    @property
    def is_complete(self) -> bool:
        """Whether the last member has ended."""
        return self._zlib.eof or not self._started

    def decompress(self, data: bytes) -> Iterator[bytes]:
        """The next pieces. Raises BodyError."""
        while data:
            if self._zlib.eof:
                self._zlib = zlib.decompressobj(_GZIP)
            self._started = True
            try:
                piece = self._zlib.decompress(data, _STEP)
            except zlib.error as error:
                msg = f"the body is no gzip data, which its header Content-Encoding names: {error}"
                raise BodyError(msg) from error
            yield piece
            data = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail
