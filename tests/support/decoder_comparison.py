"""Gives inputs of any kind to the native decoder and to the Python decoder, and compares what they read.

python -m tests.support.decoder_comparison [--inputs 10000000] [--seed 0]
"""

import argparse
import random
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from prela_stream.assembly.base import Applied, ReadyTrace
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.selection import CoreKind, choose_core
from prela_stream.codec.spans import encode_batch
from prela_stream.model.span import SpanFields
from tests.support.any_log import RESOURCES, an_item, damaged
from tests.support.cores import MAX_ITEM_BYTES, add, checked

OPTIONS = AssemblyOptions()
READS = ("gen_ai.usage.input_tokens", "k", "x")
STEP = 100_000


def any_value(rng: random.Random) -> bytes:
    """A record with items of anything, mostly damaged; or bytes of no meaning."""
    chosen = rng.random()
    if chosen < 0.05:
        return rng.randbytes(rng.randrange(40))
    if chosen < 0.1:
        return b"\x01" + rng.randbytes(rng.randrange(40))
    value = encode_batch(rng.choice(RESOURCES), [an_item(rng) for _ in range(rng.randrange(4))])
    return damaged(value, rng)


def read(kind: CoreKind, value: bytes) -> tuple[Applied, list[tuple[Any, ...]]]:
    """What a core makes of a record, and of its traces at their decisions."""
    core = kind.new(OPTIONS, READS, MAX_ITEM_BYTES)
    list(core.due(1))
    applied = add(core, value, 1)
    ready = [*filter(None, core.over_limits()), *filter(None, core.due(10**15))]
    return applied._replace(late=list(applied.late), bad=list(applied.bad)), [_content(one) for one in ready]


def _content(ready: ReadyTrace) -> tuple[Any, ...]:
    trace = ready.trace
    whole = checked(ready)
    state = (ready.trace_id, ready.basis, ready.due_ms, ready.spans, ready.open_spans, ready.lost, list(ready.poison))
    bodies = (list(whole.raws), list(whole.resources), list(whole.poison))
    if trace is None:
        return state, bodies
    facts = (
        trace.trigger, trace.complete, list(trace.statuses), trace.start_ns, trace.duration_ns, trace.randomness,
        sorted(trace.head_thresholds), trace.errors, repr(trace.summary(7)),
    )  # fmt: skip
    chosen = [{key: msgspec.msgpack.encode(own[key]) for key in READS if key in own} for own in trace.attributes]
    heads = [[getattr(head, name) for name in SpanFields.__struct_fields__] for head in trace.heads]
    return state, bodies, facts, heads, trace.resources, chosen


def compare_decoders(seeds: Iterable[int]) -> Counter[str]:
    """Compare both on one input per seed. Raises AssertionError; returns what happened."""
    native, python = choose_core("native"), choose_core("python")
    happened: Counter[str] = Counter()
    for seed in seeds:
        value = any_value(random.Random(seed))
        found, expected = read(native, value), read(python, value)
        assert found == expected, f"the decoders differ on the input of seed {seed}: {value!r}"
        applied = found[0]
        happened["bad"] += bool(applied.bad)
        happened["unknown"] += bool(applied.unknown)
        happened["decided"] += bool(found[1])
        happened["taken" if applied.items and not applied.bad else "left to python"] += 1
    return happened


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first input")
    arguments = parser.parse_args()
    happened: Counter[str] = Counter()
    began = time.monotonic()
    for start in range(0, arguments.inputs, STEP):
        seeds = range(arguments.seed + start, arguments.seed + min(start + STEP, arguments.inputs))
        happened += compare_decoders(seeds)
        print(
            f"{start + len(seeds)} inputs, {time.monotonic() - began:.0f} s: no difference. {dict(happened)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
