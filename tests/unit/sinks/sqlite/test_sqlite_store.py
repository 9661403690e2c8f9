"""What only the SQLite store has: filters and sorts, id prefixes, retention, files of other programs."""

import itertools
import sqlite3
import stat
import time
from pathlib import Path

import anyio
import msgspec
import pytest

from prela_stream.errors import ConfigurationError, SinkError
from prela_stream.model.span import SpanStatus
from prela_stream.sinks.base import SortKey, TraceFilter, TraceRow
from prela_stream.sinks.sqlite import list_query
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader
from prela_stream.sinks.sqlite.search import match_query
from prela_stream.sinks.sqlite.sink import SqliteSink
from tests.support.kept import NOW, SECOND, SOURCE, batch, decision, fragment, span, trace_id, whole


@pytest.fixture
def options(tmp_path: Path) -> SqliteOptions:
    return SqliteOptions(path=str(tmp_path / "traces.db"))


async def fill(options: SqliteOptions, count: int = 60) -> None:
    sink = SqliteSink(options)
    fragments = []
    for number in range(1, count + 1):
        summary = msgspec.structs.replace(
            decision(number).summary,
            root_name=f"agent {number % 3}",
            service=f"service {number % 4}",
            cost_usd=None if number % 5 == 0 else (number * 37 % 100) / 10,
            input_tokens=number * 53 % 97,
        )
        about = decision(number, policy=f"policy {number % 2}", summary=summary)
        status = SpanStatus.ERROR if number % 7 == 0 else SpanStatus.SUCCESS
        spans = [
            span(number, index, status=status, duration_ns=(number * 31 % 50) * SECOND) for index in range(number % 5)
        ]
        fragments.append(fragment(about, spans))
    await sink.write(batch(*fragments))
    await sink.aclose()


def matches(row: TraceRow, where: TraceFilter) -> bool:
    return (
        (where.since_ns is None or row.start_ns >= where.since_ns)
        and (where.until_ns is None or row.start_ns < where.until_ns)
        and (where.service is None or row.service == where.service)
        and (where.name is None or row.root_name == where.name)
        and (where.errors is None or (row.errors > 0) == where.errors)
        and (where.min_duration_ms is None or row.duration_ns >= where.min_duration_ms * 1e6)
        and (where.policy is None or row.kept_because.startswith(f"{where.policy}:"))
    )


SORTS: dict[SortKey, object] = {
    "newest": lambda row: -row.start_ns,
    "oldest": lambda row: row.start_ns,
    "slowest": lambda row: -row.duration_ns,
    "costliest": lambda row: -(row.cost_usd if row.cost_usd is not None else -1),
    "most_tokens": lambda row: -(row.input_tokens + row.output_tokens),
    "most_spans": lambda row: -row.spans,
}


@pytest.mark.parametrize("few", [0, 10, 10_000])
async def test_every_filter_and_sort_finds_what_a_plain_search_finds(
    options: SqliteOptions, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(list_query, "FEW", few)  # 0: every page is a walk; 10,000: none is
    await fill(options)
    parts: list[dict[str, object]] = [
        {}, {"service": "service 1"}, {"name": "agent 2"}, {"errors": True}, {"errors": False},
        {"min_duration_ms": 20_000.0}, {"policy": "policy 1"}, {"since_ns": NOW + 20 * SECOND},
        {"until_ns": NOW + 40 * SECOND}, {"service": "unknown"},
    ]  # fmt: skip
    async with SqliteReader(options) as reader:
        every = await reader.list_traces(TraceFilter(), limit=1_000)
        assert len(every) == 60
        for first, second in itertools.product(parts, parts):
            where = msgspec.convert({**first, **second}, TraceFilter)
            expected = [row for row in every if matches(row, where)]
            for sort, key in SORTS.items():
                found = await reader.list_traces(where, sort=sort, limit=1_000)
                assert sorted(row.trace_id for row in found) == sorted(row.trace_id for row in expected)
                assert found == sorted(found, key=key)  # type: ignore[call-overload]  # a lambda a sort
                paged = [await reader.list_traces(where, sort=sort, limit=7, offset=skip) for skip in (0, 7)]
                assert [row for page in paged for row in page] == found[:14]


@pytest.mark.parametrize("few", [0, 10_000])
async def test_words_are_found_in_every_text_and_together_with_other_filters(
    options: SqliteOptions, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(list_query, "FEW", few)
    sink = SqliteSink(options)
    wanted = span(2, 1, status_message="Rate-Limited by käse_server", name="search_flights")
    await sink.write(batch(whole(1), fragment(decision(2), [span(2, 0), wanted]), whole(3)))
    await sink.aclose()
    finds = {
        "rate limited": [2], "KASE": [2], "search_flights": [2], "Lisbon1": [1], "lisb*": [1, 2, 3], "needle haystack": [1, 2, 3],
        "lisbon2 rate": [2], "lisbon1 rate": [], "note": [1, 2, 3], "---": [], "*": [], "need": [],
    }  # fmt: skip
    async with SqliteReader(options) as reader:
        for words, numbers in finds.items():
            rows = await reader.list_traces(TraceFilter(text=words, service="travel"), sort="oldest")
            assert [row.trace_id for row in rows] == [trace_id(number) for number in numbers], words
        assert await reader.list_traces(TraceFilter(text="needle", service="unknown")) == []
        assert len(await reader.list_traces(TraceFilter(text="  "))) == 3


def test_a_query_is_made_of_quoted_words_alone() -> None:
    assert match_query('echo "hi" OR drop* -- \0x') == '"echo" AND """hi""" AND "OR" AND "drop"* AND "x"'
    assert match_query("() - *") is None


async def test_a_prefix_names_one_trace_or_the_error_names_two(options: SqliteOptions) -> None:
    sink = SqliteSink(options)
    await sink.write(batch(whole(0x1234), whole(0x1235), decisions=[decision(0x9999, kept=False)]))
    await sink.aclose()
    async with SqliteReader(options) as reader:
        for prefix in ("1234", "12340", trace_id(0x1234), trace_id(0x1234).upper()):
            stored = await reader.get(prefix)
            assert stored is not None
            assert stored.row.trace_id == trace_id(0x1234)
        assert await reader.get("abcd") is None
        dropped = await reader.decision("9999")
        assert dropped is not None
        assert not dropped.kept
        for wrong in ("", "123", "12g4", "1234" * 9, "١٢٣٤"):
            with pytest.raises(ConfigurationError, match="32 hex digits"):
                await reader.get(wrong)
        sink = SqliteSink(options)
        twin = decision(7, trace_id=bytes.fromhex("1234" + "f" * 28))
        await sink.write(batch(fragment(twin, [])))
        await sink.aclose()
        with pytest.raises(ConfigurationError, match="several trace ids begin with '1234'"):
            await reader.get("1234")


async def test_wrong_pages_are_refused(options: SqliteOptions) -> None:
    await fill(options, 3)
    async with SqliteReader(options) as reader:
        with pytest.raises(ConfigurationError, match="sort: expected one of newest"):
            await reader.list_traces(TraceFilter(), sort="id; DROP TABLE traces")  # type: ignore[arg-type]  # what is tested
        with pytest.raises(ConfigurationError, match="expected 0 or more"):
            await reader.list_traces(TraceFilter(), limit=-1)
        assert await reader.list_traces(TraceFilter(since_ns=10**30), limit=10**30) == []
        assert await reader.list_traces(TraceFilter(min_duration_ms=1e300)) == []


async def test_old_traces_are_deleted_with_everything_that_belongs_to_them(tmp_path: Path) -> None:
    options = SqliteOptions(path=str(tmp_path / "traces.db"), retention_days=1)
    now = time.time_ns()
    old, fresh = now - 2 * 86_400 * SECOND, now - 3_600 * SECOND
    sink = SqliteSink(options)
    for number, start in ((1, old), (2, fresh), (3, old)):
        summary = msgspec.structs.replace(decision(number).summary, start_ns=start)
        about = decision(number, summary=summary, decided_at_ms=start // 1_000_000)
        dropped = decision(number + 10, kept=False, decided_at_ms=start // 1_000_000)
        await sink.write(batch(fragment(about, [span(number, start_ns=start)]), decisions=[about, dropped]))
        sink._next_purge = 0.0  # due with the next batch
    await sink.write(batch())
    await sink.aclose()
    async with SqliteReader(options) as reader:
        assert [row.trace_id for row in await reader.list_traces(TraceFilter())] == [trace_id(2)]
        assert await reader.decision(trace_id(1)) is None
        assert await reader.decision(trace_id(11)) is None
        assert await reader.decision(trace_id(12)) is not None
        assert await reader.list_traces(TraceFilter(text="Lisbon1")) == []
        assert await reader.totals() == {"traces": 1, "spans": 1, "decisions": 2, "kept": 1, "dropped": 1}
    connection = sqlite3.connect(options.path)
    for table in ("spans", "trace_text"):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,)
    connection.close()


async def test_its_files_are_private(options: SqliteOptions) -> None:
    sink = SqliteSink(options)
    assert await sink.stored_offset(SOURCE) is None
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in Path(options.path).parent.iterdir()}
    await sink.aclose()
    assert modes == dict.fromkeys(("traces.db", "traces.db-shm", "traces.db-wal"), 0o600)


async def test_the_error_for_a_missing_store_names_what_to_start(options: SqliteOptions) -> None:
    async with SqliteReader(options) as reader:
        with pytest.raises(ConfigurationError, match=r"there is no trace store at .*prela-stream dev"):
            await reader.totals()
        assert not await anyio.Path(options.path).exists()
        await fill(options, 1)
        assert (await reader.totals())["traces"] == 1


async def test_files_of_other_programs_are_not_changed(options: SqliteOptions) -> None:
    path = anyio.Path(options.path)
    reader, sink = SqliteReader(options), SqliteSink(options)
    await path.write_text("dear diary " * 500)
    for question in (reader.totals, lambda: sink.write(batch())):
        with pytest.raises(ConfigurationError, match="no SQLite file"):
            await question()
    assert (await path.read_text()).startswith("dear diary")
    await path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE diary (day TEXT)")
    connection.close()
    for question in (reader.totals, lambda: sink.write(batch())):
        with pytest.raises(ConfigurationError, match="of another program, no trace store"):
            await question()
    await path.unlink()
    await fill(options, 1)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    for question in (reader.totals, lambda: sink.write(batch())):
        with pytest.raises(ConfigurationError, match="layout version 99, this release reads version 1"):
            await question()
    await reader.aclose()
    await sink.aclose()


async def test_a_batch_that_sqlite_refuses_leaves_nothing_and_can_be_written_again(options: SqliteOptions) -> None:
    sink = SqliteSink(options)
    await sink.write(batch(whole(1), next_offset=1))
    blocker = sqlite3.connect(options.path)
    blocker.execute("CREATE TRIGGER refuse BEFORE INSERT ON offsets BEGIN SELECT RAISE(ABORT, 'no room'); END")
    blocker.commit()
    with pytest.raises(SinkError, match=r"cannot store a batch of .*no room"):
        await sink.write(batch(whole(2), next_offset=2))
    async with SqliteReader(options) as reader:
        assert (await reader.totals())["traces"] == 1
        blocker.execute("DROP TRIGGER refuse")
        blocker.commit()
        blocker.close()
        await sink.write(batch(whole(2), next_offset=2))
        assert await reader.totals() == {"traces": 2, "spans": 4, "decisions": 2, "kept": 2, "dropped": 0}
    await sink.aclose()
