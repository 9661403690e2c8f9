"""The local transport under the transport contract."""

from pathlib import Path

import pytest

from prela_stream.transport.base import Transport
from prela_stream.transport.local import LocalTransport
from prela_stream.transport.options import LocalOptions
from tests.contracts.transport_contract import TransportContract
from tests.contracts.transport_harness import Log


def open_local(path: str) -> Transport:
    """A transport on the log file at `path`."""
    return LocalTransport(LocalOptions(path=path, session_timeout_ms=2_000))


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """A log file of the test's own."""
    return Log(
        opener="tests.contracts.test_transport_local:open_local",
        argument=str(tmp_path / "new folder" / "log.db"),
        prefix="contract",
    )


class TestLocalTransport(TransportContract):
    """The whole contract."""
