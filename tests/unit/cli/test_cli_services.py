"""Topics, policies, services that stop by signal, and an installation without the extra."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from typer.testing import CliRunner

import prela_stream
from prela_stream._version import __version__
from prela_stream.app import open_reader
from prela_stream.cli.main import app
from prela_stream.cli.reporting import JsonFormatter
from prela_stream.config import Settings, load_settings
from prela_stream.errors import PrelaError
from tests.support.kept import trace_id, whole
from tests.support.processes import DEADLINE
from tests.unit.cli.test_cli_traces import run, write


def test_topics_are_checked_and_made(tmp_path: Path) -> None:
    where = ["--dir", str(tmp_path)]
    runner = CliRunner()
    before = runner.invoke(app, ["topics", "check", "--json", *where])
    assert before.exit_code == 1
    assert len(json.loads(before.stdout)["mistakes"]) == 4
    assert "run `prela-stream topics create`" in runner.invoke(app, ["topics", "check", *where]).stderr
    made = runner.invoke(app, ["topics", "create", "--json", *where])
    assert made.exit_code == 0
    assert json.loads(made.stdout)["mistakes"] == []
    assert sorted(json.loads(made.stdout)["created"]) == [
        "prela.decisions", "prela.dlq", "prela.sampled", "prela.spans",
    ]  # fmt: skip
    assert "every topic exists already" in runner.invoke(app, ["topics", "create", *where]).stderr
    after = runner.invoke(app, ["topics", "check", "--json", *where])
    assert (after.exit_code, json.loads(after.stdout)) == (0, {"ok": True, "mistakes": []})


def test_every_command_reports_topics_with_other_partitions(tmp_path: Path) -> None:
    where, other, runner = ["--dir", str(tmp_path)], {"PRELA_TOPICS_PARTITIONS": "7"}, CliRunner()
    assert runner.invoke(app, ["topics", "create", *where]).exit_code == 0
    line = "topics prela.spans, prela.decisions: expected 7 partitions, found 4, and the number is fixed"
    for command, before in (("create", "every topic exists already\n"), ("check", "")):
        result = runner.invoke(app, ["topics", command, *where], env=other)
        assert (result.exit_code, result.stderr.count("\n")) == (1, before.count("\n") + 1)
        assert result.stderr.startswith(before + line)
        document = json.loads(runner.invoke(app, ["topics", command, "--json", *where], env=other).stdout)
        assert [mistake.partition(":")[0] for mistake in document["mistakes"]] == [
            *("topic prela.spans", "topic prela.decisions"),
        ]
    worker = runner.invoke(app, ["worker", *where], env=other)
    assert (worker.exit_code, worker.stderr.startswith(line), worker.stderr.count("\n")) == (1, True, 1), worker.output


def test_policies_are_checked(tmp_path: Path) -> None:
    runner = CliRunner()
    default = json.loads(runner.invoke(app, ["policies", "check", "--json"]).stdout)
    assert default["ok"]
    assert "errors" in default["policies"]
    good = tmp_path / "good.toml"
    good.write_text('[[policy]]\nname = "slow ones"\ntype = "latency"\nmin_ms = 5\n')
    shown = runner.invoke(app, ["policies", "check", str(good)])
    assert shown.exit_code == 0
    assert "slow ones" in shown.stdout
    bad = tmp_path / "bad.toml"
    bad.write_text('[[policy]]\nname = "slow"\ntype = "latencies"\n')
    result = runner.invoke(app, ["policies", "check", str(bad)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "latenc" in result.stderr
    assert not json.loads(runner.invoke(app, ["policies", "check", str(bad), "--json"]).stdout)["ok"]
    assert runner.invoke(app, ["policies", "check", str(tmp_path / "none.toml")]).exit_code == 2


def test_wrong_settings_are_one_red_line(tmp_path: Path) -> None:
    config = tmp_path / "prela.toml"
    config.write_text("[topics]\npartitons = 3\n")
    result = CliRunner().invoke(app, ["dev", "--config", str(config)])
    assert result.exit_code == 2
    assert "topics.partitons: unknown key; did you mean partitions?" in result.stderr
    assert "Traceback" not in result.output


def test_a_worker_refuses_settings_that_cannot_work(tmp_path: Path) -> None:
    environment = {"PRELA_ASSEMBLY_MAX_SPANS": "0", "PRELA_ASSEMBLY_SETTLE_MS": "-5000"}
    result = CliRunner().invoke(app, ["worker", "--dir", str(tmp_path / "log")], env=environment)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "the environment has 2 mistakes:",
        '  PRELA_ASSEMBLY_MAX_SPANS: expected a whole number of spans from 1 to 100,000,000, got "0"',
        '  PRELA_ASSEMBLY_SETTLE_MS: expected a whole number of ms from 0 to 3,600,000, got "-5000"',
    ]
    assert not (tmp_path / "log").exists()


def test_the_version_is_printed() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"prela-stream {__version__}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
@pytest.mark.parametrize(
    ("command", "ready"),
    [("dev", "dev is ready: folder /"), ("worker", "ready on the"), ("sink", "ready: sink sqlite writes to /")],
)
def test_services_stop_cleanly_by_signal(tmp_path: Path, command: str, ready: str) -> None:
    started = [sys.executable, "-m", "prela_stream", command, "--dir", str(tmp_path)]
    for number in (signal.SIGTERM, signal.SIGINT):
        with subprocess.Popen(started, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            seen = ""
            while ready not in seen:
                line = process.stderr.readline()
                assert line, f"it ended before it was ready: {seen}"
                seen += line
            os.kill(process.pid, number)
            rest = process.stderr.read()
            assert process.wait(DEADLINE) == 0, seen + rest
            assert "Traceback" not in rest
            assert "stopped" in rest


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
@pytest.mark.parametrize("command", ["dev", "worker", "sink", "web", "otlp"])
def test_services_report_as_json_lines(tmp_path: Path, command: str) -> None:
    write(tmp_path, whole(1))
    env = {
        **os.environ,
        "PRELA_WEB_LISTEN": "127.0.0.1:0",
        "PRELA_OTLP_LISTEN": "127.0.0.1:0",
        "PRELA_OTLP_GRPC_LISTEN": "off",
        "PRELA_ASSEMBLY_SETTLE_MS": "10",
        "PRELA_DEBUG": "1",
    }
    started = [sys.executable, "-m", "prela_stream", command, "--json", "--dir", str(tmp_path)]
    with (tmp_path / "errors").open("w+") as errors:
        with subprocess.Popen(started, stdout=subprocess.PIPE, stderr=errors, text=True, env=env) as process:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            assert (ready["event"], ready["service"]) == ("ready", command)
            if command == "dev":
                assert ready["folder"] == str(tmp_path)
                assert ready["stores"] == [str(tmp_path / "traces.db")]
                anyio.run(record_a_trace, load_settings(env={}, overrides={"directory": str(tmp_path)}))
                decided = json.loads(process.stdout.readline())
                assert (decided["event"], decided["decision"]["kept"]) == ("decision", True)
            if command in ("dev", "web"):
                assert ready["url"].startswith("http://127.0.0.1:")
            if command == "sink":
                assert [one["type"] for one in ready["sinks"]] == ["sqlite"]
            process.send_signal(signal.SIGTERM)
            last = process.stdout.read().splitlines()[-1]
            assert json.loads(last) == {"event": "stopped", "service": command}
            assert process.wait(DEADLINE) == 0
        errors.seek(0)
        for line in errors:
            assert {"time", "level", "logger", "message"} <= json.loads(line).keys(), line


def test_a_log_line_is_json_whatever_it_holds() -> None:
    try:
        raise ValueError("\udcff\u202e")
    except ValueError:
        record = logging.LogRecord("n", logging.ERROR, "", 0, "\x1b[31m http://u:p@host/ \ud800", (), sys.exc_info())
    text = JsonFormatter().format(record)
    line = json.loads(text)
    assert (line["level"], line["logger"]) == ("ERROR", "n")
    assert "u:p" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "ValueError" in line["exception"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("kind", ["full disk", "ended reader"])
async def test_a_service_whose_standard_error_fails_goes_on(tmp_path: Path, kind: str) -> None:
    if kind == "full disk":
        stderr = os.open("/dev/full", os.O_WRONLY)
    else:
        reading, stderr = os.pipe()
        os.close(reading)
    command = [sys.executable, "-m", "prela_stream", "dev", "--dir", str(tmp_path)]
    settings = load_settings(env={"PRELA_ASSEMBLY_SETTLE_MS": "10"}, overrides={"directory": str(tmp_path)})
    async with await anyio.open_process(
        command, stdout=None, stderr=stderr, env={**os.environ, "PRELA_ASSEMBLY_SETTLE_MS": "10"}
    ) as process:
        os.close(stderr)
        await record_a_trace(settings)
        with anyio.fail_after(DEADLINE):
            while not await decided(settings):
                assert process.returncode is None
                await anyio.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0


async def record_a_trace(settings: Settings) -> None:
    """Write a trace of one span to the log."""
    async with prela_stream.pipeline(settings):
        prela_stream.get_tracer().span("a").end()


async def decided(settings: Settings) -> int:
    """Decisions in the store; 0 while it does not exist."""
    try:
        async with open_reader(settings) as reader:
            return (await reader.totals())["decisions"]
    except PrelaError:
        return 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
def test_tail_follows_as_json_lines_until_it_is_stopped(tmp_path: Path) -> None:
    write(tmp_path, *[whole(number) for number in range(1, 6)])
    command = [sys.executable, "-m", "prela_stream", "traces", "tail", "--json", "--last", "2", "--interval", "0.05"]
    with subprocess.Popen([*command, "--dir", str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [json.loads(process.stdout.readline())["trace_id"] for _ in range(2)] == [trace_id(4), trace_id(5)]
        write(tmp_path, whole(9))
        assert json.loads(process.stdout.readline())["trace_id"] == trace_id(9)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == ""
        assert process.wait(DEADLINE) == 0


def test_without_the_extra_one_line_says_what_to_install() -> None:
    code = "import sys; sys.modules['{0}'] = None; from prela_stream.__main__ import main; main()"
    for name, arguments in (("typer", []), ("rich", ["policies", "check"])):
        command = [sys.executable, "-c", code.format(name), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "pip install 'prela-stream[cli]'" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_demo_ends_with_everything_decided_and_stored(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "prela_stream", "demo", "--runs", "8", "--dir", str(tmp_path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["traces"] == result["kept"] + result["dropped"] == 8
    totals = json.loads(run(tmp_path, "list", "--json", "-n", "100").stdout)
    assert len(totals) == result["kept"]
