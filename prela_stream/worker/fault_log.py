"""Which faults of the transport are logged already: partitions that meet the same fault log one line, and not one each."""

from typing import Final

_MOST: Final = 100


class FaultLog:
    """The faults that the partitions of a worker have logged since a commit landed."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def is_new(self, fault: str) -> bool:
        """Whether no partition has logged this text since a commit landed. It counts as logged from now on."""
        if fault in self._logged:
            return False
        if len(self._logged) >= _MOST:
            self._logged.clear()
        self._logged.add(fault)
        return True

    def clear(self) -> None:
        """A commit landed, so the transport is available: log the next fault again."""
        self._logged.clear()
