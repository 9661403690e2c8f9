"""One of two workers is killed: the other one takes its partitions over soon, with the default session timeout."""

import sys
import time
from pathlib import Path

import pytest

from prela_stream.transport.options import KafkaOptions
from tests.support.crowd import crowd

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(300)]
RECOVERED_S = 15.0


async def test_after_a_sigkill_every_partition_decides_again_within_15_s(
    kafka: str, kafka_prefix: str, tmp_path: Path, process_core: str
) -> None:
    session_ms = KafkaOptions(bootstrap=("localhost:9092",)).session_timeout_ms
    async with crowd(
        kafka, kafka_prefix, tmp_path, core=process_core, seed=23, partitions=4, session_ms=session_ms
    ) as workers:
        victim = workers.start()
        workers.start()
        for worker in list(workers.workers):
            await workers.scraper.ready(worker)
        await workers.rebalanced()
        await workers.committed_beyond(await workers.positions())
        workers.kill(victim)
        killed = time.monotonic()
        await workers.committed_beyond(await workers.positions())
        took = time.monotonic() - killed
        sys.stdout.write(f"every partition was committed again {took:.1f} s after the kill\n")
        await workers.judge()
    assert took <= RECOVERED_S
