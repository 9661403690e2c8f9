"""What a core remembers of decided traces equals a list of decisions, for any order of events and any bound."""

import random

import pytest

from prela_stream.assembly.base import Core
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.selection import CoreKind
from tests.support.cores import MAX_ITEM_BYTES

WINDOW_MS = 100
IDS = [bytes([number % 256, number // 256]) * 8 for number in range(600)]


class Decisions:
    """A list of [trace id, time, entry], oldest first; searched from its beginning."""

    def __init__(self, most_bytes: int) -> None:
        self.known: list[tuple[bytes, int, bytes | None]] = []
        self.most_bytes = most_bytes
        self.now = 0

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
        self.now = now
        self.known = [one for one in self.known if now < one[1] + 2 * WINDOW_MS]
        early = []
        while self.known and self.size() > self.most_bytes:
            early.append(self.known.pop(0)[0])
        return early

    def size(self) -> int:
        return 64 * len(self.known) + sum(max(64, len(one[2])) for one in self.live() if one[2] is not None)


def at(core: Core, now: int) -> list[bytes]:
    list(core.due(now))
    return list(core.expire())


@pytest.mark.parametrize("most_bytes", [64, 1_000, 3_000, 1 << 30])
def test_a_core_remembers_what_a_list_would(core: CoreKind, most_bytes: int) -> None:
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
            for trace_id in rng.sample(ids, 3):
                one = next((one for one in expected.live() if one[0] == trace_id), None)
                assert found.entry(trace_id) == (None if one is None else one[2])
                was = any(
                    one[0] == trace_id and one[1] + WINDOW_MS <= expected.now and now < one[1] + 2 * WINDOW_MS
                    for one in expected.known
                )
                assert found.was_forgotten(trace_id, now) == was
                entries += one is not None and one[2] is not None
                forgotten += was
    assert entries > 100
    assert forgotten > 100 or most_bytes == 64
    assert (early > 0) == (most_bytes < 1 << 30)
