"""A `prela-stream otlp` in its own process with a local log, and what it appended."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import msgspec

from prela_stream.app import create_topics
from prela_stream.app.adapters import open_transport
from prela_stream.config import Settings, load_settings
from prela_stream.model.span import SpanData
from tests.support.metrics import free_address
from tests.support.otlp import stored_spans
from tests.support.processes import DEADLINE


class Receiver(msgspec.Struct, frozen=True, kw_only=True):
    """A receiver that accepts requests."""

    address: str
    """HOST:PORT of OTLP/HTTP."""
    grpc_address: str
    """Of OTLP/gRPC."""
    folder: Path
    pid: int

    @property
    def url(self) -> str:
        """Of its traces."""
        return f"http://{self.address}/v1/traces"

    def peak_bytes(self) -> int:
        """The most memory that the process had so far (VmHWM of Linux)."""
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

    def spans(self, wanted: set[str]) -> list[SpanData]:
        """The spans of the log with these ids, repeats included."""
        return [span for span in anyio.run(self._all) if span.span_id in wanted]

    async def _all(self) -> list[SpanData]:
        settings = _settings(self.folder)
        async with open_transport(settings) as log:
            return await stored_spans(log, settings.topics.spans)


def _settings(folder: Path) -> Settings:
    return load_settings(env={}, overrides={"directory": str(folder)})


@contextmanager
def receiver(folder: Path, **variables: str) -> Iterator[Receiver]:
    """A receiver, for the length of the block. `variables` are further ones of its environment."""
    address, grpc_address = free_address(), free_address()
    anyio.run(create_topics, _settings(folder))
    known = {key: value for key, value in os.environ.items() if not key.startswith("PRELA_")}
    chosen = {"PRELA_DIRECTORY": str(folder), "PRELA_OTLP_LISTEN": address, "PRELA_OTLP_GRPC_LISTEN": grpc_address}
    env = known | chosen | variables
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "prela_stream", "otlp"], env=env, stdout=log, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            for one in (address, grpc_address):
                _wait(process, folder / "log", one)
            yield Receiver(address=address, grpc_address=grpc_address, folder=folder, pid=process.pid)
        finally:
            process.terminate()
            process.wait(DEADLINE)


def _wait(process: "subprocess.Popen[bytes]", log: Path, address: str) -> None:
    host, _, port = address.rpartition(":")
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text(errors="replace")
        try:
            socket.create_connection((host, int(port)), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(log.read_text(errors="replace"))
