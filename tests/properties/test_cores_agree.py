"""Both cores give the same for any log, and the native decoder reads an input as the Python decoder does."""

import random
from collections import Counter

import pytest

from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.selection import CoreKind
from prela_stream.model.decision import Trigger
from tests.support.any_log import any_log
from tests.support.core_comparison import compare, run
from tests.support.cores import MAX_ITEM_BYTES, add, core_named, decided_step
from tests.support.decoder_comparison import compare_decoders

LOGS = 600
INPUTS = 10_000


def test_both_cores_write_the_same_bytes_for_any_log() -> None:
    """`make fuzz` tries many more."""
    native, python = core_named("native"), core_named("python")
    happened: Counter[str] = Counter()
    for seed in range(LOGS):
        happened += compare(native, python, seed)
    assert (
        min(happened[one] for one in ("restarts", "replayed", "kept", "late", "repeated", "dead", "duplicates")) > 100
    )
    assert {one for one in happened if one.startswith("trigger ")} == {f"trigger {one}" for one in Trigger}


def test_decisions_expire_and_load_in_steps_of_any_size(core: CoreKind, monkeypatch: pytest.MonkeyPatch) -> None:
    restarts = 0
    for seed in range(100):
        log = any_log(random.Random(seed))
        decided_step(monkeypatch, 1 << 20)
        expected, _ = run(core, log, seed)
        decided_step(monkeypatch, 1 + seed % 3)
        found, workers = run(core, log, seed)
        assert found == expected, seed
        restarts += workers.restarts
    assert restarts > 20


def test_both_decoders_read_the_same_from_any_input() -> None:
    """`make fuzz` tries many more."""
    core_named("native")
    happened = compare_decoders(range(INPUTS))
    assert min(happened[one] for one in ("taken", "left to python", "bad", "decided")) > INPUTS // 50


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
def test_a_hostile_record_opens_no_trace(core: CoreKind, value: bytes) -> None:
    applied = add(partition := core.new(AssemblyOptions(), (), MAX_ITEM_BYTES), value, 1)
    assert applied.bad
    assert applied.spans == partition.open_traces == 0
