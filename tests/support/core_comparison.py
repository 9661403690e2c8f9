"""Applies logs to both cores with the same commits and crashes, and compares what they write, byte by byte.

python -m tests.support.core_comparison [--logs 20000] [--seed 0]
"""

import argparse
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from prela_stream.assembly.selection import CoreKind, choose_core
from prela_stream.transport.base import LogRecord
from prela_stream.worker.checkpoint import Checkpoint, ItemCounters
from tests.support.any_log import any_log, any_options, any_policies
from tests.support.partition_driver import Workers
from tests.support.steps import step_size


class Written(msgspec.Struct, frozen=True):
    """What the workers of a partition wrote and counted."""

    records: list[tuple[Any, ...]]
    """Topic, partition, key, value and headers of each record."""
    checkpoints: list[tuple[Any, ...]]
    counters: ItemCounters


def run(core: CoreKind, log: Sequence[LogRecord], seed: int) -> tuple[Written, Workers]:
    """Apply a log; `seed` determines options, policies, commits and crashes."""
    rng = random.Random(seed)
    workers = Workers(log, any_options(rng), any_policies(rng), core)
    commit_at, crash_at = rng.choice((0.0, 0.1, 0.5)), rng.choice((0.0, 0.0, 0.05))
    relieve_at = rng.choice((0.0, 0.0, 0.0, 0.1))
    while workers.step():
        if relieve_at and rng.random() < relieve_at:
            workers.relieve(rng.choice((0, 2_000, 20_000)))
        if rng.random() < commit_at:
            workers.commit()
        if rng.random() < crash_at and workers.restarts < 10:
            workers.crash()
    workers.commit()
    records = [(to.topic, to.partition, one.key, one.value, one.headers) for to, one in workers.written]
    checkpoints = [_comparable(checkpoint) for checkpoint in workers.checkpoints]
    return Written(records, checkpoints, workers.state.counters), workers


def _comparable(checkpoint: Checkpoint) -> tuple[Any, ...]:
    """The core may find a duplicate later than another core; until then it is open."""
    counters = checkpoint.counters
    held = counters.open + counters.duplicates
    counters = msgspec.structs.replace(counters, open=held, duplicates=0)
    return (
        checkpoint.position, checkpoint.clock_before_ms, checkpoint.clock_ms, checkpoint.shift_before_ms, counters,
    )  # fmt: skip


def compare(native: CoreKind, python: CoreKind, seed: int) -> Counter[str]:
    """Compare both cores on one log. Raises AssertionError; returns what happened."""
    log = any_log(random.Random(seed))
    with step_size((None, None, 1, 2, 5)[seed % 5]):
        found, workers = run(native, log, seed)
        expected, _ = run(python, log, seed)
    assert found == expected, f"the cores differ on the log of seed {seed}"
    committed = workers.committed
    happened: Counter[str] = Counter(
        restarts=workers.restarts,
        replayed=workers.replayed,
        kept=sum(one.kept for one in committed.decisions),
        late=sum(part.late for part in committed.fragments),
        repeated=sum(one.repeated for one in committed.decisions),
        dead=len(committed.dead),
        duplicates=found.counters.duplicates,
    )
    happened.update(f"trigger {one.trigger}" for one in committed.decisions)
    happened.update(f"basis {one.basis}" for one in committed.decisions)
    return happened


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first log")
    arguments = parser.parse_args()
    native, python = choose_core("native"), choose_core("python")
    happened: Counter[str] = Counter()
    began = time.monotonic()
    for seed in range(arguments.seed, arguments.seed + arguments.logs):
        happened += compare(native, python, seed)
    print(f"{arguments.logs} logs, {time.monotonic() - began:.0f} s: the cores wrote the same bytes. {dict(happened)}")


if __name__ == "__main__":
    main()
