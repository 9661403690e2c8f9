"""Bounds the work of a worker between two turns of the event loop, so that commits, heartbeats and a stop are on time.

A commit needs dozens of turns of the event loop. If each turn applies records for 50 ms, a commit takes seconds, reaches its
timeout, and the partition is restored and does the same work again. So a worker applies records in slices, and in shorter slices
while a commit is in progress.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import anyio.lowlevel

SLICE_S = 0.010
"""Longest time between two turns of the event loop."""
SLICE_BYTES = 4 << 20
"""Most bytes of records between two turns of the event loop."""
COMMIT_SLICE_S = 0.002
"""Longest time between two turns of the event loop while a commit is in progress."""


class Pace:
    """The slice that a worker is in. One worker has one pace for all its partitions."""

    def __init__(self) -> None:
        self._began = monotonic()
        self._bytes = 0
        self._commits = 0

    @contextmanager
    def committing(self) -> Iterator[None]:
        """A commit is in progress."""
        self._commits += 1
        try:
            yield
        finally:
            self._commits -= 1

    def is_over(self, size: int = 0) -> bool:
        """Whether the slice is over, after `size` more bytes of records were applied."""
        self._bytes += size
        limit = COMMIT_SLICE_S if self._commits else SLICE_S
        return self._bytes >= SLICE_BYTES or monotonic() - self._began >= limit

    async def rest(self) -> None:
        """Let all other tasks run once, and start the next slice."""
        await anyio.lowlevel.checkpoint()
        self._bytes = 0
        self._began = monotonic()
