"""Any crash schedule gives the same decisions. Every span is accounted for, and no trace is decided twice."""

import random
from collections import Counter

import msgspec
import pytest

from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.selection import CoreKind
from prela_stream.codec.spans import decode_head, encode_batch, encode_item, kind_of
from prela_stream.model.span import COUNTED, PENDING, ItemKind
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.sampling.policyset import load_policies
from prela_stream.transport.base import LogRecord
from tests.support.partition_driver import SOURCE, Committed, Workers, as_read, random_log, span_ids
from tests.support.reference import decide

ASSEMBLY = AssemblyOptions(
    settle_ms=50,
    remote_wait_ms=100,
    root_wait_ms=200,
    idle_ms=400,
    idle_without_heartbeats_ms=900,
    late_window_ms=1_500,
    max_age_ms=5_000,
    max_spans=30,
)
FORGETFUL = msgspec.structs.replace(ASSEMBLY, late_window_ms=500)
HALF = Evaluator(load_policies('[[policy]]\nname = "half"\ntype = "probabilistic"\nprobability = 0.5\n', source="test"))
KEEP = Evaluator(load_policies('[[policy]]\nname = "all"\ntype = "always"\n', source="test"))


def decided_fields(committed: Committed) -> list[tuple[object, ...]]:
    return [
        (
            d.trace_id,
            d.decision_id,
            d.trigger,
            d.complete,
            d.decided_at_ms,
            d.first_offset,
            d.cut_offset,
            d.kept,
            d.weight,
            d.summary,
        )
        for d in committed.decisions
    ]


@pytest.mark.parametrize(("poison", "clocks"), [(False, False), (True, False), (False, True)])
def test_decisions_equal_the_reference_and_survive_any_crash_schedule(
    core: CoreKind, poison: bool, clocks: bool
) -> None:
    restarts = replayed = kept = late = repeated = 0
    for seed in range(250):
        rng = random.Random(seed)
        assembly = rng.choice((ASSEMBLY, FORGETFUL))
        log = random_log(rng, programs=rng.randrange(1, 9), poison=poison, clocks=clocks)
        steady = Workers(log, assembly, HALF, core)
        undisturbed = steady.finish()
        expected = decide(as_read(log), assembly)
        assert [
            (d.trace_id, d.trigger, d.complete, d.decided_at_ms, d.first_offset, d.cut_offset)
            for d in undisturbed.decisions
        ] == [(d.trace_id, d.trigger, d.complete, d.due_ms, d.first_offset, d.cut_offset) for d in expected.decided]
        troubled = Workers(log, assembly, HALF, core)
        crash_at, commit_at = rng.choice((0.02, 0.2)), rng.choice((0.1, 0.5))
        while troubled.step():
            if rng.random() < commit_at:
                troubled.commit()
            if rng.random() < crash_at and troubled.restarts < 30:
                troubled.crash()
        troubled.commit()
        assert decided_fields(troubled.committed) == decided_fields(undisturbed), seed
        assert Counter(span_ids(troubled.committed.fragments)) == Counter(span_ids(undisturbed.fragments)), seed
        assert Counter(troubled.committed.dead) == Counter(undisturbed.dead), seed
        assert troubled.state.counters == steady.state.counters
        restarts, replayed = restarts + troubled.restarts, replayed + troubled.replayed
        kept += sum(d.kept for d in undisturbed.decisions)
        late += sum(fragment.late for fragment in undisturbed.fragments)
        repeated += sum(d.repeated for d in undisturbed.decisions)
    assert min(restarts, replayed, kept, late, 4 * repeated) > 20  # the faults happened


def test_a_kept_trace_has_every_span_of_its_decision_in_unbroken_fragments(core: CoreKind) -> None:
    for seed in range(150):
        log = random_log(random.Random(seed), programs=5, poison=False)
        committed = Workers(log, ASSEMBLY, HALF, core).finish()
        expected = {
            d.trace_id + d.first_offset.to_bytes(8, "big"): d.span_ids for d in decide(as_read(log), ASSEMBLY).decided
        }
        for decision in committed.decisions:
            parts = [f for f in committed.fragments if f.decision.decision_id == decision.decision_id and not f.late]
            if not decision.kept:
                assert parts == []
                continue
            assert [part.fragment for part in parts] == list(range(len(parts)))
            assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
            assert set(span_ids(parts)) == expected[decision.trace_id + decision.first_offset.to_bytes(8, "big")]


def test_a_trace_larger_than_a_record_is_kept_in_unbroken_fragments(core: CoreKind) -> None:
    bodies = [
        encode_item(ItemKind.SPAN, b"t" * 16, bytes([n]) * 8, b"r" * 8, COUNTED, 1, 0, 0, 0, None, 1, 0, 1, "x" * 5_000)
        for n in range(40)
    ]
    root = encode_item(ItemKind.SPAN, b"t" * 16, b"r" * 8, None, 0, 1, 0, 40, 0, None, 0, 0, 1, "root")
    log = [
        LogRecord(topic=SOURCE.topic, partition=1, offset=n, timestamp_ms=1_000, value=encode_batch(b"\x80", [item]))
        for n, item in enumerate([*bodies, root])
    ]
    log.append(
        LogRecord(
            topic=SOURCE.topic, partition=1, offset=41, timestamp_ms=9_000, value=encode_batch(b"\x80", [b"\x91\x06"])
        )
    )
    committed = Workers(log, msgspec.structs.replace(ASSEMBLY, max_spans=100), KEEP, core).finish()
    assert [(part.fragment, part.last) for part in committed.fragments] == [(n, n == 13) for n in range(14)]
    assert Counter(span_ids(committed.fragments)) == Counter([*(bytes([n]) * 8 for n in range(40)), b"r" * 8])


def test_settings_that_changed_between_two_workers_lose_nothing(core: CoreKind) -> None:
    """A replay with shorter waits decides open traces. Spans that arrived after that are late, not lost."""
    changed = 0
    for seed in range(100):
        rng = random.Random(seed)
        log = random_log(rng, programs=4, poison=False)
        workers = Workers(log, ASSEMBLY, KEEP, core)
        while workers.step() and rng.random() > 0.05:
            workers.commit()
        before = len(workers.committed.decisions)
        workers.assembly = AssemblyOptions(settle_ms=1, remote_wait_ms=1, root_wait_ms=1, idle_without_heartbeats_ms=30)
        workers.crash()
        committed = workers.finish()
        assert workers.state.counters.unaccounted() == 0
        assert workers.state.counters.open == 0
        heads = [head for record in as_read(log) for head in record.batch.heads]
        sent = {(head.trace_id, head.span_id) for head in heads if head.kind == ItemKind.SPAN}
        kept = [decode_head(raw) for fragment in committed.fragments for _, raw in fragment.items]
        assert {(head.trace_id, head.span_id) for head in kept if head.kind == ItemKind.SPAN} == sent
        parts = Counter((part.decision.decision_id, part.fragment, part.late) for part in committed.fragments)
        assert max(parts.values()) == 1, "a fragment was written twice"
        changed += len(committed.decisions) > before
    assert changed > 20


def test_decisions_for_memory_lose_split_and_repeat_nothing(core: CoreKind) -> None:
    restarts = relieved = 0
    for seed in range(100):
        rng = random.Random(seed)
        log = random_log(rng, programs=rng.randrange(1, 9), poison=False)
        wide = msgspec.structs.replace(ASSEMBLY, late_window_ms=100_000_000)
        expected = Workers(log, wide, KEEP, core).finish()
        workers = Workers(log, wide, KEEP, core)
        while workers.step():
            if rng.random() < 0.1:
                relieved += workers.relieve(rng.choice((0, 1_000, 10_000)))
            if rng.random() < 0.3:
                workers.commit()
            if rng.random() < 0.1 and workers.restarts < 30:
                workers.crash()
        workers.commit()
        assert workers.state.counters.unaccounted() == 0
        decided = Counter(one.trace_id for one in workers.committed.decisions)
        assert max(decided.values(), default=1) == 1, seed
        assert set(decided) == {one.trace_id for one in expected.decisions}, seed
        assert _ended(workers.committed) == _ended(expected), seed
        restarts += workers.restarts
    assert min(restarts, relieved) > 100


def test_early_forgetting_gives_weight_0_and_survives_any_crash_schedule(core: CoreKind) -> None:
    restarts = repeated = forgotten_early = 0
    for seed in range(150):
        rng = random.Random(seed)
        log = random_log(rng, programs=rng.randrange(3, 9), poison=False)
        tight = msgspec.structs.replace(
            ASSEMBLY, late_window_ms=100_000_000, max_decided_bytes=rng.choice((64, 128, 320))
        )
        steady = Workers(log, tight, KEEP, core).finish()
        wide = Workers(log, msgspec.structs.replace(tight, max_decided_bytes=1 << 30), KEEP, core).finish()
        troubled = Workers(log, tight, KEEP, core)
        while troubled.step():
            if rng.random() < 0.3:
                troubled.commit()
            if rng.random() < 0.1 and troubled.restarts < 30:
                troubled.crash()
        troubled.commit()
        assert decided_fields(troubled.committed) == decided_fields(steady), seed
        seen: set[bytes] = set()
        for decision in steady.decisions:
            assert decision.repeated == (decision.trace_id in seen), seed
            assert decision.weight == (0.0 if decision.repeated else 1.0)
            seen.add(decision.trace_id)
        assert set(span_ids(steady.fragments)) >= set(span_ids(wide.fragments)) - {None}
        restarts += troubled.restarts
        repeated += sum(one.repeated for one in steady.decisions)
        forgotten_early += len(steady.decisions) > len(wide.decisions)
    assert min(restarts, repeated, forgotten_early) > 20


def _ended(committed: Committed) -> set[bytes]:
    """The SPAN items that were kept. A START that arrives after the decision on its trace is not."""
    items = [bytes(raw) for fragment in committed.fragments for _, raw in fragment.items]
    return {item for item in items if kind_of(item) == ItemKind.SPAN and decode_head(item).status != PENDING}
