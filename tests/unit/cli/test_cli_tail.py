"""`prela-stream traces tail` on a store that is deleted and created again while it follows."""

import shutil
from pathlib import Path

import anyio
import pytest

from prela_stream.cli.traces import new_traces
from prela_stream.errors import ConfigurationError
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader
from prela_stream.sinks.sqlite.sink import SqliteSink
from tests.support.kept import batch, trace_id, whole
from tests.support.processes import DEADLINE


async def test_it_waits_for_a_deleted_store_and_prints_the_traces_of_the_new_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = SqliteOptions(path=str(tmp_path / "prela" / "traces.db"))
    sink = SqliteSink(options)
    await sink.write(batch(*map(whole, range(1, 6))))
    found: list[str] = []

    async def follow() -> None:
        async with SqliteReader(options) as reader:
            async for row in new_traces(reader, 2, 0.01):
                found.append(row.trace_id)  # noqa: PERF401 - watched while it grows

    async def until(count: int) -> None:
        with anyio.fail_after(DEADLINE):
            while len(found) < count:
                await anyio.sleep(0.01)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await until(2)
        shutil.rmtree(tmp_path / "prela")
        printed = ""
        with anyio.fail_after(DEADLINE):
            while not printed:
                await anyio.sleep(0.01)
                printed = capsys.readouterr().err
        await sink.write(batch(whole(7)))
        await until(3)
        tasks.cancel_scope.cancel()
    await sink.aclose()
    assert found == [trace_id(number) for number in (4, 5, 7)]
    assert "there is no trace store" in printed
    assert capsys.readouterr().err == "", "it is printed once"


async def test_a_store_that_does_not_exist_at_the_start_is_an_error(tmp_path: Path) -> None:
    async with SqliteReader(SqliteOptions(path=str(tmp_path / "traces.db"))) as reader:
        with pytest.raises(ConfigurationError, match="there is no trace store"):
            async for _ in new_traces(reader, 2, 0.01):
                pass
