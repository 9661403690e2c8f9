"""A worker starts without what it does not use, and its own reading of the command line agrees with that of typer."""

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.cli import working
from prela_stream.cli.main import app
from prela_stream.cli.working import read_arguments, worker_start
from tests.support.processes import DEADLINE

UNUSED = (
    *("typer", "rich", "click", "pydantic", "pygments", "starlette", "uvicorn", "jinja2", "httpx"),
    *("anthropic", "openai", "opentelemetry", "google.protobuf", "grpc", "aiohttp", "prometheus_client"),
    *("clickhouse_connect", "pyarrow", "aiokafka"),
    *("prela_stream.cli.main", "prela_stream.cli.services", "prela_stream.cli.listing", "prela_stream.cli.formats"),
    *("prela_stream.tracing", "prela_stream.instrumentation", "prela_stream.web.server", "prela_stream.compat"),
    *("prela_stream.sinks.service", "prela_stream.sinks.sqlite.sink", "prela_stream.testing", "prela_stream.demo"),
    *("prela_stream.app.pages", "prela_stream.app.otlp", "prela_stream.app.doctor", "prela_stream.app.init"),
)
"""Modules that a worker on the local transport must not import. On Kafka it needs aiokafka."""
ENTRY = """
import os, sys
class Out:
    def write(self, text):
        sys.__stderr__.write(text)
        if "worker is ready" in text:
            print(*sys.modules, file=open("modules", "w"), flush=True)
            os.kill(os.getpid(), 15)
    def __getattr__(self, name):
        return getattr(sys.__stderr__, name)
sys.stderr = Out()
from prela_stream.__main__ import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
def test_a_worker_loads_only_what_it_uses(tmp_path: Path) -> None:
    topics = [sys.executable, "-m", "prela_stream", "topics", "create", "--transport", "local"]
    subprocess.run(topics, cwd=tmp_path, check=True, capture_output=True, timeout=DEADLINE)
    command = [sys.executable, "-c", ENTRY, "worker", "--transport", "local"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    assert "worker has stopped" in done.stderr
    modules = set((tmp_path / "modules").read_text().split())
    assert "prela_stream.worker.service" in modules
    assert not modules.intersection(UNUSED)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["worker", "--help"],
        ["worker", "inspect"],
        ["worker", "--debug"],
        ["worker", "--http"],
        ["worker", "--http", ""],
        ["worker", "--config", "--json"],
        ["worker", "--config=prela.toml"],
        ["worker", "--json", "--json"],
        ["--json", "worker"],
        ["--http", "127.0.0.1:1", "worker"],
        ["--dir", "worker"],
        ["sink"],
        ["traces", "list", "--dir", "worker"],
    ],
    ids=" ".join,
)
def test_everything_unusual_is_left_to_typer(arguments: list[str]) -> None:
    assert worker_start(arguments) is None


@pytest.mark.skipif(sys.platform == "win32", reason="typer reads every command line there")
def test_a_request_for_completions_is_left_to_typer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worker_start(["worker"]) is not None
    monkeypatch.setenv("_PRELA_STREAM_COMPLETE", "complete_bash")
    assert worker_start(["worker"]) is None


WORDS = st.sampled_from(
    ["worker", "--json", "--config", "--dir", "--transport", "--http", "kafka", "a.toml", "127.0.0.1:1", "", "-x"]
)


@given(before=st.lists(WORDS, max_size=3), after=st.lists(WORDS, max_size=6))
def test_what_it_reads_is_what_typer_reads(before: list[str], after: list[str]) -> None:
    arguments = [*before, "worker", *after]
    found = read_arguments(arguments)
    if found is not None:
        assert by_typer(arguments) == found


def by_typer(arguments: list[str]) -> dict[str, str]:
    """The options that typer passes to the command."""
    from prela_stream.cli import services

    calls: list[dict[str, Any]] = []

    class Given:
        """Instead of the settings."""

    def load(config: str | None, *, overrides: dict[str, str]) -> Given:
        calls.append({"config": config, **overrides})
        return Given()

    def http_of(settings: Given, http: str | None) -> Given:
        calls[-1]["http"] = http
        return settings

    def start(_settings: Given, *, as_json: bool) -> None:
        calls[-1]["as_json"] = "true" if as_json else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prela_stream.config.load_settings", load)
        patch.setattr(services, "exposing", http_of)
        patch.setattr(services, "run_worker_until_stopped", start)
        typer.main.get_command(app).main(arguments, standalone_mode=False)
    (call,) = calls
    return {key: value for key, value in call.items() if value is not None}


def test_errors_of_the_settings_are_reported_as_by_typer(tmp_path: Path) -> None:
    found = []
    for more in ([], ["--debug"]):  # with --debug typer reads it, and a traceback comes first
        command = [sys.executable, "-m", "prela_stream", "worker", "--config", "none.toml", *more]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=DEADLINE)
        assert done.returncode == 2
        found.append(done.stderr.splitlines()[-1])
    assert found[0] == found[1]
    assert "none.toml" in found[0]


def test_the_options_reach_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        working, "run_worker_until_stopped", lambda settings, *, as_json: seen.append((settings, as_json))
    )
    start = worker_start(
        ["--dir", "one", "worker", "--dir", "two", "--transport", "local", "--http", "127.0.0.1:1", "--json"]
    )
    assert start is not None
    try:
        with pytest.raises(SystemExit) as ended:
            start()
    finally:
        gc.enable()
    ((settings, as_json),) = seen
    assert ended.value.code == 0
    assert (settings.directory, settings.transport, settings.http.listen, as_json) == (
        "two",
        "local",
        "127.0.0.1:1",
        True,
    )
