"""The native core gives what the Python core gives, for any log: traces, triggers, order, facts, late spans and watermarks."""

import random
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prela_stream.assembly.buffer import ReadyTrace, TraceBuffer
from prela_stream.assembly.completeness import TRIGGERS
from prela_stream.assembly.decided import DecidedTraces
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.codec.spans import decode_batch, decode_resource, encode_batch, encode_item, encode_resource
from prela_stream.model import semconv
from prela_stream.model.decision import Basis, Trigger
from prela_stream.model.ids import trace_randomness
from prela_stream.model.span import ItemKind, Resource
from prela_stream.worker.decoding import TraceDecoder, summarize
from tests.support.native_core import native_core

BASES = tuple(Basis)
NATIVE_TRIGGERS = (*TRIGGERS, Trigger.MAX_SPANS, Trigger.MAX_BYTES)
RESOURCES = [
    encode_resource(Resource(service_name=name, heartbeat_ms=beats))
    for name, beats in (("a", 0), ("b", 1_000), ("c", 5))
]
STEPS_MS = (0, 0, 1, 100, 499, 500, 501, 2_000, 9_999, 10_000, 60_000, 90_000, 900_001, 3_000_000)
ATTRIBUTES: tuple[dict[str, Any], ...] = (
    {},
    {"gen_ai.usage.input_tokens": 7, "x": "y"},
    {"llm.output_tokens": 5, "gen_ai.usage.output_tokens": 7},
    {"prela.cost.usd": 0.25},
    {"prela.cost.usd": 3},
    {"gen_ai.usage.input_tokens": None, "llm.prompt_tokens": 4},
    {"gen_ai.usage.input_tokens": "7"},
    {"gen_ai.usage.input_tokens": 2.5},
    {"gen_ai.usage.input_tokens": [1]},
    {"k": [1, {"a": None}]},
)
POISON = b"\x93\x00\xc4\x03abc\x01"
Log = list[tuple[int, int, bytes]]
"""Offset, log-append time and value of each record."""


def an_item(rng: random.Random) -> bytes:
    """An item of any kind, of few traces and spans, so that they meet."""
    trace_id, span = bytes([rng.randrange(4)]) * 16, bytes([rng.randrange(7)]) * 8
    parent = None if span[0] == 0 or rng.random() < 0.1 else bytes([rng.randrange(7)]) * 8
    chosen = rng.random()
    if chosen < 0.06:
        return encode_item(
            ItemKind.START, trace_id, span, parent, 1, 0, rng.choice([0, 1]), None, None, None, 0, 5, None, "start"
        )
    if chosen < 0.18:
        return encode_item(rng.choice([ItemKind.HEARTBEAT, ItemKind.SUSPEND, ItemKind.RESUME]), trace_id, span)
    if chosen < 0.25:
        lost = encode_item(ItemKind.LOST, trace_id), encode_item(ItemKind.LOST)
        return rng.choice([*lost, encode_item(ItemKind.TICK), encode_item(9, trace_id, span), POISON])
    foreign = rng.choice([8, 16])
    start, duration = rng.choice([0, rng.randrange(50), rng.randrange(50) * 10**6]), rng.choice([None, 5, 9 * 10**6])
    return encode_item(
        ItemKind.SPAN, trace_id, span, parent, rng.choice([0, 1, 1, 1, 1, 2, 4, 5, foreign | 1, foreign]),
        rng.choice([0, 1, 1, 1, 1, 2, 3]),
        rng.choice([0, 0, 0, 1, 2]), rng.choice([None, 0, 0, 0, 0, 1, 1, 2]), rng.choice([None, 0, 0, 0, 1, 2]),
        rng.choice([None, None, 0, 1]), rng.randrange(6), start, duration, rng.choice(["a", "b", "ü"]),
        rng.choice([None, None, None, 7]), rng.choice([None, None, 0, 1 << 50]), rng.choice(ATTRIBUTES), [], [], None,
    )  # fmt: skip


def a_log(rng: random.Random) -> Log:
    """Up to 30 records, and one long after them, by which every trace is due."""
    log: Log = []
    offset, now = 0, 1_790_000_000_000
    for _ in range(rng.randrange(1, 30)):
        offset += rng.choice([1, 1, 1, 3])
        now += rng.choice(STEPS_MS)
        items = [an_item(rng) for _ in range(rng.randrange(7))]
        log.append((offset, now, encode_batch(rng.choice(RESOURCES), items)))
    log.append((offset + 50, now + 200_000_000, encode_batch(RESOURCES[0], [encode_item(ItemKind.TICK)])))
    return log


def some_options(rng: random.Random) -> AssemblyOptions:
    """The defaults, or limits that logs like these reach."""
    if rng.random() < 0.6:
        return AssemblyOptions()
    return AssemblyOptions(
        max_spans=rng.choice([3, 5, 100]),
        otlp_root_wait_ms=rng.choice([0, 499, 20_000]),
        max_bytes=rng.choice([200, 400, 1 << 20]),
        late_window_ms=rng.choice([1_000, 100_000]),
        lost_ms=rng.choice([1_000, 90_000]),
        max_age_ms=rng.choice([5_000, 86_400_000]),
    )


class Outcome(msgspec.Struct):
    """What a core made of a log."""

    decided: list[Any] = []
    late: list[Any] = []
    marks: list[Any] = []


def read(decoder: TraceDecoder, ready: Any, trigger: Trigger, reads: Sequence[str]) -> tuple[Any, ...]:
    """A trace as Python reads it."""
    found = decoder.read(ready)
    if found.trace is None:
        return (ready.trace_id, "poison")
    trace = found.trace
    summary = msgspec.structs.astuple(summarize(trace, ready.due_ms))
    thresholds = tuple(sorted(trace.head_thresholds))
    chosen = [{key: value for key, value in own.items() if key in reads} for own in trace.attributes] if reads else None
    return (
        *state_of(ready, trigger),
        tuple(found.raws),
        tuple(trace.statuses),
        trace.randomness,
        thresholds,
        summary,
        chosen,
    )


def state_of(ready: Any, trigger: Trigger) -> tuple[Any, ...]:
    """What both cores know of a ready trace before it is decoded."""
    return (
        ready.trace_id, trigger, ready.complete, ready.lost, ready.first_offset, ready.due_ms, ready.spans, ready.open_spans,
        ready.basis if isinstance(ready.basis, Basis) else BASES[ready.basis],
    )  # fmt: skip


def run_python(log: Log, options: AssemblyOptions, reads: Sequence[str]) -> Outcome:
    """The Python core."""
    decided: DecidedTraces[int | None] = DecidedTraces(options)
    buffer, decoder, outcome = TraceBuffer(options, decided), TraceDecoder(reads), Outcome()

    def decide(traces: Iterable[ReadyTrace]) -> None:
        for ready in traces:
            found = read(decoder, ready, ready.trigger, reads)
            outcome.decided.append((found, decided.was_forgotten(ready.trace_id, ready.due_ms)))
            if found[1] != "poison":
                decided.remember(ready.trace_id, len(found[8]) % 2 or None, ready.due_ms)

    for offset, now, value in log:
        decide(buffer.due(now))
        decided.expire(buffer.clock_ms)
        batch = decode_batch(value)
        for index in buffer.add(batch, offset, now).late:
            trace_id = batch.heads[index].trace_id
            assert trace_id is not None
            outcome.late.append((offset, trace_id, batch.raws[index], decided[trace_id]))
        decide(buffer.over_limits())
        outcome.marks.append((buffer.low_watermark(), buffer.clock_ms, buffer.open_traces))
    return outcome


def new_partition(native: ModuleType, options: AssemblyOptions, reads: Sequence[str]) -> Any:
    """An empty partition of the native core."""
    names = {"input_tokens": semconv.INPUT_TOKENS, "output_tokens": semconv.OUTPUT_TOKENS, "cost": semconv.COST_USD}
    spellings = {name: list(semconv.read_keys(key)) for name, key in names.items()}
    return native.Partition(
        msgspec.structs.asdict(options),
        lambda raw: decode_resource(raw).heartbeat_ms > 0,
        reads=list(reads),
        **spellings,
    )


class AsRead(msgspec.Struct):
    """A trace that the native core leaves to Python's decoder."""

    trace_id: bytes
    trigger: Trigger
    complete: bool
    lost: bool
    first_offset: int
    due_ms: int
    spans: int
    open_spans: int
    basis: Basis
    raws: list[bytes]
    resources: list[bytes]


def facts(decoder: TraceDecoder, ready: Any, reads: Sequence[str]) -> tuple[Any, ...]:
    """A trace as the native core returns it."""
    trigger = NATIVE_TRIGGERS[ready.trigger]
    if not ready.plain:
        state = state_of(ready, trigger)
        fields = (*state, ready.raws(), ready.resources())
        return read(decoder, AsRead(**dict(zip(AsRead.__struct_fields__, fields, strict=True))), trigger, reads)
    costs = sorted(ready.costs)
    start = ready.start_ns or max(0, ready.due_ms * 1_000_000 - ready.duration_ns)
    service = decode_resource(ready.root_resource).service_name
    summary = (
        ready.root_name, service, start, ready.duration_ns, ready.items, ready.errors, ready.input_tokens, ready.output_tokens,
        sum(costs, 0.0) if costs else None, ready.shape_hash, ready.outside_parent,
    )  # fmt: skip
    chosen = msgspec.msgpack.decode(ready.selected) if reads else None
    randomness = trace_randomness(ready.trace_id) if ready.randomness is None else ready.randomness
    thresholds = tuple(sorted(ready.thresholds))
    return (
        *state_of(ready, trigger),
        tuple(ready.raws()),
        tuple(ready.statuses),
        randomness,
        thresholds,
        summary,
        chosen,
    )


def run_native(native: ModuleType, log: Log, options: AssemblyOptions, reads: Sequence[str]) -> Outcome:
    """The native core."""
    partition, decoder, outcome = new_partition(native, options, reads), TraceDecoder(reads), Outcome()

    def decide(traces: Iterable[Any]) -> None:
        for ready in traces:
            found = facts(decoder, ready, reads)
            outcome.decided.append((found, partition.was_forgotten(ready.trace_id, ready.due_ms)))
            if found[1] != "poison":
                partition.remember(ready.trace_id, len(found[8]) % 2 or None, ready.due_ms)

    for offset, now, value in log:
        decide(partition.due(now))
        partition.expire(partition.clock_ms)
        applied = partition.add(value, offset)
        if applied is None:
            batch = decode_batch(value)
            items = list(zip(batch.indexes, batch.raws, strict=True))
            applied = partition.add_items(batch.resource, items, offset)
        outcome.late += [(offset, trace_id, raw, partition.entry(trace_id)) for trace_id, raw in applied[4]]
        decide(partition.over_limits())
        outcome.marks.append((partition.low_watermark(), partition.clock_ms, partition.open_traces))
    return outcome


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 40))
def test_both_cores_give_the_same_for_any_log(seed: int) -> None:
    native, rng = native_core(), random.Random(seed)
    log, options = a_log(rng), some_options(rng)
    reads = rng.choice([(), ("k",), ("gen_ai.usage.input_tokens", "k", "x")])
    assert run_native(native, log, options, reads) == run_python(log, options, reads)


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 1 << 40))
def test_the_native_decoder_accepts_only_what_python_accepts(seed: int) -> None:
    """A record that it does not take is left to Python, so it may be stricter. It takes either all items or none."""
    native, rng = native_core(), random.Random(seed)
    value = bytearray(encode_batch(rng.choice(RESOURCES), [an_item(rng) for _ in range(rng.randrange(1, 5))]))
    for _ in range(rng.randrange(4)):
        value[rng.randrange(len(value))] = rng.randrange(256)
    del value[len(value) - rng.choice([0, 0, 0, 1, 7]) :]
    partition = new_partition(native, AssemblyOptions(), ())
    applied = partition.add(bytes(value), 1)
    if applied is None:
        assert (partition.open_traces, partition.open_spans, partition.open_bytes) == (0, 0, 0)
        return
    batch = decode_batch(bytes(value))
    assert (batch.bad, batch.unknown) == ([], 0)
    spans = [raw for head, raw in zip(batch.heads, batch.raws, strict=True) if head.kind == ItemKind.SPAN]
    assert applied[:3] == (len(batch.heads), len(batch.heads) - len(spans), len(spans))
    partition.due(1)
    held = [raw for ready in partition.due(10**15) for raw in ready.raws()]
    assert set(held) <= set(batch.raws)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x01",
        b"\x01\x92\x80\xdd\xff\xff\xff\xff",
        b"\x01\x92" + b"\x91" * 1_000_000,
        b"\x01\x92\x80\xdb\xff\xff\xff\xff",
        b"\x02\x92\x80\x90",
        bytes([1]) + b"\x92\x80\xdd" + (10_000_000).to_bytes(4, "big") + b"\x91\x06" * 10,
    ],
)
def test_a_hostile_record_is_left_to_python_and_changes_nothing(value: bytes) -> None:
    partition = new_partition(native_core(), AssemblyOptions(), ())
    assert partition.add(value, 1) is None
    assert partition.open_traces == 0
