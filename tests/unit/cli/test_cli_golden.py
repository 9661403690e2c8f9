"""What people see at five widths, compared with files. `PRELA_UPDATE_GOLDEN=1` writes them; a person reads the diff."""

import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from rich.cells import cell_len

from prela_stream.cli.details import message_lines, span_lines
from prela_stream.cli.drawing import head_line, trace_lines
from prela_stream.cli.listing import Row, one_line, trace_list
from prela_stream.cli.screen import Line, Screen
from prela_stream.cli.tables import Column, table
from prela_stream.model.span import SpanData, SpanEvent, SpanStatus, SpanType
from prela_stream.views.short_ids import short_ids
from tests.support.agent_traces import MS, START, TRACE, conversation, deep, loop, made, with_failures
from tests.support.kept import decision

FOLDER = Path(__file__).with_name("golden")
WIDTHS = (60, 80, 100, 120, 200)
SECOND = 1_000_000_000
ROWS = [
    Row(
        trace_id="95b011a3ef67a0304cfeb36e04e8ed6e", name="answer", service="research-agent", start_ns=START,
        duration_ns=243 * MS, status="error", spans=9, errors=1, input_tokens=1_200, output_tokens=231, cost_usd=0.0123,
        why="errors: status: 1 span with ERROR (first: execute_tool search)",
    ),
    Row(
        trace_id="95b011a3ef67f0304cfeb36e04e8ed6e", name="旅行を計画する 🧳 家族と一緒に東京へ行くためのエージェント",
        service="旅行", start_ns=START - 3_700 * SECOND, duration_ns=63 * SECOND, status="ok", spans=1_200,
        input_tokens=1_200_000, output_tokens=231, cost_usd=1.5, why="rest: drawn",
    ),
    Row(
        trace_id="25b011a3ef67a0304cfeb36e04e8ed6e", name="a name without any blank " + "x" * 90, service="",
        start_ns=START - 90 * 86_400 * SECOND, duration_ns=3 * 86_400 * SECOND, status="incomplete", spans=1,
    ),
    Row(
        trace_id="a5b011a3ef67a0304cfeb36e04e8ed6e", name="évil \x1b[2J\u202egnp", service="s", start_ns=START,
        duration_ns=0, status="dropped", spans=2, why="rest: not drawn",
    ),
]  # fmt: skip


def services() -> list[SpanData]:
    """A request through three services, with a model that was cut off."""
    cut = {
        "gen_ai.response.finish_reasons": ["max_tokens"],
        "gen_ai.usage.output_tokens": 4_096,
        "prela.cost.usd": 0.06,
    }
    return [
        made(1, None, "POST /chat", at=0, ms=9_000, service="edge", attributes={"http.response.status_code": 502}),
        made(2, 1, "invoke_agent 計画 planner with a rather long name", SpanType.AGENT, at=3, ms=8_900, service="agents"),
        made(3, 2, "chat sonnet", SpanType.LLM, at=5, ms=4_000, service="agents", attributes=cut),
        made(
            4, 2, "search", SpanType.RETRIEVAL, at=4_100, ms=30, service="index", status=SpanStatus.ERROR,
            status_message="the index did not answer within 30 ms, and the second replica was not asked", attributes={
                "error.type": "TimeoutError", "http.response.status_code": 504,
            },
            events=[SpanEvent("retry", START + 4_110 * MS, {})],
        ),
    ]  # fmt: skip


def sections(screen: Screen) -> Iterator[tuple[str, list[Line]]]:
    now = START + 12 * SECOND
    yield "traces list", trace_list(ROWS, screen, now_ns=now)
    plain = [
        msgspec.structs.replace(row, service="", cost_usd=None, errors=0, input_tokens=0, output_tokens=0)
        for row in ROWS
    ]
    yield "traces list without what is empty", trace_list(plain, screen, now_ns=now)
    yield "traces tail", [one_line(row, screen) for row in ROWS]
    about = msgspec.structs.replace(decision(4), decided_at_ms=START // MS)
    for name, spans in (
        ("conversation", conversation()),
        ("failures", with_failures()),
        ("services", services()),
        ("loop", loop(12)),
        ("deep", deep(30)),
    ):
        head = head_line(TRACE, "error", "travel", START, 100 * MS, ["4 spans", "1.2k → 30", "$0.01"], screen)
        yield f"traces show: {name}", list(trace_lines(spans, about, head, screen))
    head = head_line(TRACE, "ok", "travel", START, 100 * MS, [], screen)
    yield "traces show --full: loop", list(trace_lines(loop(4), about, head, screen, full=True))
    yield "traces show --messages", list(message_lines(conversation(), screen))
    yield "traces show --span", list(span_lines(with_failures()[1], 2, screen))
    names = Column(
        title="model",
        cells=[("sonnet", ""), (screen.fit("模型 with a very long name indeed, of some vendor"), "")],
        is_name=True,
    )
    calls = Column(title="calls", cells=[("12 ± 3", ""), ("4,000", "")], right=True)
    costs = [
        Column(title=title, cells=[("$0.0123", ""), ("", "")], right=True) for title in ("p50", "p95", "p99", "cost")
    ]
    yield "traces stats", table([names, calls, *costs], screen)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    if hasattr(time, "tzset"):
        time.tzset()
    yield
    monkeypatch.undo()
    if hasattr(time, "tzset"):
        time.tzset()


def drawn(width: int | None, *, colour: bool = False, encoding: str = "utf-8") -> str:
    file = io.StringIO()
    screen = Screen(file=file, width=width, colour=colour, encoding=encoding)
    for title, lines in sections(screen):
        file.write(f"$ {title}\n")
        screen.show(lines)
        file.write("\n")
    return file.getvalue()


def compare(name: str, found: str) -> None:
    file = FOLDER / name
    if os.environ.get("PRELA_UPDATE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(found, encoding="utf-8")
    assert found == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", WIDTHS)
def test_what_people_see(width: int) -> None:
    found = drawn(width)
    compare(f"width-{width}.txt", found)
    titles = [f"$ {title}" for title, _ in sections(Screen(file=io.StringIO(), width=width))]
    assert [line for line in found.splitlines() if cell_len(line) > width and line not in titles] == []


def test_without_a_terminal_nothing_is_cut() -> None:
    found = drawn(None)
    compare("piped.txt", found)
    assert "…" not in found.replace("… 11 x the same", "").replace("█…", "")


@pytest.mark.parametrize("width", WIDTHS)
def test_colours_change_no_character(width: int) -> None:
    coloured = drawn(width, colour=True)
    compare(f"width-{width}-colour.txt", coloured)
    plain = coloured
    for code in ("1", "2", "31", "1;31", "32", "33", "36", "1;35", "1;36", "1;33", "1;34", "0"):
        plain = plain.replace(f"\x1b[{code}m", "")
    assert [line.rstrip() for line in plain.splitlines()] == [line.rstrip() for line in drawn(width).splitlines()]


def test_a_terminal_without_these_characters() -> None:
    found = drawn(80, encoding="ascii")
    compare("ascii.txt", found)
    found.encode("ascii")
    assert max(cell_len(line) for line in found.splitlines()) <= 80


@pytest.mark.parametrize("width", WIDTHS)
def test_five_columns_never_shrink(width: int) -> None:
    screen = Screen(file=io.StringIO(), width=width)
    lines = ["".join(text for text, _ in line) for line in trace_list(ROWS, screen, now_ns=START)]
    whole = "".join("".join(line.split()) for line in lines)
    ids = short_ids(row.trace_id for row in ROWS)
    assert len(set(ids.values())) == len(ROWS)
    for row in ROWS:
        (line,) = [line for line in lines if line.startswith(ids[row.trace_id] + " ")]
        assert row.trace_id.startswith(ids[row.trace_id])
        assert f" {row.status} " in line
    if width >= 120:  # each name is in one piece with the columns beside it, or continues below itself
        assert "x" * 30 in whole
    for line, part in ((lines[1], "243 ms"), (lines[2] if "1 m 03 s" in lines[2] else lines[3], "1 m 03 s")):
        assert part in line
