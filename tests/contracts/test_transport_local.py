"""The local transport under the transport contract."""

from pathlib import Path

import pytest

from prela_stream.transport.base import Transport
from prela_stream.transport.local import LocalTransport
from prela_stream.transport.options import LocalOptions
from tests.contracts.transport_contract import TransportContract
from tests.contracts.transport_harness import Log


def open_local(path: str) -> Transport:
    """A transport on the log file at `path`. A disk that stalls for a while neither ends a session nor fails a write."""
    return LocalTransport(LocalOptions(path=path, session_timeout_ms=30_000, busy_timeout_ms=60_000))


def open_hasty(path: str) -> Transport:
    """As `open_local`, of members that are soon given up."""
    return LocalTransport(LocalOptions(path=path, session_timeout_ms=2_000, busy_timeout_ms=60_000))


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """A log file of the test's own."""
    return Log(
        opener="tests.contracts.test_transport_local:open_local",
        hasty_opener="tests.contracts.test_transport_local:open_hasty",
        argument=str(tmp_path / "new folder" / "log.db"),
        prefix="contract",
    )


class TestLocalTransport(TransportContract):
    """The whole contract."""
