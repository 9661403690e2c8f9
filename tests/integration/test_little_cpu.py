"""A worker process that gets a fifth of a core falls behind. It restores no partition again and again, decides each trace once.

Traces are sent until the worker is further behind after each of several bursts. `LITTLE_CPU_TRACES=200000` begins with more.
"""

import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import anyio
import pytest

from prela_stream.app.adapters import make_topics, open_transport
from prela_stream.codec.decisions import decode_decisions
from prela_stream.codec.spans import encode_batch
from prela_stream.config import load_settings
from prela_stream.model.ids import partition_of
from prela_stream.transport.base import Record, TopicPartition
from tests.support.kafka_log import KafkaLog
from tests.support.processes import DEADLINE, STOP_S, Service
from tests.support.scraper import Scraper
from tests.support.workers import whole_trace

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="reads the CPU time of a process from /proc"),
]
PARTITIONS = 4
TRACES = int(os.environ.get("LITTLE_CPU_TRACES", "20000"))
"""Sent before the worker starts."""
BURST = 10_000
BEHIND = 3
"""So many bursts have to leave the worker further behind, one after the other."""
ON_S, OFF_S = 0.02, 0.08
_SETTINGS = """
directory = "{folder}"
policies_file = "{folder}/policies.toml"
[topics]
prefix = "{prefix}"
partitions = {partitions}
[kafka]
bootstrap = ["{bootstrap}"]
[worker]
core = "{core}"
"""


async def limit(worker: Service) -> None:
    """Suspend the process for four fifths of the time."""
    while worker.process.poll() is None:
        worker.process.send_signal(signal.SIGSTOP)
        await anyio.sleep(OFF_S)
        worker.process.send_signal(signal.SIGCONT)
        await anyio.sleep(ON_S)


def cpu_s(worker: Service) -> float:
    """CPU time of a process so far, s."""
    fields = Path(f"/proc/{worker.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_no_partition_is_restored_again_and_again(
    kafka: str, kafka_prefix: str, tmp_path: Path, process_core: str
) -> None:
    config = tmp_path / "prela.toml"
    text = _SETTINGS.format(
        folder=tmp_path, prefix=kafka_prefix, partitions=PARTITIONS, bootstrap=kafka, core=process_core
    )
    config.write_text(text, encoding="utf-8")
    (tmp_path / "policies.toml").write_text('[[policy]]\nname = "all"\ntype = "always"\n', encoding="utf-8")
    settings = load_settings(config, {})
    sent = 0
    async with open_transport(settings) as transport, KafkaLog(kafka) as outside:
        await make_topics(settings, transport)

        async def send(traces: int) -> None:
            nonlocal sent
            parts: dict[int, list[bytes]] = {number: [] for number in range(PARTITIONS)}
            for number in range(sent + 1, sent + traces + 1):
                parts[partition_of(number.to_bytes(16, "big"), PARTITIONS)] += whole_trace(number)
            async with await transport.producer() as producer:
                for number, items in parts.items():
                    values = [encode_batch(b"\x80", items[at : at + 99]) for at in range(0, len(items), 99)]
                    for at in range(0, len(values), 50):
                        records = [Record(value=value) for value in values[at : at + 50]]
                        await producer.send(TopicPartition(settings.topics.spans, number), records)
            sent += traces

        await send(TRACES)
        async with anyio.create_task_group() as tasks:
            scraper = Scraper(tasks)
            worker = scraper.start("worker", "--config", str(config), log=tmp_path / "worker.log")
            try:
                tasks.start_soon(limit, worker)
                await scraper.ready(worker)
                began, cpu_began = time.monotonic(), cpu_s(worker)
                behind: list[int] = []
                with anyio.fail_after(3 * DEADLINE):
                    while len(behind) <= BEHIND or sorted(set(behind[-BEHIND - 1 :])) != behind[-BEHIND - 1 :]:
                        await send(BURST)
                        await scraper.scrape(worker)
                        behind.append(int(scraper.metrics(worker).value("prela_worker_lag_records")))

                with anyio.fail_after(6 * DEADLINE):
                    while True:
                        records = await outside.records(settings.topics.decisions, PARTITIONS)
                        found = [one for record in records for one in decode_decisions(record.value or b"")]
                        if len({one.trace_id for one in found}) == sent:
                            break
                        assert worker.process.poll() is None, worker.output()
                        await anyio.sleep(0.5)
                share = (cpu_s(worker) - cpu_began) / (time.monotonic() - began)
                await scraper.scrape(worker)
                failures = scraper.total("prela_worker_partition_failures_total")
                rebalances = scraper.total("prela_worker_rebalances_total")
                commits = scraper.total("prela_worker_commits_total", outcome="committed")
                assert await worker.stop(within=5 * STOP_S) == 0, worker.output()
            finally:
                tasks.cancel_scope.cancel()
                worker.kill()
    sys.stdout.write(f"{sent} traces; records behind: {behind}\n")
    sys.stdout.write(f"{share:.0%} of a core, {failures} failures, {rebalances} rebalances, {commits} commits\n")
    assert share < 0.35, "the limit held"
    assert Counter(one.trace_id for one in found) == Counter(
        number.to_bytes(16, "big") for number in range(1, sent + 1)
    )
    assert failures <= 2 * PARTITIONS
