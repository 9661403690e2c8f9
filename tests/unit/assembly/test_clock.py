"""Stream time: it follows the log, except for a clock that was wrong."""

import pytest

from prela_stream.assembly.clock import StreamClock

HOUR = 3_600_000


def times(stamps: list[int], clock: StreamClock | None = None) -> list[int]:
    """Stream time at each record. The last one is missing if it needs a following record."""
    clock = clock or StreamClock(30_000)
    found = []
    for offset, stamp in enumerate(stamps):
        following = stamps[offset + 1] if offset + 1 < len(stamps) else None
        needed = clock.needs_confirmation(stamp)
        if needed and following is None:
            break
        found.append(clock.advance(offset, stamp, following if needed else None))
    return found


def test_stream_time_is_the_running_maximum() -> None:
    assert times([HOUR, HOUR, HOUR + 5, HOUR + 3, HOUR + 30_005]) == [HOUR, HOUR, HOUR + 5, HOUR + 5, HOUR + 30_005]


@pytest.mark.parametrize("ahead", [31_000, HOUR, 24 * HOUR])
def test_one_record_that_is_stamped_ahead_moves_nothing(ahead: int) -> None:
    clock = StreamClock(30_000)
    assert times([HOUR, HOUR, HOUR + ahead, HOUR + 1, HOUR + 2], clock) == [HOUR, HOUR, HOUR + 1, HOUR + 1, HOUR + 2]
    assert [(jump.offset, jump.jump_ms) for jump in clock.jumps] == [(2, ahead - 1)]


def test_the_first_record_may_be_the_one_that_is_stamped_ahead() -> None:
    clock = StreamClock(30_000)
    assert times([9 * HOUR, HOUR, HOUR + 1], clock) == [HOUR, HOUR, HOUR + 1]
    assert [(jump.offset, jump.jump_ms) for jump in clock.jumps] == [(0, 8 * HOUR)], "no time since 1970"


def test_silence_moves_stream_time_as_soon_as_another_record_confirms_it() -> None:
    clock = StreamClock(30_000)
    assert times([HOUR, HOUR, 9 * HOUR], clock) == [HOUR, HOUR]
    assert times([9 * HOUR, 9 * HOUR + 1], clock) == [9 * HOUR, 9 * HOUR + 1]
    assert clock.jumps == []


def test_after_several_records_ahead_time_goes_on_with_a_shift_until_the_log_has_caught_up() -> None:
    clock = StreamClock(30_000)
    ahead = [2 * HOUR, 2 * HOUR + 10]
    back = [HOUR + 20, HOUR + 70, HOUR + 71]
    assert times([HOUR, HOUR, *ahead, *back], clock) == [
        HOUR,
        HOUR,
        *ahead,
        2 * HOUR + 10,
        2 * HOUR + 60,
        2 * HOUR + 61,
    ]
    assert [(jump.offset, jump.jump_ms) for jump in clock.jumps] == [(4, -HOUR + 10)]
    assert clock.shift_ms == HOUR - 10
    assert times([3 * HOUR, 3 * HOUR + 1], clock) == [3 * HOUR, 3 * HOUR + 1]
    assert clock.shift_ms == 0


def test_a_clock_that_is_restored_goes_on_as_before() -> None:
    stamps = [HOUR, HOUR, 2 * HOUR, 2 * HOUR, HOUR + 20, HOUR + 70, HOUR + 100]
    whole = times(stamps)
    for cut in range(4, len(stamps)):
        first = StreamClock(30_000)
        times(stamps[:cut], first)
        second = StreamClock(30_000)
        second.restore(first.time_ms, first.shift_ms)
        assert times(stamps[cut:], second) == whole[cut:]
