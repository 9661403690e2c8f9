"""`complete` is never reported too early and always in the end, on programs with known ground truth."""

import random

from prela_stream.assembly.base import ReadyTrace
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.selection import CoreKind
from prela_stream.codec.spans import decode_head, encode_batch
from prela_stream.model.decision import Trigger
from tests.support.cores import MAX_ITEM_BYTES, trace_of
from tests.support.programs import Faults, Program, Send, simulate

OPTIONS = AssemblyOptions(settle_ms=50, remote_wait_ms=100, root_wait_ms=200, idle_ms=400)


def in_log_order(program: Program, rng: random.Random) -> list[Send]:
    """The sends as several producers with retries may append them: nearly in order, or in any."""
    disorder = rng.choice((0, 3, 1_000))
    return [send for _, send in sorted(enumerate(program.sends), key=lambda pair: pair[0] + rng.random() * disorder)]


def decisions(core: CoreKind, sends: list[Send], rng: random.Random, gaps: tuple[int, ...]) -> list[ReadyTrace]:
    """Every decision on one trace, by a core that is told of none, so that later items are another trace."""
    buffer = core.new(OPTIONS, (), MAX_ITEM_BYTES)
    found: list[ReadyTrace] = []
    now = 1_000
    for offset, send in enumerate(sends):
        now += rng.choice(gaps)
        found += filter(None, buffer.due(now))
        buffer.add(encode_batch(send.resource, [send.item]), offset)
    found += filter(None, buffer.due(now + OPTIONS.max_age_ms))
    return found


def test_complete_is_never_reported_while_a_counted_span_is_missing(core: CoreKind) -> None:
    reported = incomplete = harmed = 0
    for seed in range(20_000):
        rng = random.Random(seed)
        program = simulate(rng, Faults.any(rng))
        for undecided in decisions(core, in_log_order(program, rng), rng, (0, 1, 10, 60)):
            heads = [decode_head(raw) for raw in undecided.raws]
            missing = program.missing({head.span_id for head in heads if head.span_id is not None and head.kind == 0})
            if trace_of(undecided).complete:
                assert missing is None, (seed, missing)
                reported += 1
            else:
                incomplete += 1
                harmed += missing is not None
    assert min(reported, incomplete, harmed) > 2_000  # the faults happened


def test_a_program_that_lost_nothing_is_complete_once_all_has_arrived(core: CoreKind) -> None:
    for seed in range(4_000):
        rng = random.Random(seed)
        program = simulate(rng, Faults(duplicate=rng.choice((0.0, 0.2)), revise=rng.choice((0.0, 0.5)), restart=0.5))
        decided = decisions(core, in_log_order(program, rng), rng, (0, 1))
        assert [(trace_of(one).trigger, trace_of(one).complete, one.open_spans) for one in decided] == [
            (Trigger.COMPLETE, True, 0)
        ], seed
        assert {decode_head(raw).span_id for raw in decided[0].raws} == set(program.spans)
