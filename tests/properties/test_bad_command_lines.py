"""Random bad command lines, settings files, policy files and variables: an exit code, one to ten lines, and no traceback.

Each case has at least one mistake, so that no service would start.
"""

import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from prela_stream.cli.main import app
from prela_stream.config import SECTIONS, Settings, variables
from prela_stream.text import INVISIBLE
from prela_stream.validation import fields_of

SECRET = "s3cret"
COMMANDS = [
    *("dev", "worker", "sink", "doctor", "demo", "traces list", "traces errors", "traces search x", "traces last"),
    *(
        "traces diff abcd abcd",
        "traces export",
        "traces running",
        "traces sessions",
        "traces stats",
        "otlp",
        "import x.json",
    ),
    *("traces show abcd", "traces tail", "topics create", "topics check", "policies check"),
]
ODD_TEXT = st.text(st.characters(codec=None, exclude_characters="\x00"), max_size=30) | st.sampled_from(
    [
        "",
        " ",
        "-",
        "--",
        "\u202e",
        "\x1b[2J",
        "\udcff",
        "9" * 5_000,
        "inf",
        "nan",
        "-1",
        "1e999",
        "20261199",
        "0x1",
        "{}",
        "[[",
        "\n" * 30,
    ]
)
WORD = st.text(string.ascii_lowercase, min_size=1, max_size=12)


def bad_options() -> st.SearchStrategy[list[str]]:
    """An option that no command takes, or a value that its option does not take."""
    values = {
        "--limit": ["0", "-5", "x", "1e9", "9" * 40],
        "--interval": ["0", "nan", "inf", "-1", "x"],
        "--runs": ["0", "many", "9" * 400],
        "--since": ["20261399", "15", "soon", "", "9" * 400 + "d", "9999-12-31", "\u202e"],
        "--min-duration": ["250", "-1s", "inf", "36501d", ""],
        "--sort": ["best", "", "\u200b"],
        "--as": ["root", ""],
        "--transport": ["pigeon", f"kafka://me:{SECRET}@h:1", "\u202elocal"],
        "--config": ["missing.toml", ".", "x" * 5_000, "\u202e.toml", "bad.toml"],
    }
    known = [[name, value] for name, bad in values.items() for value in bad]
    unknown = WORD.map(lambda word: [f"--x{word}"])
    return st.sampled_from(known) | unknown | st.sampled_from([["--limit"], ["--config"], ["--json=1"], ["--dir"]])


def bad_values() -> st.SearchStrategy[str]:
    """TOML values that no setting takes, or that few do."""
    odd = [
        *(
            "inf",
            "-inf",
            "nan",
            "-1",
            "1e300",
            "1e999",
            "1979-05-27",
            "07:32:00",
            "[]",
            "{}",
            "[[]]",
            "[{a = 1}]",
            "''",
        ),
        *(
            f"'me:{SECRET}@h:1'",
            f"{{password = '{SECRET}'}}",
            "9" * 30,
            "9" * 5_000,
            "0x" + "f" * 5_000,
            "'\\u202e'",
            '"\\u202e"',
        ),
        *('"\\u0000"', "[" * 2_000 + "]" * 2_000, "true", f"['{SECRET}', {{a = '{SECRET}'}}]"),
    ]
    return st.sampled_from(odd)


def bad_settings() -> st.SearchStrategy[str]:
    """A settings file with one mistake or many."""
    places = [("", name) for name in fields_of(Settings)] + [
        (section, name) for section, kind in SECTIONS.items() for name in fields_of(kind)
    ]
    line = st.tuples(st.sampled_from(places), bad_values())
    unknown = st.tuples(st.tuples(st.sampled_from(["", *SECTIONS]), WORD.map(lambda word: f"x{word}")), bad_values())

    def text(lines: list[tuple[tuple[str, str], str]]) -> str:
        by_section: dict[str, dict[str, str]] = {}
        for (section, name), value in lines:
            by_section.setdefault(section, {})[name] = value
        top = "".join(f"{name} = {value}\n" for name, value in by_section.pop("", {}).items())
        return top + "".join(
            f"[{section}]\n" + "".join(f"{name} = {value}\n" for name, value in inner.items())
            for section, inner in by_section.items()
        )

    broken = st.sampled_from(
        ["[", "a", "= 1", "[[sink]]\ntype = 'x'", "[store]\na = 1", "a = 1\na = 2", "[a]\n[a]", "x = '''"]
    )
    return (
        st.builds(lambda first, more: text([first, *more]), unknown, st.lists(line, max_size=30))
        | broken
        | st.builds(lambda first, rest: first + "\n" + rest, broken, ODD_TEXT)
    )


def bad_policies() -> st.SearchStrategy[str]:
    """A policy file with one mistake or many."""
    table = st.dictionaries(
        st.sampled_from(["type", "name", "probability", "min_ms", "policies", "key", "regex", "x"]),
        bad_values() | st.sampled_from(["'latency'", "'always'", "'and'", "'drop'", "'regex('", "2"]),
        max_size=5,
    )
    tables = st.lists(table, min_size=1, max_size=20)
    return tables.map(
        lambda found: (
            "unknown = 1\n" + "".join("[[policy]]\n" + "".join(f"{k} = {v}\n" for k, v in one.items()) for one in found)
        )
    )


def check(result: Result, *, lines: int = 10) -> None:
    """What every bad case ends with."""
    assert result.exit_code in (1, 2), (result.exit_code, result.output, result.exception)
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert 1 <= result.stderr.count("\n") <= lines, result.stderr
    assert result.stderr.endswith("\n")
    assert SECRET not in result.stderr
    assert INVISIBLE.search(result.stderr) is None, ascii(result.stderr)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory of all cases, with a settings file that is wrong."""
    path = tmp_path_factory.mktemp("bad")
    (path / "bad.toml").write_text("x = 1\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        for name in variables():
            patch.delenv(name, raising=False)
        yield path


def bounded(examples: int) -> Callable[[Any], Any]:
    """Settings of hypothesis: the cases are independent of the function's fixtures."""
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@given(command=st.sampled_from(COMMANDS), bad=bad_options(), more=st.lists(ODD_TEXT, max_size=3), first=st.booleans())
@bounded(200)
def test_bad_command_lines(folder: Path, command: str, bad: list[str], more: list[str], first: bool) -> None:
    words = [*bad, *command.split(), *more] if first else [*command.split(), *bad, *more]
    check(CliRunner().invoke(app, words))


@given(words=st.lists(ODD_TEXT, min_size=1, max_size=4))
@bounded(100)
def test_words_that_are_no_command(folder: Path, words: list[str]) -> None:
    result = CliRunner().invoke(app, ["not-a-command", *words])
    check(result)


@given(command=st.sampled_from(COMMANDS), text=bad_settings())
@bounded(150)
def test_bad_settings_files(folder: Path, command: str, text: str) -> None:
    file = folder / "case.toml"
    file.write_bytes(
        text.encode("utf-8", "surrogateescape") if INVISIBLE.search(text) is None else text.encode("utf-8", "replace")
    )
    result = CliRunner().invoke(app, [*command.split(), "--config", str(file)])
    if command == "doctor":
        assert result.exit_code == 1
        assert "wrong" in result.stdout
        assert SECRET not in result.output
        assert INVISIBLE.search(result.output) is None
        return
    check(result)


@given(text=bad_policies())
@bounded(100)
def test_bad_policy_files(folder: Path, text: str) -> None:
    file = folder / "policies.toml"
    file.write_text(text, encoding="utf-8")
    check(CliRunner().invoke(app, ["policies", "check", str(file)]))


@given(
    name=st.sampled_from(sorted(name for name, (_, key) in variables().items() if "path" not in key)),
    value=st.sampled_from(
        ["inf", "nan", "-1", "1e999", "9" * 400, "{", "[[", f"me:{SECRET}@h:1", f'{{"password": "{SECRET}"']
    ),
    command=st.sampled_from(COMMANDS),
)
@bounded(100)
def test_bad_variables(folder: Path, name: str, value: str, command: str) -> None:
    environment = {name: value, "PRELA_SAMPLE_RATE": "2" if name != "PRELA_SAMPLE_RATE" else value}
    result = CliRunner().invoke(app, command.split(), env=environment)
    if command == "doctor":
        assert result.exit_code == 1
        assert SECRET not in result.output
        return
    check(result)
