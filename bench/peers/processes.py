"""The two samplers as child processes: start, CPU, memory, and how much they have consumed and decided."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections import Counter
from pathlib import Path
from typing import Final

import anyio
import psutil

from bench.worker import POLICIES
from deploy.kafka.settings import free_ports
from prela_stream.config import Settings
from prela_stream.demo.show import environment_of

START_S: Final = 60.0
_CONFIGURATION: Final = Path(__file__).parent / "collector.yaml"
_SERIES: Final = re.compile(r"^(\w+)(?:\{(.*?)\})? (\S+)$", re.MULTILINE)
_MIB: Final = 2**20


class Peer:
    """A child process that samples traces. Figures come from the operating system."""

    name = ""
    ready_line = ""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.log = Path(settings.directory) / f"{self.name}-{uuid.uuid4().hex[:6]}.log"
        self.start_s = 0.0
        self.start_cpu_s = 0.0
        self._child: subprocess.Popen[bytes] | None = None
        self._process: psutil.Process | None = None

    def command(self) -> tuple[list[str], dict[str, str]]:
        """The command line, and variables beside those of this process."""
        raise NotImplementedError

    async def start(self) -> None:
        """Start it, and return when its log has the line that reports readiness."""
        began = time.monotonic()
        self._child = self._spawn()
        self._process = psutil.Process(self._child.pid)
        while self.ready_line not in self.log_text():
            if self._child.poll() is not None or time.monotonic() > began + START_S:
                sys.exit(f"{self.name} did not start within {START_S:g} s:\n{self.log_text()[-3000:]}")
            await anyio.sleep(0.01)
        self.start_s, self.start_cpu_s = time.monotonic() - began, self.cpu_s()

    def _spawn(self) -> subprocess.Popen[bytes]:
        arguments, variables = self.command()
        with self.log.open("wb") as log:
            return subprocess.Popen(arguments, stdout=log, stderr=log, env={**os.environ, **variables})

    def log_text(self) -> str:
        """What it has logged."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def cpu_s(self) -> float:
        """User and system time since its start, in seconds."""
        assert self._process
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def rss_mib(self) -> float:
        """Resident memory now."""
        assert self._process
        return float(self._process.memory_info().rss / _MIB)

    def peak_mib(self) -> float:
        """The most resident memory so far."""
        assert self._process
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        found = re.search(r"VmHWM:\s+(\d+)", status)
        return int(found[1]) / 1024 if found else self.rss_mib()

    async def stop(self, number: int = signal.SIGTERM) -> None:
        """Send it a signal and wait for its end."""
        assert self._child
        self._child.send_signal(number)
        await anyio.to_thread.run_sync(self._child.wait, 120)


class Collector(Peer):
    """The Collector of deploy/collector with the configuration beside this file."""

    name = "collector"
    ready_line = "Everything is ready"

    def __init__(self, binary: Path, settings: Settings, *, group: str | None = None, **variables: str) -> None:
        super().__init__(settings)
        self._binary = binary
        (self._port,) = free_ports(1)
        self._variables = {
            "BOOTSTRAP": settings.kafka.bootstrap[0],
            "GROUP": group or f"collector-{uuid.uuid4().hex[:8]}",
            "TOPIC_IN": settings.topics.spans,
            "TOPIC_OUT": settings.topics.sampled,
            "METRICS_PORT": str(self._port),
        } | variables

    def command(self) -> tuple[list[str], dict[str, str]]:
        """As `Peer.command`."""
        return [str(self._binary), "--config", str(_CONFIGURATION)], self._variables

    async def metrics(self) -> Counter[str]:
        """Its series, summed over labels, without the suffix `_total`."""

        def read() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=30) as answer:
                text: str = answer.read().decode()
            return text

        found: Counter[str] = Counter()
        for series, _, value in _SERIES.findall(await anyio.to_thread.run_sync(read)):
            found[series.removesuffix("_total")] += float(value)  # type: ignore[assignment]  # a Counter adds floats as well
        return found

    async def consumed(self) -> int:
        """Spans that it has received."""
        return int((await self.metrics())["otelcol_receiver_accepted_spans"])

    async def decided(self) -> int:
        """Traces that it has decided."""
        return int((await self.metrics())["otelcol_processor_tail_sampling_global_count_traces_sampled"])


class OurWorker(Peer):
    """`prela-stream worker` with the policies of bench/worker.py; `python` runs it."""

    name = "worker"
    ready_line = "worker is ready"

    def __init__(self, settings: Settings, *, python: str = sys.executable, **variables: str) -> None:
        super().__init__(settings)
        policies = Path(settings.directory) / "policies.toml"
        policies.write_text(POLICIES, encoding="utf-8")
        self._python = python
        self._variables = {"PRELA_POLICIES_FILE": str(policies)} | variables

    def command(self) -> tuple[list[str], dict[str, str]]:
        """As `Peer.command`."""
        return [self._python, "-m", "prela_stream", "worker"], environment_of(self.settings) | self._variables
