"""Every way into a cluster, on a broker that asks who is there: each works from end to end, each mistake is one line and ends."""

import asyncio
import gc
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream
from anyio.from_thread import start_blocking_portal
from typer.testing import CliRunner, Result

from prela_stream.app import create_topics, open_transport
from prela_stream.cli.main import app
from prela_stream.config import Settings, load_settings
from prela_stream.errors import TransportError
from prela_stream.transport.base import CommitOutcome, LogRecord, Record, TopicPartition, Transport
from prela_stream.transport.kafka.client import fetcher as feed
from prela_stream.transport.kafka.connect import steps as entry
from prela_stream.transport.kafka.consumer import KafkaConsumer
from tests.support.secured_kafka import MECHANISMS, WORDS, Secured

pytestmark = pytest.mark.kafka

WAYS = [("PLAINTEXT", "PLAIN"), ("SSL", "PLAIN"), ("SASL_PLAINTEXT", "PLAIN"), *(("SASL_SSL", m) for m in MECHANISMS)]
TOKENS = "tests.support.secured_kafka:"
DEADLINE = 60.0
SECRETS = (*WORDS.values(), "token-word-4711", "wrong-word-4711")


def settings_for(env: dict[str, str], prefix: str) -> Settings:
    """The settings of a process with these variables."""
    return load_settings(env={**env, "PRELA_TOPICS_PREFIX": prefix, "PRELA_TOPICS_PARTITIONS": "2"})


async def read(transport: Transport, topic: str, count: int) -> list[LogRecord]:
    """So many records of a topic."""
    found: list[LogRecord] = []
    async with await transport.consumer([topic]) as consumer:
        with anyio.fail_after(DEADLINE):
            while len(found) < count:
                poll = await consumer.poll()
                consumer.resume(*poll.assigned)
                found += poll.records
    return found


@pytest.mark.parametrize(("protocol", "mechanism"), WAYS)
async def test_each_way_in_carries_records_and_commits(
    secured_kafka: Secured, kafka_prefix: str, protocol: str, mechanism: str
) -> None:
    settings = settings_for(secured_kafka.env(protocol, mechanism=mechanism), kafka_prefix)
    assert len(await create_topics(settings)) == 4
    spans, sampled = (TopicPartition(name, 0) for name in (settings.topics.spans, settings.topics.sampled))
    async with open_transport(settings) as transport:
        async with await transport.producer() as producer:
            assert await producer.send(spans, [Record(value=b"one"), Record(value=b"two")]) == 1
        assert [stored.value for stored in await read(transport, spans.topic, 2)] == [b"one", b"two"]
        async with await transport.writer(f"{kafka_prefix}.group", spans) as writer:
            assert await writer.commit([(sampled, Record(value=b"kept"))], 2, "m") is CommitOutcome.COMMITTED
        assert [stored.value for stored in await read(transport, sampled.topic, 1)] == [b"kept"]
        with anyio.fail_after(DEADLINE):  # it is committed; an observer may see it a moment later
            while (committed := await transport.committed(f"{kafka_prefix}.group", spans)) is None:
                await anyio.sleep(0.05)
        assert (committed.offset, committed.metadata) == (2, "m")


async def test_what_is_given_reaches_the_clients(secured_kafka: Secured, kafka_prefix: str, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(WORDS["alice"] + "\n")
    env = secured_kafka.env(
        "SASL_SSL",
        sasl_password="",
        sasl_password_file=str(tmp_path / "password"),
        client_id="billing-7",
        rack="north-1",
        extra='{"metadata_max_age_ms": 4711}',
        consumer_extra='{"check_crcs": false}',
    )
    settings = settings_for(env, kafka_prefix)
    await create_topics(settings)
    async with open_transport(settings) as transport:
        consumer: Any = await transport.consumer([settings.topics.spans], group=f"{kafka_prefix}.readers")
        assert isinstance(consumer, KafkaConsumer)
        assert consumer._fetcher is not None
        partition_key = consumer._fetcher._kafka
        assert partition_key._client._metadata_max_age_ms == 4711
        assert partition_key._client._client_id == "billing-7"
        assert partition_key._fetcher._client_rack == "north-1"
        assert partition_key._fetcher._check_crcs is False


async def test_a_goodbye_that_no_broker_answers_ends_all_the_same(
    secured_kafka: Secured, kafka_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_LEAVE_S", 0.05)
    settings = settings_for(secured_kafka.env("SASL_SSL"), kafka_prefix)
    await create_topics(settings)
    async with open_transport(settings) as transport:
        async with await transport.producer() as producer:
            await producer.send(TopicPartition(settings.topics.spans, 0), [Record(value=b"one")])
        consumer: Any = await transport.consumer([settings.topics.spans])
        with anyio.fail_after(DEADLINE):
            while not (poll := await consumer.poll()).records:
                consumer.resume(*poll.assigned)
        for connection in consumer._fetcher._kafka._client._conns.values():
            connection._closed_fut = asyncio.get_running_loop().create_future()  # never learns that it is closed
        await consumer.aclose()
    gc.collect()  # a socket that is still open would be a warning now, and so an error


def test_a_look_leaves_no_socket_open_where_the_broker_is_slow_to_close(
    secured_kafka: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "_CLOSE_S", 0.05)
    opened = entry.ConnectionSteps._conn
    streams: list[Any] = []

    async def that_does_not_close(self: entry.ConnectionSteps, protocol: str) -> Any:
        conn = await opened(self, protocol)

        def close(**_: object) -> Any:  # as of TLS: our goodbye is sent, and the broker's has not come
            streams.append((conn._reader, conn._writer))
            conn._reader = conn._writer = None
            return conn._closed_fut

        conn.close = close
        return conn

    monkeypatch.setattr(entry.ConnectionSteps, "_conn", that_does_not_close)
    result = ask(secured_kafka.env("SASL_SSL", sasl_password="wrong-word-4711"), "topics", "check")
    assert "correct kafka.sasl_username" in result.stderr  # it went all steps of the way
    assert streams
    streams.clear()
    gc.collect()  # a socket that is still open would be a warning now, and so an error


def ask(env: dict[str, str], *command: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, list(command), env=env)


WRONG: list[tuple[str, dict[str, str], int, str]] = [
    ("SSL", {"ssl_cafile": ""}, 1, "set kafka.ssl_cafile to a PEM file of the authority that signed it"),
    ("SSL", {"ssl_certfile": ""}, 1, "set kafka.ssl_certfile"),
    ("SSL", {"ssl_cafile": "/nowhere.pem"}, 2, "expected PEM files in ssl_cafile, ssl_certfile and ssl_keyfile"),
    ("SSL", {"security_protocol": "PLAINTEXT"}, 1, "got TLS: set kafka.security_protocol to SSL"),
    ("SASL_SSL", {"security_protocol": "SASL_PLAINTEXT"}, 1, "got TLS: set kafka.security_protocol to SASL_SSL"),
    ("SASL_PLAINTEXT", {"security_protocol": "SASL_SSL"}, 1, "got plain Kafka, without TLS: use the TLS port"),
    ("SASL_PLAINTEXT", {"security_protocol": "PLAINTEXT"}, 1, "set kafka.security_protocol to SASL_PLAINTEXT"),
    ("PLAINTEXT", {"security_protocol": "TLS"}, 2, "kafka_security_protocol"),
    ("SASL_SSL", {"sasl_password": "wrong-word-4711"}, 1, "correct kafka.sasl_username and kafka.sasl_password"),
    ("SASL_SSL", {"sasl_username": "mallory"}, 1, "expected the broker to accept user 'mallory'"),
    ("SASL_SSL", {"sasl_password": "wrong-word-4711", "sasl_mechanism": "SCRAM-SHA-256"}, 1, "correct kafka.sasl_user"),
    ("SASL_SSL", {"sasl_password": "wrong-word-4711", "sasl_mechanism": "SCRAM-SHA-512"}, 1, "correct kafka.sasl_user"),
    ("SASL_SSL", {"sasl_mechanism": "GSSAPI"}, 2, "KAFKA_SASL_MECHANISM"),
    ("SASL_SSL", {"sasl_password": ""}, 2, "needs sasl_password (or sasl_password_file), which is not set"),
    ("SASL_SSL", {"sasl_username": ""}, 2, "needs sasl_username, which is not set"),
    ("SASL_SSL", {"sasl_password": "", "sasl_password_file": "/nowhere"}, 2, "sasl_password_file names /nowhere"),
    ("SASL_SSL", {"sasl_mechanism": "OAUTHBEARER"}, 2, "OAUTHBEARER needs kafka.token_provider"),
    (
        "SASL_SSL",
        {"sasl_mechanism": "OAUTHBEARER", "token_provider": "nowhere"},
        2,
        "expected module:name of a function",
    ),
    ("SASL_SSL", {"sasl_mechanism": "OAUTHBEARER", "token_provider": TOKENS + "WORDS"}, 2, "a function, got"),
    (
        "SASL_SSL",
        {"sasl_mechanism": "OAUTHBEARER", "token_provider": TOKENS + "refused_token"},
        1,
        "the token was refused",
    ),
    (
        "SASL_SSL",
        {"sasl_mechanism": "OAUTHBEARER", "token_provider": TOKENS + "failing_token"},
        1,
        "raised RuntimeError",
    ),
    ("SASL_SSL", {"sasl_mechanism": "OAUTHBEARER", "token_provider": TOKENS + "no_token"}, 1, "returned a NoneType"),
    (
        "SASL_SSL",
        {"extra": '{"sasl_plain_password": "wrong-word-4711"}'},
        2,
        "kafka.extra.sasl_plain_password: the transport depends on this argument or has another setting for it",
    ),
    ("SASL_SSL", {"extra": "wrong-word-4711"}, 2, "a JSON object"),
    ("PLAINTEXT", {"bootstrap": "localhost:kafka"}, 2, 'expected host:port in kafka.bootstrap, got "localhost:kafka"'),
    ("PLAINTEXT", {"bootstrap": "kafka://localhost:9092"}, 2, "expected host:port in kafka.bootstrap"),
    (
        "PLAINTEXT",
        {"bootstrap": "no-such-host.invalid:9092"},
        1,
        "got no such host: start the broker, or correct kafka.bootstrap",
    ),
]


@pytest.mark.parametrize(("protocol", "changed", "code", "text"), WRONG)
def test_each_wrong_setting_is_reported_in_one_line(
    secured_kafka: Secured, protocol: str, changed: dict[str, str], code: int, text: str
) -> None:
    result = ask(secured_kafka.env(protocol, **changed), "topics", "check")
    lines = [line for line in result.stderr.splitlines() if "in the clear" not in line]  # a true warning of aiokafka
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert len(lines) == 1 or (len(lines) == 2 and lines[0].endswith("has 1 mistake:")), result.output
    assert text.lower() in lines[-1].lower()
    assert not [secret for secret in SECRETS if secret in result.output]
    assert isinstance(result.exception, SystemExit)  # nothing but the line was let out


async def pump(source: SocketStream, sink: SocketStream) -> None:
    """Pass on what comes, until one of them has hung up."""
    with suppress(anyio.BrokenResourceError, OSError):
        async for data in source:
            await sink.send(data)
        await sink.send_eof()


@contextmanager
def counted(to: str) -> Iterator[tuple[str, list[int]]]:
    """A port that leads to another one, and the connections that were made by it."""
    host, _, port = to.rpartition(":")
    made: list[int] = []

    async def lead(client: SocketStream) -> None:
        made.append(1)
        async with client, await anyio.connect_tcp(host, int(port)) as server, anyio.create_task_group() as tasks:
            tasks.start_soon(pump, client, server)
            tasks.start_soon(pump, server, client)

    with start_blocking_portal() as portal:
        listener = portal.call(partial(anyio.create_tcp_listener, local_host="127.0.0.1"))
        serving = portal.start_task_soon(listener.serve, lead)
        try:
            yield f"127.0.0.1:{listener.extra(SocketAttribute.local_port)}", made
        finally:
            serving.cancel()
            portal.call(listener.aclose)


def test_a_wrong_password_ends_every_command_at_once(secured_kafka: Secured, tmp_path: Path) -> None:
    commands = [["worker"], ["sink"], ["dev"], ["demo", "--runs", "1"], ["topics", "create"], ["topics", "check"]]
    running = []
    with ExitStack() as stack:
        for command in commands:
            bootstrap, made = stack.enter_context(counted(secured_kafka.sasl_ssl))
            env = secured_kafka.env("SASL_SSL", bootstrap=bootstrap, sasl_password="wrong-word-4711")
            process = subprocess.Popen(
                [sys.executable, "-m", "prela_stream", *command, "--dir", str(tmp_path)],
                env={**os.environ, **env},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            running.append((command, process, made))
        for command, process, made in running:
            output, _ = process.communicate(timeout=DEADLINE)
            lines = [line for line in output.splitlines() if "starting processes" not in line]  # the demo's progress
            assert process.returncode == 1, output
            assert len([line for line in lines if line.strip()]) == 1, output
            assert "correct kafka.sasl_username and kafka.sasl_password" in output, command
            assert "wrong-word-4711" not in output
            # One attempt, then one check of each step: eight. `dev` is two services.
            assert 0 < len(made) <= (16 if command == ["dev"] else 8), command


async def test_no_secret_is_ever_shown(
    secured_kafka: Secured, kafka_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="aiokafka")  # a command that ran in this process may have raised it
    for mechanism in MECHANISMS:
        env = secured_kafka.env("SASL_PLAINTEXT", mechanism=mechanism)
        settings = settings_for(env, kafka_prefix)
        async with open_transport(settings) as transport:
            assert settings.topics.spans not in await transport.topics()
        assert not [word for word in SECRETS if word in repr(settings) + str(settings.kafka)]
    refused = settings_for(secured_kafka.env("SASL_PLAINTEXT", sasl_password="wrong-word-4711"), kafka_prefix)
    async with open_transport(refused) as transport:
        with pytest.raises(TransportError) as caught:
            await transport.topics()
    assert "aiokafka.conn" in {record.name for record in caplog.records if record.levelno == logging.DEBUG}
    shown = caplog.text + repr(caught.value) + repr(caught.value.__cause__)
    assert not [word for word in SECRETS if word in shown]


def test_an_encrypted_key_without_its_password_asks_nobody(secured_kafka: Secured, tmp_path: Path) -> None:
    key = tmp_path / "client.pem"
    encrypt = ["openssl", "pkcs8", "-topk8", "-in", secured_kafka.client, "-passout", "pass:key-word-4711"]
    encrypted = subprocess.run(encrypt, capture_output=True, text=True, check=True).stdout
    key.write_text(
        encrypted + Path(secured_kafka.client).read_text(encoding="utf-8").partition("-----END PRIVATE KEY-----")[2]
    )
    without = ask(secured_kafka.env("SSL", ssl_certfile=str(key)), "topics", "check")
    assert (without.exit_code, without.stderr.count("\n")) == (2, 1), without.output
    wrong = ask(secured_kafka.env("SSL", ssl_certfile=str(key), ssl_password="wrong-word-4711"), "topics", "check")
    assert wrong.exit_code == 2
    assert "wrong-word-4711" not in wrong.output
    right = ask(secured_kafka.env("SSL", ssl_certfile=str(key), ssl_password="key-word-4711"), "topics", "check")
    assert right.exit_code == 1
    assert "allow this client to use them" in right.stderr
