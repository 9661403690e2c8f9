"""`rm -rf .prela` under running processes: each works on new files within seconds and has logged one line."""

import os
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from prela_stream.config import load_settings
from tests.support.processes import DEADLINE
from tests.support.running_pipeline import Agent, environment, services, stored, warnings

RECOVERY_S = float(os.environ.get("PRELA_TEST_RECOVERY_S", "20"))
"""Seconds within which everything works on new files. The promise is 5, on a machine that is not busy."""


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
        for _ in range(2):
            outputs = [agent.output, *(service.output for service in running)]
            before = [len(warnings(output())) for output in outputs]
            shutil.rmtree(tmp_path / "prela")
            await stored(settings, [await agent.trace()], RECOVERY_S)
            new = [warnings(output())[count:] for output, count in zip(outputs, before, strict=True)]
            assert [len(lines) for lines in new] == [1] * len(outputs), new
        assert agent.process.poll() is None
        assert [service.process.poll() for service in running] == [None] * len(running)
