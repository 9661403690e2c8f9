"""A trace with many items and few ended spans: policies read it before its memory is freed."""

import pytest

from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.selection import CoreKind
from prela_stream.codec.spans import encode_batch, encode_item
from prela_stream.model.decision import Trigger
from prela_stream.model.span import COUNTED, SUCCESS, ItemKind
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.sampling.policyset import load_policies
from prela_stream.transport.base import LogRecord
from tests.support.partition_driver import Workers

BEGAN = 1_790_000_000_000
TRIGGERS = {"due": Trigger.IDLE, "above the limit": Trigger.MAX_SPANS, "memory": Trigger.MEMORY}
STARTS = 3_000
NOWHERE = '[[policy]]\nname = "nowhere"\ntype = "attribute"\nkey = "k"\nexists = false\n'
TYPED = '[[policy]]\nname = "typed"\ntype = "attribute"\nkey = "k"\nequals = "v"\nspan_type = "llm"\n'


def item(number: int, attributes: dict[str, str]) -> bytes:
    head = (COUNTED, SUCCESS, 0, 0, 0, None, 1, 10**18, 10**9, "chat", None, None)
    return encode_item(ItemKind.START, b"t" * 16, number.to_bytes(8, "big"), b"p" * 8, *head, attributes, [], [], None)


@pytest.mark.parametrize(("policy", "kept"), [(NOWHERE, False), (TYPED, True)], ids=["nowhere", "typed"])
@pytest.mark.parametrize("way", ["due", "above the limit", "memory"])
def test_a_trace_of_starts_is_read_whole(core: CoreKind, way: str, policy: str, kept: bool) -> None:
    assembly = AssemblyOptions(max_spans=STARTS - 1 if way == "above the limit" else 100_000)
    starts = [item(number, {"k": "v"} if number == STARTS - 1 else {}) for number in range(STARTS)]
    values = [encode_batch(b"\x80", starts[first : first + 100]) for first in range(0, STARTS, 100)]
    tick = encode_batch(b"\x80", [encode_item(ItemKind.TICK)])
    stamps = [BEGAN] * len(values) + [BEGAN + (10**9 if way == "due" else 1)] * 2
    log = [
        LogRecord(topic="spans", partition=1, offset=offset, timestamp_ms=stamp, value=value)
        for offset, (value, stamp) in enumerate(zip([*values, tick, tick], stamps, strict=True))
    ]
    workers = Workers(log, assembly, Evaluator(load_policies(policy, source="test")), core)
    while workers.step():
        pass
    if way == "memory":
        workers.relieve(0)
    workers.commit()
    [decision] = workers.committed.decisions
    assert (decision.kept, decision.trigger) == (kept, TRIGGERS[way])
