"""Pages of traces: every filter and sort finds what a plain search finds."""

import itertools

import msgspec
import pytest

from prela_stream.errors import ConfigurationError
from prela_stream.sinks.query import SortKey, TraceQuery, TraceRow
from prela_stream.sinks.sqlite import list_query, matching
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader
from prela_stream.sinks.sqlite.sink import SqliteSink
from tests.support.kept import NOW, SECOND, batch, decision, fragment, span, trace_id, whole
from tests.support.stores import fill


def matches(row: TraceRow, where: TraceQuery) -> bool:
    return (
        (where.since_ns is None or row.start_ns >= where.since_ns)
        and (where.until_ns is None or row.start_ns < where.until_ns)
        and (where.service is None or row.service == where.service)
        and (where.name is None or row.root_name == where.name)
        and (where.errors is None or (row.errors > 0) == where.errors)
        and (where.min_duration_ms is None or row.duration_ns >= where.min_duration_ms * 1e6)
        and ((where.text is None and not where.attributes) or row.spans > 0)  # each span has them
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
    monkeypatch.setattr(matching, "MOST_READ", few)
    monkeypatch.setattr(matching, "_CHUNK", 3)
    await fill(options)
    parts: list[dict[str, object]] = [
        {}, {"service": "service 1"}, {"name": "agent 2"}, {"errors": True}, {"errors": False},
        {"min_duration_ms": 20_000.0}, {"policy": "policy 1"}, {"since_ns": NOW + 20 * SECOND},
        {"until_ns": NOW + 40 * SECOND}, {"service": "unknown"}, {"text": "needle"}, {"attributes": ("service.name=travel",)},
    ]  # fmt: skip
    async with SqliteReader(options) as reader:
        every = await reader.list_traces(TraceQuery(), limit=1_000)
        assert len(every) == 60
        for first, second in itertools.product(parts, parts):
            where = msgspec.convert({**first, **second}, TraceQuery)
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
    monkeypatch.setattr(matching, "MOST_READ", few)
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
            rows = await reader.list_traces(TraceQuery(text=words, service="travel"), sort="oldest")
            assert [row.trace_id for row in rows] == [trace_id(number) for number in numbers], words
        assert await reader.list_traces(TraceQuery(text="needle", service="unknown")) == []
        assert len(await reader.list_traces(TraceQuery(text="  "))) == 3


async def test_wrong_pages_are_refused(options: SqliteOptions) -> None:
    await fill(options, 3)
    async with SqliteReader(options) as reader:
        with pytest.raises(ConfigurationError, match="sort: expected one of newest"):
            await reader.list_traces(TraceQuery(), sort="id; DROP TABLE traces")  # type: ignore[arg-type]  # what is tested
        with pytest.raises(ConfigurationError, match="expected 0 or more"):
            await reader.list_traces(TraceQuery(), limit=-1)
        assert await reader.list_traces(TraceQuery(since_ns=10**30), limit=10**30) == []
        assert await reader.list_traces(TraceQuery(min_duration_ms=1e300)) == []
