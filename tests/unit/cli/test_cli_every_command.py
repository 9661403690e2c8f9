"""Every `traces` command on a small store: at five widths, as JSON, with bad input, on a terminal, and with output that fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import anyio
import msgspec
import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

from prela_stream.cli.main import app
from prela_stream.cli.traces import app as traces
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.sink import SqliteSink
from tests.support.agent_traces import conversation
from tests.support.kept import batch, decision, fragment, trace_id, whole
from tests.support.processes import DEADLINE

ID = trace_id(2)
COMMANDS: dict[str, list[list[str]]] = {
    "list": [[], ["--dropped"], ["--sort", "slowest"], ["--name", "plan*", "--model", "sonnet", "--status", "success"]],
    "show": [[ID], [ID, "--span", "2"], [ID, "--messages"], [ID, "--text"], [ID, "--full"], ["dddd"]],
    "last": [[], ["--text", "--full"]],
    "errors": [[]],
    "search": [["lisbon"]],
    "tail": [],
    "running": [[]],
    "sessions": [[]],
    "stats": [[], ["--by", "tool"]],
    "diff": [[ID, trace_id(1)]],
    "export": [["-f", "html"], ["-f", "otlp", ID]],
}
BAD: dict[str, list[list[str]]] = {
    "list": [
        ["--since", "soon"], ["--until", "20261122"], ["--min-duration", "5"], ["-n", "0"], ["--status", "good"], ["-a", "x"],
        ["--min-cost", "nan"], ["--min-tokens", "-1"], ["--offset", "x"], ["extra"],
    ],
    "show": [[], ["xyz"], ["ab"], [ID, "--text", "--messages"], [ID, ID]],
    "last": [["--span"], ["extra"]],
    "errors": [["--no-errors"], ["-n", "many"]],
    "search": [[], ["x", "--since", "never"]],
    "tail": [["--interval", "0"], ["--last", "-1"]],
    "running": [["-n", "0"], ["extra"]],
    "sessions": [["--since", "x"], ["-n", "-3"]],
    "stats": [["--by", "colour"], ["--until", "x"]],
    "diff": [[], [ID], ["zz", ID]],
    "export": [["-f", "pdf"], [ID, "--errors"], ["-o"], ["zz"]],
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two kept traces, one with a conversation, and a dropped one; and a log that nothing was written to."""
    folder = tmp_path_factory.mktemp("store")
    spans = [msgspec.structs.replace(one, trace_id=ID) for one in conversation()]

    async def write() -> None:
        sink = SqliteSink(SqliteOptions(path=str(folder / "traces.db")))
        dropped = decision(0xDDDD, kept=False, weight=0.0, policy="rest", reason="not drawn")
        await sink.write(batch(whole(1), fragment(decision(2), spans), decisions=[dropped]))
        await sink.aclose()

    anyio.run(write)
    done = CliRunner().invoke(app, ["topics", "create", "--dir", str(folder)])
    assert done.exit_code == 0, done.output
    return folder


def test_the_tables_name_every_command() -> None:
    names = {command.name for command in traces.registered_commands}
    assert names == set(COMMANDS) == set(BAD)


CASES = [(name, arguments) for name, many in COMMANDS.items() for arguments in many]


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_screen(store: Path, width: int) -> None:
    for name, arguments in CASES:
        if name == "export" or "--text" in arguments:
            continue  # documents: the same at any width
        for colour in ("", "1"):
            env = {"COLUMNS": str(width), "FORCE_COLOR": colour}
            result = CliRunner().invoke(app, ["traces", name, *arguments, "--dir", str(store)], env=env)
            assert result.exit_code == 0, (name, result.output)
            for line in result.stdout.splitlines():
                assert cell_len(_plain(line)) <= width, (name, line)
            assert ("\x1b[" in result.stdout) is (bool(colour) and bool(result.stdout)), name


def _plain(text: str) -> str:
    while "\x1b[" in text:
        before, _, after = text.partition("\x1b[")
        text = before + after.partition("m")[2]
    return text


@pytest.mark.parametrize(("name", "arguments"), [case for case in CASES if case[0] != "export"])
def test_each_command_gives_one_json_document(store: Path, name: str, arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["traces", name, *arguments, "--json", "--dir", str(store)])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    json.loads(result.stdout)
    assert result.stderr == ""


@pytest.mark.parametrize(("name", "arguments"), [(name, one) for name, many in BAD.items() for one in many])
def test_bad_input_is_refused_in_one_or_two_lines(store: Path, name: str, arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["traces", name, *arguments, "--dir", str(store)], prog_name="prela-stream")
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert 1 <= len(lines) <= 2
    assert len(lines) == 1 or lines[0].startswith(f"Usage: prela-stream traces {name}")


POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX terminals and pipes")


def process(store: Path, *arguments: str, **more: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "prela_stream", "traces", *arguments, "--dir", str(store)]
    given = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "timeout": DEADLINE,
        **more,
    }
    return subprocess.run(command, check=False, **given)  # type: ignore[call-overload,no-any-return]


@POSIX
@pytest.mark.parametrize("arguments", [["list"], ["show", ID], ["last", "--messages"]], ids=lambda value: value[0])
def test_on_a_terminal(store: Path, arguments: list[str]) -> None:
    import fcntl
    import pty
    import struct
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 72, 0, 0))
    env = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    done = process(store, *arguments, stdout=follower, env={**env, "TERM": "xterm-256color"})
    os.close(follower)
    found = b""
    try:
        while chunk := os.read(leader, 65_536):
            found += chunk
    except OSError:  # the other end is closed and everything is read
        pass
    os.close(leader)
    text = found.decode().replace("\r\n", "\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b[" in text
    assert max(cell_len(_plain(line)) for line in text.splitlines()) <= 72


@POSIX
def test_output_that_fails_gives_one_line(store: Path) -> None:
    if Path("/dev/full").exists():
        with Path("/dev/full").open("w", encoding="utf-8") as full:
            for arguments in (["list"], ["show", ID], ["export"]):
                done = process(store, *arguments, stdout=full)
                text = "standard output cannot be written: No space left on device; free some space and run the command again\n"
                assert (done.returncode, done.stderr) == (1, text)
    reading, writing = os.pipe()
    os.close(reading)
    done = process(store, "show", ID, stdout=writing)
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == "standard output was closed: the reader of the output ended before everything was written\n"
    ascii_only = process(
        store, "show", ID, "--messages", env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    )
    assert (ascii_only.returncode, ascii_only.stderr) == (0, "")
    assert ascii_only.stdout.isascii()


def test_a_full_disk_leaves_no_half_of_an_export(store: Path, tmp_path: Path) -> None:
    missing = tmp_path / "none" / "x.html"
    done = CliRunner().invoke(app, ["traces", "export", "-f", "html", "-o", str(missing), "--dir", str(store)])
    assert done.exit_code == 1
    assert "check the path" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_shell_completes_ids_services_and_policies(store: Path) -> None:
    for words, expected in (
        (["traces", "show", ID[:3]], ID[:12]),
        (["traces", "list", "--service", "tra"], "travel"),
        (["traces", "list", "--policy", ""], "slow"),
        (["traces", "list", "--model", "son"], "sonnet"),
        (["traces", "list", "--tool", "d"], "distance"),
    ):
        line = " ".join(["prela-stream", "--dir", str(store), *words])
        env = {"_PRELA_STREAM_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) + 2)}
        done = CliRunner().invoke(app, [], env=env, prog_name="prela-stream")
        assert expected in done.stdout.split(), (words, done.output)
    env = {
        "_PRELA_STREAM_COMPLETE": "complete_bash",
        "COMP_WORDS": "prela-stream --dir /none traces show a",
        "COMP_CWORD": "5",
    }
    assert CliRunner().invoke(app, [], env=env, prog_name="prela-stream").stdout.strip() == ""
