"""A batch is stored completely or not at all."""

import sqlite3

import pytest
from msgspec.structs import replace

from prela_stream.errors import SinkError
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader
from prela_stream.sinks.sqlite.sink import SqliteSink
from prela_stream.transport.base import TopicPartition
from tests.support.kept import SOURCE, batch, whole


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


async def test_batches_that_are_written_together_are_stored_together_or_not_at_all(options: SqliteOptions) -> None:
    sink = SqliteSink(options)
    other = TopicPartition(SOURCE.topic, 7)
    first = sink.prepare(batch(whole(1), next_offset=5))
    second = sink.prepare(replace(batch(whole(2), next_offset=9), source=other))
    await sink.write(batch(next_offset=1))
    blocker = sqlite3.connect(options.path, isolation_level=None)
    blocker.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON offsets WHEN new.partition = 7 BEGIN SELECT RAISE(ABORT, 'no room'); END"
    )
    announced: list[int] = []
    with pytest.raises(SinkError, match=r"cannot store a batch of .*, .*no room"):
        await sink.write_together([first, second], lambda: announced.append(1))
    assert announced == [1]
    async with SqliteReader(options) as reader:
        assert (await reader.totals())["traces"] == 0
        assert await sink.stored_offset(SOURCE) == 1
        blocker.execute("DROP TRIGGER refuse")
        blocker.close()
        await sink.write_together([first, second], lambda: announced.append(1))
        assert announced == [1, 1]
        assert (await reader.totals())["traces"] == 2
    assert (await sink.stored_offset(SOURCE), await sink.stored_offset(other)) == (5, 9)
    await sink.aclose()
