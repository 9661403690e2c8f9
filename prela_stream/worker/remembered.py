"""Brings the remembered decisions of a partition up to date in steps, and remembers which of them were forgotten early."""

from collections.abc import Iterator, Sequence

from prela_stream.assembly.base import Core
from prela_stream.assembly.forgotten import ForgottenTraces
from prela_stream.assembly.options import AssemblyOptions


class Remembered:
    """The decisions that a core remembers.

    Args:
        core: The core.
        assembly: Limits.
    """

    def __init__(self, core: Core, assembly: AssemblyOptions) -> None:
        self._core = core
        self._forgotten = ForgottenTraces(assembly.forgotten_bytes, 2 * max(1, assembly.late_window_ms))
        self.loaded = False
        """Decisions were loaded, and `end_load` was not called."""

    def was_decided(self, trace_id: bytes, now_ms: int) -> bool:
        """Whether a trace that is decided at this stream time was decided before."""
        return self._core.was_forgotten(trace_id, now_ms) or trace_id in self._forgotten

    def forget(self, early: Sequence[bytes] | None) -> Iterator[int]:
        """Call `Core.expire` until it is done, given what it returned. Yields how many each step forgot early."""
        while early is not None:
            if early:
                self._forgotten.add(early, self._core.clock_ms)
            yield len(early)
            early = self._core.expire()

    def end_load(self) -> Iterator[int]:
        """Make all loaded decisions effective before the first record after a replay. Yields as `forget`."""
        yield from self.forget(self._core.expire())  # as before the commit
        while self._core.end_load():  # with the decisions that a commit in the middle of this record contained
            yield 0
        self.loaded = False
