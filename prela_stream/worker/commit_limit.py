"""The time limit of a commit: one that makes no progress has an unknown outcome. A slow one is waited for.

A commit takes several requests, one after the other. If a broker answers each of them late, the commit is slow, and to repeat it
makes the overload worse. So the limit counts from the last answer of the log. The writer bounds the whole commit.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from prela_stream.transport.base import Writer


class CommitLimit:
    """The limit of one commit.

    Args:
        within_s: How long the log may take for an answer, s.
    """

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._latest = float("inf")
        # shielded, because a cancelled commit has an unknown outcome
        self._scope = anyio.CancelScope(shield=True, deadline=anyio.current_time() + within_s)

    @contextmanager
    def applies_to(self, writer: Writer) -> Iterator[None]:
        """Limit the commit of this writer in the block."""
        writer.on_answer = self._answered
        try:
            with self._scope:
                yield
        finally:
            writer.on_answer = None

    def hurry(self, within_s: float) -> None:
        """End within this time, whatever the log answers."""
        self._latest = min(self._latest, anyio.current_time() + within_s)
        self._scope.deadline = min(self._scope.deadline, self._latest)

    def _answered(self) -> None:
        self._scope.deadline = min(anyio.current_time() + self._within_s, self._latest)
