"""Logs of anything: every kind of item, several processes per trace, duplicates, revisions, cycles, poison, wrong clocks."""

import random
from collections.abc import Sequence
from typing import Any

import msgspec

from prela_stream.assembly.options import AssemblyOptions
from prela_stream.codec.spans import encode_batch, encode_item, encode_resource
from prela_stream.model.span import ItemKind, Resource
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.sampling.policyset import load_policies
from prela_stream.transport.base import LogRecord
from tests.support.partition_driver import SOURCE, random_log

RESOURCES = [
    *(
        encode_resource(Resource(service_name=name, heartbeat_ms=beats))
        for name, beats in (("a", 0), ("b", 1_000), ("ü" * 250, 5))
    ),
    b"\x81\xc0\xc0",
]
STEPS_MS = (0, 0, 1, 100, 499, 500, 501, 2_000, 9_999, 10_000, 29_999, 60_000, 90_000, 900_001, 3_000_000)
ATTRIBUTES: Sequence[dict[str, Any] | bytes] = (
    *[{}] * 6,
    {"gen_ai.usage.input_tokens": 7, "x": "y"},
    {"llm.output_tokens": 5, "gen_ai.usage.output_tokens": 7},
    {"prela.cost.usd": 0.25},
    {"prela.cost.usd": 0.1},
    {"prela.cost.usd": 3},
    {"prela.cost.usd": float("nan")},
    {"gen_ai.usage.input_tokens": None, "llm.prompt_tokens": 4},
    {"gen_ai.usage.input_tokens": "7"},
    {"gen_ai.usage.input_tokens": 2.5},
    {"gen_ai.usage.input_tokens": (1 << 64) - 1},
    {"gen_ai.usage.input_tokens": [1]},
    {"k": [1, {"a": None}]},
    {"k": 5},
    {"k": b"\x00"},
    b"\xc0",  # none of these is a map that every reader can read
    b"\x81\xa1k\xa1\xff",
    b"\x81\xa1\xff\x01",
    b"\x81\x01\x02",
    b"\x81\xa1k\x81\x01\x02",
    b"\x81\xa1k\xd6\xff\x00\x00\x00\x00",
    b"\x81\xa1k\xc7\x01\x05\x00",
    b"\x81\xa1k" + b"\x91" * 70 + b"\x01",
    b"\x81\xa1k" + b"\x91" * 250 + b"\x01",
    b"\x82\xa1k\x01\xa1k\x02",
)
EVENTS: Sequence[bytes] = (
    *[b"\x90"] * 12, b"\x91\x92\xa1e\x05", b"\x91\x93\xa1e\x05\x81\xa1k\x01", b"\x91\x93\xa1e\x05\x81\xa1k\xd4\x01\x00",
    b"\x91\x91\xa1e", b"\x91\x94\xa1e\x05\x80\x01", b"\x80",
)  # fmt: skip
LINKS: Sequence[bytes] = (
    *[b"\x90"] * 12, b"\x91\x92\xc4\x10" + b"t" * 16 + b"\xc4\x08" + b"s" * 8, b"\x91\x92\xc4\x01t\xc4\x08" + b"s" * 8,
    b"\x91\x93\xc4\x10" + b"t" * 16 + b"\xc4\x08" + b"s" * 8 + b"\x81\xa1k\xa1\xff",
)  # fmt: skip
BAD_ITEMS = (b"\x93\x00\xc4\x03abc\x01", b"\xc3", b"\x90", b"\x91\x00", b"\x91\xa1x", b"\x91\xff")
POLICIES = (
    '[[policy]]\nname = "half"\ntype = "probabilistic"\nprobability = 0.5\n',
    '[[policy]]\nname = "all"\ntype = "always"\n',
    """
[[policy]]
name = "errors"
type = "status"
statuses = ["ERROR", "CANCELLED"]

[[policy]]
name = "slow"
type = "latency"
min_ms = 5

[[policy]]
name = "rest"
type = "probabilistic"
probability = 0.3
""",
    """
mode = "first_match"
default = 0.7

[[policy]]
name = "large"
type = "attribute"
key = "gen_ai.usage.input_tokens"
min = 5

[[policy]]
name = "some"
type = "attribute"
key = "k"
exists = true

[[policy]]
name = "service"
type = "attribute"
key = "service.name"
on = "resource"
equals = "b"
probability = 0.4
""",
    """
[[policy]]
name = "no failures"
type = "drop"
probability = 0.2
policies = [{type = "not", policies = [{type = "status", statuses = ["ERROR"]}]}]

[[policy]]
name = "llm"
type = "attribute"
key = "x"
equals = "y"
span_type = "llm"

[[policy]]
name = "rest"
type = "probabilistic"
probability = 0.6
""",
)


def an_item(rng: random.Random) -> bytes:
    """An item of any kind, of few traces and spans, so that they meet."""
    trace_id, span = bytes([rng.randrange(4)]) * 16, bytes([rng.randrange(7)]) * 8
    parent = None if span[0] == 0 or rng.random() < 0.1 else bytes([rng.randrange(7)]) * 8
    chosen = rng.random()
    if chosen < 0.06:
        return encode_item(
            ItemKind.START, trace_id, span, parent, rng.choice([1, 9]), 0, rng.choice([0, 1]), None, None, None,
            rng.randrange(6), 5, None, "start", None, None, _attributes(rng),
        )  # fmt: skip
    if chosen < 0.18:
        return encode_item(rng.choice([ItemKind.HEARTBEAT, ItemKind.SUSPEND, ItemKind.RESUME]), trace_id, span)
    if chosen < 0.25:
        lost = encode_item(ItemKind.LOST, trace_id), encode_item(ItemKind.LOST)
        ticks = encode_item(ItemKind.TICK), encode_item(ItemKind.TICK, trace_id)
        return rng.choice([*lost, *ticks, encode_item(9, trace_id, span), rng.choice(BAD_ITEMS)])
    foreign = rng.choice([8, 16])
    start, duration = rng.choice([0, rng.randrange(50), rng.randrange(50) * 10**6]), rng.choice([None, 5, 9 * 10**6])
    return encode_item(
        ItemKind.SPAN, trace_id, span, parent, rng.choice([0, 1, 1, 1, 1, 2, 4, 5, foreign | 1, foreign]),
        rng.choice([0, 1, 1, 1, 1, 2, 3]),
        rng.choice([0, 0, 0, 1, 2]), rng.choice([None, 0, 0, 0, 0, 1, 1, 2]), rng.choice([None, 0, 0, 0, 1, 2]),
        rng.choice([None, None, 0, 1]), rng.randrange(6), start, duration, rng.choice(["a", "b", "ü", "n" * 300]),
        rng.choice([None, None, None, 7]), rng.choice([None, None, 0, 1 << 50]), _attributes(rng),
        msgspec.Raw(rng.choice(EVENTS)), msgspec.Raw(rng.choice(LINKS)), rng.choice([None, "message"]),
    )  # fmt: skip


def _attributes(rng: random.Random) -> dict[str, Any] | msgspec.Raw:
    found = rng.choice(ATTRIBUTES)
    return msgspec.Raw(found) if isinstance(found, bytes) else found


def damaged(value: bytes, rng: random.Random) -> bytes:
    """The bytes with a few changes, or cut."""
    changed = bytearray(value)
    for _ in range(rng.randrange(4)):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    del changed[len(changed) - rng.choice([0, 0, 0, 1, 7]) :]
    return bytes(changed) + rng.choice([b"", b"", b"", b"\x00"])


def any_log(rng: random.Random) -> list[LogRecord]:
    """Items of anything, or of simulated programs; after them all traces are due."""
    if rng.random() < 0.3:
        return random_log(rng, programs=rng.randrange(1, 5), poison=rng.random() < 0.5, clocks=rng.random() < 0.3)
    log: list[LogRecord] = []
    offset, now = 0, 1_790_000_000_000
    for _ in range(rng.randrange(1, 30)):
        offset += rng.choice([1, 1, 1, 3])
        now += rng.choice(STEPS_MS) * rng.choice([1, 1, 1, 1, 1, 1, 1, -1])
        value = encode_batch(rng.choice(RESOURCES), [an_item(rng) for _ in range(rng.randrange(7))])
        log.append(_record(offset, now, damaged(value, rng) if rng.random() < 0.05 else value))
    tick = encode_batch(RESOURCES[0], [encode_item(ItemKind.TICK)])
    return [*log, _record(offset + 50, now + 200_000_000, tick), _record(offset + 51, now + 200_000_001, tick)]


def _record(offset: int, now_ms: int, value: bytes) -> LogRecord:
    return LogRecord(topic=SOURCE.topic, partition=SOURCE.partition, offset=offset, timestamp_ms=now_ms, value=value)


def any_options(rng: random.Random) -> AssemblyOptions:
    """The defaults, or limits that logs like these reach."""
    if rng.random() < 0.4:
        return AssemblyOptions()
    return AssemblyOptions(
        settle_ms=rng.choice([50, 500]),
        root_wait_ms=rng.choice([200, 10_000]),
        idle_ms=rng.choice([400, 60_000]),
        idle_without_heartbeats_ms=rng.choice([900, 900_000]),
        max_spans=rng.choice([3, 5, 100]),
        otlp_root_wait_ms=rng.choice([0, 499, 20_000]),
        max_bytes=rng.choice([200, 400, 1 << 20]),
        late_window_ms=rng.choice([500, 1_000, 100_000, 1_800_000]),
        lost_ms=rng.choice([1_000, 90_000]),
        max_age_ms=rng.choice([5_000, 86_400_000]),
        max_decided_bytes=rng.choice([64, 192, 640, 768 << 20]),
    )


def any_policies(rng: random.Random) -> Evaluator:
    """One of a few policy sets."""
    return Evaluator(load_policies(rng.choice(POLICIES), source="test"))
