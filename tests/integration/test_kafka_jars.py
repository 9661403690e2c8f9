"""Kafka's jars and the Java below them: errors if one is missing, one download for many, the version of Docker's file."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deploy.kafka import kafka_version
from deploy.kafka.jars import find_java
from deploy.kafka.settings import CONTROLLER, HOST, PLAIN, default_settings, listener_settings
from tests.support.kafka import MISSING, ROOT, no_kafka

pytestmark = pytest.mark.timeout(600)

PREPARE = [sys.executable, "-m", "deploy.kafka", "--prepare"]


def test_without_java_it_says_what_to_install(tmp_path: Path) -> None:
    assert output_of(tmp_path) == (
        f"Kafka {kafka_version()} needs Java 17 or newer; no `java` is on PATH: "
        "install a JRE (Debian: default-jre-headless) or set JAVA_HOME"
    )


def test_a_java_home_without_java_is_named(tmp_path: Path) -> None:
    assert f"; JAVA_HOME={tmp_path} has no bin/java: " in output_of(tmp_path, JAVA_HOME=str(tmp_path))


def test_a_java_that_is_too_old_is_quoted(tmp_path: Path) -> None:
    script(tmp_path / "java", "echo 'openjdk version \"11.0.2\" 2019-01-15' >&2")
    expected = (
        f"needs Java 17 or newer; {tmp_path}/java -version printed 'openjdk version \"11.0.2\" 2019-01-15': install a "
    )
    assert expected in output_of(tmp_path)


def test_without_maven_it_says_what_to_install(tmp_path: Path) -> None:
    script(tmp_path / "java", "echo 'openjdk version \"21.0.1\" 2023-10-17' >&2")
    output = output_of(tmp_path, PRELA_KAFKA_CACHE=str(tmp_path / "cache"))
    assert re.fullmatch(
        rf"the jars of Kafka {re.escape(kafka_version())} are not in {tmp_path}/cache/kafka-[0-9a-f]{{16}} and Maven has to "
        r"fetch them; no `mvn` is on PATH: install Maven \(Debian: maven\), or name a running broker in PRELA_TEST_BOOTSTRAP",
        output,
    )


def test_a_failed_fetch_is_quoted_and_leaves_nothing(tmp_path: Path) -> None:
    script(tmp_path / "java", "echo 'openjdk version \"21.0.1\" 2023-10-17' >&2")
    script(tmp_path / "mvn", "echo 'Network is unreachable'; exit 1")
    output = output_of(tmp_path, PRELA_KAFKA_CACHE=str(tmp_path / "cache"))
    assert "it ended with 1: check the network" in output
    assert output.endswith("Network is unreachable")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


@pytest.mark.kafka
@pytest.mark.slow
def test_many_that_ask_at_once_fetch_and_archive_once(tmp_path: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None or shutil.which("java") is None:
        no_kafka("no `mvn` or no `java` is on PATH")
    script(tmp_path / "mvn", f'echo fetched >> {shlex.quote(f"{tmp_path}/calls")}; exec {shlex.quote(maven)} "$@"')
    path, cache = f"{tmp_path}:{os.environ['PATH']}", str(tmp_path / "cache")
    env = {**os.environ, "PATH": path, "PRELA_KAFKA_CACHE": cache}
    asked = [subprocess.Popen(PREPARE, cwd=ROOT, env=env) for _ in range(3)]
    assert [process.wait() for process in asked] == [0, 0, 0]
    assert (tmp_path / "calls").read_text() == "fetched\n"
    (jars,) = {path.parent for path in (tmp_path / "cache").glob("*/*.jar")}
    assert (jars / f"kafka_2.13-{kafka_version()}.jar").is_file()
    (archive,) = (tmp_path / "cache").glob("*.jsa*")
    java = [
        find_java(),
        "-Xshare:on",
        f"-XX:SharedArchiveFile={archive}",
        "-cp",
        f"{jars}/*",
    ]  # ends if it cannot use it
    output = subprocess.run([*java, "kafka.Kafka", "--version"], capture_output=True, text=True, check=True).stdout
    assert kafka_version() in output


def test_docker_runs_the_same_version_with_the_same_settings() -> None:
    service = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))["services"]["kafka"]
    assert service["image"] == f"apache/kafka:{kafka_version()}"
    settings = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value for name, value in service["environment"].items()
    }
    assert settings.pop("log.dirs") == "/var/lib/kafka/data"
    assert settings.pop("controller.quorum.voters") == "1@localhost:9093"
    listeners = listener_settings(1, {PLAIN: 9092, CONTROLLER: 9093}, {PLAIN: PLAIN, CONTROLLER: PLAIN})
    listeners["listeners"] = listeners["listeners"].replace(HOST, "")  # in a container every address is its own
    listeners["advertised.listeners"] = listeners["advertised.listeners"].replace(HOST, "localhost")
    assert settings == {**listeners, **default_settings(1)}


def output_of(path: Path, **env: str) -> str:
    """The output of the command if only this folder is on PATH. The exit code has to be that of a missing program."""
    command = [sys.executable, "-m", "deploy.kafka"]
    done = subprocess.run(
        command, cwd=ROOT, env={"PATH": str(path), **env}, capture_output=True, text=True, check=False
    )
    assert done.returncode == MISSING, done.stderr
    return done.stderr.strip()


def script(path: Path, text: str) -> None:
    """A command that runs this shell text."""
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
