"""One broker process: formatted once, started, suspended, killed and started again on the same port and the same data."""

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deploy.kafka.errors import BrokerError
from deploy.kafka.probe import known_brokers
from deploy.kafka.process import Child
from deploy.kafka.settings import HOST

START_SECONDS = 60.0
"""How long a broker may take until it answers; a quiet machine needs 3."""
STOP_SECONDS = 15.0
"""How long a broker may take to stop; one that has lost its quorum would wait for minutes."""
LOG_LINES = 30


@dataclass(frozen=True, kw_only=True)
class Java:
    """How to run a class of Kafka's.

    Args:
        path: The `java` to run.
        jars: The folder with Kafka's jars.
        options: Options of the JVM, its heap among them.
        broker_options: Further ones for the broker, not for the tool that formats its storage.
    """

    path: str
    jars: Path
    options: Sequence[str]
    broker_options: Sequence[str] = ()

    def command(self, main_class: str, *arguments: str, options: Sequence[str] = ()) -> list[str]:
        """The command line that runs this class."""
        return [self.path, *self.options, *options, "-cp", f"{self.jars}/*", main_class, *arguments]


class Broker:
    """A broker (and controller) in KRaft mode, on 127.0.0.1, with its data in a separate folder.

    Args:
        node_id: Its id in the cluster, from 1.
        port: Where its plain listener is.
        folder: Where its properties, data and log go; made if missing.
        properties: Its whole configuration but `log.dirs`.
        cluster_id: The cluster's id, the same for all its brokers and all their lives.
        java: How to run Kafka.
        format_arguments: More arguments for the storage tool, e.g. users to add.
    """

    def __init__(
        self,
        *,
        node_id: int,
        port: int,
        folder: Path,
        properties: Mapping[str, str],
        cluster_id: str,
        java: Java,
        format_arguments: Sequence[str] = (),
    ) -> None:
        self.node_id = node_id
        self.port = port
        self.log = folder / "kafka.log"
        self._folder = folder
        self._data = folder / "data"
        self._properties = folder / "server.properties"
        self._settings = {**properties, "log.dirs": str(self._data)}
        self._cluster_id = cluster_id
        self._java = java
        self._format_arguments = format_arguments
        self._child: Child | None = None

    @property
    def address(self) -> str:
        """Its plain listener, as `host:port`."""
        return f"{HOST}:{self.port}"

    @property
    def running(self) -> bool:
        """Whether its process is there (a suspended one is)."""
        return self._child is not None and self._child.ended() is None

    @property
    def pid(self) -> int:
        """The id of its process, which has to run."""
        return self._alive().pid

    def start(self, *, wait: bool = True) -> None:
        """Start it on its port and data; the data are formatted if they are new.

        Args:
            wait: Whether to return only when it answers; without a quorum of its cluster it cannot.

        Raises:
            BrokerError: It runs already, its storage cannot be formatted, it ended, or it does not answer.
        """
        if self.running:
            raise BrokerError(f"expected broker {self.node_id} to be stopped; it runs (pid {self.pid}): stop it first")
        self._format()
        command = self._java.command("kafka.Kafka", str(self._properties), options=self._java.broker_options)
        self._child = Child(command, log=self.log)
        if wait:
            self.wait_ready()

    def wait_ready(self, others: frozenset[int] = frozenset(), within: float = START_SECONDS) -> None:
        """Wait until it answers clients, knows itself as alive, and these other brokers too.

        Raises:
            BrokerError: It ended, or did not answer so within so many seconds.
        """
        wanted = others | {self.node_id}
        deadline = time.monotonic() + within
        came: object = "nothing"
        while time.monotonic() < deadline:
            self._alive()
            try:
                known = known_brokers(HOST, self.port)
            except OSError as error:
                came = error
            else:
                if wanted <= known:
                    return
                came = f"brokers {sorted(known)}"
            time.sleep(0.02)
        raise BrokerError(
            f"expected broker {self.node_id} on {self.address} to know brokers {sorted(wanted)} within {within:.0f} s; "
            f"last came: {came}\n{self.log_tail()}"
        )

    def check(self) -> None:
        """Raise BrokerError, with the end of its log, if it does not run."""
        self._alive()

    def stop(self, within: float = STOP_SECONDS) -> bool:
        """SIGTERM, and SIGKILL if that does not help within so many seconds; its data stay.

        Returns:
            Whether it ended before it was killed.
        """
        self.ask_to_stop()
        return self.wait_stopped(within)

    def ask_to_stop(self) -> None:
        """SIGTERM, without waiting; a suspended broker is resumed to hear it."""
        if self._child is not None:
            self._child.send(signal.SIGTERM)
            self._child.send(signal.SIGCONT)

    def wait_stopped(self, within: float) -> bool:
        """Wait until it has ended, and kill it after so many seconds; return whether it ended before."""
        if self._child is None:
            return True
        if self._child.wait(within) is None:
            self.kill()
            return False
        return True

    def kill(self) -> None:
        """SIGKILL, and gone when this returns; its data stay."""
        if self._child is not None:
            self._child.kill()

    def suspend(self) -> None:
        """SIGSTOP: its connections stay open and nothing is answered from when this returns."""
        self._alive().suspend()

    def resume(self) -> None:
        """SIGCONT: it goes on where it was."""
        self._alive().send(signal.SIGCONT)

    def log_tail(self, lines: int = LOG_LINES) -> str:
        """The last lines of its log, with the log's path."""
        with suppress(FileNotFoundError):
            lines_of_log = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            return "\n".join([f"-- the end of {self.log} --", *lines_of_log[-lines:]])
        return f"-- {self.log} was never written --"

    def _alive(self) -> Child:
        if self._child is None:
            raise BrokerError(f"expected broker {self.node_id} to run; it was not started: call start() first")
        code = self._child.ended()
        if code is not None:
            raise BrokerError(f"expected broker {self.node_id} to run; it ended with {code}\n{self.log_tail()}")
        return self._child

    def _format(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{key}={_escaped(value)}" for key, value in self._settings.items()]
        self._properties.touch(mode=0o600)  # passwords of test users may be in it
        self._properties.write_text("\n".join(lines) + "\n", encoding="utf-8")
        if (self._data / "meta.properties").exists():
            return
        arguments = ["format", "--config", str(self._properties), "--cluster-id", self._cluster_id]
        command = self._java.command("kafka.tools.StorageTool", *arguments, *self._format_arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS, check=False)
        if done.returncode:
            raise BrokerError(
                f"expected the storage of broker {self.node_id} in {self._data} to be formatted; "
                f"the storage tool ended with {done.returncode}\n{done.stdout}{done.stderr}"
            )


def _escaped(value: str) -> str:
    """The value as a Java properties file reads it back."""
    return value.replace("\\", "\\\\").replace("\n", "\\n")
