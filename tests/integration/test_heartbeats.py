"""A worker with the shortest session that a broker allows stays in its group while 100,000 traces are due at one record."""

import time
from pathlib import Path

import anyio
import pytest

from prela_stream.app.adapters import make_topics, open_transport
from prela_stream.codec.spans import encode_batch
from prela_stream.config import Settings, load_settings
from prela_stream.transport.base import Record, TopicPartition
from tests.support.processes import DEADLINE, STOP_S
from tests.support.scraper import Scraper
from tests.support.workers import whole_trace

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]
TRACES = 100_000
SETTLE_S = 4
_SETTINGS = """
directory = "{folder}"
policies_file = "{folder}/policies.toml"
[topics]
prefix = "{prefix}"
partitions = 1
[kafka]
bootstrap = ["{bootstrap}"]
session_timeout_ms = 6_000
[worker]
core = "{core}"
[assembly]
settle_ms = {settle_ms}
"""
_POLICIES = '[[policy]]\nname = "few"\ntype = "probabilistic"\nprobability = 0.05\n'


async def _fill(settings: Settings) -> None:
    """Append the traces. Return when all of them are due by the clock of the next record."""
    items = [item for number in range(1, TRACES + 1) for item in whole_trace(number, 0)]
    records = [Record(value=encode_batch(b"\x80", items[at : at + 100])) for at in range(0, len(items), 100)]
    async with open_transport(settings) as transport:
        await make_topics(settings, transport)
        async with await transport.producer() as producer:
            for at in range(0, len(records), 100):
                await producer.send(TopicPartition(settings.topics.spans, 0), records[at : at + 100])
    due = time.monotonic() + SETTLE_S
    while time.monotonic() < due:
        await anyio.sleep(0.1)


async def test_no_heartbeat_is_missed(kafka: str, kafka_prefix: str, tmp_path: Path, process_core: str) -> None:
    config = tmp_path / "prela.toml"
    text = _SETTINGS.format(
        folder=tmp_path, prefix=kafka_prefix, bootstrap=kafka, core=process_core, settle_ms=SETTLE_S * 1_000
    )
    config.write_text(text, encoding="utf-8")
    (tmp_path / "policies.toml").write_text(_POLICIES, encoding="utf-8")
    await _fill(load_settings(config, {}))
    async with anyio.create_task_group() as tasks:
        scraper = Scraper(tasks)
        worker = scraper.start("worker", "--config", str(config), log=tmp_path / "worker.log")
        try:
            with anyio.fail_after(4 * DEADLINE):
                while scraper.total("prela_worker_decisions_total") < TRACES:
                    assert worker.process.poll() is None, worker.output()
                    await anyio.sleep(0.1)
            rebalances = scraper.total("prela_worker_rebalances_total")
            failures = scraper.total("prela_worker_partition_failures_total")
            assert await worker.stop(within=5 * STOP_S) == 0, worker.output()
        finally:
            tasks.cancel_scope.cancel()
            worker.kill()
    assert (rebalances, failures) == (1, 0)
