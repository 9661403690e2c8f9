"""A disk that is full for a while: what is on it waits, nothing that was acknowledged is lost, and nothing else is affected."""

import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import duckdb
import httpx2
import pytest

from prela_stream import telemetry
from prela_stream.app.adapters import open_sink
from prela_stream.codec.sampled import KeptFragment, encode_kept
from prela_stream.config import load_settings
from prela_stream.errors import PrelaError
from prela_stream.sinks.query import TraceQuery
from prela_stream.sinks.registry import SINK_TYPES, load
from prela_stream.sinks.service import SinkService
from prela_stream.sinks.settings import SinkSettings, read_sinks
from prela_stream.transport.base import TopicPartition, Transport
from tests.integration.test_web_services import until_listed, url_of
from tests.support.kept import decision, fragment, span, trace_id
from tests.support.processes import DEADLINE
from tests.support.running_pipeline import Agent, environment, services, stored, warnings
from tests.support.small_disk import SmallDisk
from tests.support.workers import TOPICS, local_log, send

RECOVERY_S = float(os.environ.get("PRELA_TEST_RECOVERY_S", "20"))
"""Seconds after which everything works again. The promise is 5, on a machine that is not busy."""
FULL_S = float(os.environ.get("PRELA_TEST_FULL_DISK_S", "8"))
"""How long the disk is full under a whole pipeline."""


def large(number: int) -> KeptFragment:
    """A trace of 20 kB."""
    return fragment(decision(number), [span(number, 0, attributes={"prompt": "word " * 4_000})])


async def found(sink: SinkSettings) -> list[str]:
    """Ids of the traces in the destination, each as often as it is there."""
    reader = SINK_TYPES[sink.type].reader
    if sink.type == "parquet":
        files = [str(file) for file in Path(sink.options.path).glob("spans/*/*/*.parquet")]
        with duckdb.connect() as connection:
            rows = connection.execute("SELECT trace_id FROM read_parquet(?)", [files]).fetchall() if files else []
        return [trace for (trace,) in rows]
    if reader is None:
        lines = [line for file in Path(sink.options.path).glob("*.jsonl") for line in file.read_text().split("\n")[:-1]]
        return [json.loads(line)["trace_id"] for line in lines]
    try:
        async with load(reader)(sink.options) as opened:
            return [row.trace_id for row in await opened.list_traces(TraceQuery(), limit=10_000)]
    except PrelaError:  # it is not created yet
        return []


@pytest.fixture
async def transport(tmp_path: Path) -> AsyncIterator[Transport]:
    async with local_log(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("kind", [name for name, kind in SINK_TYPES.items() if kind.path is not None])
async def test_a_sink_recovers_from_a_full_disk(
    transport: Transport, small_disk: SmallDisk, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    (sink,) = read_sinks([{"type": kind}], str(small_disk.path)).sinks
    sampled = TopicPartition(TOPICS.sampled, 0)
    before = telemetry.SINK_RETRIES.value("disk")
    sent = 20

    async def all_found() -> None:
        while sorted(set(await found(sink))) != [trace_id(number) for number in range(sent)]:
            await anyio.sleep(0.05)

    await send(transport, *[encode_kept(large(number)) for number in range(sent)], to=sampled)
    with caplog.at_level(logging.INFO, logger="prela_stream.sinks"):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(SinkService(transport, TOPICS, open_sink(sink, transport), name=kind, group="disk").run)
            with anyio.fail_after(DEADLINE):
                await all_found()
            with small_disk.full():
                more = range(sent, sent + 20)
                sent += len(more)
                await send(transport, *[encode_kept(large(number)) for number in more], to=sampled)
                with anyio.fail_after(DEADLINE):
                    while telemetry.SINK_RETRIES.value("disk") - before < 4:
                        await anyio.sleep(0.05)
            with anyio.fail_after(RECOVERY_S):
                await all_found()
            tasks.cancel_scope.cancel()
    logged = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(logged) == 2, logged
    assert str(sink.options.path) in logged[0]
    assert len(await found(sink)) == sent, "a batch that failed left a part of it behind"


@pytest.mark.slow
@pytest.mark.parametrize("small_disk", [80], indirect=True)
@pytest.mark.parametrize("commands", [("worker", "sink"), ("dev",)], ids="+".join)
async def test_a_pipeline_recovers_from_a_full_disk(
    tmp_path: Path, small_disk: SmallDisk, commands: tuple[str, ...]
) -> None:
    env = environment(tmp_path, small_disk.path / "prela") | {"PRELA_WEB_LISTEN": "127.0.0.1:0"}
    settings = load_settings(env=env)
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(services(tmp_path, env, *commands, "web"))
        page = await url_of(running[-1])
        browser = await stack.enter_async_context(httpx2.AsyncClient(timeout=DEADLINE))
        agent = Agent(tmp_path, env)
        stack.callback(agent.close)
        ids = [await agent.trace(flush=False) for _ in range(20)]
        await stored(settings, [await agent.trace(), *ids], DEADLINE)
        ids += [await agent.trace(flush=False) for _ in range(20)]  # some of these are acknowledged and not yet stored
        with small_disk.full():
            end = anyio.current_time() + FULL_S
            while anyio.current_time() < end:
                ids.append(await agent.trace(flush=False))
                assert (await browser.get(page)).status_code in (200, 503)
                await anyio.sleep(0.05)
        await stored(settings, ids, RECOVERY_S)
        last = await agent.trace()
        await stored(settings, [last], RECOVERY_S)
        assert "kept trace" in await until_listed(page, last)
        assert agent.process.poll() is None
        assert [service.process.poll() for service in running] == [None] * len(running)
        assert len(warnings(running[-1].output())) <= 20  # it only reads, and may notice nothing
        for output in (agent.output, *(service.output for service in running[:-1])):
            assert 1 <= len(warnings(output())) <= 20, output()  # no line for each attempt of each part
