"""Commits that are cut anywhere, also between traces that are due at the same time, give the same decisions, each once."""

import random
from collections import Counter

import msgspec
import pytest

from prela_stream.assembly.base import ReadyTrace
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.selection import CoreKind
from prela_stream.codec.spans import encode_batch, encode_item
from prela_stream.model.span import ItemKind
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.sampling.policyset import load_policies
from prela_stream.transport.base import LogRecord
from prela_stream.worker.intake import NewRecords
from tests.support.any_log import RESOURCES, any_log, any_options, any_policies
from tests.support.partition_driver import SOURCE, Committed, Workers
from tests.support.steps import step_size

CUT = ("inside of a record", "in part of the items", "left behind", "restarts", "replayed")
KEEP = Evaluator(load_policies('[[policy]]\nname = "all"\ntype = "always"\n', source="test"))


def written(committed: Committed) -> tuple[object, object, object, Counter[bytes]]:
    """All that commits contain, without how it is cut into records."""
    fragments = [
        msgspec.structs.replace(one, items=[bytes(raw) for _, raw in one.items]) for one in committed.fragments
    ]
    late = sorted((one for one in fragments if one.late), key=lambda one: (one.fragment, one.decision.trace_id))
    return committed.decisions, [one for one in fragments if not one.late], late, Counter(committed.dead)


def cut_run(core: CoreKind, log: list[LogRecord], seed: int) -> tuple[Workers, Counter[str]]:
    rng = random.Random(seed)
    workers = Workers(log, _options(seed), any_policies(random.Random(seed)), core)
    size, crash_at, commit_at = rng.choice((1, 500, 4_000)), rng.choice((0.0, 0.02, 0.2)), rng.choice((0.1, 0.9))
    happened: Counter[str] = Counter()
    going = True
    while going:
        going = False
        workers.state.commit_bytes = size
        for _ in workers.parts():
            going = True
            state = workers.state
            if not state._between_records and state._low_before is None:
                happened["in part of the items"] += 1
                assert state.has_news == state.is_sealed  # what was sealed before
            if state.has_news and rng.random() < commit_at:
                happened["inside of a record"] += not state._between_records
                workers.commit_piece()
            if workers.restarts < 20 and rng.random() < crash_at:
                happened["left behind"] += state.is_sealed
                workers.crash()
                break
    workers.commit()
    return workers, happened


def _options(seed: int) -> AssemblyOptions:
    return msgspec.structs.replace(any_options(random.Random(seed)), max_decided_bytes=1 << 20)


def test_commits_that_are_cut_anywhere_decide_the_same(core: CoreKind, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: Counter[str] = Counter()
    discard = NewRecords.discarded

    def noted(new: NewRecords, ready: ReadyTrace) -> None:
        happened["discarded at a limit"] += whole.state._low_before is None
        discard(new, ready)

    monkeypatch.setattr(NewRecords, "discarded", noted)
    for seed in range(400):
        log = any_log(random.Random(seed))
        whole = Workers(log, _options(seed), any_policies(random.Random(seed)), core)
        before = happened["discarded at a limit"]
        expected = whole.finish()
        at_limit = happened["discarded at a limit"] - before
        with step_size((2, 1, None, None)[seed % 4]):
            workers, found = cut_run(core, log, seed)
        *others, dead = written(workers.committed)
        *expected_others, expected_dead = written(expected)
        assert others == expected_others, seed
        if not at_limit:
            assert dead == expected_dead, seed
            assert workers.state.counters == whole.state.counters, seed
        else:  # such a trace leaves no decision, so a replay from before the limit may discard some of its items again
            assert dead >= expected_dead, seed
        happened += found
        happened["restarts"] += workers.restarts
        happened["replayed"] += workers.replayed
    assert min(happened[one] for one in CUT) > 100, happened


def idle_traces(count: int, step_ms: int) -> list[LogRecord]:
    """Records of 100 traces every `step_ms`, and records whose time makes the rest due. Traces are due after 900 s."""
    rng = random.Random(0)
    log = []
    for offset in range(count // 100):
        items = [encode_item(ItemKind.SPAN, rng.randbytes(16), rng.randbytes(8), rng.randbytes(8)) for _ in range(100)]
        log.append(_record(offset, 1_000_000 + offset * step_ms, encode_batch(RESOURCES[0], items)))
    tick = encode_batch(RESOURCES[0], [encode_item(ItemKind.TICK)])
    end_ms = 3_000_000 + count // 100 * step_ms
    return [*log, _record(count // 100, end_ms, tick), _record(count // 100 + 1, end_ms, tick)]


def _record(offset: int, now_ms: int, value: bytes) -> LogRecord:
    return LogRecord(topic=SOURCE.topic, partition=SOURCE.partition, offset=offset, timestamp_ms=now_ms, value=value)


@pytest.mark.parametrize("step_ms", [0, 1_000_000])
def test_no_commit_exceeds_the_bound_if_many_traces_are_due_at_once(core: CoreKind, step_ms: int) -> None:
    log = idle_traces(20_000, step_ms)
    workers = Workers(log, AssemblyOptions(), KEEP, core)
    workers.state.commit_bytes = 200_000
    while workers.step():
        pass
    sizes = []
    while workers.state.has_news:
        before = len(workers.written)
        workers.commit_piece()
        sizes.append(sum(len(one.value or b"") for _, one in workers.written[before:]))
    assert len(workers.committed.decisions) == len({one.trace_id for one in workers.committed.decisions}) == 20_000
    assert max(sizes) < 300_000
    positions = [checkpoint.position for checkpoint in workers.checkpoints]
    assert positions == sorted(positions)
    if not step_ms:
        assert positions.count(len(log) - 2) > 20  # these commits are before the record that made the traces due
