"""`rm -rf .prela` under running processes: each works on new files within seconds and has logged one line."""

import os
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

import prela_stream as prela
from prela_stream.config import Settings, load_settings
from tests.support.processes import DEADLINE
from tests.support.running_pipeline import Agent, environment, services, stored, warnings

RECOVERY_S = float(os.environ.get("PRELA_TEST_RECOVERY_S", "20"))
"""Seconds within which everything works on new files. The promise is 5, on a machine that is not busy."""


class Reader:
    """An application that reads kept traces."""

    def __init__(self, settings: Settings, group: str | None) -> None:
        self._settings = settings
        self._group = group
        self._seen: set[str] = set()

    async def run(self) -> None:
        async with prela.kept_traces(self._group, settings=self._settings) as traces:
            async for trace in traces:
                self._seen.add(trace.trace_id)

    async def has_seen(self, trace_id: str) -> None:
        with anyio.fail_after(RECOVERY_S):
            while trace_id not in self._seen:
                await anyio.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("commands", [("worker", "sink"), ("dev",)], ids="+".join)
async def test_everything_works_on_new_files(tmp_path: Path, commands: tuple[str, ...]) -> None:
    env = environment(tmp_path, tmp_path / "prela")
    settings = load_settings(env=env)
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(services(tmp_path, env, *commands))
        agent = Agent(tmp_path, env)
        stack.callback(agent.close)
        await stored(settings, [await agent.trace()], DEADLINE)
        readers = [Reader(settings, group) for group in (None, "readers")]
        tasks = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(tasks.cancel_scope.cancel)
        for reader in readers:
            tasks.start_soon(reader.run)
        for _ in range(2):
            outputs = [agent.output, *(service.output for service in running)]
            before = [len(warnings(output())) for output in outputs]
            shutil.rmtree(tmp_path / "prela")
            trace_id = await agent.trace()
            await stored(settings, [trace_id], RECOVERY_S)
            for reader in readers:
                await reader.has_seen(trace_id)
            new = [warnings(output())[count:] for output, count in zip(outputs, before, strict=True)]
            assert [len(lines) for lines in new] == [1] * len(outputs), new
        assert agent.process.poll() is None
        assert [service.process.poll() for service in running] == [None] * len(running)
