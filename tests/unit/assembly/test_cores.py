"""Each core on the cases that have a name. Whether it follows the rules in general is tested in tests/properties."""

from collections.abc import Callable
from typing import Any

import pytest

from prela_stream.assembly.base import TRACE_BYTES, Core, ReadyTrace
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.python_core import PythonCore
from prela_stream.assembly.selection import CoreKind, choose_core
from prela_stream.codec.spans import decode_head, encode_batch, encode_item, encode_resource
from prela_stream.model.decision import Trigger
from prela_stream.model.span import COUNTED, REMOTE_PARENT, ItemKind, Resource
from tests.support.cores import MAX_ITEM_BYTES, add, end_load, expire, trace_of

T1, T2, T3 = (bytes([number]) * 16 for number in (1, 2, 3))
AGENT = encode_resource(Resource(pid=1, heartbeat_ms=10_000))
OTHER = encode_resource(Resource(pid=2, heartbeat_ms=10_000))
PLAIN = encode_resource(Resource(pid=3))


def sid(number: int) -> bytes:
    return bytes([number]) * 8


def span(
    number: int, parent: int | None = None, trace: bytes = T1, *, children: int | None = 0, status: int = 1, **more: Any
) -> bytes:
    flags = more.get("flags", 0 if parent is None else COUNTED)
    parent_id = None if parent is None else sid(parent)
    return encode_item(
        ItemKind.SPAN, trace, sid(number), parent_id, flags, status, more.get("revision", 0), children,
        more.get("injects", 0), more.get("ordinal"), 5, 0, 1, more.get("name", "work"),
    )  # fmt: skip


def control(kind: ItemKind, number: int | None = None, trace: bytes | None = T1) -> bytes:
    return encode_item(kind, trace, None if number is None else sid(number))


class Log:
    """A core and the log that it reads."""

    def __init__(self, core: CoreKind, **options: int) -> None:
        self.core = core.new(AssemblyOptions(**options), (), MAX_ITEM_BYTES)
        self.offset = -1

    def at(self, now_ms: int, *items: bytes, resource: bytes = AGENT) -> list[ReadyTrace]:
        """Append a record and return what is decided before and after it."""
        self.offset += 1
        found = [ready for ready in self.core.due(now_ms) if ready is not None]
        expire(self.core)
        self.applied = add(self.core, encode_batch(resource, items), self.offset)
        return [*found, *filter(None, self.core.over_limits())]


NewLog = Callable[..., Log]


@pytest.fixture
def new_log(core: CoreKind) -> NewLog:
    """Makes an empty log that each core reads."""
    return lambda **options: Log(core, **options)


def fates(found: list[ReadyTrace]) -> list[tuple[Trigger, bool, int]]:
    return [(trace_of(one).trigger, trace_of(one).complete, one.due_ms) for one in found]


def test_a_complete_trace_is_decided_after_settle_ms(new_log: NewLog) -> None:
    log = new_log()
    log.at(1_000, span(2, 1))
    log.at(1_100, span(1, children=1))
    assert log.at(1_599) == []
    [undecided] = log.at(1_600)
    assert fates([undecided]) == [(Trigger.COMPLETE, True, 1_600)]
    assert (undecided.trace_id, undecided.first_offset, undecided.spans, undecided.open_spans) == (T1, 0, 2, 0)
    assert [decode_head(raw).span_id for raw in undecided.raws] == [sid(2), sid(1)]
    assert undecided.resources == [AGENT, AGENT]
    assert undecided.resources[0] is undecided.resources[1]
    assert not undecided.lost
    assert (log.core.open_traces, log.core.open_spans, log.core.open_bytes) == (0, 0, 0)
    assert log.core.low_watermark() is None
    assert log.core.next_deadline_ms() is None


@pytest.mark.parametrize(
    ("items", "trigger", "due_ms"),
    [
        ([span(1, children=2), span(2, 1)], Trigger.ROOT_WAIT, 11_000),
        ([span(1, children=0), span(2, 1)], Trigger.ROOT_WAIT, 11_000),
        ([span(1, children=1), span(3, 2)], Trigger.ROOT_WAIT, 11_000),
        ([span(1, children=None)], Trigger.ROOT_WAIT, 11_000),
        # two wrongs make no right: the sums over this trace agree
        ([span(1, children=2), span(2, 1), span(3, 2), span(4, 2, children=0)], Trigger.ROOT_WAIT, 11_000),
        ([span(1), control(ItemKind.LOST)], Trigger.ROOT_WAIT, 11_000),
        ([span(1), control(ItemKind.LOST, trace=None)], Trigger.ROOT_WAIT, 11_000),
        ([span(1, injects=1)], Trigger.REMOTE_WAIT, 3_000),
        ([span(1, injects=1), span(2, 1, flags=REMOTE_PARENT, ordinal=1)], Trigger.REMOTE_WAIT, 3_000),
        ([span(1, injects=1), span(2, 9, flags=REMOTE_PARENT)], Trigger.REMOTE_WAIT, 3_000),
        ([span(2, 1)], Trigger.IDLE, 61_000),
    ],
)
def test_what_is_not_whole_waits_longer(new_log: NewLog, items: list[bytes], trigger: Trigger, due_ms: int) -> None:
    log = new_log()
    log.at(1_000, *items)
    assert fates(log.at(1_000_000)) == [(trigger, False, due_ms)]


@pytest.mark.parametrize(
    "items",
    [
        [span(1, injects=1), span(2, 1, flags=REMOTE_PARENT, ordinal=0)],
        [span(2, 1, flags=REMOTE_PARENT, ordinal=0), span(1, injects=1)],
        [span(1), span(2, 9, flags=REMOTE_PARENT)],
        [span(2, 9, flags=REMOTE_PARENT)],
        [span(1, children=0), span(2, 1, flags=2)],
        [control(ItemKind.START, 1), span(1)],
        [span(1), control(ItemKind.START, 1)],
        [span(1), control(ItemKind.SUSPEND, 1), span(1, status=0, revision=9)],
    ],
)
def test_what_is_whole_in_other_ways(new_log: NewLog, items: list[bytes]) -> None:
    log = new_log()
    log.at(1_000, *items)
    assert fates(log.at(1_000_000)) == [(Trigger.COMPLETE, True, 1_500)]


def test_without_heartbeats_idle_takes_longer(new_log: NewLog) -> None:
    log = new_log()
    log.at(1_000, span(2, 1), resource=PLAIN)
    log.at(1_000, span(3, 1, T2), resource=PLAIN)
    log.at(2_000, span(4, 1, T2), resource=OTHER)
    assert [undecided.trace_id for undecided in log.at(62_000)] == [T2]
    assert fates(log.at(901_000)) == [(Trigger.IDLE, False, 901_000)]


def test_a_suspended_trace_waits_to_the_end_of_the_span_or_of_its_age(new_log: NewLog) -> None:
    log = new_log(max_age_ms=500_000)
    log.at(1_000, span(2, 1), control(ItemKind.SUSPEND, 1))
    log.at(1_000, span(2, 1, T2), control(ItemKind.SUSPEND, 1, T2))
    assert log.at(400_000) == []
    log.at(401_000, span(1, children=1))
    assert fates(log.at(450_000)) == [(Trigger.COMPLETE, True, 401_500)]
    assert fates(log.at(501_000)) == [(Trigger.MAX_AGE, False, 501_000)]


def test_while_heartbeats_come_nothing_is_decided_and_when_they_stop_the_process_is_lost(new_log: NewLog) -> None:
    log = new_log()
    log.at(0, control(ItemKind.START, 1), span(2, 1))
    for now in range(10_000, 500_000, 10_000):
        assert log.at(now, control(ItemKind.HEARTBEAT, 1)) == []
    found = [undecided for now in range(500_000, 700_000, 10_000) for undecided in log.at(now)]
    assert fates(found) == [(Trigger.LOST, False, 490_000 + 90_000)]
    assert (found[0].spans, found[0].open_spans, len(found[0].raws)) == (1, 1, 2)


def test_silence_of_the_whole_log_is_no_missing_heartbeat(new_log: NewLog) -> None:
    log = new_log()
    log.at(0, control(ItemKind.START, 1))
    assert log.at(3_600_000) == []  # counts as 30 s
    assert log.at(7_200_000) == []
    assert log.core.next_deadline_ms() == 7_230_000
    assert fates(log.at(7_300_000)) == [(Trigger.LOST, False, 7_230_000)]


def test_lost_spans_that_cannot_be_named_mark_every_open_trace_of_their_process(new_log: NewLog) -> None:
    log = new_log()
    log.at(0, span(1), span(1, trace=T2))
    log.at(0, span(2, 9, T2, flags=REMOTE_PARENT), span(1, trace=T3), resource=OTHER)
    log.at(1, control(ItemKind.LOST, trace=None), resource=OTHER)
    found = {undecided.trace_id: undecided for undecided in log.at(100_000)}
    assert {trace_id: undecided.lost for trace_id, undecided in found.items()} == {T1: False, T2: True, T3: True}
    assert trace_of(found[T1]).complete
    assert found[T2].resources == [AGENT, OTHER]
    log.at(100_001, span(1), resource=OTHER)  # what opens later has lost nothing
    assert fates(log.at(200_000)) == [(Trigger.COMPLETE, True, 100_501)]


def test_the_highest_revision_speaks_for_a_span(new_log: NewLog) -> None:
    log = new_log()
    log.at(0, control(ItemKind.START, 1), span(1, status=0, name="open"))
    assert (log.applied.spans, log.applied.control, log.core.open_spans) == (1, 1, 1)
    log.at(0, span(1, name="end", children=5), span(1, name="again", children=6), span(1, status=0, revision=9))
    log.at(0, span(1, name="revised", revision=2), span(1, name="old", revision=1))
    assert log.core.open_spans + log.core.duplicates == 6
    [undecided] = log.at(500)
    assert [decode_head(raw).name for raw in undecided.raws] == ["revised"]
    assert (log.core.open_spans, log.core.duplicates) == (0, 5)
    assert trace_of(undecided).complete


def test_limits_cut_between_records_in_order_of_beginning(new_log: NewLog) -> None:
    log = new_log(max_spans=2, max_bytes=300)
    log.at(0, span(1, trace=T2))
    log.at(0, span(1, trace=T1))
    found = log.at(7, *(span(number, 1, trace) for trace in (T1, T2) for number in range(2, 6)))
    assert [(undecided.trace_id, trace_of(undecided).trigger, undecided.spans) for undecided in found] == [
        (T2, Trigger.MAX_SPANS, 5),
        (T1, Trigger.MAX_SPANS, 5),
    ]
    assert [undecided.due_ms for undecided in found] == [7, 7]
    assert [trace_of(undecided).trigger for undecided in log.at(8, span(1, name="n" * 300))] == [Trigger.MAX_BYTES]


def test_suspended_spans_that_never_came_take_room_too(new_log: NewLog) -> None:
    log = new_log(max_spans=2)
    assert log.at(0, span(1), control(ItemKind.SUSPEND, 2)) == []
    [undecided] = log.at(1, control(ItemKind.SUSPEND, 3))
    assert (trace_of(undecided).trigger, undecided.spans) == (Trigger.MAX_SPANS, 1)


def test_items_that_keep_coming_do_not_outlast_the_age_limit(new_log: NewLog) -> None:
    log = new_log(max_age_ms=200, idle_ms=40)
    for now in range(0, 200, 30):
        assert log.at(now, span(2 + now, 1)) == []
    assert fates(log.at(300)) == [(Trigger.MAX_AGE, False, 200)]


def test_a_loss_that_comes_to_be_known_never_makes_a_trace_due_earlier(new_log: NewLog) -> None:
    log = new_log(settle_ms=500, root_wait_ms=10)
    log.at(0, span(1))
    assert log.at(20, control(ItemKind.LOST, trace=None)) == []
    assert log.at(499) == []
    assert fates(log.at(3_000)) == [
        (Trigger.ROOT_WAIT, False, 2_000)
    ]  # remote_wait, the longer of the two that it yields to


def test_what_is_due_comes_in_order_of_deadline_and_then_of_beginning(new_log: NewLog) -> None:
    log = new_log()
    log.at(0, span(2, 1, T3), span(2, 1, T2), span(1, trace=T1))
    log.at(60_000 - 500, span(1, trace=T1, revision=1))
    assert [undecided.trace_id for undecided in log.at(60_000)] == [T3, T2, T1]


def test_items_of_decided_traces_are_late_or_control(new_log: NewLog) -> None:
    log = new_log()
    log.core.remember(T1, None, 0)
    items = [span(1), span(1, trace=T2), control(ItemKind.HEARTBEAT, 1), control(ItemKind.START, 1), span(2, 1)]
    log.at(5, *items)
    applied = log.applied
    assert list(applied.late) == [(T1, 0, items[0]), (T1, 4, items[4])]
    assert (applied.items, applied.control, applied.spans, applied.late_resource) == (5, 2, 1, AGENT)
    assert log.core.open_traces == 1


def test_a_replay_skips_the_items_of_committed_decisions(new_log: NewLog) -> None:
    log = new_log()
    log.core.load(T1, None, 5, first_offset=0, cut_offset=1)
    items = [span(1), control(ItemKind.HEARTBEAT, 1), span(1, trace=T2), control(ItemKind.TICK, trace=None)]
    for covered, spans in ((2, 1), (0, 2)):
        log.offset += 1
        list(log.core.due(4))
        expire(log.core)
        applied = add(log.core, encode_batch(AGENT, items), log.offset, replay=True)
        assert (applied.items, applied.covered, applied.spans) == (4, covered, spans)


def test_a_decision_that_was_loaded_after_the_clock_keeps_its_time(core: CoreKind) -> None:
    """A commit contained it, but not the record by whose time it was due. Decisions by that time follow it."""
    partition = core.new(AssemblyOptions(late_window_ms=500), (), MAX_ITEM_BYTES)
    partition.restore_clock(900)
    partition.load(T1, b"entry", 1_000, first_offset=0, cut_offset=2)
    end_load(partition)
    partition.remember(T2, None, 1_400)
    list(partition.due(1_450))
    expire(partition)
    assert partition.entry(T1) == b"entry"
    list(partition.due(1_500))
    expire(partition)
    assert partition.entry(T1) is None


def test_unreadable_items_cost_their_neighbours_nothing(new_log: NewLog) -> None:
    log = new_log()
    log.at(0, span(1), b"\xc3", encode_item(99, T1), b"\x93\x00\xc4\x03abc\x01", span(2, trace=T2))
    applied = log.applied
    assert (applied.items, applied.spans, applied.unknown) == (2, 2, 1)
    assert [(bad.index, bad.raw) for bad in applied.bad] == [(1, b"\xc3"), (3, b"\x93\x00\xc4\x03abc\x01")]
    assert [one.trace_id for one in log.at(500)] == [T1, T2]


def test_a_trace_of_which_no_span_came_is_forgotten_without_a_decision(new_log: NewLog) -> None:
    log = new_log()
    log.at(0, control(ItemKind.LOST), control(ItemKind.SUSPEND, 1, T2), control(ItemKind.TICK, trace=None))
    assert (log.core.open_traces, log.core.open_spans) == (2, 0)
    assert log.core.low_watermark() == (0, 0)
    log.at(5, control(ItemKind.RESUME, 1, T2))
    assert log.at(60_000) == []
    assert log.core.open_traces == 1
    assert log.at(60_005) == []
    assert (log.core.open_traces, log.core.low_watermark()) == (0, None)


def test_the_low_watermark_is_where_the_oldest_open_trace_began_and_the_clock_before(new_log: NewLog) -> None:
    log = new_log()
    log.at(100, span(1, trace=T1))
    log.at(200, span(2, 1, trace=T2))
    log.at(50, span(2, 1, trace=T3))  # a clock that goes back moves nothing
    assert log.core.low_watermark() == (0, 0)
    assert log.core.next_deadline_ms() == 600
    log.at(600)
    assert log.core.low_watermark() == (1, 100)
    assert log.core.clock_ms == 600


def test_memory_of_a_long_open_trace_does_not_grow_with_what_passes_by() -> None:
    log = Log(choose_core("python"), late_window_ms=1)
    log.at(0, control(ItemKind.START, 1))
    for number in range(6_000):
        trace = number.to_bytes(16, "big")
        log.at(number * 1_000, control(ItemKind.HEARTBEAT, 1), control(ItemKind.START, 2, trace), span(2, trace=trace))
    assert isinstance(log.core, PythonCore)
    buffer = log.core._buffer
    assert buffer.open_traces == 2
    assert len(buffer._opened) < 1_100
    assert len(buffer._deadlines._queue) < 1_100
    assert len(buffer._deadlines._watched) < 1_100
    assert buffer.low_watermark() == (0, 0)


def test_a_resource_that_cannot_be_read_is_one_without_heartbeats(new_log: NewLog) -> None:
    log = new_log()
    log.at(0, span(2, 1), resource=b"\x81\xc0\xc0")
    assert fates(log.at(900_000)) == [(Trigger.IDLE, False, 900_000)]


def heaviest(core: Core, most_bytes: int) -> list[ReadyTrace]:
    return list(filter(None, core.heaviest(most_bytes)))


def test_the_traces_with_the_most_bytes_times_age_are_decided_for_memory_in_order_of_their_begin(
    new_log: NewLog,
) -> None:
    log = new_log(idle_without_heartbeats_ms=3_600_000, idle_ms=3_600_000)
    log.at(1_000, span(1, 9, T1))
    log.at(1_001, span(2, 9, T2, name="x" * 2_000))
    log.at(1_002, span(3, 9, T3, name="x" * 3_000))
    log.at(10_000, control(ItemKind.TICK, trace=None))
    core = log.core
    assert heaviest(core, core.open_bytes + 3 * TRACE_BYTES) == []
    found = heaviest(core, core.open_bytes + 3 * TRACE_BYTES - 4_000)
    assert [ready.trace_id for ready in found] == [T2, T3]
    assert [trace_of(ready).trigger for ready in found] == [Trigger.MEMORY, Trigger.MEMORY]
    assert [ready.due_ms for ready in found] == [10_000, 10_000]
    assert (core.open_traces, core.open_spans) == (1, 1)
    assert [ready.trace_id for ready in heaviest(core, 0)] == [T1]
    assert (core.open_traces, core.open_bytes, core.low_watermark()) == (0, 0, None)


def test_an_old_trace_outweighs_a_young_larger_one(new_log: NewLog) -> None:
    log = new_log(idle_without_heartbeats_ms=3_600_000, idle_ms=3_600_000)
    log.at(1_000, span(1, 9, T1, name="x" * 1_000))
    log.at(60_000, span(2, 9, T2, name="x" * 5_000))
    assert [ready.trace_id for ready in heaviest(log.core, log.core.open_bytes + 2 * TRACE_BYTES - 1)] == [T1]


def test_the_work_for_memory_is_cut_into_steps(new_log: NewLog) -> None:
    log = new_log(idle_without_heartbeats_ms=3_600_000, idle_ms=3_600_000)
    traces = [number.to_bytes(16, "big") for number in range(1, 10_001)]
    for start in range(0, len(traces), 1_000):
        log.at(1_000 + start, *(span(1, 9, trace) for trace in traces[start : start + 1_000]))
    core, steps = log.core, 0
    left: list[bytes] = []
    for ready in core.heaviest(0):
        steps += ready is None
        if ready is not None and not left:
            assert steps >= 2 * len(traces) // 1_024  # to weigh all, and to find the heaviest
        left += [] if ready is None else [ready.trace_id]
    assert left == traces
    assert steps >= 3 * len(traces) // 1_024
    assert (core.open_traces, core.open_spans) == (0, 0)


def test_a_trace_without_a_span_is_forgotten_for_memory(new_log: NewLog) -> None:
    log = new_log()
    log.at(1_000, control(ItemKind.HEARTBEAT, 1))
    assert log.core.open_traces == 1
    assert heaviest(log.core, 0) == []
    assert log.core.open_traces == 0


@pytest.mark.parametrize("calls", [2, 2_100])
def test_a_sum_of_tokens_that_no_decision_could_hold_is_cut(new_log: NewLog, calls: int) -> None:
    most = (1 << 53) - 1
    items = [
        encode_item(
            ItemKind.SPAN, T1, number.to_bytes(8, "big"), None, 0, 1, 0, 0, 0, None, 1, 0, 1, "chat", None, None,
            {"gen_ai.usage.input_tokens": most, "gen_ai.usage.output_tokens": 1},
        )
        for number in range(1, calls + 1)
    ]  # fmt: skip
    log = new_log(settle_ms=1)
    log.at(1, *items)
    (summary,) = [trace_of(one).summary(0) for one in log.core.due(100_000) if one is not None]
    assert (summary.input_tokens, summary.output_tokens) == (most, calls)
