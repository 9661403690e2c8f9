"""Several sinks side by side: each has its own consumer group, and a faulty one changes nothing for the others."""

import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

import prela_stream as prela
from prela_stream import telemetry
from prela_stream.app import adapters, open_reader, run_dev, run_sinks, run_worker, services
from prela_stream.app.adapters import open_transport
from prela_stream.config import Settings, load_settings
from prela_stream.errors import ConfigurationError, PrelaError
from prela_stream.sinks.base import SinkBatch
from prela_stream.sinks.jsonl import JsonlSink
from prela_stream.sinks.registry import SINK_TYPES, load
from prela_stream.transport.base import TopicPartition
from tests.support.processes import DEADLINE


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    gc.collect()  # a stream of an earlier test that was never read ends its span here, not in the pipeline of this test
    (tmp_path / "policies.toml").write_text('[[policy]]\nname = "all"\ntype = "always"\n')
    sinks = [{}, {"type": "jsonl"}, {"name": "faulty", "path": str(tmp_path / "folder" / "traces.db")}]
    (tmp_path / "folder").write_text("a file where the folder of the faulty sink has to be")
    return load_settings(
        env={},
        overrides={
            "directory": str(tmp_path / "prela"),
            "policies_file": str(tmp_path / "policies.toml"),
            "otlp": {"listen": "off", "grpc_listen": "off"},  # the default address may be that of another test
            "pipeline": {"shutdown_timeout_s": DEADLINE},
            "worker": {"commit_interval_ms": 50, "tick_min_ms": 20, "tick_max_ms": 100},
            "sink": sinks,
        },
    )


@asynccontextmanager
async def running(service: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service)
        yield
        tasks.cancel_scope.cancel()


async def trace(settings: Settings, *names: str) -> set[str]:
    """Record one trace for each name; their ids."""
    found = set()
    async with prela.pipeline(settings):
        for name in names:
            with prela.get_tracer().span(name) as span:
                found.add(span.trace_id)
    return found


def in_lines(settings: Settings) -> set[str]:
    folder = Path(settings.directory) / "jsonl"
    return {json.loads(line)["trace_id"] for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()}


async def in_store(settings: Settings) -> set[str]:
    try:
        async with open_reader(settings) as reader:
            return {row.trace_id for row in await reader.tail(0)}
    except PrelaError:  # it is not created yet
        return set()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    with anyio.fail_after(DEADLINE):
        while not await condition():
            await anyio.sleep(0.02)


async def test_dev_runs_all_sinks_and_a_faulty_one_stops_neither_the_worker_nor_the_others(settings: Settings) -> None:
    async with running(partial(run_dev, settings)):
        ids = await trace(settings, "first", "second")

        async def others_have_them() -> bool:
            return ids == in_lines(settings) == await in_store(settings)

        await until(others_have_them)
        Path(settings.sink[2].options.path).parent.unlink()
        ids |= await trace(settings, "third")
        faulty = load_settings(env={}, overrides={"sink": [settings.sink[2].table()]})

        async def all_have_them() -> bool:
            return ids == in_lines(settings) == await in_store(settings) == await in_store(faulty)

        await until(all_have_them)


async def test_only_runs_the_sinks_that_it_names_and_each_group_has_its_own_offset(settings: Settings) -> None:
    sampled = TopicPartition(settings.topics.sampled, 0)
    async with running(partial(run_worker, settings)), running(partial(run_sinks, settings, only=["sqlite"])):
        ids = await trace(settings, "first")

        async def stored() -> bool:
            return ids == await in_store(settings)

        await until(stored)
    assert in_lines(settings) == set()
    async with running(partial(run_sinks, settings, only=["jsonl"])):

        async def written() -> bool:
            return ids == in_lines(settings)

        await until(written)
    async with open_transport(settings) as transport:
        groups = [f"prela.sinks.{name}" for name in ("sqlite", "jsonl", "faulty")]
        committed = [await transport.committed(group, sampled) for group in groups]
    assert [one is not None for one in committed] == [True, True, False]


async def test_a_name_that_no_sink_has_is_an_error(settings: Settings) -> None:
    with pytest.raises(
        ConfigurationError, match="--only: no sink is named 'jsnl'; the settings name sqlite, jsonl, faulty"
    ):
        await run_sinks(settings, only=["jsnl", "jsonl"])


class Defective(JsonlSink):
    """A sink with a defect: it raises what no fault of its destination raises, twice."""

    left = 2

    async def write(self, batch: SinkBatch) -> None:
        if Defective.left:
            Defective.left -= 1
            raise KeyError("a defect")
        await super().write(batch)


async def test_a_defect_of_a_sink_ends_neither_the_worker_nor_the_others(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRELA_STRICT", "0")
    monkeypatch.setattr(services, "_RESTART_S", 0.05)
    monkeypatch.setattr(Defective, "left", 2)
    kind = msgspec.structs.replace(SINK_TYPES["jsonl"], sink=f"{__name__}:Defective")
    monkeypatch.setitem(SINK_TYPES, "jsonl", kind)
    monkeypatch.setattr(adapters, "load", lambda path: Defective if path == kind.sink else load(path))
    before = telemetry.SWALLOWED.value("sink jsonl", "KeyError")
    async with running(partial(run_dev, settings)):
        ids = await trace(settings, "first", "second")

        async def all_have_them() -> bool:
            return ids == in_lines(settings) == await in_store(settings)

        await until(all_have_them)
    assert telemetry.SWALLOWED.value("sink jsonl", "KeyError") - before == 2
