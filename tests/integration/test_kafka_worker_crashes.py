"""Worker processes on a real Kafka, killed at fifty random moments: nothing is lost, split, repeated or left open."""

import sys
from pathlib import Path

import anyio
import pytest

from prela_stream.model.decision import Trigger
from tests.support.crowd import crowd

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]
KILLS = 50
MOST_PAUSE_S = 1.0
REPLAYS = 12


async def test_fifty_sigkills_lose_split_and_repeat_nothing(
    kafka: str, kafka_prefix: str, tmp_path: Path, process_core: str
) -> None:
    async with crowd(
        kafka, kafka_prefix, tmp_path, core=process_core, seed=20, partitions=4, session_ms=1_000
    ) as workers:
        rng = workers.rng
        for _ in range(3):
            workers.start()
        kills = 0
        while kills < KILLS or workers.replays() < REPLAYS:
            kills += 1
            victim = rng.choice(workers.workers)
            if rng.random() < 0.4:  # on a busy machine most would die before they have done anything
                await workers.scraper.ready(victim)
            await anyio.sleep(rng.uniform(0.0, MOST_PAUSE_S))  # the random moment
            workers.kill(victim)
            workers.start()
        found = await workers.judge()
        signs = await workers.signs()
    sys.stdout.write(
        f"{kills} kills, {signs}\n{len(found.all_decisions)} decisions, {sum(map(len, found.spans.values()))} records\n"
    )
    assert signs.generations >= KILLS // 2, "too few rebalances"
    assert signs.epochs >= KILLS // 2, "too few writers fenced those before them"
    assert signs.replayed >= REPLAYS, "too few takeovers had anything to replay"
    assert {Trigger.COMPLETE, Trigger.ROOT_WAIT, Trigger.IDLE} <= {d.trigger for d in found.all_decisions}
    assert sum(f.late for f in found.fragments) > 0
