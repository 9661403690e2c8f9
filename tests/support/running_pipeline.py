"""A whole pipeline in processes: services that write a store and lines, and an agent that records on request."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import anyio
import anyio.to_thread

from prela_stream.app import open_reader
from prela_stream.config import Settings
from prela_stream.errors import PrelaError
from tests.support.processes import DEADLINE, STOP_S, Service

AGENT = """
import logging, sys
import prela_stream as prela
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
prela.init()
for line in sys.stdin:  # a trace for each line; "flush" waits until it is acknowledged
    with prela.get_tracer().span("agent", attributes={"prompt": "word " * 100}) as span:
        pass
    if line.strip() == "flush":
        prela.flush()
    print(span.trace_id, flush=True)
prela.shutdown()
"""


class Agent:
    """A program that records a trace on request."""

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

    async def trace(self, *, flush: bool = True) -> str:
        """Record a trace; its id, after the flush."""
        stdin: IO[str] | None = self.process.stdin
        stdout: IO[str] | None = self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write("flush\n" if flush else "\n")
        stdin.flush()
        with anyio.fail_after(DEADLINE):
            line = await anyio.to_thread.run_sync(stdout.readline, abandon_on_cancel=True)
        assert line, self.output()
        return line.strip()

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


async def stored(settings: Settings, trace_ids: Iterable[str], within: float) -> None:
    """Wait until the traces are in the store and in the files of the JSONL sink."""
    missing = set(trace_ids)
    with anyio.fail_after(within):
        while missing:
            folder = Path(settings.directory) / "jsonl"
            lines = "".join(file.read_text() for file in folder.glob("*.jsonl"))
            with contextlib.suppress(PrelaError):  # it is not created yet
                async with open_reader(settings) as reader:
                    rows = await reader.tail(0, limit=100_000)
                missing -= {row.trace_id for row in rows if row.trace_id in lines}
            await anyio.sleep(0.02)


def environment(folder: Path, directory: Path) -> dict[str, str]:
    """Variables of a pipeline that keeps every trace, and writes it to two sinks in `directory`."""
    (folder / "policies.toml").write_text('[[policy]]\nname = "all"\ntype = "always"\n')
    return {
        "PRELA_DIRECTORY": str(directory),
        "PRELA_POLICIES_FILE": str(folder / "policies.toml"),
        "PRELA_SINK": '[{}, {"type": "jsonl"}]',
        "PRELA_TOPICS_PARTITIONS": "1",
        "PRELA_STRICT": "1",
        "PRELA_OTLP_LISTEN": "off",  # the default address may be that of another test
        "PRELA_OTLP_GRPC_LISTEN": "off",
    }
