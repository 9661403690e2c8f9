"""Whatever goes wrong in a command becomes a sentence and an exit code; a traceback appears with `--debug` only."""

import errno
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prela_stream import app as root
from prela_stream.cli import faults
from prela_stream.cli.main import app
from prela_stream.errors import ConfigurationError, PrelaError, TransportError
from tests.support.processes import DEADLINE

COMMAND = [sys.executable, "-m", "prela_stream"]
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes, devices and signals")


def run(arguments: list[str], folder: Path, **more: object) -> subprocess.CompletedProcess[str]:
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": DEADLINE, **more}
    return subprocess.run([*COMMAND, *arguments], cwd=folder, check=False, **settings)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "store.db"),
            1,
            "permission denied: {cwd}/store.db; run the",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "a", None, "b"),
            1,
            "no space left on device: {cwd}/a: {cwd}/b; free",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "standard output cannot be written: No space left on device; free",
        ),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "standard output was closed: the reader"),
        (OSError("odd"), 1, "odd; correct this and run the command again"),
        (
            RecursionError("maximum recursion depth exceeded"),
            1,
            "the input is nested too deeply to be read; flatten it",
        ),
        (MemoryError(), 1, "out of memory; use a machine"),
        (OverflowError("int too large"), 1, "unexpected OverflowError: int too large. This is a defect"),
        (UnicodeEncodeError("ascii", "é", 0, 1, "no"), 1, "text cannot be written or read in this encoding"),
        (sqlite3.OperationalError("database is locked"), 1, "unexpected OperationalError: database is locked. This is"),
        (AssertionError(), 1, "unexpected AssertionError. This is a defect"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
        (PrelaError("a\u202eb SSL://me:s3cret@h:1"), 1, "a\\u202eb SSL://<hidden>@h:1"),
        (ConfigurationError("wrong"), 2, "wrong"),
        (ExceptionGroup("two", [ConfigurationError("wrong"), ConfigurationError("wrong")]), 2, "wrong"),
        (ExceptionGroup("two", [ConfigurationError("wrong"), TransportError("lost")]), 1, "wrong\nlost"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_error_becomes_a_sentence(
    error: BaseException, code: int, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(_settings: object) -> object:
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(root, "load_policy_set", fail)
    monkeypatch.setattr(root, "open_reader", fail)
    result = CliRunner().invoke(app, ["traces", "list"])
    assert result.exit_code == code
    assert result.stderr.startswith(words.format(cwd=tmp_path)), result.stderr
    assert "Traceback" not in result.output
    if code == 1:
        for arguments in (["--debug", "traces", "list"], ["traces", "list", "--debug"]):
            assert "Traceback (most recent call last)" in CliRunner().invoke(app, arguments).stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "a command is missing; `prela-stream --help` lists what it takes"),
        (["traces"], "a command is missing; `prela-stream traces --help` lists what it takes"),
        (["dance"], "no such command 'dance'; `prela-stream --help` lists what it takes"),
        (
            ["traces", "list", "--lmit", "5"],
            "no such option: --lmit (Possible options: --limit",
        ),
        (["traces", "list", "-n", "0"], "invalid value for '--limit' / '-n'"),
        (["traces", "show"], "missing argument"),
    ],
)
def test_wrong_usage_is_two_lines(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, arguments, prog_name="prela-stream")
    usage, text = result.stderr.splitlines()
    assert (result.exit_code, usage.startswith("Usage: prela-stream")) == (2, True)
    assert text.startswith(words)


def test_at_most_ten_lines_of_a_list_of_mistakes() -> None:
    assert faults._MOST_LINES == 9
    error = ConfigurationError("x has 40 mistakes:" + "".join(f"\n  key{number}: wrong" for number in range(40)))
    assert faults.sentence(error).count("\n") == 40


@POSIX
@pytest.mark.parametrize(
    "arguments", [["policies", "check"], ["--version"], ["--help"], ["policies", "check", "--json"]]
)
def test_a_full_disk_below_the_output(arguments: list[str], tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = run(arguments, tmp_path, stdout=full)
    text = "standard output cannot be written: No space left on device; free some space and run the command again\n"
    assert (done.returncode, done.stderr) == (1, text)


@POSIX
def test_a_reader_that_ended(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run(["policies", "check"], tmp_path, stdout=writing)
    os.close(writing)
    text = "standard output was closed: the reader of the output ended before everything was written\n"
    assert (done.returncode, done.stderr) == (1, text)


@POSIX
@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams(redirection: str, tmp_path: Path) -> None:
    line = f"'{sys.executable}' -m prela_stream policies check {redirection}"
    done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=DEADLINE)
    assert (done.returncode, done.stderr) == (0, "")
    line = f"'{sys.executable}' -m prela_stream traces list {redirection}"
    done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=DEADLINE)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@POSIX
def test_an_encoding_without_the_characters(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text('[[policy]]\nname = "größe → x"\ntype = "always"\n', encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = run(["policies", "check", "p.toml"], tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "gr\\xf6\\xdfe \\u2192 x" in done.stdout


@POSIX
@pytest.mark.parametrize("arguments", [["traces", "list"], ["topics", "check"], ["dev"]])
def test_a_working_directory_that_was_deleted(arguments: list[str], tmp_path: Path) -> None:
    line = f"mkdir gone && cd gone && rmdir ../gone && exec '{sys.executable}' -m prela_stream {' '.join(arguments)}"
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=DEADLINE
    )
    assert done.returncode in (1, 2)
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


INTERRUPTED = """
import os, signal, sys
from prela_stream.__main__ import main
sys.argv = ["prela-stream", "policies", "check"]
left = int(os.environ["LEFT"])
def interrupt(event, arguments):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(interrupt)
main()
"""


@POSIX
@pytest.mark.parametrize("events", [1, 5, 20, 100, 300, 700, 1_100, 1_500, 1_900, 2_300, 2_700, 3_500, 5_000])
def test_ctrl_c_at_any_moment(events: int, tmp_path: Path) -> None:
    """The interrupt comes at an audit event of the interpreter: imports, opened files and the like, up to the end."""
    command = [sys.executable, "-c", INTERRUPTED]
    environment = {**os.environ, "LEFT": str(events)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=DEADLINE
    )
    assert (done.returncode, done.stderr) in [(130, "stopped by Ctrl-C\n"), (0, "")]
