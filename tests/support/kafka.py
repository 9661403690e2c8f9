"""The broker that tests run on: one a run, shared by its xdist workers, and private clusters for tests that break things.

`PRELA_TEST_BOOTSTRAP` names a running broker to share instead. Where none can be had, tests fail with `CI=true` and are
skipped, with the reason, elsewhere.

The shared one belongs to no worker, for workers come and go: each user holds a shared lock on one file, the kernel lets go of
it however the user ends, and `python -m deploy.kafka --while-shared` stops when it can have that lock for itself.
"""

import asyncio
import fcntl
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import anyio
import pytest

from deploy.kafka import KafkaCluster, KafkaMissingError, Security
from deploy.kafka.probe import known_brokers
from tests.support.processes import DEADLINE

ROOT = Path(__file__).resolve().parents[2]
BOOTSTRAP_VARIABLE = "PRELA_TEST_BOOTSTRAP"
UNHURRIED = {"broker.session.timeout.ms": "30000"}
"""Of a broker that many tests share: one that stalls for seconds is not considered dead, and no test kills it."""
MISSING = 2
"""The starter's exit code where this machine cannot run Kafka."""


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap servers of the run's broker. Others use it too: take topics and groups of your own (`kafka_prefix`)."""
    named = os.environ.get(BOOTSTRAP_VARIABLE)
    if named:
        _ask(named)
        yield named
        return
    with shared_broker(run_folder(tmp_path_factory)) as bootstrap:
        yield bootstrap


@pytest.fixture
def kafka_prefix() -> str:
    """A prefix for topics and groups that no other test has."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def patient_leaving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members of groups on Kafka leave, however long it takes. They give that up after seconds, and a busy machine may take
    longer for the rebalance that they are in: then the others wait for their session to end, which a test does not.
    """
    monkeypatch.setattr("prela_stream.transport.kafka.client.fetcher._LEAVE_S", DEADLINE)


class Clusters:
    """Makes started clusters that end with the test."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack

    def __call__(
        self, brokers: int = 1, *, security: Security | None = None, properties: Mapping[str, str] | None = None
    ) -> KafkaCluster:
        """A running cluster of the test's own, to be broken at will."""
        made = private_cluster(self._folder, brokers, security=security, properties=properties)
        return self._stack.enter_context(made)


@pytest.fixture
def kafka_clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    """A factory of clusters of the test's own: `kafka_clusters(brokers=3)`. Give such a test a longer timeout: it may queue."""
    with ExitStack() as stack:
        yield Clusters(run_folder(tmp_path_factory), stack)


@contextmanager
def private_cluster(
    folder: Path, brokers: int = 1, *, security: Security | None = None, properties: Mapping[str, str] | None = None
) -> Iterator[KafkaCluster]:
    """A cluster for the length of the block; its brokers' last words go to standard error, which pytest shows if a test fails.

    Args:
        folder: The run's folder: clusters of several brokers are up one at a time in a run, for a small machine's sake.
        brokers: How many brokers.
        security: What is asked of clients on listeners beside the plain one.
        properties: Broker properties on top of the usual ones.
    """
    with ExitStack() as stack:
        if brokers > 1:
            stack.enter_context(_alone(folder / "kafka.several"))
        try:
            cluster = KafkaCluster(brokers, security=security, properties=properties)
        except KafkaMissingError as error:
            no_kafka(str(error))
        with cluster:
            yield cluster
            for broker in cluster.broker:
                sys.stderr.write(f"{broker.log_tail()}\n")


def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all workers of this run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def no_kafka(reason: str) -> NoReturn:
    """End the test: failed where it counts, skipped with the reason elsewhere."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"CI needs a Kafka: {reason}", pytrace=False)
    pytest.skip(f"NO KAFKA, NOT TESTED: {reason}")


@contextmanager
def shared_broker(folder: Path) -> Iterator[str]:
    """The bootstrap servers of this run's broker."""
    settings = [argument for name, value in UNHURRIED.items() for argument in ("--set", f"{name}={value}")]
    with shared(folder, "kafka", ("deploy.kafka", *settings, "--while-shared"), answers) as bootstrap:
        yield bootstrap


@contextmanager
def shared(folder: Path, name: str, module: Sequence[str], is_up: Callable[[str], bool]) -> Iterator[str]:
    """The first line of output of a process. The first test that needs it starts it; it stops after its last user.

    Args:
        folder: The run's folder.
        name: Identifies the process.
        module: A module that is run, and its arguments; behind them comes the file whose shared lock its users hold.
        is_up: Whether the process with this first line still runs.
    """
    address, missing = folder / f"{name}.address", folder / f"{name}.missing"
    with (folder / f"{name}.users").open("ab") as users:
        with _alone(folder / f"{name}.start"):
            fcntl.flock(users, fcntl.LOCK_SH)  # waits for one that is just stopping
            if missing.exists():
                no_kafka(missing.read_text(encoding="utf-8"))
            if not (address.exists() and is_up(address.read_text(encoding="utf-8"))):
                line = _start([*module, users.name], folder / f"{name}.stderr", missing)
                address.write_text(line, encoding="utf-8")
        yield address.read_text(encoding="utf-8")


def _start(module: Sequence[str], errors: Path, missing: Path) -> str:
    with errors.open("w") as sink:
        starter = subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=sink,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
    assert starter.stdout is not None
    with starter.stdout:
        line = starter.stdout.readline().strip()
    if line:
        starter.returncode = 0  # no test waits for it: it runs until the last worker has released the lock
        return line
    output = errors.read_text(encoding="utf-8")
    if starter.wait() == MISSING:
        missing.write_text(output, encoding="utf-8")
        no_kafka(output)
    pytest.fail(f"{module[0]} did not start:\n{output}", pytrace=False)


def _ask(bootstrap: str) -> None:
    if not answers(bootstrap):
        pytest.fail(
            f"expected a broker at {BOOTSTRAP_VARIABLE}={bootstrap}; none answered there: start it, or unset the variable",
            pytrace=False,
        )


async def no_client_is_left() -> None:
    """Wait until no task of aiokafka is left in this event loop; one that does not end fails the test."""
    with anyio.fail_after(DEADLINE):
        while left := [task for task in asyncio.all_tasks() if "aiokafka" in repr(task.get_coro())]:
            await asyncio.wait(left, timeout=0.05)


def answers(bootstrap: str) -> bool:
    """Whether any of these servers is a Kafka that answers."""
    for server in bootstrap.split(","):
        host, _, port = server.rpartition(":")
        try:
            known_brokers(host, int(port), within=DEADLINE)  # if no process listens there, it is refused at once
        except (OSError, ValueError):
            continue
        return True
    return False


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
