"""The metrics endpoints of real services: every declared metric is there, and what happened is counted."""

import contextlib
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import pytest

from prela_stream import demo, telemetry
from prela_stream.config import HttpOptions, load_settings
from prela_stream.measures import Component
from tests.support.metrics import OPENMETRICS, Scrape, described, fetch, free_address, lint
from tests.support.processes import DEADLINE, Service

pytestmark = pytest.mark.slow

AGENT = """
import prela_stream as prela

prela.init(service_name="agent", directory={directory!r})
for number in range(20):
    with prela.agent("plan"):
        with prela.tool("search"):
            pass
assert prela.flush(timeout=60).complete
read = prela.metrics()
assert read.value("prela_agent_items_total") == read.value("prela_agent_acknowledged_items_total") >= 40
assert read.value("prela_agent_queue_items") == read.value("prela_agent_dropped_items_total") == 0
assert read.value("prela_agent_batch_items") == read.value("prela_agent_acknowledgement_latency_seconds") > 0
assert read.value("prela_agent_sends_total", outcome="acknowledged") > 0
prela.shutdown()
"""


def names(*components: Component) -> set[str]:
    return {metric.name for metric in telemetry.declared(*components, "any")}


async def scrape(address: str) -> Scrape:
    status, text = await anyio.to_thread.run_sync(fetch, address)
    assert status == 200
    _, openmetrics = await anyio.to_thread.run_sync(fetch, address, "/metrics", OPENMETRICS)
    assert lint(text, openmetrics) == []
    return Scrape.of(text)


async def answers(address: str, path: str, status: int) -> str:
    """Wait until the endpoint answers with this status."""
    found: tuple[int, str] = (0, "")
    with anyio.fail_after(DEADLINE):
        while found[0] != status:
            with contextlib.suppress(OSError):
                found = await anyio.to_thread.run_sync(fetch, address, path)
            await anyio.sleep(0.02)
    return found[1]


async def test_dev_counts_what_an_agent_sent_and_what_became_of_it(tmp_path: Path) -> None:
    directory, address = str(tmp_path / "prela"), free_address()
    policies = tmp_path / "policies.toml"
    policies.write_text('[[policy]]\nname = "all"\ntype = "always"\n')
    env = {"PRELA_POLICIES_FILE": str(policies)}
    service = Service("dev", "--dir", directory, "--http", address, log=tmp_path / "dev.log", env=env)
    try:
        assert await answers(address, "/readyz", 200) == "ready\n"
        assert await answers(address, "/healthz", 200) == "alive\n"
        await anyio.run_process([sys.executable, "-c", AGENT.format(directory=directory)])
        with anyio.fail_after(DEADLINE):
            while not all(
                (
                    (now := await scrape(address)).value("prela_worker_decisions_total") == 20,
                    now.value("prela_sink_records_total", topic="prela.sampled") >= 20,
                    now.value("prela_sink_records_total", topic="prela.decisions") > 0,
                )
            ):
                await anyio.sleep(0.05)
        text = (await anyio.to_thread.run_sync(fetch, address))[1]
        assert described(text) == names("worker", "sink", "otlp")
        assert now.by("prela_worker_decisions_total", "verdict") == {"kept": 20}
        assert now.by("prela_worker_decisions_total", "trigger") == {"complete": 20}
        assert now.by("prela_worker_decisions_total", "policy") == {"all": 20}
        assert now.value("prela_worker_decision_latency_seconds_count") == 20
        assert 0 < now.value("prela_worker_decision_latency_seconds_sum") < 20 * DEADLINE
        assert now.value("prela_worker_items_total") >= 40
        commits = now.value("prela_worker_commits_total", outcome="committed")
        assert commits == now.value("prela_worker_commit_duration_seconds_count", outcome="committed") > 0
        assert now.value("prela_worker_restores_total", start="beginning") == 4
        assert now.value("prela_worker_restore_duration_seconds_count") == 4
        assert now.value("prela_worker_rebalances_total") >= 1
        assert now.by("prela_worker_partitions", "state") == {
            "restoring": 0,
            "replaying": 0,
            "running": 4,
            "stalled": 0,
            "poisoned": 0,
        }
        assert len(now.by("prela_worker_lag_records", "partition")) == 4
        for gone in ("poison_items_total", "fences_total", "open_traces", "open_bytes", "oldest_undecided_age_seconds"):
            assert now.value(f"prela_worker_{gone}") == 0
        assert now.value("prela_sink_write_duration_seconds_count") == now.value("prela_sink_batch_records_count") > 0
        assert await service.stop(within=DEADLINE) == 0, service.output()
        with pytest.raises(OSError, match="refused"):
            fetch(address)
    finally:
        service.kill()


async def test_while_the_demo_runs_both_services_expose_every_metric_that_they_declare(tmp_path: Path) -> None:
    address = free_address()
    host, _, port = address.rpartition(":")
    sink_address = f"{host}:{int(port) + 1}"
    settings = load_settings(env={}, overrides={"directory": str(tmp_path / "prela")})
    settings = msgspec.structs.replace(settings, http=HttpOptions(listen=address))
    runs = 20
    last: dict[str, Scrape] = {}
    exposed: dict[str, set[str]] = {}

    async def watch(name: str, where: str) -> None:
        await answers(where, "/readyz", 200)
        with contextlib.suppress(OSError):  # the demo has ended
            while True:
                last[name] = await scrape(where)
                exposed[name] = described((await anyio.to_thread.run_sync(fetch, where))[1])
                await anyio.sleep(0.1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, "worker", address)
        tasks.start_soon(watch, "sink", sink_address)
        result = await demo.run(settings, runs=runs, seed=3)
    assert (result.undecided, exposed) == (0, {"worker": names("worker"), "sink": names("sink")})
    assert 0 < last["worker"].value("prela_worker_decisions_total") <= result.traces
    assert last["sink"].value("prela_sink_records_total") > 0
