"""Services of the command line as child processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio

DEADLINE = 60.0
"""Seconds that a condition may take on a busy machine."""
STOP_S = 30.0
"""Seconds that a worker may take to stop: `stop_timeout_s`, leaving the group, and a margin for a busy machine."""


class Service:
    """`prela-stream COMMAND` as a child process. Its output goes to a file.

    Args:
        command: The command and its arguments.
        log: The file. Processes that run one after the other can share it; concurrent ones cannot.
        env: Additional environment variables.
    """

    def __init__(self, *command: str, log: Path, env: dict[str, str] | None = None) -> None:
        self.log = log
        self._output_before = log.stat().st_size if log.exists() else 0
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "prela_stream", *command],
                stdout=sink,
                stderr=sink,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
            )

    def output(self) -> str:
        """The output of this process so far."""
        with self.log.open("rb") as file:
            file.seek(self._output_before)
            return file.read().decode(errors="replace")

    async def wait_for_output(self, text: str) -> None:
        """Wait until the output contains `text`; fails if the process ends first."""
        with anyio.fail_after(DEADLINE):
            while text not in self.output():
                assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.output()}"
                await anyio.sleep(0.01)

    async def stop(self, within: float) -> int:
        """SIGTERM; its exit code. Raises subprocess.TimeoutExpired if it has not ended `within` seconds."""
        self.process.send_signal(signal.SIGTERM)
        return await anyio.to_thread.run_sync(self.process.wait, within)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.process.kill()
        self.process.wait()
