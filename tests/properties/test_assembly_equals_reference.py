"""TraceBuffer against the reference, on logs of anything at all and on logs of simulated programs."""

import random
from itertools import pairwise
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.selection import CoreKind
from prela_stream.codec.spans import ItemBatch, encode_item, encode_resource
from prela_stream.model.span import ItemKind, Resource
from tests.support.assembly_driver import Driver, make_log
from tests.support.programs import Faults, simulate
from tests.support.reference import ReadRecord, decide
from tests.support.steps import step_size

OPTIONS: Final = AssemblyOptions(
    settle_ms=5,
    remote_wait_ms=10,
    root_wait_ms=20,
    otlp_root_wait_ms=30,
    idle_ms=40,
    idle_without_heartbeats_ms=60,
    lost_ms=50,
    silence_ms=15,
    max_age_ms=200,
    max_spans=6,
    max_bytes=500,
    late_window_ms=70,
)
PROGRAM_OPTIONS: Final = AssemblyOptions(
    settle_ms=20, remote_wait_ms=40, root_wait_ms=100, idle_ms=300, lost_ms=200, silence_ms=10
)
RESOURCES: Final = [
    encode_resource(Resource(pid=1, heartbeat_ms=10)),
    encode_resource(Resource(pid=2, heartbeat_ms=10)),
    encode_resource(Resource(pid=3)),
]

trace_ids = st.sampled_from([bytes([i]) * 16 for i in range(3)])
span_ids = st.sampled_from([bytes([i]) * 8 for i in range(5)])
counts = st.sampled_from([None, 0, 0, 0, 1, 1, 2])
span_items = st.builds(
    lambda *fields: encode_item(*fields, 1, 1_000, 5, "x" * fields[6]),
    st.sampled_from([0, 0, 0, 0, 0, 1]),
    trace_ids,
    span_ids,
    st.none() | span_ids,
    st.sampled_from([0, 1, 1, 2, 4, 4, 5, 9, 16, 20]),
    st.sampled_from([0, 1, 1, 1, 2]),
    st.sampled_from([0, 0, 0, 1, 2]),
    counts,
    counts,
    st.sampled_from([None, None, 0, 1, 2]),
)
control_items = st.builds(encode_item, st.sampled_from([2, 3, 4]), trace_ids, span_ids)
other_items = st.builds(encode_item, st.just(5), st.none() | trace_ids) | st.just(encode_item(6))
items = span_items | span_items | span_items | control_items | other_items
gaps = st.sampled_from([0, 0, 1, 4, 5, 6, 10, 19, 20, 21, 40, 60, 120, 1_000])
steps = st.one_of(gaps, gaps, gaps, st.sampled_from([-100_000, -40_000, -500, -1, 29_999, 30_000, 30_001, 100_000]))
logs = st.lists(st.tuples(gaps, st.sampled_from(RESOURCES), st.lists(items, max_size=6)), max_size=25).map(make_log)


@given(logs, st.sampled_from([None, 1, 2, 3]))
@settings(max_examples=200)
def test_any_log_gives_the_decisions_of_the_reference(core: CoreKind, log: list[ReadRecord], size: int | None) -> None:
    nothing = ItemBatch(resource=b"\x80", heads=[], raws=[], indexes=[], bad=[], unknown=0)
    whole = [*log, ReadRecord(10_000, 1_000_000_000, nothing), ReadRecord(10_001, 1_000_000_000, nothing)]
    with step_size(size):
        driver = Driver(core, OPTIONS)
        assert driver.run(whole) == decide(whole, OPTIONS)
    assert driver.core.open_traces == driver.core.open_spans == driver.core.open_bytes == 0
    assert driver.core.next_deadline_ms() is None


any_clock = st.lists(st.tuples(steps, st.sampled_from(RESOURCES), st.lists(items, max_size=6)), max_size=25)


@given(any_clock)
@settings(max_examples=200)
def test_a_clock_that_jumps_gives_the_decisions_of_the_reference(
    core: CoreKind, records: list[tuple[int, bytes, list[bytes]]]
) -> None:
    log = make_log(records, start_ms=500_000)
    assert Driver(core, OPTIONS).run(log) == decide(log, OPTIONS)


@given(logs, st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_the_order_of_traces_within_a_record_changes_nothing(
    core: CoreKind, log: list[ReadRecord], rng: random.Random
) -> None:
    def content(log: list[ReadRecord]) -> list[object]:
        outcome = Driver(core, OPTIONS).run(log)
        decided = [
            (d.trace_id, d.trigger, d.complete, d.due_ms, d.cut_offset, d.lost, d.basis, d.raws)
            for d in outcome.decided
        ]
        return [sorted(decided), sorted(offset for offset, _ in outcome.late)]

    assert content([_mix(record, rng) for record in log]) == content(log)


def _mix(record: ReadRecord, rng: random.Random) -> ReadRecord:
    """The same items, those of each trace in their order, the traces anyhow between one another."""
    batch = record.batch
    queues: dict[bytes | None, list[int]] = {}
    for place, head in enumerate(batch.heads):
        queues.setdefault(head.trace_id, []).append(place)
    order = [key for key, places in queues.items() for _ in places]
    rng.shuffle(order)
    places = [queues[key].pop(0) for key in order]
    mixed = ItemBatch(
        resource=batch.resource,
        heads=[batch.heads[place] for place in places],
        raws=[batch.raws[place] for place in places],
        indexes=range(len(places)),
        bad=[],
        unknown=0,
    )
    return ReadRecord(record.offset, record.timestamp_ms, mixed)


def test_logs_of_programs_give_the_decisions_of_the_reference(core: CoreKind) -> None:
    triggers = set()
    for seed in range(300):
        rng = random.Random(seed)
        programs = []
        for i in range(3):
            faults = Faults.any(rng)
            faults.revise = rng.choice((0.0, 0.5))
            programs.append(simulate(rng, faults, trace_id=bytes([i]) * 16))
        sends = [send for program in programs for send in program.sends]
        rng.shuffle(sends)  # which mixes the processes; a program's own order is tried elsewhere
        records = []
        while sends:
            resource = sends[-1].resource
            taken: list[bytes] = []
            while sends and len(taken) < 4 and sends[-1].resource == resource:
                taken.append(sends.pop().item)
            records.append((rng.choice([0, 1, 2, 6, 30]), resource, taken))
        records += [(10, RESOURCES[2], [encode_item(ItemKind.TICK)])] * 60
        log = make_log(records)
        with step_size((None, 1, 3)[seed % 3]):
            outcome = Driver(core, PROGRAM_OPTIONS).run(log)
        assert outcome == decide(log, PROGRAM_OPTIONS)
        triggers |= {(decided.trigger, decided.complete) for decided in outcome.decided}
        assert all(before.due_ms <= after.due_ms for before, after in pairwise(outcome.decided))
    assert len(triggers) == 5  # that the logs had something in them
