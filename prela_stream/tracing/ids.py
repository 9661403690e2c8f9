"""Random trace ids and span ids, read from the system's generator in blocks: an id costs a `list.pop`, not a system call.

A forked child discards the blocks that it inherited, so two processes never use the same ids.
"""

import os
import struct
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

from prela_stream.errors import guard
from prela_stream.model.ids import SPAN_ID_BYTES, TRACE_ID_BYTES
from prela_stream.tracing.forking import Step, at_fork

_BLOCK: Final = 256
_TEXT: Final = guard("the text of an id")


class IdSource:
    """Random ids of one size, never all zero, for any thread.

    `take()` is a C function that raises IndexError when a block is used up; `draw()` reads the next block then.
    """

    __slots__ = ("_block", "_pool", "_zero", "take")

    def __init__(self, size: int) -> None:
        self._block = struct.Struct(f"{size}s" * _BLOCK)
        self._zero = bytes(size)
        self._pool: list[bytes] = []
        self.take: Callable[[], bytes] = self._pool.pop
        at_fork(Step.IDS, in_child=self._pool.clear)

    def draw(self) -> bytes:
        """One id."""
        try:
            return self.take()  # atomic: two threads never get the same element
        except IndexError:
            block = [one for one in self._block.unpack(os.urandom(self._block.size)) if one != self._zero]
            first: bytes = block.pop()
            self._pool.extend(block)
            return first


trace_ids: Final = IdSource(TRACE_ID_BYTES)
span_ids: Final = IdSource(SPAN_ID_BYTES)
new_trace_id: Final = trace_ids.draw
"""16 random bytes; the last 7 are the trace's randomness (W3C Trace Context level 2)."""
new_span_id: Final = span_ids.draw
"""8 random bytes."""


def id_of(text: object, size: int) -> bytes:
    """The id for a text, of `size` bytes and never zero.

    Hex of the right length is used directly, with or without the dashes of a UUID. Any other text, for instance the request id
    of an application, is hashed (blake2b): the same text gives the same id in every process.
    """
    written = f"<{type(text).__name__}>"
    with _TEXT:
        written = str(text)
    digits = written.replace("-", "")
    if len(digits) == 2 * size:
        try:
            raw = bytes.fromhex(digits)
        except ValueError:
            raw = b""
        if len(raw) == size and any(raw):
            return raw
    return blake2b(written.encode("utf-8", "backslashreplace"), digest_size=size).digest()
