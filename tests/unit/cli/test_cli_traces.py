"""`prela-stream traces …` over a real store: tables, trees, JSON, exit codes, and spans that try to take the terminal over."""

import json
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from typer.testing import CliRunner, Result

from prela_stream.cli.main import app
from prela_stream.model.decision import Basis
from prela_stream.model.span import SpanEvent, SpanStatus, SpanType
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.sink import SqliteSink
from tests.support.kept import NOW, SECOND, batch, decision, fragment, span, trace_id, whole

ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m[red]evil[/red]\u202egpj\x07\r"


def write(folder: Path, *fragments: Any, decisions: Any = ()) -> None:
    async def run() -> None:
        sink = SqliteSink(SqliteOptions(path=str(folder / "traces.db")))
        await sink.write(batch(*fragments, decisions=decisions))
        await sink.aclose()

    anyio.run(run)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with a good trace, a failed one with a model call, a dropped one."""
    usage = {"gen_ai.usage.input_tokens": 1200, "gen_ai.usage.output_tokens": 300, "prela.cost.usd": 0.0123}
    call = span(
        2, 1, name="chat sonnet", span_type=SpanType.LLM, attributes={**usage, "gen_ai.request.model": "sonnet"}
    )
    failed = span(
        2, 2, name="book", status=SpanStatus.ERROR, status_message="no seats left",
        events=[SpanEvent("retry", NOW + 2 * SECOND, {"attempt": 3})],
    )  # fmt: skip
    orphan = span(2, 3, name="lost child", parent_span_id="ab" * 8, status=SpanStatus.PENDING, duration_ns=None)
    about = decision(2, complete=False)
    dropped = decision(0xDDDD, kept=False, weight=0.0, policy="rest", reason="not drawn")
    write(tmp_path, whole(1), fragment(about, [span(2, 0), call, failed, orphan]), decisions=[dropped])
    return tmp_path


def run(folder: Path, *arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["traces", *arguments, "--dir", str(folder)], env={"COLUMNS": "220"})
    assert result.exit_code == code, result.output
    return result


def test_the_list_has_a_row_for_each_trace(store: Path) -> None:
    lines = run(store, "list").stdout.splitlines()
    assert lines[0].split() == [
        "trace", "time", "status", "name", "service", "duration", "spans", "errors", "tokens", "cost", "kept", "because",
    ]  # fmt: skip
    assert lines[1].split()[0] == trace_id(2)[:12]
    for part in ("error", "plan trip", "travel", "100 ms", "20 → 2", "$0.0200", "slow: duration over 10 s"):
        assert part in lines[1]
    assert " ok " in lines[2]


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        (["--errors"], [2]), (["--no-errors"], [1]), (["--sort", "oldest"], [1, 2]), (["-n", "1"], [2]),
        (["--offset", "1"], [1]), (["--text", "seats"], [2]), (["--service", "unknown"], []), (["--policy", "slow"], [2, 1]),
        (["--min-duration", "1m"], []), (["--name", "plan trip"], [2, 1]), (["--since", "2026-01-01"], [2, 1]),
        (["--until", "2020-01-01T00:00:00+00:00"], []), (["--sort", "most_spans"], [2, 1]),
    ],
)  # fmt: skip
def test_list_filters_and_sorts(store: Path, arguments: list[str], numbers: list[int]) -> None:
    rows = json.loads(run(store, "list", "--json", *arguments).stdout)
    assert [row["trace_id"] for row in rows] == [trace_id(number) for number in numbers]


def test_show_draws_the_tree_and_why_it_was_kept(store: Path) -> None:
    text = run(store, "show", trace_id(2)[:6]).stdout
    lines = text.splitlines()
    assert lines[0].startswith(trace_id(2))
    assert "agent plan trip  100 ms (self 1 ms)" in lines[1]
    assert "│   ├── llm chat sonnet  99 ms  1.2k → 300 tokens  $0.0123" in text
    assert "│   └── tool book  98 ms  ERROR no seats left" in text
    assert "└── (span abababababababab is missing)\n    └── tool lost child  open  PENDING, not ended" in text
    assert "kept by policy slow: duration over 10 s" in text
    assert "by trigger complete (spans missing); kept with probability 0.5, represents 2 traces" in text


def test_show_span_prints_its_whole_content(store: Path) -> None:
    text = run(store, "show", trace_id(2), "--span", f"{3:016x}").stdout
    for part in (
        "book",
        "no seats left",
        "parent",
        f"{1:016x}",
        "city",
        "Lisbon2",
        '{"list":["needle"]}',
        "attempt",
        "3",
    ):
        assert part in text
    assert "event retry" in text
    document = json.loads(run(store, "show", trace_id(2), "--span", f"{3:016x}", "--json").stdout)
    assert document["events"] == [{"name": "retry", "time_ns": NOW + 2 * SECOND, "attributes": {"attempt": 3}}]


def test_show_json_is_one_document(store: Path) -> None:
    document = json.loads(run(store, "show", trace_id(2), "--json").stdout)
    assert document["row"]["trace_id"] == trace_id(2)
    assert document["row"]["spans"] == 4
    assert document["decision"]["policy"] == "slow"
    assert document["decision"]["trace_id"] == trace_id(2)
    assert document["decision"]["summary"]["service"] == "travel"
    assert [one["name"] for one in document["spans"]] == ["plan trip", "chat sonnet", "book", "lost child"]
    assert document["spans"][1]["attributes"]["gen_ai.request.model"] == "sonnet"


def test_a_dropped_trace_shows_its_decision(store: Path) -> None:
    text = run(store, "show", "dddd").stdout
    assert "dropped by policy rest: not drawn" in text
    assert "plan trip  travel" in text
    assert "its spans are not stored" in text
    document = json.loads(run(store, "show", "dddd", "--json").stdout)
    assert (document["row"], document["spans"], document["decision"]["kept"]) == (None, [], False)


@pytest.mark.parametrize(
    ("basis", "complete", "evidence"),
    [
        (Basis.COUNTS, True, "(every span received)"),
        (Basis.COUNTING_PROCESSOR, True, "(every span received, by the counting processor)"),
        (Basis.COUNTING_PROCESSOR, False, "(spans missing, by the counting processor)"),
        (Basis.QUIET_TIME, False, "(some spans have no child count, so it was decided by quiet time)"),
        (None, True, "(every span received)"),
    ],
)
def test_a_decision_names_its_evidence(tmp_path: Path, basis: Basis | None, complete: bool, evidence: str) -> None:
    write(tmp_path, decisions=[decision(0xEEEE, basis=basis, complete=complete)])
    assert evidence in run(tmp_path, "show", "eeee").stdout
    assert json.loads(run(tmp_path, "show", "eeee", "--json").stdout)["decision"]["basis"] == basis


def test_a_kept_trace_whose_spans_are_not_stored_yet(store: Path) -> None:
    write(store, decisions=[decision(0xEEEE)])
    assert "its spans are not stored yet" in run(store, "show", "eeee").stdout


def test_last_errors_and_search(store: Path) -> None:
    assert run(store, "last").stdout.splitlines()[0].startswith(trace_id(2))
    assert [row["trace_id"] for row in json.loads(run(store, "errors", "--json").stdout)] == [trace_id(2)]
    assert [row["trace_id"] for row in json.loads(run(store, "search", "seats", "sonnet", "--json").stdout)] == [
        trace_id(2)
    ]
    nothing = run(store, "search", 'a"b OR *', code=1)
    assert (nothing.stdout, nothing.stderr) == ("", "no trace matches\n")


def test_an_empty_list_reports_whether_anything_was_decided(tmp_path: Path) -> None:
    write(tmp_path)
    assert "no traces have been decided yet" in run(tmp_path, "list").stderr
    write(tmp_path, decisions=[decision(number, kept=False, weight=0.0) for number in (1, 2)])
    assert "decided so far: 0 kept, 2 dropped. The policies decide which are kept" in run(tmp_path, "list").stderr
    assert "decided so far" not in run(tmp_path, "list", "--service", "none").stderr
    assert json.loads(run(tmp_path, "list", "--json").stdout) == []


def test_what_is_not_there_exits_with_1_and_what_is_wrong_with_2(store: Path, tmp_path: Path) -> None:
    assert "no trace abcd" in run(store, "show", "abcd", code=1).stderr
    assert "has no span 'ff'" in run(store, "show", trace_id(1), "--span", "ff", code=1).stderr
    wrong = {
        ("show", "xyz"): "a trace id is 32 hex digits",
        ("show", trace_id(1), "--span", "0"): "several spans begin with '0'",
        ("list", "--since", "yesterday"): "a time is a duration ago",
        ("list", "--min-duration", "long"): "a duration is a number with ms, s, m, h or d",
        ("list", "--config", str(tmp_path / "none.toml")): "cannot read the settings file",
    }
    for arguments, words in wrong.items():
        result = run(store, *arguments, code=2)
        assert words in result.stderr
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""
    for arguments in (
        ("tail", "--interval", "nan"),
        ("list", "--sort", "best"),
        ("list", "-n", "0"),
        ("list", "--colour"),
        ("dance",),
    ):
        assert "Usage" in run(store, *arguments, code=2).stderr
    missing = run(store / "elsewhere", "list", code=2)
    assert "there is no trace store at" in missing.stderr
    assert "prela-stream dev" in missing.stderr


def test_options_before_the_command(store: Path) -> None:
    result = CliRunner().invoke(app, ["--dir", str(store), "traces", "list", "--json"])
    assert len(json.loads(result.stdout)) == 2


def test_nothing_of_a_span_acts_on_the_terminal(tmp_path: Path) -> None:
    evil_summary = msgspec.structs.replace(decision(3).summary, root_name=ESCAPES, service=ESCAPES)
    about = decision(3, policy=ESCAPES, reason=ESCAPES, summary=evil_summary)
    evil = span(
        3, 0, name=ESCAPES, status=SpanStatus.ERROR, status_message=ESCAPES, attributes={ESCAPES: ESCAPES, "n": [ESCAPES]},
        events=[SpanEvent(ESCAPES, NOW, {ESCAPES: ESCAPES})],
    )  # fmt: skip
    dropped = msgspec.structs.replace(about, trace_id=b"\xee" * 16, decision_id=b"e" * 16, kept=False)
    write(tmp_path, fragment(about, [evil]), decisions=[dropped])
    for arguments in (
        ("list",), ("list", "--json"), ("last",), ("show", trace_id(3), "--json"), ("show", trace_id(3), "--span", f"{1:016x}"),
        ("show", trace_id(3), "--span", f"{1:016x}", "--json"), ("show", "eeee"), ("show", "eeee", "--json"),
    ):  # fmt: skip
        text = run(tmp_path, *arguments).stdout
        assert not set(text) & {chr(code) for code in (*range(10), *range(11, 32), *range(127, 160), 0x202E)}
        assert "[red]evil[/red]" in text
        if "--json" in arguments:
            json.loads(text)
        elif "--span" not in arguments:  # there the strings of a list are JSON, with harmless escapes
            assert "owned" not in text


def test_a_deep_and_wide_trace_is_drawn_in_bounds(tmp_path: Path) -> None:
    deep = [
        span(
            4, index, parent_span_id=None if index == 0 else f"{index:016x}", name=f"level {index}", duration_ns=SECOND
        )
        for index in range(1200)
    ]
    write(tmp_path, fragment(decision(4), deep))
    lines = run(tmp_path, "show", trace_id(4)).stdout.splitlines()
    assert max(len(line) for line in lines) < 220
    assert "level 999" in "".join(lines)
    assert "… 200 more spans; --all shows them" in "".join(lines)
    assert "level 1199" in run(tmp_path, "show", trace_id(4), "--all").stdout
