"""`prela-stream traces …` over a real store: tables, trees, JSON, exit codes, and spans that try to take the terminal over."""

import json
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from typer.testing import CliRunner, Result

from prela_stream.app import importing
from prela_stream.cli.main import app
from prela_stream.model.decision import Basis
from prela_stream.model.span import SpanEvent, SpanStatus, SpanType
from prela_stream.otel.items import span_data_of
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.sink import SqliteSink
from tests.support.agent_traces import conversation
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
        "trace", "age", "status", "duration", "name", "service", "tokens", "cost", "spans", "errors", "why",
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
    assert lines[0].startswith(f"{trace_id(2)}  error  travel  ")
    assert [" ".join(line.replace("█", "").split()) for line in lines[1:7]] == [
        "1 agent plan trip self 1 ms +0 100 ms",
        "2 ├ llm chat sonnet 1,200 → 300 tokens $0.0123 +1 ms 99 ms",
        "3 └ tool book 1 retry ERROR no seats left +2 ms 98 ms",
        "(span abababababababab is missing)",
        "4 └ tool lost child PENDING, not ended … +3 ms open",
        "",
    ]
    assert "kept by policy slow: duration over 10 s" in text
    assert "by trigger complete (spans missing); kept with probability 0.5, represents 2 traces" in text


@pytest.mark.parametrize("wanted", ["3", f"{3:016x}", f"{3:016x}"[:16]])
def test_a_span_is_found_by_its_number_and_its_id(store: Path, wanted: str) -> None:
    assert run(store, "show", trace_id(2), "--span", wanted).stdout.startswith("book\n")


def test_show_as_conversation_and_as_text(tmp_path: Path) -> None:
    spans = [msgspec.structs.replace(one, trace_id=trace_id(5)) for one in conversation()]
    write(tmp_path, fragment(decision(5), spans))
    messages = run(tmp_path, "show", trace_id(5), "--messages").stdout
    assert messages.splitlines()[:4] == ["[2] system:", "    You plan trips.", "[2] user:", "    How far is Lisbon?"]
    text = run(tmp_path, "last", "--text").stdout
    assert text.startswith(f"# trace {trace_id(5)}: plan trip\nservice: travel\n")
    assert "## conversation\n[2] system:" in text
    assert "--span, --messages and --text" in run(tmp_path, "show", trace_id(5), "--text", "--messages", code=2).stderr
    silent = tmp_path / "silent"
    silent.mkdir()
    write(silent, whole(1))
    assert run(silent, "last", "--messages").stdout == "no message is recorded in this trace\n"


def test_two_traces_are_compared(store: Path) -> None:
    text = run(store, "diff", trace_id(1), trace_id(2)).stdout
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "spans 2 → 4" in lines
    assert "errors 0 → 1" in lines
    assert "+ llm chat sonnet [2]" in lines
    assert "- tool tool 1 [2]" in lines
    document = json.loads(run(store, "diff", trace_id(1), trace_id(2), "--json").stdout)
    assert {one["change"] for one in document["difference"]["spans"]} == {"same", "added", "removed"}
    same = run(store, "diff", trace_id(1), trace_id(1)).stdout
    assert "the traces have the same spans" in same
    assert "the store has no trace abcd" in run(store, "diff", trace_id(1), "abcd", code=1).stderr


def test_exports(store: Path) -> None:
    lines = run(store, "export").stdout.splitlines()
    assert [json.loads(line)["row"]["trace_id"] for line in lines] == [trace_id(2), trace_id(1)]
    otlp = json.loads(run(store, "export", trace_id(2)[:8], "-f", "otlp").stdout)
    spans = otlp["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert [one["name"] for one in spans] == ["plan trip", "chat sonnet", "book", "lost child"]
    file = store / "out" / "page.html"
    file.parent.mkdir()
    assert str(file) in run(store, "export", "-f", "html", "-o", str(file)).stderr
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text(encoding="utf-8").count("<h1>") == 2
    assert [one.name for one in file.parent.iterdir()] == ["page.html"]
    assert "no trace abcd" in run(store, "export", "abcd", code=1).stderr
    assert "not both" in run(store, "export", trace_id(2), "--errors", code=2).stderr
    assert "there is no kept trace in" in run(store, "export", "--service", "none", code=1).stderr.replace(
        "no trace matches in", "there is no kept trace in"
    )


def test_an_exported_file_is_imported_with_the_same_spans(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "spans.json"
    run(store, "export", "-f", "otlp", "-o", str(file))
    read = importing.read_path(file)
    assert not read.rejected
    found = {span_data_of(one).span_id: span_data_of(one) for one in read.spans if one.trace_id.hex() == trace_id(2)}
    documents = json.loads(run(store, "show", trace_id(2), "--json").stdout)["spans"]
    assert len(found) == len(documents)
    for document in documents:
        one = found[document["span_id"]]
        for field in ("name", "parent_span_id", "start_ns", "duration_ns", "status"):
            assert getattr(one, field) == document[field], field
        assert document["attributes"].items() <= one.attributes.items()
        assert [event["name"] for event in document["events"]] == [event.name for event in one.events]


def test_dropped_traces_are_listed(store: Path) -> None:
    lines = run(store, "list", "--dropped").stdout.splitlines()
    assert len(lines) == 2
    for part in ("dddd", "dropped", "plan trip", "rest: not drawn"):
        assert part in lines[1]
    assert "--model asks for" in run(store, "list", "--dropped", "--model", "sonnet", code=2).stderr


def test_stats_and_sessions(store: Path) -> None:
    text = run(store, "stats").stdout
    for part in ("service", "travel", "policy", "slow", "model", "sonnet", "tool"):
        assert part in text
    document = json.loads(run(store, "stats", "--json").stdout)
    assert {one["name"] for one in document["decided"]["policy"]} == {"slow", "rest"}
    assert document["calls"]["model"]["rows"][0]["calls"]["value"] == 2
    nothing = run(store, "sessions")
    assert nothing.stdout == ""
    assert nothing.stderr.startswith(f"there is no session in {store}: 3 traces decided, 2 kept, 1 dropped, ")
    assert "A trace belongs to a session if a span has gen_ai.conversation.id" in nothing.stderr
    spans = [span(7, 0, attributes={"gen_ai.conversation.id": "s-9", "user.id": "u-1"})]
    write(store, fragment(decision(7), spans))
    assert run(store, "sessions").stdout.splitlines()[1].split()[0] == "s-9"
    assert json.loads(run(store, "sessions", "--json").stdout)[0]["traces"] == 1
    assert len(json.loads(run(store, "list", "--session", "s-9", "--json").stdout)) == 1


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
    assert "plan trip  dropped  travel" in text
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
    assert nothing.stdout == ""
    assert nothing.stderr.startswith(f"no trace matches in {store}: 3 traces decided, 2 kept, 1 dropped, ")


def test_an_empty_answer_explains_why(tmp_path: Path) -> None:
    write(tmp_path)
    text = run(tmp_path, "list").stderr
    assert text.startswith(f"there is no kept trace in {tmp_path}: 0 traces decided, 0 kept, 0 dropped, ")
    assert "while `prela-stream dev` or `prela-stream worker` is running" in text
    assert text == run(tmp_path, "last", code=1).stderr
    write(tmp_path, decisions=[decision(number, kept=False, weight=0.0) for number in (1, 2)])
    text = run(tmp_path, "list").stderr
    assert text.startswith(f"there is no kept trace in {tmp_path}: 2 traces decided, 0 kept, 2 dropped, ")
    assert "policies of the built-in policies (errors, slow, cancelled, rest) would keep some" in text
    assert "`prela-stream traces list --dropped`" in text
    assert run(tmp_path, "list", "--service", "none").stderr.count("\n") == 1
    write(tmp_path, whole(3))
    narrow = run(tmp_path, "list", "--service", "none").stderr
    assert "remove an option: without one, 1 kept trace would be listed" in narrow
    assert json.loads(run(tmp_path, "list", "--service", "none", "--json").stdout) == []


def test_what_is_not_there_exits_with_1_and_what_is_wrong_with_2(store: Path, tmp_path: Path) -> None:
    assert "no trace abcd" in run(store, "show", "abcd", code=1).stderr
    assert (
        'has no span "ff": expected a number from 1 to 2'
        in run(store, "show", trace_id(1), "--span", "ff", code=1).stderr
    )
    wrong = {
        ("show", "xyz"): "a trace id is 32 hex digits",
        ("show", trace_id(1), "--span", "0000"): 'several spans begin with "0000"',
        ("list", "--since", "20261122"): "a time is a duration ago",
        ("list", "--until", "10:00"): "a time is a duration ago",
        ("list", "--since", "1h", "--until", "2h"): "--since is not before --until",
        ("list", "-a", "tier"): "--attribute: expected KEY=VALUE",
        ("errors", "--no-errors"): "`traces list --no-errors`",
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
    assert max(len(line) for line in lines) <= 220
    assert "level 999" in "".join(lines)
    assert "… 200 more rows; --full shows them" in "".join(lines)
    assert "level 1199" in run(tmp_path, "show", trace_id(4), "--all").stdout
