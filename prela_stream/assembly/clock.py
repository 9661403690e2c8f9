"""Stream time: the clock of a partition, computed from the log-append times of its records and from nothing else.

Stream time is the running maximum of the log-append times, with two exceptions for clocks of brokers that were wrong:

- **Ahead.** If a record would move stream time by more than `max_jump_ms`, the next record of the partition has to confirm
  it: the record is applied at the smaller of both times. So one record that is stamped an hour ahead moves nothing, and a record
  after an hour of silence moves stream time by an hour. A worker appends a tick if no other record follows.
- **Set back.** If the log-append times go back by more than `max_jump_ms`, several records were stamped ahead. From then on
  stream time advances with the log-append times, ahead of them by a constant shift, until they have caught up.
"""

import msgspec


class ClockJump(msgspec.Struct, frozen=True, kw_only=True):
    """A log-append time that stream time did not follow."""

    offset: int
    """The record with that time."""
    jump_ms: int
    """How far it is ahead of the time of the next record; negative if it is behind the stream time before it."""


class StreamClock:
    """The stream time of one partition.

    Args:
        max_jump_ms: The largest step that needs no confirmation by the next record.
    """

    __slots__ = ("_max_jump_ms", "jumps", "shift_ms", "time_ms")

    def __init__(self, max_jump_ms: int) -> None:
        self._max_jump_ms = max_jump_ms
        self.time_ms = 0
        """Stream time; 0 before the first record."""
        self.shift_ms = 0
        """How much stream time is ahead of the log-append times after they were set back."""
        self.jumps: list[ClockJump] = []
        """What stream time did not follow; the caller clears the list."""

    def restore(self, time_ms: int, shift_ms: int) -> None:
        """Set the clock to its state just before the next record."""
        self.time_ms = time_ms
        self.shift_ms = shift_ms

    def needs_confirmation(self, stamp_ms: int) -> bool:
        """Whether a record with this log-append time can be applied only when the next record is known."""
        return self._time_at(stamp_ms) - self.time_ms > self._max_jump_ms

    def advance(self, offset: int, stamp_ms: int, next_stamp_ms: int | None = None) -> int:
        """Apply the log-append time of the record at `offset` and return the stream time.

        Args:
            offset: The offset of the record.
            stamp_ms: Its log-append time.
            next_stamp_ms: That of the next record, if this one needs confirmation.
        """
        before = self.time_ms
        time = self._time_at(stamp_ms)
        if next_stamp_ms is not None and (confirmed := self._time_at(next_stamp_ms)) < time:
            if time - confirmed > self._max_jump_ms:
                self.jumps.append(ClockJump(offset=offset, jump_ms=time - confirmed))
            self.time_ms = confirmed
            return confirmed
        if stamp_ms >= before:
            self.shift_ms = 0
        elif stamp_ms + self.shift_ms < before - self._max_jump_ms:
            self.shift_ms = before - stamp_ms
            self.jumps.append(ClockJump(offset=offset, jump_ms=stamp_ms - before))
        self.time_ms = time
        return time

    def _time_at(self, stamp_ms: int) -> int:
        return stamp_ms if stamp_ms >= self.time_ms else max(self.time_ms, stamp_ms + self.shift_ms)
