"""The command line in processes of its own, as in real use."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio

DEADLINE = 60.0
"""Seconds that a condition may take on a busy machine."""
STOP_S = 30.0
"""Seconds that a worker may take to stop: `stop_timeout_s` for its commits, leaving the group, and what a busy machine adds."""


class Service:
    """`prela-stream COMMAND` as a child process; what it says on standard error is kept in a file.

    Args:
        command: The command and its arguments.
        log: Where what it says goes. Lives that follow one another can share a file; services side by side cannot.
        env: Further environment variables.
    """

    def __init__(self, *command: str, log: Path, env: dict[str, str] | None = None) -> None:
        self.log = log
        self._said_before = log.stat().st_size if log.exists() else 0
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "prela_stream", *command],
                stdout=sink,
                stderr=sink,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
            )

    def said(self) -> str:
        """What this life of the service has said so far."""
        with self.log.open("rb") as file:
            file.seek(self._said_before)
            return file.read().decode(errors="replace")

    async def says(self, text: str) -> None:
        """Wait until it has said `text`; fails if it ends before."""
        with anyio.fail_after(DEADLINE):
            while text not in self.said():
                assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.said()}"
                await anyio.sleep(0.01)

    async def stop(self, within: float) -> int:
        """SIGTERM; its exit code. Raises subprocess.TimeoutExpired if it has not ended `within` seconds."""
        self.process.send_signal(signal.SIGTERM)
        return await anyio.to_thread.run_sync(self.process.wait, within)

    def kill(self) -> None:
        """SIGKILL, and gone when this returns."""
        self.process.kill()
        self.process.wait()
