"""The pipeline page: what it shows of workers, sinks and services, in this process and in others, and what without them."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx2
import pytest

from prela_stream.app import run_dev
from prela_stream.app.adapters import make_topics, open_transport
from prela_stream.app.pipeline_state import PipelineState
from prela_stream.config import Settings, load_settings
from prela_stream.transport.base import Record, TopicPartition
from prela_stream.web.api import Panel, PipelineSource
from tests.support.metrics import free_address
from tests.support.processes import DEADLINE, STOP_S, Service
from tests.support.running_pipeline import Agent, environment

pytestmark = pytest.mark.slow


def settings_of(tmp_path: Path, **more: str) -> tuple[Settings, dict[str, str]]:
    env = environment(tmp_path, tmp_path / "prela") | {"PRELA_SINK": "[{}]", "PRELA_WEB_LISTEN": "off", **more}
    return load_settings(env=env), env


def named(panels: list[Panel], title: str) -> Panel:
    (found,) = [panel for panel in panels if panel.title.startswith(title)]
    return found


def figures(panel: Panel) -> dict[str, str]:
    return {one.name: one.value for one in panel.figures}


def table(panel: Panel) -> list[dict[str, str]]:
    return [dict(zip(panel.columns, row, strict=True)) for row in panel.rows]


async def until(panels: Callable[[], Awaitable[list[Panel]]], true: Callable[[list[Panel]], bool]) -> list[Panel]:
    """The panels, once they fulfil a condition."""
    with anyio.fail_after(DEADLINE):
        while not true(found := await panels()):
            await anyio.sleep(0.05)
    return found


def is_done(panels: list[Panel], traces: int) -> bool:
    """Whether the worker has decided so many traces, and the sink has written them."""
    workers, sinks = named(panels, "Workers"), named(panels, "Sinks")
    ledger = [panel for panel in panels if panel.title.startswith("Ledger")]
    if not ledger or figures(ledger[0])["kept"] != str(traces) or figures(ledger[0])["open"] != "0":
        return False
    return figures(workers)["Lag"] == "0 records" and table(sinks)[0]["Lag (records)"] == "0"


def own_parts(panels: list[Panel]) -> set[str]:
    """The parts of this process that the page shows."""
    own = [
        row for panel in panels if panel.title == "Services" for row in table(panel) if row["Service"] == "this process"
    ]
    return set(own[0]["Parts"].split(", ")) if own else set()


@asynccontextmanager
async def agent_of(tmp_path: Path, env: dict[str, str]) -> AsyncIterator[Agent]:
    agent = Agent(tmp_path, env)
    try:
        yield agent
    finally:
        agent.close()


async def test_without_anything_it_names_what_is_missing(tmp_path: Path) -> None:
    settings, _ = settings_of(tmp_path)
    state: PipelineSource = PipelineState(settings)
    panels = [
        panel for panel in await state.panels() if panel.title != "Services"
    ]  # an earlier test may have run one here
    assert [panel.title for panel in panels] == ["Transport"]
    assert panels[0].note
    assert await state.running() is None


async def test_a_log_that_no_worker_has_read_is_all_lag(tmp_path: Path) -> None:
    settings, _ = settings_of(tmp_path)
    async with open_transport(settings) as transport:
        await make_topics(settings, transport)
        async with await transport.producer() as producer:
            await producer.send(TopicPartition(settings.topics.spans, 0), [Record(value=b"?")] * 3)
    panels = await PipelineState(settings).panels()
    assert figures(named(panels, "Workers")) == {"Lag": "3 records"}
    assert [row["Position"] for row in table(named(panels, "Workers"))] == ["no worker has committed yet"]
    assert not [panel for panel in panels if panel.title.startswith("Ledger")]


async def test_dev_shows_its_own_worker_and_sink(tmp_path: Path) -> None:
    settings, env = settings_of(tmp_path)
    state = PipelineState(settings)
    async with agent_of(tmp_path, env) as agent, anyio.create_task_group() as tasks:
        tasks.start_soon(run_dev, settings)
        for _ in range(3):
            await agent.trace()
        # the services are read before the transport, so that their counts may be of a moment before
        panels = await until(
            state.panels, lambda found: len(found) > 3 and is_done(found, 3) and own_parts(found) >= {"worker", "sink"}
        )
        ledger = named(panels, "Ledger")
        assert int(figures(ledger)["consumed"]) >= 3
        assert [one.state for one in ledger.figures if one.name == "consumed"] == ["ok"]
        assert figures(ledger)["dlq"] == "0"
        (own,) = [row for row in table(named(panels, "Services")) if row["Service"] == "this process"]
        assert own["State"] == "running"
        assert own["Partitions"] == "1"
        assert await state.running() == []
        tasks.cancel_scope.cancel()


async def test_the_page_of_another_process_shows_every_service(tmp_path: Path) -> None:
    addresses = [free_address() for _ in range(3)]
    _, env = settings_of(
        tmp_path, PRELA_WEB_LISTEN="127.0.0.1:0", PRELA_WEB_SERVICES=",".join(addresses), PRELA_HTTP_TOKEN="s3cret"
    )
    worker = Service("worker", "--http", addresses[0], log=tmp_path / "worker.log", env=env)
    sink = Service("sink", "--http", addresses[1], log=tmp_path / "sink.log", env=env)
    web = Service("web", log=tmp_path / "web.log", env=env)
    try:
        async with agent_of(tmp_path, env) as agent, httpx2.AsyncClient(timeout=DEADLINE) as client:
            for _ in range(4):
                await agent.trace()
            await web.wait_for_output("ready: ")
            url = re.search(r"open (http://\S+)", web.output())
            assert url is not None
            with anyio.fail_after(DEADLINE):
                while True:
                    text = (await client.get(f"{url[1]}/pipeline")).text
                    services = rows_of(text, "Services")
                    is_idle = "<dd>0 records</dd>" in text and rows_of(text, "Sinks")[:1] == [
                        ["sqlite", "sqlite", "0", ""]
                    ]
                    if is_idle and services[0][3:7] == ["1", "0", "0", "4"] and int(services[1][7]) >= 4:
                        break
                    await anyio.sleep(0.05)
            assert [row[:3] for row in services[:2]] == [
                [addresses[0], "worker", "ready"],
                [addresses[1], "sink", "ready"],
            ]
            assert services[2][0] == addresses[2]
            assert services[2][2].startswith("does not answer: ")
            assert "s3cret" not in text
            assert await worker.stop(STOP_S) == 0
            again = rows_of((await client.get(f"{url[1]}/pipeline")).text, "Services")
            assert again[0][2].startswith("does not answer: ")
            assert again[1][2] == "ready"
        assert await sink.stop(STOP_S) == 0
        assert await web.stop(STOP_S) == 0
    finally:
        for one in (worker, sink, web):
            one.kill()


def rows_of(text: str, title: str) -> list[list[str]]:
    """The cells of the table of a panel."""
    found = re.search(rf"<h2>{title}</h2>.*?<tbody>(.*?)</tbody>", text, re.DOTALL)
    if found is None:
        return []
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", found[1], re.DOTALL)]
