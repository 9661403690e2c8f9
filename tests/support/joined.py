"""Services in separate processes that share one log, which `prela-stream dev` processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import anyio
import anyio.to_thread

from prela_stream.app import open_reader
from prela_stream.config import Settings, load_settings
from prela_stream.errors import PrelaError
from prela_stream.sinks.query import StoredTrace
from tests.support.processes import DEADLINE, Service

NEVER = "600000"
"""A timeout in milliseconds that is longer than any test."""


class Joined:
    """A folder with a log and a store, one `dev`, and any number of programs."""

    def __init__(self, folder: Path, *, remote_wait_ms: str = NEVER) -> None:
        (folder / "policies.toml").write_text('[[policy]]\nname = "all"\ntype = "always"\n', encoding="utf-8")
        self.folder = folder
        self.env = {
            "PRELA_DIRECTORY": str(folder / "prela"),
            "PRELA_POLICIES_FILE": str(folder / "policies.toml"),
            "PRELA_PIPELINE_SHUTDOWN_TIMEOUT_S": str(DEADLINE),
            "PRELA_TOPICS_PARTITIONS": "2",
            "PRELA_ASSEMBLY_SETTLE_MS": "50",
            "PRELA_ASSEMBLY_REMOTE_WAIT_MS": remote_wait_ms,
            "PRELA_ASSEMBLY_ROOT_WAIT_MS": NEVER,
            "PRELA_ASSEMBLY_IDLE_MS": NEVER,
            "PRELA_WORKER_COMMIT_INTERVAL_MS": "50",
            "PRELA_WORKER_TICK_MIN_MS": "20",
            "PRELA_WORKER_TICK_MAX_MS": "100",
            "PRELA_STRICT": "1",
        }
        self.settings: Settings = load_settings(env=self.env)
        self.dev = Service("dev", log=folder / "dev.log", env=self.env)
        self._programs: list[subprocess.Popen[str]] = []

    def start(self, program: str | Path, *arguments: str) -> subprocess.Popen[str]:
        """Run a program, its text or a file; the test reads its standard output."""
        what = [str(program)] if isinstance(program, Path) else ["-c", program]
        process = subprocess.Popen(
            [sys.executable, "-W", "error", *what, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **self.env},
        )
        self._programs.append(process)
        return process

    async def run(self, program: str | Path, *arguments: str) -> str:
        """Run a program to its end; returns what it printed, and fails if its exit code is not 0."""
        process = self.start(program, *arguments)
        with anyio.fail_after(DEADLINE):
            out, _ = await anyio.to_thread.run_sync(process.communicate)
        assert process.returncode == 0
        return out.strip()

    async def line(self, process: subprocess.Popen[str]) -> str:
        """The next line that a program prints."""
        stream: IO[str] | None = process.stdout
        assert stream is not None
        with anyio.fail_after(DEADLINE):
            return (await anyio.to_thread.run_sync(stream.readline, abandon_on_cancel=True)).strip()

    async def stored(self, trace_id: str) -> StoredTrace:
        """The trace, as soon as it is decided and in the store."""
        with anyio.fail_after(DEADLINE):
            while True:
                assert self.dev.process.poll() is None, self.dev.output()
                try:
                    async with open_reader(self.settings) as reader:
                        found = await reader.get(trace_id)
                    if found is not None:
                        return found
                except PrelaError:  # the store is not made yet
                    pass
                await anyio.sleep(0.02)

    def close(self) -> None:
        """Stop every process that was started."""
        self.dev.kill()
        for process in self._programs:
            process.kill()
            process.communicate()


@contextmanager
def joined(folder: Path, *, remote_wait_ms: str = NEVER) -> Iterator[Joined]:
    """As `Joined`, ended with the block."""
    house = Joined(folder, remote_wait_ms=remote_wait_ms)
    try:
        yield house
    finally:
        house.close()
