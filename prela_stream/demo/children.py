"""The processes of the demo: started together, watched, and stopped whatever happens; what a failed one said is shown."""

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
"""A child that has not ended so long after SIGTERM is killed."""
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
        """The line with which it says that it is ready; raises DemoError if it ends without one."""
        async for line in self.lines():
            return line
        raise await self.failure()

    async def failure(self) -> DemoError:
        """Why it ended, as an error to raise."""
        code = await self.process.wait()
        said = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_SHOWN_LINES:]
        shown = "\n".join(f"  {line}" for line in said) or "  (it wrote nothing)"
        return DemoError(
            f"the {self.name} ended with exit code {code}; its last lines, all of them in {self._log}:\n{shown}"
        )

    async def watch(self) -> None:
        """Raise DemoError when it ends, which a service of the demo never does by itself."""
        await self.process.wait()
        raise await self.failure()

    async def stop(self) -> None:
        """Ask it to end, and make it end if it does not."""
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

    It stands in a session of its own: Ctrl-C on the terminal reaches the demo alone, which stops its children in order.
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
