"""The processes of the demo: started together, watched, and always stopped. If one fails, its last lines are shown."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from prela_stream.errors import PrelaError

STOP_S: Final = 10.0
"""Seconds after SIGTERM until a child that has not ended is killed."""
_SHOWN_LINES: Final = 25
_LONGEST_LINE: Final = 1 << 26


class DemoError(PrelaError):
    """A process of the demo failed; the text has the last lines that it wrote."""


class Child:
    """One process. Its standard output is read line by line; its standard error goes to a file."""

    def __init__(self, name: str, process: Process, log: Path) -> None:
        assert process.stdout is not None
        self.name = name
        self.process = process
        self._log = log
        self._output = BufferedByteReceiveStream(process.stdout)

    async def lines(self) -> AsyncIterator[bytes]:
        """Each line that it prints, until it closes its output."""
        while True:
            try:
                yield await self._output.receive_until(b"\n", _LONGEST_LINE)
            except (anyio.EndOfStream, anyio.IncompleteRead):
                return

    async def first_line(self) -> bytes:
        """The first line, which reports that it is ready; raises DemoError if it ends without one."""
        async for line in self.lines():
            return line
        raise await self.failure()

    async def failure(self) -> DemoError:
        """The error to raise: how it ended, and its last lines."""
        code = await self.process.wait()
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_SHOWN_LINES:]
        shown = "\n".join(f"  {line}" for line in lines) or "  (it wrote nothing)"
        return DemoError(
            f"the {self.name} of the demo ended with exit code {code}. Its last lines; {self._log.absolute()} has all:\n{shown}"
        )

    async def watch(self) -> None:
        """Raise DemoError when it ends: a service of the demo runs until it is stopped."""
        await self.process.wait()
        raise await self.failure()

    async def stop(self) -> None:
        """Send SIGTERM, and SIGKILL if it does not end."""
        if self.process.returncode is None:
            with anyio.move_on_after(STOP_S):
                self.process.send_signal(signal.SIGTERM)
                await self.process.wait()
        if self.process.returncode is None:
            self.process.kill()
        await self.process.aclose()


@asynccontextmanager
async def child(name: str, *arguments: str, env: Mapping[str, str], logs: Path) -> AsyncIterator[Child]:
    """Run `python -m arguments…` for the length of the block.

    It runs in another session, so that Ctrl-C on the terminal reaches only the demo, which stops its children in order.
    """
    log = logs / f"{name.replace(' ', '-')}.log"
    with log.open("wb") as errors:
        process = await anyio.open_process(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **env},
            start_new_session=True,
        )
    running = Child(name, process, log)
    try:
        yield running
    finally:
        with anyio.CancelScope(shield=True):
            await running.stop()
