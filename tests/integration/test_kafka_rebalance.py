"""Workers join and leave in order every ten seconds for two minutes. The others continue, and no result changes."""

import os
import sys
from pathlib import Path

import anyio
import pytest

from tests.support.crowd import crowd

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]
CHURN_S = float(os.environ.get("PRELA_CHAOS_S", "120"))
EVERY_S = 10.0


async def test_members_that_come_and_go_lose_split_and_repeat_nothing(
    kafka: str, kafka_prefix: str, tmp_path: Path, process_core: str
) -> None:
    cycles = max(int(CHURN_S / EVERY_S), 1)
    async with crowd(kafka, kafka_prefix, tmp_path, core=process_core, seed=21) as workers:
        for _ in range(2):
            workers.start()
        for worker in workers.workers:
            await workers.scraper.ready(worker)
        for _ in range(cycles):
            next_one = anyio.current_time() + EVERY_S
            guest = workers.start()
            await workers.scraper.ready(guest)
            await workers.rebalanced()
            await anyio.sleep(EVERY_S / 2)  # a life of some length
            await workers.stop(guest)
            await workers.rebalanced()  # else the next worker may join in the rebalance in which this one leaves
            await anyio.sleep_until(next_one)
        found = await workers.judge()
        signs = await workers.signs()
    waits = sorted(found.waits_ms)
    sys.stdout.write(f"{signs}\ndue to durable: median {waits[len(waits) // 2]} ms, longest {waits[-1]} ms\n")
    assert signs.generations >= 2 * cycles, "too few rebalances"
    assert signs.epochs >= 2 * cycles, "too few partitions changed hands"
    assert signs.returned >= 2 * cycles, "what stayed with its worker was restored from the log all the same"
