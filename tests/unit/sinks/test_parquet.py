"""Parquet files: their partitions, their names, and the queries of docs/sinks.md in DuckDB."""

import re
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from prela_stream.errors import ConfigurationError
from prela_stream.model.decision import TraceSummary
from prela_stream.model.span import SpanStatus, SpanType
from prela_stream.sinks.parquet import ParquetOptions, ParquetSink
from tests.support.kept import SECOND, batch, decision, fragment, span, trace_id, whole

PAGE = Path(__file__).parents[3] / "docs/sinks.md"
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def sink(tmp_path: Path) -> ParquetSink:
    return ParquetSink(ParquetOptions(path=str(tmp_path / "out")))


def files(tmp_path: Path) -> list[str]:
    return sorted(str(file.relative_to(tmp_path / "out").parent) for file in tmp_path.glob("out/*/*/*/*.parquet"))


async def test_files_are_partitioned_by_day_and_service(sink: ParquetSink, tmp_path: Path) -> None:
    day = 1_790_000_000 * SECOND
    places = [("travel", day), ("a/../b =", day), ("", day + 86_400 * SECOND), ("é" * 99, day)]
    made = [
        decision(number, summary=TraceSummary(service=service, start_ns=start))
        for number, (service, start) in enumerate(places)
    ]  # fmt: skip
    await sink.write(batch(*(fragment(one, [span(at)]) for at, one in enumerate(made)), decisions=made))
    tables = {
        f"{table}/date=2026-09-{day}/service={service}"
        for table in ("spans", "decisions")
        for day, service in [("21", "travel"), ("21", "a%2F..%2Fb %3D"), ("22", "__HIVE_DEFAULT_PARTITION__")]
    }
    assert tables < set(files(tmp_path))
    assert len(files(tmp_path)) == 8
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT DISTINCT date::VARCHAR, service FROM read_parquet(?, hive_partitioning = true)",
            [str(tmp_path / "out/spans/*/*/*.parquet")],
        ).fetchall()
    assert {("2026-09-21", "travel"), ("2026-09-21", "a/../b ="), ("2026-09-22", None)} < set(found)


async def test_the_same_batch_replaces_its_files_and_another_one_with_its_offset_does_not(
    sink: ParquetSink, tmp_path: Path
) -> None:
    for _ in range(2):
        await sink.write(batch(whole(1), next_offset=4))
    assert len(files(tmp_path)) == 1
    await sink.write(batch(whole(2), next_offset=4))
    assert len(files(tmp_path)) == 2
    assert not list(tmp_path.glob("out/*/*/*/.*"))


async def test_a_missing_library_is_named(sink: ParquetSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'prela-stream\[parquet\]'"):
        await sink.write(batch(whole(1)))


async def test_the_queries_of_the_page_find_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sink = ParquetSink(ParquetOptions())
    model = {"gen_ai.request.model": "m", "gen_ai.usage.output_tokens": 5, "city": "Porto"}
    failed = {"gen_ai.tool.name": "search", "error.type": "Timeout"}
    kept = fragment(
        decision(1, weight=4.0),
        [
            span(1),
            span(1, 1, span_type=SpanType.LLM, duration_ns=SECOND, attributes=model),
            span(1, 2, status=SpanStatus.ERROR, attributes=failed),
        ],
    )
    decisions = [decision(1, weight=4.0), decision(2, kept=False, weight=0.0)]
    await sink.write(batch(kept, decisions=decisions))
    await sink.write(batch(kept, decisions=decisions, next_offset=9))  # a crash repeats a batch within another one
    answers: list[list[tuple[Any, ...]]] = []
    with duckdb.connect() as connection:
        answers.extend(connection.execute(query).fetchall() for query in QUERIES)
    assert len(answers) == 5
    traffic, policies, models, tools, cities = answers
    assert traffic == [("travel", 2, 1, 0, pytest.approx(0.03))]
    assert policies == [("slow", False, 1, 0.5), ("slow", True, 1, 0.5)]
    assert models == [("m", 4.0, 20.0, 1_000.0)]
    assert tools == [("search", "Timeout", 2, trace_id(1))]
    assert [(row[0], row[1], row[3]) for row in cities] == [(trace_id(1), "plan trip", "Lisbon1")] * 2
