"""Traces by the beginning of their id, and a store that does not exist."""

import anyio
import msgspec
import pytest

from prela_stream.errors import ConfigurationError, QueryTimeoutError
from prela_stream.sinks.query import TraceQuery
from prela_stream.sinks.sqlite import names
from prela_stream.sinks.sqlite import reader as reader_module
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader
from prela_stream.sinks.sqlite.sink import SqliteSink
from tests.support.kept import batch, decision, fragment, trace_id, whole
from tests.support.stores import fill


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


async def test_the_error_for_a_missing_store_names_what_to_start(options: SqliteOptions) -> None:
    async with SqliteReader(options) as reader:
        with pytest.raises(ConfigurationError, match=r"there is no trace store at .*prela-stream dev"):
            await reader.totals()
        assert not await anyio.Path(options.path).exists()
        await fill(options, 1)
        assert (await reader.totals())["traces"] == 1


async def test_a_query_that_takes_too_long_is_stopped_and_the_reader_goes_on(
    options: SqliteOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(options)
    monkeypatch.setattr(reader_module, "_INSTRUCTIONS", 10)
    async with SqliteReader(msgspec.structs.replace(options, query_s=0.0)) as reader:
        with pytest.raises(QueryTimeoutError, match="took longer than 0 s and was stopped: narrow it"):
            await reader.list_traces(TraceQuery(text="needle"))
    async with SqliteReader(options) as reader:
        assert len(await reader.list_traces(TraceQuery(text="needle"), limit=1_000)) == 48


async def test_names_are_matched_in_linear_time(options: SqliteOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(options)
    for most in (2_000, 1):  # 1: there are too many names, and each trace is compared
        monkeypatch.setattr(names, "_MOST_READ", most)
        async with SqliteReader(options) as reader:
            assert len(await reader.list_traces(TraceQuery(name="a*t ?"), limit=1_000)) == 60
            assert len(await reader.list_traces(TraceQuery(name="*1"), limit=1_000)) == 20
            assert await reader.list_traces(TraceQuery(name="*" + "a*" * 99 + "b")) == []
    assert not names.matches("*a" * 50 + "b", "a" * 200), "with GLOB of SQLite this would take years"
