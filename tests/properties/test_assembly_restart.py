"""A crash changes nothing: a replay from the low watermark with the committed decisions gives the same decisions."""

from hypothesis import given, settings
from hypothesis import strategies as st

from prela_stream.assembly.selection import CoreKind
from tests.properties.test_assembly_equals_reference import OPTIONS, logs
from tests.support.assembly_driver import Driver
from tests.support.reference import ReadRecord, decide


@given(logs, st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), min_size=1, max_size=3))
@settings(max_examples=100)
def test_restarts_change_no_decision(core: CoreKind, log: list[ReadRecord], restarts: list[tuple[int, int]]) -> None:
    driver = Driver(core, OPTIONS)
    done = 0
    for committed, crashed in restarts:
        for record in log[done : max(done, committed)]:
            driver.apply(record)
        low = driver.core.low_watermark()
        offset, clock = low or (driver.position, driver.core.clock_ms)
        decided, late, position = list(driver.decided), list(driver.late), driver.position
        for record in log[max(done, committed) : crashed]:
            driver.apply(record)  # of which nothing is committed
        done = max(done, committed)

        driver = Driver(core, OPTIONS)
        driver.core.restore_clock(clock)
        for decision in decided:
            driver.core.load(decision.trace_id, None, decision.due_ms, decision.first_offset, decision.cut_offset)
        for record in log:
            if offset <= record.offset < position:
                driver.apply(record, replay=True)
        assert driver.decided == []  # all that was decided then is known, so nothing is decided a second time
        assert [place for place in late if place[0] >= offset] == driver.late
        driver.decided, driver.late, driver.position = decided, late, position
    for record in log[done:]:
        driver.apply(record)
    expected = decide(log, OPTIONS)
    assert driver.decided == expected.decided
    assert driver.late == expected.late
