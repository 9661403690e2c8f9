"""A broker that answers seconds late: worker processes are slower, but do not restore partitions again and again.

Delays and timeouts are a tenth of the default ones. `SLOW_BROKER_FULL=1` uses the default timeouts, and answers that are 2 s and
then 8 s late.
"""

import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from prela_stream.app.adapters import make_topics, open_transport
from prela_stream.codec.decisions import decode_decisions
from prela_stream.codec.spans import encode_batch
from prela_stream.config import Settings, load_settings
from prela_stream.model.decision import Decision
from prela_stream.model.ids import partition_of
from prela_stream.transport.base import Record, TopicPartition
from tests.support.kafka_log import KafkaLog
from tests.support.processes import DEADLINE, STOP_S, Service
from tests.support.scraper import Scraper
from tests.support.slow_broker import SlowBroker, slow_broker
from tests.support.workers import whole_trace

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(900)]
FULL = bool(os.environ.get("SLOW_BROKER_FULL"))
SCALE = 1.0 if FULL else 0.1
PARTITIONS = 4
_SETTINGS = """
directory = "{folder}"
policies_file = "{folder}/policies.toml"
[topics]
prefix = "{prefix}"
partitions = {partitions}
[kafka]
bootstrap = ["{bootstrap}"]
session_timeout_ms = {session_ms}
[worker]
core = "{core}"
commit_timeout_s = {commit_timeout_s}
[assembly]
root_wait_ms = 600_000
idle_without_heartbeats_ms = 600_000
"""


async def _send(bootstrap: str, settings: Settings, stop: anyio.Event, sent: list[bytes]) -> None:
    """Send whole traces straight to the broker until `stop`."""
    direct = load_settings(env={"PRELA_KAFKA_BOOTSTRAP": bootstrap, "PRELA_TOPICS_PREFIX": settings.topics.prefix})
    async with open_transport(direct) as transport, await transport.producer() as producer:
        while not stop.is_set():
            for _ in range(20):
                number = len(sent) + 1
                trace_id = number.to_bytes(16, "big")
                to = TopicPartition(settings.topics.spans, partition_of(trace_id, PARTITIONS))
                await producer.send(to, [Record(value=encode_batch(b"\x80", whole_trace(number)))])
                sent.append(trace_id)
            await anyio.sleep(0.1)


@asynccontextmanager
async def _worker(
    broker: SlowBroker, direct: str, prefix: str, folder: Path, core: str
) -> AsyncIterator[tuple[Service, Settings, KafkaLog, Scraper]]:
    config = folder / "prela.toml"
    text = _SETTINGS.format(
        folder=folder,
        core=core,
        prefix=prefix,
        partitions=PARTITIONS,
        bootstrap=broker.bootstrap,
        commit_timeout_s=5.0 * SCALE,
        session_ms=10_000 if FULL else 30_000,
    )
    config.write_text(text, encoding="utf-8")
    policies = '[[policy]]\nname = "half"\ntype = "probabilistic"\nprobability = 0.5\n'
    (folder / "policies.toml").write_text(policies, encoding="utf-8")
    settings = load_settings(config, {})
    async with open_transport(settings) as transport, KafkaLog(direct) as outside:
        await make_topics(settings, transport)
        async with anyio.create_task_group() as tasks:
            scraper = Scraper(tasks)
            worker = scraper.start("worker", "--config", str(config), log=folder / "worker.log")
            try:
                await scraper.ready(worker)
                yield worker, settings, outside, scraper
            finally:
                tasks.cancel_scope.cancel()
                worker.kill()


async def _decisions(outside: KafkaLog, settings: Settings) -> list[Decision]:
    records = await outside.records(settings.topics.decisions, PARTITIONS)
    return [one for record in records for one in decode_decisions(record.value or b"")]


async def test_no_partition_is_restored_again_and_again(
    kafka: str, kafka_prefix: str, tmp_path: Path, process_core: str
) -> None:
    sent: list[bytes] = []
    async with slow_broker(kafka) as broker, _worker(broker, kafka, kafka_prefix, tmp_path, process_core) as running:
        worker, settings, outside, scraper = running
        stop = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_send, kafka, settings, stop, sent)
            for delay_s in (2.0, 8.0):
                broker.delay_s = delay_s * SCALE
                before = broker.delayed
                with anyio.move_on_after(60.0 * SCALE) if FULL else anyio.fail_after(DEADLINE):
                    while FULL or broker.delayed < before + 100:
                        await anyio.sleep(0.1)
                sys.stdout.write(f"{delay_s} s: {len(await _decisions(outside, settings))} of {len(sent)} decided\n")
            broker.delay_s = 0.0
            stop.set()
        with anyio.fail_after(4 * DEADLINE):
            while len({one.trace_id for one in await _decisions(outside, settings)}) < len(sent):
                assert worker.process.poll() is None, worker.output()
                await anyio.sleep(0.2)
        await scraper.scrape(worker)
        failures = scraper.total("prela_worker_partition_failures_total")
        commits = {
            one: scraper.total("prela_worker_commits_total", outcome=one) for one in ("committed", "aborted", "unknown")
        }
        assert await worker.stop(within=STOP_S) == 0, worker.output()
        found = await _decisions(outside, settings)
    sys.stdout.write(f"{len(sent)} traces, {failures} failures, {broker.delayed} late answers, {commits}\n")
    assert Counter(one.trace_id for one in found) == Counter(sent), "each trace is decided once"
    assert failures <= 2 * PARTITIONS
