"""Workers that are stopped for longer than their session and then continue: their pending output is never visible."""

import signal
import sys
from pathlib import Path

import anyio
import pytest

from tests.support.crowd import crowd
from tests.support.processes import DEADLINE

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(300)]
PARTITIONS = 2
ROUNDS = 3


async def test_a_stopped_worker_that_goes_on_is_fenced(
    kafka: str, kafka_prefix: str, tmp_path: Path, process_core: str
) -> None:
    async with crowd(
        kafka,
        kafka_prefix,
        tmp_path,
        core=process_core,
        seed=22,
        partitions=PARTITIONS,
        session_ms=2_000,
        commit_ms=1_500,
    ) as workers:
        for number in range(ROUNDS):
            zombie = workers.start()
            await workers.scraper.ready(zombie)
            await workers.committed_beyond(await workers.positions())
            await anyio.sleep(workers.rng.uniform(0.2, 1.0))  # a moment between two commits, with pending output
            zombie.process.send_signal(signal.SIGSTOP)
            heir = workers.start()
            before = await workers.positions()
            await workers.scraper.ready(heir)
            await workers.committed_beyond(before)
            zombie.process.send_signal(signal.SIGCONT)
            with anyio.fail_after(DEADLINE):
                while not workers.scraper.metrics(zombie).value("prela_worker_fences_total"):
                    await anyio.sleep(0.05)
            await workers.stop(zombie)
            if number < ROUNDS - 1:
                await workers.stop(heir)
        await workers.judge()
        signs = await workers.signs()
    sys.stdout.write(f"{signs}\n")
    assert signs.fenced >= ROUNDS
    assert signs.replayed >= 1
