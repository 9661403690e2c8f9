"""`rm -rf .prela` under running processes: each works on new files within seconds and has logged one line."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import IO

import anyio
import anyio.to_thread
import pytest

from prela_stream.app import open_reader
from prela_stream.config import load_settings
from prela_stream.errors import PrelaError
from tests.support.processes import DEADLINE, STOP_S, Service

RECOVERY_S = float(os.environ.get("PRELA_TEST_RECOVERY_S", "5"))
"""Seconds within which everything works on new files; the promise is 5."""

AGENT = """
import logging, sys
import prela_stream as prela
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
prela.init()
for line in sys.stdin:  # a trace for each line
    with prela.get_tracer().span("agent") as span:
        pass
    result = prela.flush()
    print(span.trace_id, prela.ledger().acknowledged, flush=True)
prela.shutdown()
"""


class Agent:
    """A program that records a trace on request, acknowledged or not."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._log = folder / "agent.log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", AGENT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **env},
            )

    async def trace(self) -> str:
        """Record a trace; its id, after the flush."""
        stdin: IO[str] | None = self.process.stdin
        stdout: IO[str] | None = self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write("\n")
        stdin.flush()
        with anyio.fail_after(DEADLINE):
            line = await anyio.to_thread.run_sync(stdout.readline, abandon_on_cancel=True)
        assert line, self.output()
        return line.split()[0]

    def output(self) -> str:
        return self._log.read_text()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@asynccontextmanager
async def services(folder: Path, env: dict[str, str], *commands: str) -> AsyncIterator[list[Service]]:
    """These commands at work, ready; stopped cleanly at the end."""
    started = [Service(command, log=folder / f"{command}.log", env=env) for command in commands]
    try:
        for service in started:
            await service.wait_for_output("ready")
        yield started
        for service in started:
            assert await service.stop(STOP_S) == 0, service.output()
    finally:
        for service in started:
            service.kill()


def warnings(text: str) -> list[str]:
    """The lines above the level INFO."""
    return [line for line in text.splitlines() if re.search(r"\b(WARNING|ERROR|CRITICAL)\b", line)]


@pytest.mark.slow
@pytest.mark.parametrize("commands", [("worker", "sink"), ("dev",)], ids="+".join)
async def test_everything_works_on_new_files(tmp_path: Path, commands: tuple[str, ...]) -> None:
    (tmp_path / "policies.toml").write_text('[[policy]]\nname = "all"\ntype = "always"\n')
    env = {
        "PRELA_DIRECTORY": str(tmp_path / "prela"),
        "PRELA_POLICIES_FILE": str(tmp_path / "policies.toml"),
        "PRELA_SINK": '[{}, {"type": "jsonl"}]',
        "PRELA_TOPICS_PARTITIONS": "1",
        "PRELA_STRICT": "1",
    }
    settings = load_settings(env=env)

    async def stored(trace_id: str, within: float) -> None:
        """Wait until the trace is in the store and in the lines."""
        with anyio.fail_after(within):
            while True:
                lines = "".join(file.read_text() for file in (tmp_path / "prela" / "jsonl").glob("*.jsonl"))
                try:
                    async with open_reader(settings) as reader:
                        if await reader.get(trace_id) is not None and trace_id in lines:
                            return
                except PrelaError:  # it is not created yet
                    pass
                await anyio.sleep(0.02)

    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(services(tmp_path, env, *commands))
        agent = Agent(tmp_path, env)
        stack.callback(agent.close)
        await stored(await agent.trace(), DEADLINE)
        for _ in range(2):
            outputs = [agent.output, *(service.output for service in running)]
            before = [len(warnings(output())) for output in outputs]
            shutil.rmtree(tmp_path / "prela")
            await stored(await agent.trace(), RECOVERY_S)
            new = [warnings(output())[count:] for output, count in zip(outputs, before, strict=True)]
            assert [len(lines) for lines in new] == [1] * len(outputs), new
        assert agent.process.poll() is None
        assert [service.process.poll() for service in running] == [None] * len(running)
