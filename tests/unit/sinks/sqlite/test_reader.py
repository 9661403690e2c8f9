"""Traces by the beginning of their id, and a store that does not exist."""

import anyio
import pytest

from prela_stream.errors import ConfigurationError
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
