"""What a core remembers of decided traces equals a list of decisions, for any order of events, any bound and any steps."""

import random
from typing import NamedTuple

import pytest

from prela_stream.assembly.base import Core
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.selection import CoreKind
from prela_stream.codec.spans import encode_batch, encode_item, encode_resource
from prela_stream.model.span import ItemKind, Resource
from tests.support.cores import MAX_ITEM_BYTES, add, decided_step, end_load, expire

WINDOW_MS = 100
RESOURCE = encode_resource(Resource(pid=1))
IDS = [bytes([number % 256, number // 256]) * 8 for number in range(600)]


class Loaded(NamedTuple):
    trace_id: bytes
    entry: bytes | None
    at: int
    first: int
    cut: int


class Decisions:
    """A list of [trace id, time, entry], oldest first; searched from its beginning."""

    def __init__(self, most_bytes: int) -> None:
        self.known: list[tuple[bytes, int, bytes | None]] = []
        self.loaded: list[Loaded] = []
        self.ranges: list[Loaded] = []
        self.most_bytes = most_bytes
        self.now = 0

    def load(self, decisions: list[Loaded]) -> None:
        self.ranges = decisions
        self.loaded = sorted(decisions, key=lambda one: (one.at, one.cut))

    def end_load(self) -> None:
        for one in self.loaded:
            self.remember(one.trace_id, one.entry, one.at)
        self.loaded = []

    def covers(self, trace_id: bytes, offset: int) -> bool:
        return any(
            one.trace_id == trace_id and one.first <= offset < one.cut for one in self.ranges if one.at >= self.now
        )

    def live(self) -> list[tuple[bytes, int, bytes | None]]:
        return [one for one in self.known if self.now < one[1] + WINDOW_MS]

    def remember(self, trace_id: bytes, entry: bytes | None, at: int) -> None:
        live = self.live()
        for one in live:
            if one[0] == trace_id:
                self.known[self.known.index(one)] = (trace_id, one[1], entry)
                return
        self.known = [one for one in self.known if one[0] != trace_id]
        self.known.append((trace_id, max([at, *(one[1] for one in live)]), entry))

    def expire(self, now: int) -> list[bytes]:
        early = []
        while self.loaded and self.loaded[0].at <= now:
            one = self.loaded.pop(0)
            self.forget(one.at)
            self.remember(one.trace_id, one.entry, one.at)
            early += self.forget_early()
        self.forget(now)
        return early + self.forget_early()

    def forget(self, now: int) -> None:
        self.now = now
        self.known = [one for one in self.known if now < one[1] + 2 * WINDOW_MS]

    def forget_early(self) -> list[bytes]:
        early = []
        while self.known and self.size() > self.most_bytes:
            early.append(self.known.pop(0)[0])
        return early

    def size(self) -> int:
        return 64 * len(self.known) + sum(max(64, len(one[2])) for one in self.live() if one[2] is not None)


def at(core: Core, now: int) -> list[bytes]:
    list(core.due(now))
    return expire(core)


def differences(found: Core, expected: Decisions, ids: list[bytes], now: int) -> tuple[int, int]:
    """Check what is known of these ids; returns how many live entries and forgotten decisions there are."""
    entries = forgotten = 0
    for trace_id in ids:
        one = next((one for one in expected.live() if one[0] == trace_id), None)
        assert found.entry(trace_id) == (None if one is None else one[2])
        was = any(
            one[0] == trace_id and one[1] + WINDOW_MS <= expected.now and now < one[1] + 2 * WINDOW_MS
            for one in expected.known
        )
        assert found.was_forgotten(trace_id, now) == was
        entries += one is not None and one[2] is not None
        forgotten += was
    return entries, forgotten


@pytest.mark.parametrize(("most_bytes", "step"), [(64, 512), (1_000, 1), (3_000, 3), (1 << 30, 512), (1 << 30, 2)])
def test_a_core_remembers_what_a_list_would(
    core: CoreKind, most_bytes: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided_step(monkeypatch, step)
    early = entries = forgotten = 0
    for seed in range(20):
        rng = random.Random(seed)
        options = AssemblyOptions(late_window_ms=WINDOW_MS, max_decided_bytes=most_bytes)
        found, expected = core.new(options, (), MAX_ITEM_BYTES), Decisions(most_bytes)
        now, ids = 1_000, IDS[: rng.choice((5, 600))]
        assert at(found, now) == expected.expire(now)
        for _ in range(1_500):
            if rng.random() < 0.2:
                now += rng.choice((0, 1, 5, 30, 99, 100, 250))
                gone = at(found, now)
                assert gone == expected.expire(now)
                early += len(gone)
            trace_id, entry = rng.choice(ids), rng.choice((None, b"e" * rng.randrange(1, 200)))
            found.remember(trace_id, entry, now)
            expected.remember(trace_id, entry, now)
            some = differences(found, expected, rng.sample(ids, 3), now)
            entries, forgotten = entries + some[0], forgotten + some[1]
    assert entries > 100
    assert forgotten > 100 or most_bytes == 64
    assert (early > 0) == (most_bytes < 1 << 30)


def any_decisions(rng: random.Random, began: int) -> list[Loaded]:
    """Committed decisions on few or many traces, most of them in the order of the log."""
    ids, disorder = IDS[: rng.choice((3, 40, 600))], rng.choice((0.0, 0.02, 1.0))
    found, at, offset = [], began - rng.choice((0, 150, 400)), 0
    for _ in range(rng.choice((0, 1, 30, 300, 1_500))):
        at += rng.choice((0, 0, 0, 1, 2, 20))
        offset += rng.randrange(3)
        entry = rng.choice((None, None, b"e" * rng.randrange(1, 200)))
        found.append(Loaded(rng.choice(ids), entry, at, max(0, offset - rng.randrange(20)), offset))
    for place in range(len(found)):
        if rng.random() < disorder:
            other = rng.randrange(len(found))
            found[place], found[other] = found[other], found[place]
    return found


@pytest.mark.parametrize(("most_bytes", "step"), [(64, 1), (3_000, 3), (3_000, 512), (1 << 30, 512), (1 << 30, 1)])
def test_loaded_decisions_take_effect_as_in_a_list(
    core: CoreKind, most_bytes: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided_step(monkeypatch, step)
    entries = forgotten = early = covered = 0
    for seed in range(40):
        rng = random.Random(seed)
        options = AssemblyOptions(late_window_ms=WINDOW_MS, max_decided_bytes=most_bytes, idle_without_heartbeats_ms=1)
        found, expected = core.new(options, (), MAX_ITEM_BYTES), Decisions(most_bytes)
        now = 1_000
        found.restore_clock(now)
        loaded = any_decisions(rng, now)
        for one in loaded:
            found.load(*one)
        expected.load(loaded)
        ends_at = rng.choice((0, 20, 10_000))
        for number in range(60):
            now += rng.choice((0, 0, 1, 5, 40, 99, 400))
            gone = at(found, now)
            assert gone == expected.expire(now)
            early += len(gone)
            if number == ends_at:
                end_load(found)
                expected.end_load()
            if rng.random() < 0.3:  # as after settings changed
                decision = rng.choice(IDS), rng.choice((None, b"new")), now
                found.remember(*decision)
                expected.remember(*decision)
            offset = rng.randrange(30 + (loaded[-1].cut if loaded else 0))
            trace_id = rng.choice(loaded).trace_id if loaded else IDS[0]
            value = encode_batch(RESOURCE, [encode_item(ItemKind.HEARTBEAT, trace_id, bytes(8))])
            applied = add(found, value, offset, replay=True)
            assert applied.covered == expected.covers(trace_id, offset)
            covered += applied.covered
            some = differences(found, expected, rng.sample(IDS, 5), now)
            entries, forgotten = entries + some[0], forgotten + some[1]
        at(found, now + 10_000)
        assert at(found, now + 20_000) == []
    assert min(entries, forgotten, covered) > 10 or most_bytes < 1 << 30
    assert (early > 0) == (most_bytes < 1 << 30)


def states(core: Core, ids: list[bytes], now: int) -> list[tuple[bool, bool]]:
    """Whether each decision is live, and whether it is forgotten."""
    return [(core.entry(trace_id) is not None, core.was_forgotten(trace_id, now)) for trace_id in ids]


def test_no_call_touches_more_decisions_than_a_step(core: CoreKind, monkeypatch: pytest.MonkeyPatch) -> None:
    step = 10
    decided_step(monkeypatch, step)
    options = AssemblyOptions(late_window_ms=WINDOW_MS, max_decided_bytes=64 * 850)
    found, ids = core.new(options, (), MAX_ITEM_BYTES), IDS[:500]
    found.restore_clock(1_000)
    for number, trace_id in enumerate(ids):
        found.load(trace_id, b"entry", 1_000 if number < 300 else 1_050 if number < 400 else 1_900, 0, 1)
    before, calls, early = states(found, ids, 1_000), 0, 0

    def check(now: int) -> None:
        nonlocal before, calls
        calls += 1
        after = states(found, ids, now)
        assert sum(one != other for one, other in zip(before, after, strict=True)) <= step
        before = after

    def expire_at(now: int) -> None:
        nonlocal calls, early
        list(found.due(now))
        calls = 0
        before[:] = states(found, ids, now)
        while (gone := found.expire()) is not None:
            assert len(gone) <= step
            early += len(gone)
            check(now)
        check(now)

    expire_at(1_000)
    assert (sum(live for live, _ in before), calls) == (300, 31)
    expire_at(1_050)
    assert sum(live for live, _ in before) == 400
    assert calls > (300 + 100) // step  # 300 no longer cover items, and 100 take effect
    assert early == 0
    calls = 0
    while found.end_load():
        check(1_050)
    check(1_050)
    assert (sum(live for live, _ in before), calls) == (500, 10)
    expire_at(1_050)  # the memory is above its bound
    assert early > 0
    assert calls > early // 2  # to remember their ids takes time, too
    expire_at(1_100)
    expire_at(1_250)
    assert [sum(one) for one in zip(*before, strict=True)] == [100, 0]
    assert calls > 100 // step
    expire_at(2_100)
    assert [sum(one) for one in zip(*before, strict=True)] == [0, 0]
