"""How far stream time was ahead of the log-append times, for the checkpoint."""

from collections import deque


class Shifts:
    """The changes of the clock's shift since the low watermark. Rarely any."""

    def __init__(self) -> None:
        self._changes: deque[tuple[int, int]] = deque()
        self.last_ms = 0
        """The shift after the last change."""

    def add(self, offset: int, shift_ms: int) -> None:
        """The shift is `shift_ms` from the record after `offset` on."""
        self._changes.append((offset, shift_ms))
        self.last_ms = shift_ms

    def before(self, offset: int) -> int:
        """The shift just before the record at `offset`; no earlier one will be asked for."""
        while len(self._changes) > 1 and self._changes[1][0] < offset:
            self._changes.popleft()
        return self._changes[0][1] if self._changes and self._changes[0][0] < offset else 0
