"""The Kafka that tests run on: it answers, keeps its data, elects, refuses, and is gone with who started it."""

import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiokafka
import aiokafka.admin
import aiokafka.errors
import anyio
import anyio.to_thread
import pytest

from deploy.kafka import BrokerError, KafkaCluster, Security
from deploy.kafka.probe import known_brokers
from deploy.kafka.settings import HOST
from tests.support.kafka import ROOT, Clusters, no_kafka
from tests.support.processes import DEADLINE

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]


async def test_the_run_has_a_broker(kafka: str, kafka_prefix: str) -> None:
    await make_topic(kafka, kafka_prefix)
    assert await write(kafka, kafka_prefix, b"one") == 0
    assert await read(kafka, kafka_prefix, 1) == [b"one"]


async def test_a_killed_broker_starts_again_on_its_data(kafka_clusters: Clusters) -> None:
    kafka = kafka_clusters()
    await make_topic(kafka.bootstrap, "spans")
    await write(kafka.bootstrap, "spans", b"before")
    kafka.broker[0].kill()
    with pytest.raises(BrokerError, match=r"expected broker 1 to run; it ended with -9"):
        kafka.check()
    await anyio.to_thread.run_sync(kafka.broker[0].start)
    assert await write(kafka.bootstrap, "spans", b"after") == 1
    assert await read(kafka.bootstrap, "spans", 2) == [b"before", b"after"]


async def test_another_life_of_a_kept_folder_has_its_data(tmp_path: Path, needs_kafka: None) -> None:
    for life in range(2):
        with KafkaCluster(data_dir=tmp_path) as kafka:
            if life == 0:
                await make_topic(kafka.bootstrap, "spans")
            assert await write(kafka.bootstrap, "spans", b"%d" % life) == life
        assert not kafka.broker[0].running
    assert (tmp_path / "broker-1" / "data" / "spans-0").is_dir()


async def test_three_brokers_elect_another_leader_when_theirs_dies(kafka_clusters: Clusters) -> None:
    kafka = kafka_clusters(brokers=3)
    await make_topic(kafka.bootstrap, "spans", replicas=3)
    await write(kafka.bootstrap, "spans", b"by all")
    first = await leader(kafka.bootstrap, "spans")
    kafka.broker[first - 1].kill()
    survivors = {1, 2, 3} - {first}
    with anyio.fail_after(DEADLINE):
        while {known(kafka.broker[number - 1].port) for number in survivors} != {frozenset(survivors)}:
            await anyio.sleep(0.02)
    # idempotent: tried again after an answer that did not come, it is there once
    assert await write(kafka.bootstrap, "spans", b"by two", enable_idempotence=True) == 1
    assert await leader(kafka.bootstrap, "spans") in survivors
    await anyio.to_thread.run_sync(kafka.start)  # starts who is missing, waits until all know all
    assert [known(broker.port) for broker in kafka.broker] == [{1, 2, 3}] * 3
    assert await read(kafka.bootstrap, "spans", 2) == [b"by all", b"by two"]


def test_a_suspended_broker_is_silent_and_goes_on(kafka_clusters: Clusters) -> None:
    (broker,) = kafka_clusters().broker
    broker.suspend()
    with pytest.raises(TimeoutError):
        known_brokers(HOST, broker.port, within=0.5)
    broker.resume()
    assert known(broker.port) == {1}


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("log.retention.bytes", "much", "the storage tool ended with 1\n.*log.retention.bytes"),
        ("authorizer.class.name", "no.Such", "expected broker 1 to run; it ended with 1\n.*no.Such"),
    ],
)
def test_a_broker_that_cannot_start_says_why_at_once(key: str, value: str, reason: str, needs_kafka: None) -> None:
    with pytest.raises(BrokerError, match=f"(?s){reason}"), KafkaCluster(properties={key: value}):
        pass


async def test_users_prove_who_they_are_and_need_rights(kafka_clusters: Clusters) -> None:
    mechanisms = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
    asked = Security(tls=True, mechanisms=mechanisms, users={"alice": "wonder"}, authorizer=True)
    kafka = kafka_clusters(security=asked)
    await make_topic(kafka.bootstrap, "spans")
    trusted = ssl.create_default_context(cafile=kafka.certificates.authority)
    alice = {"security_protocol": "SASL_SSL", "ssl_context": trusted, "sasl_plain_username": "alice"}
    address = kafka.bootstrap_of("SASL_SSL")
    with pytest.raises(aiokafka.errors.TopicAuthorizationFailedError):
        await write(address, "spans", b"", **alice, sasl_mechanism="PLAIN", sasl_plain_password="wonder")
    kafka.allow("alice", "topic", "sp*", "write", "describe")
    for offset, mechanism in enumerate(mechanisms):
        login = {**alice, "sasl_mechanism": mechanism}
        assert await write(address, "spans", b"", **login, sasl_plain_password="wonder") == offset
        with pytest.raises(aiokafka.errors.KafkaConnectionError):
            await write(address, "spans", b"", **login, sasl_plain_password="guessed")


async def test_a_certificate_is_asked_for_and_names_its_holder(kafka_clusters: Clusters) -> None:
    kafka = kafka_clusters(security=Security(tls=True, client_certificates=True, authorizer=True))
    await make_topic(kafka.bootstrap, "spans")
    context = ssl.create_default_context(cafile=kafka.certificates.authority)
    tls = {"security_protocol": "SSL", "ssl_context": context}
    with pytest.raises(aiokafka.errors.KafkaConnectionError):
        await write(kafka.bootstrap_of("SSL"), "spans", b"", **tls)
    context.load_cert_chain(kafka.certificates.client)
    kafka.allow("CN=client", "topic", "spans", "write", "describe")
    assert await write(kafka.bootstrap_of("SSL"), "spans", b"", **tls) == 0


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")


@needs_proc
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_the_command_stops_cleanly_and_leaves_nothing(end: signal.Signals, tmp_path: Path, needs_kafka: None) -> None:
    with started_command(tmp_path) as (command, bootstrap):
        (java,) = java_of(command)
        assert known(int(bootstrap.rpartition(":")[2])) == {1}
        command.send_signal(end)
        assert command.wait(DEADLINE) == 0
        assert not alive(java)
    assert list(tmp_path.iterdir()) == []


@needs_proc
def test_a_killed_command_takes_its_broker_along(tmp_path: Path, needs_kafka: None) -> None:
    with started_command(tmp_path) as (command, _):
        (java,) = java_of(command)
        command.kill()
    until(lambda: not alive(java))


@needs_proc
def test_the_command_ends_with_its_broker(tmp_path: Path, needs_kafka: None) -> None:
    with started_command(tmp_path) as (command, _):
        (java,) = java_of(command)
        os.kill(java, signal.SIGKILL)
        assert command.wait(DEADLINE) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def needs_kafka() -> None:
    """Ends the test where no Kafka can be started."""
    done = run_command("--prepare")
    if done.returncode:
        no_kafka(done.stderr)


def run_command(*arguments: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """The starter's command, run to its end."""
    return subprocess.run(
        [sys.executable, "-m", "deploy.kafka", *arguments],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@contextmanager
def started_command(folder: Path) -> "Iterator[tuple[subprocess.Popen[str], str]]":
    """The starter's command with its broker up, and the bootstrap servers that it printed; killed if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-m", "deploy.kafka"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as command:
        assert command.stdout is not None
        try:
            yield command, command.stdout.readline().strip()
        finally:
            command.kill()


def java_of(command: "subprocess.Popen[str]") -> list[int]:
    """The pids of the JVMs that this process has started."""
    pids = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()]
    return [pid for pid in pids if (at := status(pid))[:1] == ["(java)"] and at[2] == str(command.pid)]


def alive(pid: int) -> bool:
    """Whether this process runs; one that has ended and was not waited for does not."""
    return status(pid)[1:2] not in ([], ["Z"])


def status(pid: int) -> list[str]:
    """A process's name in parentheses, state, parent and so on; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[1:]
    except (FileNotFoundError, ProcessLookupError):
        return []


def until(condition: Callable[[], bool]) -> None:
    """Wait until this holds."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def known(port: int) -> frozenset[int]:
    """The brokers that the broker there knows, however long it takes to answer."""
    return known_brokers(HOST, port, within=DEADLINE)


async def make_topic(bootstrap: str, topic: str, replicas: int = 1) -> None:
    """A topic of one partition; there when this returns, for the controller alone perhaps."""
    async with admin(bootstrap) as client:
        await client.create_topics([aiokafka.admin.NewTopic(topic, 1, replicas)])


async def leader(bootstrap: str, topic: str) -> int:
    """Who leads the topic's partition, as these brokers see it; -1 for none."""
    async with admin(bootstrap) as client:
        (described,) = await client.describe_topics([topic])
    (partition,) = described["partitions"]
    return int(partition["leader"])


@asynccontextmanager
async def admin(bootstrap: str) -> AsyncIterator[Any]:
    """An admin client."""
    client = aiokafka.admin.AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def write(bootstrap: str, topic: str, value: bytes, **options: Any) -> int:
    """Append one record that every in-sync replica has; its offset."""
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", **options)
    try:
        await producer.start()
        with anyio.fail_after(DEADLINE):
            written = await producer.send_and_wait(topic, value, partition=0)
        return int(written.offset)
    finally:
        await producer.stop()


async def read(bootstrap: str, topic: str, count: int) -> list[bytes | None]:
    """The first records of the topic's partition."""
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([aiokafka.TopicPartition(topic, 0)])
        with anyio.fail_after(DEADLINE):
            return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()
