"""A child process that cannot outlive its parent, not even one that was killed with SIGKILL.

Linux could signal a child at its parent's death, but the kernel means the *thread* that started it, and a worker thread ends
early. So a tiny shell holds the other end of a pipe: when the parent is gone, however it went, the pipe closes and the shell
kills the child.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

GUARD = 'read -r pid && { read -r word || kill -KILL "$pid"; }'
"""Waits for the child's pid, then for a word that reports its end. If the pipe ends before that word, it kills the child."""


class Child:
    """A process in a separate session (a terminal's Ctrl-C does not reach it) that writes to a log file.

    Not for several threads at once, except `send`.
    """

    def __init__(self, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> None:
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD], stdin=subprocess.PIPE, start_new_session=True, stdout=subprocess.DEVNULL
        )
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
                env=None if env is None else {**os.environ, **env},
            )
        assert self._guard.stdin is not None
        self._guard.stdin.write(b"%d\n" % self.pid)
        self._guard.stdin.flush()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def ended(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        code = self._process.poll()
        if code is not None:
            self._dismiss()
        return code

    def wait(self, within: float | None = None) -> int | None:
        """Its exit code; None if it still runs after so many seconds."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(within)
        return self.ended()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens if it has ended."""
        self._process.send_signal(number)

    def suspend(self) -> None:
        """SIGSTOP, and wait until all its threads have stopped (or it has ended): one that runs stops a little later."""
        self._process.send_signal(signal.SIGSTOP)
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def kill(self) -> None:
        """SIGKILL; it has ended when this returns."""
        self._process.kill()
        self._process.wait()
        self._dismiss()

    def _dismiss(self) -> None:
        assert self._guard.stdin is not None
        if not self._guard.stdin.closed:
            with suppress(BrokenPipeError):  # the guard was killed
                self._guard.stdin.write(b"gone\n")
                self._guard.stdin.flush()
            with suppress(BrokenPipeError):
                self._guard.stdin.close()
        self._guard.wait()
