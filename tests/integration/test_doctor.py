"""`prela-stream doctor` finds what is broken, on real brokers that are broken in each way, and prints what to do."""

import asyncio
import http.server
import json
import os
import re
import socket
import sqlite3
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.structs import TopicPartition as TheirPartition
from typer.testing import CliRunner

from prela_stream.app import (
    check_topics,
    create_topics,
    diagnose,
    open_reader,
    open_transport,
    run_sinks,
    run_worker,
)
from prela_stream.cli.main import app
from prela_stream.config import Settings, load_settings
from prela_stream.errors import PrelaError, TransportError
from prela_stream.transport.findings import ROLES, Finding
from prela_stream.transport.kafka.connect.versions import check_versions
from prela_stream.transport.kafka.doctor.acls import ServiceGroups, needs
from tests.support.secured_kafka import CERTIFICATE, WORDS, Secured

PARTITIONS = "2"
DEADLINE = 60.0


def ask(where: Path, env: dict[str, str], *arguments: str) -> tuple[int, list[dict[str, str]]]:
    """Run the doctor: its exit code and what it found."""
    result = CliRunner().invoke(app, ["doctor", "--json", "--dir", str(where), *arguments], env=env)
    assert isinstance(result.exception, SystemExit | None), result.output
    assert not [word for word in (*WORDS.values(), "wrong-word-4711") if word in result.output]
    document = json.loads(result.stdout)
    assert document["ok"] == (result.exit_code == 0)
    return result.exit_code, document["findings"]


def by(findings: list[dict[str, str]], state: str) -> dict[str, str]:
    """The texts of findings of this state by their check."""
    return {finding["check"]: finding["text"] for finding in findings if finding["state"] == state}


def env_of(bootstrap: str, prefix: str) -> dict[str, str]:
    """The variables of a client without a login."""
    return {
        "PRELA_KAFKA_BOOTSTRAP": bootstrap,
        "PRELA_TOPICS_PREFIX": prefix,
        "PRELA_TOPICS_PARTITIONS": PARTITIONS,
    }


def made(env: dict[str, str]) -> Settings:
    """The settings of these variables; their topics exist."""
    settings = load_settings(env=env)
    asyncio.run(create_topics(settings))
    return settings


def written(settings: Settings, clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> list[Finding]:
    """What is found by writing too, with this as our clock."""

    async def collect() -> list[Finding]:
        return [finding async for finding in diagnose(settings, write=True, clock=clock)]

    return asyncio.run(collect())


async def topics_of(settings: Settings) -> set[str]:
    """Every topic there is."""
    async with open_transport(settings) as transport:
        return set(await transport.topics())


def only_wrong(where: Path, env: dict[str, str], check: str, *arguments: str) -> dict[str, str]:
    """The one thing that is wrong."""
    code, findings = ask(where, env, *arguments)
    assert code == 1, findings
    wrong = [finding for finding in findings if finding["state"] == "wrong"]
    assert [finding["check"] for finding in wrong] == [check], findings
    return wrong[0]


@pytest.mark.kafka
def test_a_good_set_up_is_found_good(kafka: str, kafka_prefix: str, tmp_path: Path) -> None:
    settings = made(env_of(kafka, kafka_prefix))
    found = written(settings)
    assert {finding.state for finding in found} == {"ok"}
    assert [finding.check for finding in found].count("clock") == 1
    assert found[-1] == Finding(check="clock", state="ok", text="this machine and the log differ by less than 5 s")
    shown = CliRunner().invoke(app, ["doctor", "--dir", str(tmp_path)], env=env_of(kafka, kafka_prefix))
    assert shown.exit_code == 0
    assert f"ok      topics: all 4 of prefix {kafka_prefix} are as expected" in shown.stdout
    assert "unknown clock: no record" in shown.stdout
    assert "ok      connections: a worker with all 2 partitions" in shown.stdout


@pytest.mark.kafka
def test_an_agent_needs_spans_alone_in_as_many_partitions_as_there_are(
    kafka: str, kafka_prefix: str, tmp_path: Path
) -> None:
    env, spans = env_of(kafka, kafka_prefix), f"{kafka_prefix}.spans"
    missing = only_wrong(tmp_path, env, "topics", "--as", "agent")
    assert missing["text"].startswith(f"topic {spans}: expected 2 partitions, cleanup delete")
    limits = {"message_timestamp_type": "LogAppendTime", "max_message_bytes": "1016384", "retention_ms": "259200000"}
    asyncio.run(make_topic(kafka, spans, 3, **limits))
    code, findings = ask(tmp_path, env, "--as", "agent")
    text = by(findings, "ok")["topics"]
    assert (code, text.partition(":")[0]) == (0, f"{spans} has 3 partitions, topics.partitions is 2")
    assert not [finding for finding in findings if finding["check"] in ("connections", "retention")]
    code, findings = ask(tmp_path, env | {"PRELA_TOPICS_PARTITIONS": "3"}, "--as", "agent")
    assert (code, by(findings, "ok")["topics"]) == (0, f"{spans} is as expected")


def test_no_broker(tmp_path: Path) -> None:
    with socket.socket() as held:  # taken, so that no broker of another test comes there, and not listened at
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        code, findings = ask(tmp_path, env_of(f"127.0.0.1:{port}", "none"))
    assert code == 1
    assert by(findings, "wrong") == {
        "network": f"expected a broker at 127.0.0.1:{port}, got connection refused: nothing listens there: start the broker, or "
        "correct kafka.bootstrap"
    }
    assert list(by(findings, "skipped")) == [
        *("protocol", "certificate", "version", "login", "cluster", "topics", "rights of an agent"),
        *("rights of a worker", "rights of a sink", "clock", "connections", "retention"),
    ]


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
def test_wrong_port(tmp_path: Path, protocol: str) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        env = env_of(f"127.0.0.1:{server.server_port}", "none") | {"PRELA_KAFKA_SECURITY_PROTOCOL": protocol}
        wrong = only_wrong(tmp_path, env, "protocol")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert wrong["came"] == "a web server (HTTP)"
    assert wrong["todo"] == "correct the port in kafka.bootstrap; brokers are often at 9092, or 9093 with TLS"


@pytest.mark.kafka
def test_tls_against_plain_and_plain_against_tls(secured_kafka: Secured, tmp_path: Path) -> None:
    wrong = only_wrong(tmp_path, secured_kafka.env("SSL", bootstrap=secured_kafka.plain), "protocol")
    assert wrong["expected"] == f"TLS at {secured_kafka.plain}"
    assert wrong["todo"].endswith("or set kafka.security_protocol to PLAINTEXT (PRELA_KAFKA_SECURITY_PROTOCOL)")
    wrong = only_wrong(tmp_path, secured_kafka.env("PLAINTEXT", bootstrap=secured_kafka.ssl), "protocol")
    assert wrong["came"] == "TLS"
    assert wrong["todo"].startswith("set kafka.security_protocol to SSL ")


@pytest.mark.kafka
def test_certificates(secured_kafka: Secured, tmp_path: Path) -> None:
    stranger = only_wrong(tmp_path, secured_kafka.env("SSL", ssl_cafile=""), "certificate")
    assert stranger["todo"] == "set kafka.ssl_cafile to a PEM file of the authority that signed it"
    nameless = only_wrong(tmp_path, secured_kafka.env("SSL", ssl_certfile=""), "certificate")
    assert nameless["todo"].startswith("set kafka.ssl_certfile")
    port = secured_kafka.ssl.rpartition(":")[2]
    other = only_wrong(
        tmp_path, secured_kafka.env("SSL", bootstrap=f"127.0.0.2:{port}"), "network"
    )  # it listens on .1 alone
    assert "connection refused" in other["came"]


@pytest.mark.kafka
def test_bad_password(secured_kafka: Secured, tmp_path: Path) -> None:
    wrong = only_wrong(tmp_path, secured_kafka.env("SASL_SSL", sasl_password="wrong-word-4711"), "login")
    assert wrong["expected"] == "the broker to accept user 'alice'"
    assert wrong["todo"] == "correct kafka.sasl_username and kafka.sasl_password"


@pytest.mark.kafka
def test_missing_topic_which_asking_does_not_make(kafka: str, kafka_prefix: str, tmp_path: Path) -> None:
    env = env_of(kafka, kafka_prefix)
    code, findings = ask(tmp_path, env, "--write")
    assert code == 1
    texts = [finding["text"] for finding in findings if finding["state"] == "wrong"]
    assert len(texts) == 4
    assert all(text.endswith("but it does not exist: run `prela-stream topics create`") for text in texts)
    assert by(findings, "skipped") == {
        **{f"rights of {role}": "the topics check must pass first" for role in ("an agent", "a worker", "a sink")},
        "clock": "the topics check must pass first",
        "retention": "the topics check must pass first",
        "write and read": "the topics check must pass first",
    }
    assert not [name for name in asyncio.run(topics_of(load_settings(env=env))) if name.startswith(kafka_prefix)]


@pytest.mark.kafka
def test_missing_rights_of_each_role(secured_kafka: Secured, kafka_prefix: str, tmp_path: Path) -> None:
    prefix = kafka_prefix
    made(env_of(secured_kafka.plain, prefix))
    env = secured_kafka.env("SASL_PLAINTEXT", user="bob") | {
        "PRELA_TOPICS_PREFIX": prefix,
        "PRELA_TOPICS_PARTITIONS": PARTITIONS,
    }
    code, findings = ask(tmp_path, env)
    assert code == 1
    assert list(by(findings, "wrong")) == ["rights of an agent", "rights of a worker", "rights of a sink"]
    assert f"this client may not see {prefix}." in by(findings, "unknown")["topics"]
    agent = only_wrong(tmp_path, env, "rights of an agent", "--as", "agent")
    assert agent["came"] == f"none to Write on topic {prefix}.spans"
    secured_kafka.allow("bob", "topic", f"{prefix}.spans", "write")
    assert ask(tmp_path, env, "--as", "agent")[0] == 0
    for topic in ("spans", "decisions"):
        secured_kafka.allow("bob", "topic", f"{prefix}.{topic}", "read", "write", "describe_configs")
    for topic in ("sampled", "dlq"):
        secured_kafka.allow("bob", "topic", f"{prefix}.{topic}", "write", "describe_configs")
    worker = only_wrong(tmp_path, env, "rights of a worker", "--as", "worker")
    ids = f"{prefix}.sampler-{prefix}.spans-"
    assert worker["came"] == f"none to Read on group {prefix}.sampler, Write on transactional ids {ids}*"
    secured_kafka.allow("bob", "group", f"{prefix}.sampler", "read")
    secured_kafka.allow("bob", "transactional_id", f"{ids}*", "write")
    code, findings = ask(tmp_path, env, "--as", "worker", "--write")
    assert (code, by(findings, "ok")["clock"]) == (0, "this machine and the log differ by less than 5 s")


@pytest.mark.kafka
def test_a_login_that_may_create_topics_but_not_read_their_settings(secured_kafka: Secured, kafka_prefix: str) -> None:
    secured_kafka.allow("bob", "topic", f"{kafka_prefix}.*", "create", "describe")
    env = secured_kafka.env("SASL_PLAINTEXT", user="bob") | {"PRELA_TOPICS_PREFIX": kafka_prefix}
    made = CliRunner().invoke(app, ["topics", "create", "--json"], env=env)
    document = json.loads(made.stdout)
    assert (made.exit_code, len(document["created"]), document["mistakes"]) == (0, 4, [])
    other = CliRunner().invoke(app, ["topics", "create", "--json"], env=env | {"PRELA_TOPICS_PARTITIONS": "5"})
    assert (other.exit_code, len(json.loads(other.stdout)["mistakes"])) == (1, 2)
    checked = CliRunner().invoke(app, ["topics", "check", "--json"], env=env)
    assert (checked.exit_code, len(json.loads(checked.stdout)["mistakes"])) == (1, 4)


@pytest.mark.kafka
def test_a_certificate_is_a_login_too(secured_kafka: Secured, kafka_prefix: str, tmp_path: Path) -> None:
    env = secured_kafka.env("SSL") | {"PRELA_TOPICS_PREFIX": kafka_prefix}
    assert CERTIFICATE not in WORDS
    code, findings = ask(tmp_path, env)
    assert (code, set(by(findings, "wrong"))) == (1, {"topics"})
    assert by(findings, "ok")["certificate"] == "both sides trust the other's certificate"


async def flawless(settings: Settings) -> None:
    """Wait until the topics are as expected."""
    with anyio.fail_after(DEADLINE):
        while await check_topics(settings):
            await anyio.sleep(0.02)


async def make_topic(bootstrap: str, topic: str, partitions: int, **entries: str) -> None:
    """Make a topic by hand; the broker knows it when this returns: the controller does a moment before."""
    admin: Any = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        named = {name.replace("_", "."): value for name, value in entries.items()}
        await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=named)])
        with anyio.fail_after(DEADLINE):
            while any(found["error_code"] for found in await admin.describe_topics([topic])):
                await anyio.sleep(0.02)
    finally:
        await admin.close()


async def send_stamped(bootstrap: str, topic: str, timestamp_ms: int) -> None:
    """Write a record with this timestamp; a search by timestamp finds it when this returns."""
    producer: Any = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        with anyio.fail_after(DEADLINE):  # the broker does not act on a changed setting at once
            while (await producer.send_and_wait(topic, b"x", partition=1, timestamp_ms=timestamp_ms)).timestamp_type:
                await anyio.sleep(0.02)
    finally:
        await producer.stop()
    place = TheirPartition(topic, 1)
    consumer: Any = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        with anyio.fail_after(DEADLINE):
            while (await consumer.offsets_for_times({place: timestamp_ms}))[place] is None:
                await anyio.sleep(0.02)
    finally:
        await consumer.stop()


async def alter(bootstrap: str, topic: str, **entries: str) -> None:
    """Change settings of a topic, as an operator does."""
    admin: Any = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        named = {name.replace("_", "."): value for name, value in entries.items()}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=named)])
    finally:
        await admin.close()


@pytest.mark.kafka
def test_wrong_topics(kafka: str, kafka_prefix: str, tmp_path: Path) -> None:
    env, stamped = env_of(kafka, kafka_prefix), {"message_timestamp_type": "LogAppendTime"}
    make = partial(make_topic, kafka)
    asyncio.run(make(f"{kafka_prefix}.spans", int(PARTITIONS), message_timestamp_type="CreateTime"))
    asyncio.run(make(f"{kafka_prefix}.decisions", 3, **stamped))
    asyncio.run(make(f"{kafka_prefix}.sampled", 1, max_message_bytes="50000", **stamped))
    made(env)
    code, findings = ask(tmp_path, env, "--write")
    assert by(findings, "skipped")["clock"] == "the write and read check must pass first"
    wrong = {finding["text"].partition(": ")[0]: finding["text"] for finding in findings if finding["state"] == "wrong"}
    assert (code, len(wrong)) == (1, 3), wrong
    topic = f"topic {kafka_prefix}"
    assert wrong[f"{topic}.spans"].endswith(
        f"run kafka-configs.sh --alter --topic {kafka_prefix}.spans --add-config message.timestamp.type=LogAppendTime"
    )
    assert (
        "expected 2 partitions, found 3, and the number is fixed for a prefix: set it to 3"
        in wrong[f"{topic}.decisions"]
    )
    assert "expected records of up to 1,016,384 bytes, it accepts 33,616: raise" in wrong[f"{topic}.sampled"]
    _, findings = ask(tmp_path, env | {"PRELA_KAFKA_REPLICATION": "2"})
    lines = [finding["text"] for finding in findings if "2 replicas" in finding["text"]]
    assert len(lines) == 4
    assert "found 1: add replicas, or lower kafka.replication" in lines[0]


@pytest.mark.kafka
def test_clock(kafka: str, kafka_prefix: str, tmp_path: Path) -> None:
    env = env_of(kafka, kafka_prefix)
    settings = made(env)
    spans = settings.topics.spans
    # A Record from the future, as a broker leaves it behind whose clock was ahead.
    asyncio.run(alter(kafka, spans, message_timestamp_type="CreateTime"))
    asyncio.run(send_stamped(kafka, spans, time.time_ns() // 1_000_000 + 600_000))
    limits = {"max_message_bytes": "1048588", "retention_ms": "259200000"}
    asyncio.run(alter(kafka, spans, message_timestamp_type="LogAppendTime", **limits))
    asyncio.run(flawless(settings))
    wrong = only_wrong(tmp_path, env, "clock")
    assert wrong["came"] == "one that is more than 5 s ahead"
    assert wrong["todo"] == "synchronise the clocks of this machine and of the brokers with one time server (NTP)"


@pytest.mark.kafka
@pytest.mark.parametrize(("off_ms", "direction"), [(-90_000, "ahead"), (90_000, "behind")])
def test_clock_by_writing(kafka: str, kafka_prefix: str, off_ms: int, direction: str) -> None:
    settings = made(env_of(kafka, kafka_prefix))
    began = time.monotonic()
    last = written(settings, lambda: time.time_ns() // 1_000_000 + off_ms)[-1]
    took = time.monotonic() - began
    assert (last.check, last.state) == ("clock", "wrong")
    assert last.came.endswith(f"by which the log is {direction}")
    assert 90 - took - 0.1 <= float(last.came.split()[0]) <= 90.1  # it was written at some moment of the check


@contextmanager
def old_broker(versions: dict[int, tuple[int, int]]) -> Iterator[str]:
    """Answers which requests it knows, as brokers of any age do, and nothing else."""
    body = struct.pack(">hi", 0, len(versions)) + b"".join(struct.pack(">hhh", k, *v) for k, v in versions.items())
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection, suppress(OSError):  # the client may reset it
                request = connection.recv(4096)
                if len(request) >= 12 and request[4:6] == b"\x00\x12":
                    connection.sendall(struct.pack(">i", len(body) + 4) + request[8:12] + body)
                    connection.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


KAFKA_0_10 = {0: (0, 2), 1: (0, 3), 2: (0, 1), 3: (0, 2), 8: (0, 2), 9: (0, 2), 10: (0, 0), 11: (0, 1), 12: (0, 0), 13: (0, 0),
              14: (0, 0), 15: (0, 0), 16: (0, 0), 17: (0, 0), 18: (0, 0), 19: (0, 1), 20: (0, 1)}  # fmt: skip
KAFKA_1_1 = {**KAFKA_0_10, 0: (0, 5), 1: (0, 7), 2: (0, 2), 3: (0, 5), 8: (0, 3), 9: (0, 3), 10: (0, 1), 17: (0, 1), 18: (0, 1),
             22: (0, 0), 24: (0, 0), 25: (0, 0), 26: (0, 0), 28: (0, 0), 32: (0, 1)}  # fmt: skip


def test_version_too_old(tmp_path: Path) -> None:
    with old_broker(KAFKA_0_10) as bootstrap:
        wrong = only_wrong(tmp_path, env_of(bootstrap, "none"), "version")
    assert wrong["expected"] == "brokers of Kafka 2.1 or newer (3.6 or newer is recommended)"
    assert wrong["came"].startswith(
        "one that is too old: Produce up to version 2, not 7; Fetch up to version 3, not 10; "
    )
    assert wrong["todo"] == "upgrade the brokers"


def test_versions_by_what_is_asked_of_them() -> None:
    assert check_versions(KAFKA_1_1, "zstd").todo == 'upgrade the brokers, or set kafka.compression to "lz4"'
    assert "3.6 or newer is recommended" in check_versions(KAFKA_1_1, "lz4").text
    assert check_versions(KAFKA_1_1, "lz4").state == "ok"
    assert check_versions({**KAFKA_1_1, 24: (0, 4)}, "lz4").state == "ok"
    leaving = check_versions({**KAFKA_1_1, 24: (0, 5), 35: (1, 5)}, "lz4")
    assert (leaving.state, "leave a transaction open" in leaving.text) == ("unknown", True)
    too_new = check_versions({**KAFKA_1_1, 22: (5, 9)}, "lz4")
    assert (too_new.came, too_new.todo) == ("one that is too new: InitProducerId from version 5 on", "upgrade aiokafka")


def test_settings_that_cannot_be_read(tmp_path: Path) -> None:
    config = tmp_path / "prela.toml"
    config.write_text("[kafka]\nbotstrap = 3\n")
    code, findings = ask(tmp_path, {}, "--config", str(config))
    assert code == 1
    assert "kafka.botstrap: unknown key; did you mean bootstrap?" in by(findings, "wrong")["settings"]
    assert list(by(findings, "skipped")) == ["everything else"]


def test_settings_of_the_connection(tmp_path: Path) -> None:
    env = env_of("127.0.0.1:1", "none") | {"PRELA_KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}
    wrong = only_wrong(tmp_path, env, "connection")
    assert wrong["text"] == "kafka: SASL_SSL with PLAIN needs sasl_username, which is not set"


def test_policies_and_store(tmp_path: Path) -> None:
    (tmp_path / "policies.toml").write_text('[[policy]]\ntype = "latencies"\n')
    wrong = only_wrong(tmp_path, {"PRELA_POLICIES_FILE": str(tmp_path / "policies.toml")}, "policies")
    assert "latenc" in wrong["text"]
    (tmp_path / "traces.db").write_bytes(b"no database" * 200)
    assert "is no SQLite file" in only_wrong(tmp_path, {}, "sink sqlite")["text"]


def test_a_clickhouse_that_does_not_answer(tmp_path: Path) -> None:
    sink = '[{"type": "clickhouse", "url": "http://writer:secret@127.0.0.1:1"}]'
    text = only_wrong(tmp_path, {"PRELA_SINK": sink}, "sink clickhouse")["text"]
    assert text.startswith("cannot connect to ClickHouse at http://127.0.0.1:1")
    assert "secret" not in text


def test_a_local_log(tmp_path: Path) -> None:
    code, findings = ask(tmp_path, {}, "--write")
    assert code == 0
    assert not (tmp_path / "log.db").exists()
    assert by(findings, "ok")["topics"] == "the first process that needs them creates them"
    assert CliRunner().invoke(app, ["topics", "create", "--dir", str(tmp_path)]).exit_code == 0
    code, findings = ask(tmp_path, {}, "--write")
    assert (code, by(findings, "ok")["clock"]) == (0, "this machine and the log differ by less than 5 s")
    wrong = only_wrong(tmp_path, {"PRELA_TOPICS_SAMPLED_PARTITIONS": "3"}, "topics")
    assert "expected 3 partitions, found 1" in wrong["text"]


def test_broken_local_logs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    wrong = only_wrong(tmp_path / "file", {"PRELA_SINK": f'[{{"path": "{tmp_path}/traces.db"}}]'}, "log file")
    assert wrong["came"] == f"a file instead of a folder: {tmp_path / 'file'}"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "log.db").mkdir()
    assert only_wrong(tmp_path / "a", {}, "log file")["came"] == "something else"
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "log.db").write_bytes(b"no database" * 200)
    assert "is not a SQLite database" in only_wrong(tmp_path / "b", {}, "topics")["text"]
    (tmp_path / "c").mkdir()
    with sqlite3.connect(tmp_path / "c" / "log.db") as other:
        other.execute("CREATE TABLE partition_key (x)")
    other.close()
    assert "not a log of prela_stream" in only_wrong(tmp_path / "c", {}, "topics")["text"]
    assert CliRunner().invoke(app, ["topics", "create", "--dir", str(tmp_path / "d")]).exit_code == 0
    with sqlite3.connect(tmp_path / "d" / "log.db") as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    assert "is a log of version 99" in only_wrong(tmp_path / "d", {}, "topics")["text"]


AGENT = """
import prela_stream as prela

prela.init()
with prela.get_tracer().span("asked"):
    pass
assert prela.flush(30).acknowledged == 1
prela.shutdown()
"""


@pytest.mark.kafka
@pytest.mark.timeout(300)
def test_the_rights_that_are_asked_for_are_enough_and_needed(
    secured_kafka: Secured, kafka_prefix: str, tmp_path: Path
) -> None:
    prefix = kafka_prefix
    made(env_of(secured_kafka.plain, prefix))
    shared = {
        "PRELA_TOPICS_PREFIX": prefix,
        "PRELA_TOPICS_PARTITIONS": PARTITIONS,
        "PRELA_DIRECTORY": str(tmp_path),
        "PRELA_WORKER_COMMIT_INTERVAL_MS": "50",
        "PRELA_ASSEMBLY_SETTLE_MS": "50",
        "PRELA_POLICIES_FILE": str(tmp_path / "policies.toml"),
    }
    (tmp_path / "policies.toml").write_text('[[policy]]\ntype = "always"\n')
    env = {role: secured_kafka.env("SASL_PLAINTEXT", user=role) | shared for role in ROLES}
    settings = {role: load_settings(env=env[role]) for role in ROLES}
    for role in ROLES:
        wanted = needs(
            role, settings[role].topics, ServiceGroups(worker=f"{prefix}.sampler", sinks=(f"{prefix}.sinks.sqlite",))
        )
        for topic, rights in wanted.topics.items():
            secured_kafka.allow(
                role, "topic", topic, *(re.sub("(?<!^)(?=[A-Z])", "_", right).lower() for right in rights)
            )
        if role == "worker":  # a right that is missing ends it, with one line
            with pytest.raises(
                TransportError, match=f"may not read as group '{prefix}.sampler': allow it Read on the group"
            ):
                asyncio.run(run_worker(settings[role]))
            secured_kafka.allow(role, "group", *wanted.groups, "read")
            with pytest.raises(
                PrelaError, match=r"was refused \(TransactionalIdAuth.*; allow it; `prela-stream doctor`"
            ):
                asyncio.run(run_worker(settings[role]))
            secured_kafka.allow(role, "transactional_id", f"{wanted.transactional_id}*", "write")
        for group in wanted.groups:
            secured_kafka.allow(role, "group", group, "read")
        assert ask(tmp_path, env[role], "--as", role)[0] == 0

    async def pipeline() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_worker, settings["worker"])
            tasks.start_soon(run_sinks, settings["sink"])
            await anyio.run_process([sys.executable, "-c", AGENT], env={**os.environ, **env["agent"]}, stderr=None)
            with anyio.fail_after(DEADLINE):
                while not await stored(settings["sink"]):
                    await anyio.sleep(0.05)
            tasks.cancel_scope.cancel()

    asyncio.run(pipeline())


async def stored(settings: Settings) -> int:
    """How many traces are in the store."""
    try:
        async with open_reader(settings) as reader:
            return (await reader.totals())["traces"]
    except PrelaError:  # it is not made yet
        return 0
