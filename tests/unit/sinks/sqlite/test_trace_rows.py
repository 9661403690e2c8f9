"""The columns of a trace are the same, whether its spans come in one batch or one by one."""

from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.model.span import SpanData, SpanStatus
from prela_stream.sinks.query import TraceQuery, TraceRow
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader
from prela_stream.sinks.sqlite.sink import SqliteSink
from tests.support.kept import SECOND, batch, decision, fragment, span

ABOUT = decision(1, summary=msgspec.structs.replace(decision(1).summary, root_name="", start_ns=0, duration_ns=0))
spans = st.builds(
    lambda index, parent, start, ended: span(
        1,
        index,
        parent_span_id=None if parent is None else f"{parent + 1:016x}",
        start_ns=start * SECOND,
        status=SpanStatus.SUCCESS if ended else SpanStatus.PENDING,
        duration_ns=index * SECOND if ended else None,
    ),
    st.integers(0, 5),
    st.none() | st.integers(0, 7),
    st.integers(0, 4),
    st.booleans(),
)


async def row_of(*parts: list[SpanData]) -> TraceRow:
    """The row of a trace whose spans come in these parts."""
    with TemporaryDirectory() as folder:
        options = SqliteOptions(path=str(Path(folder) / "traces.db"))
        sink = SqliteSink(options)
        for number, part in enumerate(parts):
            await sink.write(batch(fragment(ABOUT, part, late=number > 0, fragment=number)))
        await sink.aclose()
        async with SqliteReader(options) as reader:
            (row,) = await reader.list_traces(TraceQuery())
    return msgspec.structs.replace(row, stored=0)


@given(st.lists(spans, min_size=1, max_size=5, unique_by=lambda one: one.span_id))
async def test_a_row_is_a_function_of_the_spans(made: list[SpanData]) -> None:
    assert (
        await row_of(made) == await row_of(*([one] for one in made)) == await row_of(*([one] for one in reversed(made)))
    )
