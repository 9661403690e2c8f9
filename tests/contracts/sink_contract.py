"""What every sink guarantees (`SinkContract`), and what a store guarantees through its reader (`StoreContract`), as tests.

The rows, one class for each type of the registry, are in test_sinks.py.
"""

import itertools
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from prela_stream.codec.sampled import KeptFragment
from prela_stream.codec.spans import decode_span
from prela_stream.errors import SinkError
from prela_stream.model.span import Resource, SpanData, SpanStatus
from prela_stream.sinks.base import Sink
from prela_stream.sinks.kept_trace import KeptTrace
from prela_stream.sinks.query import TraceQuery
from prela_stream.sinks.reader import TraceReader
from prela_stream.sinks.registry import SINK_TYPES, load
from prela_stream.sinks.settings import SinkSettings, read_sinks
from prela_stream.transport.base import TopicPartition
from tests.support.items import encode_span
from tests.support.kept import NOW, SECOND, SOURCE, batch, decision, fragment, fragments_of, span, trace_id, whole

GUARANTEES = ("exactly once", "at least once")
METHODS = ("write", "stored_offset", "aclose")
READER_METHODS = (
    "list_traces",
    "count",
    "histograms",
    "sessions",
    "statistics",
    "decided_totals",
    "get",
    "outline",
    "span",
    "decision",
    "tail",
    "newest_mark",
    "totals",
    "aclose",
    "__aenter__",
    "__aexit__",
)

HOSTILE = [
    "NUL \0 inside",
    "\x1b[31mred\x1b[0m \x07 \x9b1m",
    "'; DROP TABLE traces; --",
    '" OR 1=1 NEAR("a" "b") AND NOT *',
    "\ud7ff\ue000 \U0010ffff \u202e rtl",
    "[bold]markup[/bold] [/]",
    "%s {0} ${x}\r\n\u2028next",
    "",
    "x" * 100_000,
]

STRANGE: dict[str, Any] = {
    "bytes": b"\xff\x00",
    "largest": (1 << 64) - 1,
    "smallest": -(1 << 63),
    "not a number": float("nan"),
    "infinite": float("-inf"),
    "keys": {1: "one", b"two": 2, None: 3, 1.5: 4, False: 5},
    "time": datetime(2026, 11, 27, tzinfo=UTC),
    "extension": msgspec.msgpack.Ext(9, b"ext"),
    "deep": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["bottom"]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]],
}


class Written(msgspec.Struct, frozen=True, order=True):
    """A span as it is found in the destination of a sink."""

    trace_id: str
    span_id: str
    revision: int
    status: str
    name: str
    service: str
    city: str
    weight: float
    policy: str


def expected(trace: KeptTrace) -> list[Written]:
    """The spans of a trace as they must be found."""
    return [
        Written(
            trace_id=trace.trace_id,
            span_id=one.span_id,
            revision=one.revision,
            status=one.status,
            name=one.name,
            service=one.resource.service_name,
            city=one.attributes.get("city", ""),
            weight=trace.weight,
            policy=trace.decision.policy,
        )
        for one in trace.spans
    ]


class SinkContract:
    """What every sink guarantees. A row names its type, and how what was written is found again."""

    type: ClassVar[str]

    @pytest.fixture
    def destination(self) -> Any:
        """What the sink needs outside of its folder, such as a server; a row that needs one overrides this fixture."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path, destination: Any) -> None:
        table = {"type": self.type, **self.options(tmp_path / "folder")}
        found = read_sinks([table], str(tmp_path / "folder"))
        assert found.mistakes == []
        self.settings: SinkSettings = found.sinks[0]
        self.folder = tmp_path / "folder"

    def options(self, folder: Path) -> dict[str, Any]:
        """Options of the sink that the defaults do not give; all it writes lies within `folder`."""
        return {}

    async def written(self) -> list[Written]:
        """Every span in the destination, as a program that reads it finds them: with repeats, in any order."""
        msg = f"the row of the sink {self.type} in test_sinks.py has no written()"
        raise NotImplementedError(msg)

    def fault(self) -> AbstractContextManager[None]:
        """A transient fault of the destination before the first write. Default: a file lies where the folder should be."""

        @contextmanager
        def file_instead_of_folder() -> Iterator[None]:
            self.folder.write_text("in the way")
            yield
            self.folder.unlink()

        return file_instead_of_folder()

    @asynccontextmanager
    async def sink(self) -> AsyncIterator[Sink]:
        """A sink; a second one opens the same destination again."""
        sink: Sink = load(SINK_TYPES[self.type].sink)(self.settings.options)
        try:
            yield sink
        finally:
            await sink.aclose()

    async def found(self) -> list[Written]:
        """The spans in the destination for a reader who identifies them by their ids and takes the last report of each."""
        best: dict[tuple[str, str], Written] = {}
        for one in await self.written():
            known = best.get((one.trace_id, one.span_id))
            rank = (one.status != "PENDING", one.revision)
            if known is None or rank > (known.status != "PENDING", known.revision):
                best[one.trace_id, one.span_id] = one
        return sorted(best.values())

    def test_it_has_every_part_of_the_interface(self) -> None:
        sink = load(SINK_TYPES[self.type].sink)
        missing = [name for name in METHODS if not callable(getattr(sink, name, None))]
        assert missing == [], f"the sink {self.type} has no {', '.join(missing)}"
        assert isinstance(getattr(sink, "wants_decisions", None), bool), f"the sink {self.type} has no wants_decisions"

    def test_its_docstring_states_its_delivery_guarantee(self) -> None:
        text = " ".join((load(SINK_TYPES[self.type].sink).__doc__ or "").lower().split())
        assert any(one in text for one in GUARANTEES), (
            f"the docstring of the sink {self.type} names none of {GUARANTEES}"
        )

    async def test_making_one_opens_nothing(self) -> None:
        async with self.sink():
            assert not self.folder.exists()

    async def test_a_trace_is_durable_with_its_decision_after_write(self) -> None:
        async with self.sink() as sink:
            made = batch(whole(3), whole(4))
            await sink.write(made)
            assert await self.found() == sorted(itertools.chain(*map(expected, made.traces)))

    async def test_a_trace_of_many_fragments_is_written_whole(self) -> None:
        made = batch(*fragments_of(1, 80))
        async with self.sink() as sink:
            await sink.write(made)
            assert await self.found() == sorted(expected(made.traces[0]))
        assert len(await self.found()) == 80

    async def test_a_batch_that_comes_again_adds_nothing(self) -> None:
        first = batch(whole(1), whole(2), decisions=[decision(1)])
        async with self.sink() as sink:
            await sink.write(first)
            before = await self.found()
            await sink.write(first)
        async with self.sink() as sink:
            await sink.write(first)
            await sink.write(batch(whole(2)))
        assert await self.found() == before

    async def test_late_spans_and_better_reports_belong_to_their_trace(self) -> None:
        pending = span(1, 1, status=SpanStatus.PENDING, duration_ns=None, revision=4)
        ended = span(1, 1, revision=2)
        made = batch(
            fragment(decision(1), [span(1, 0), pending]),
            fragment(decision(1), [ended, span(1, 9)], late=True, fragment=7),
        )
        async with self.sink() as sink:
            await sink.write(made)
        found = await self.found()
        assert [one.span_id for one in found] == sorted(span(1, index).span_id for index in (0, 1, 9))
        assert {one.status for one in found} == {"SUCCESS"}

    async def test_a_batch_without_traces_is_written_too(self) -> None:
        async with self.sink() as sink:
            await sink.write(batch(next_offset=5))
            await sink.write(batch(whole(1), next_offset=6))
            await sink.write(batch(next_offset=7))
        assert len(await self.found()) == 2

    async def test_the_stored_offset_is_that_of_the_last_batch_or_always_none(self) -> None:
        other = TopicPartition("prela.sampled", 1)
        async with self.sink() as sink:
            assert await sink.stored_offset(SOURCE) is None
            await sink.write(batch(whole(1), next_offset=41))
            await sink.write(batch(next_offset=42))
            kept = await sink.stored_offset(SOURCE)
            assert kept in (None, 42)
            assert await sink.stored_offset(other) is None
        async with self.sink() as sink:
            assert await sink.stored_offset(SOURCE) == kept

    async def test_a_fault_is_raised_as_a_transient_one_and_the_batch_can_come_again(self) -> None:
        made = batch(whole(1), next_offset=9)
        async with self.sink() as sink:
            with self.fault():
                for _ in range(2):
                    with pytest.raises((SinkError, OSError)):
                        await sink.write(made)
            await sink.write(made)
            assert await self.found() == sorted(expected(made.traces[0]))

    async def test_hostile_text_is_found_unchanged(self) -> None:
        async with self.sink() as sink:
            for number, text in enumerate(HOSTILE, start=1):
                hostile = span(number, 0, name=text, status_message=text, attributes={text: text, "city": text})
                await sink.write(batch(fragment(decision(number, policy=text, reason=text), [hostile])))
        found = await self.found()
        assert [(one.name, one.city, one.policy) for one in found] == [(text, text, text) for text in HOSTILE]

    async def test_no_value_keeps_a_trace_from_being_written(self) -> None:
        strange = span(1, 0, attributes={"city": "Lisbon", **STRANGE})
        async with self.sink() as sink:
            await sink.write(batch(fragment(decision(1), [strange, span(1, 1)])))
        assert [one.name for one in await self.found()] == ["plan trip", "tool 1"]

    async def test_one_unreadable_span_never_costs_its_neighbours(self) -> None:
        good = whole(1)
        alien = (0, msgspec.Raw(encode_span(span(2, 7))))
        no_resource = (5, msgspec.Raw(encode_span(span(1, 7))))
        broken = (0, msgspec.Raw(msgspec.msgpack.encode([0, b"short", b"x", None])))
        huge = span(1, 8, revision=(1 << 31) - 1, start_ns=(1 << 62) - 1, duration_ns=(1 << 62) - 1)
        items = [broken, alien, *good.items, no_resource, (0, msgspec.Raw(encode_span(huge)))]
        async with self.sink() as sink:
            await sink.write(batch(msgspec.structs.replace(good, items=items)))
        assert [one.name for one in await self.found()] == ["plan trip", "tool 1", "tool 8"]

    async def test_closing_twice_is_fine(self) -> None:
        async with self.sink() as sink:
            await sink.aclose()
            await sink.write(batch(whole(1)))
            await sink.aclose()
            await sink.aclose()


async def everything(reader: TraceReader) -> list[object]:
    """All that a reader returns, without the marks of change; equal for equal contents."""
    rows = await reader.list_traces(TraceQuery(), sort="oldest", limit=10_000)
    traces = [await reader.get(row.trace_id) for row in rows]
    plain = [msgspec.structs.replace(row, stored=0) for row in rows]
    return [plain, [(one.decision, one.spans) for one in traces if one is not None], await reader.totals()]


class StoreContract(SinkContract):
    """What a store guarantees: a sink with a TraceReader."""

    def reader(self) -> TraceReader:
        """A reader of this test's store."""
        path = SINK_TYPES[self.type].reader
        assert path is not None
        reader: TraceReader = load(path)(self.settings.options)
        return reader

    async def written(self) -> list[Written]:
        """All spans that the reader returns."""
        found = []
        async with self.reader() as reader:
            for row in await reader.list_traces(TraceQuery(), limit=10_000):
                stored = await reader.get(row.trace_id)
                assert stored is not None
                found += expected(KeptTrace(decision=stored.decision, spans=stored.spans))
        return found

    def test_the_reader_has_every_part_of_the_interface(self) -> None:
        reader = self.reader()
        missing = [name for name in READER_METHODS if not callable(getattr(reader, name, None))]
        assert missing == [], f"the reader of the sink {self.type} has no {', '.join(missing)}"

    async def test_a_trace_is_read_as_it_was_sent(self) -> None:
        async with self.sink() as sink, self.reader() as reader:
            await sink.write(batch(whole(3)))
            stored = await reader.get(trace_id(3))
        assert stored is not None
        resource = Resource(service_name="travel", pid=7)
        assert stored.spans == [msgspec.structs.replace(span(3, index), resource=resource) for index in range(2)]
        assert stored.decision == decision(3)
        row = stored.row
        assert (row.root_name, row.service, row.spans, row.errors) == ("plan trip", "travel", 2, 0)
        assert (row.start_ns, row.duration_ns) == (span(3).start_ns, 100_000_000)
        assert (row.input_tokens, row.output_tokens, row.cost_usd) == (30, 3, 0.03)
        assert (row.kept_because, row.weight, row.trigger, row.complete) == (
            "slow: duration over 10 s", 2.0, "complete", True,
        )  # fmt: skip

    async def test_every_value_is_read_as_kept_traces_returns_it(self) -> None:
        made = batch(fragment(decision(1), [span(1, 0, attributes=STRANGE)]))
        async with self.sink() as sink, self.reader() as reader:
            await sink.write(made)
            stored = await reader.get(trace_id(1))
        assert stored is not None
        (sent,) = made.traces[0].spans
        assert stored.spans[0].attributes.keys() == STRANGE.keys()
        assert msgspec.msgpack.encode(stored.spans[0].attributes) == msgspec.msgpack.encode(sent.attributes)

    async def test_a_batch_that_comes_again_changes_no_row_and_no_mark(self) -> None:
        late = fragment(decision(1), [span(1, 5, status=SpanStatus.ERROR)], late=True, fragment=9)
        async with self.sink() as sink, self.reader() as reader:
            first = batch(whole(1), whole(2), late, decisions=[decision(1), decision(4, kept=False)])
            await sink.write(first)
            before = await everything(reader)
            mark = await reader.newest_mark()
            assert mark == (await reader.tail(0))[-1].stored
            await sink.write(first)
            await sink.write(first)
            assert await everything(reader) == before
            assert await reader.tail(mark) == []
            assert await reader.newest_mark() == mark

    async def test_the_order_of_traces_and_late_spans_does_not_matter(self) -> None:
        traces = [
            fragment(decision(1), [span(1, 0), span(1, 1), span(1, 2, status=SpanStatus.ERROR)]),
            fragment(decision(1), [span(1, 3, status=SpanStatus.PENDING, duration_ns=None)], late=True, fragment=7),
            fragment(decision(1), [span(1, 3, revision=1), span(1, 1)], late=True, fragment=8),
            fragment(
                decision(1, decision_id=b"again" + bytes(11), repeated=True, weight=0.0, decided_at_ms=NOW),
                [span(1, 4, duration_ns=3 * SECOND)],
            ),
            whole(2),
        ]
        seen = []
        for seed in range(6):
            shuffled = [*traces, *traces[:3]]
            random.Random(seed).shuffle(shuffled)
            for number, one in enumerate(shuffled):
                async with self.sink() as sink:
                    await sink.write(batch(self._under(one, 256 * seed), next_offset=number))
        async with self.reader() as reader:
            for seed in range(6):
                stored = await reader.get(trace_id(1 + 256 * seed))
                assert stored is not None
                row = stored.row
                seen.append((row.spans, row.errors, row.duration_ns, row.weight, row.cost_usd, len(stored.spans)))
                assert [one.revision for one in stored.spans] == [0, 0, 0, 1, 0]
                assert not stored.decision.repeated
            assert (await reader.totals())["kept"] == 18
        assert seen == [(5, 1, 100_000_000, 2.0, 0.02, 5)] * 6

    def _under(self, one: KeptFragment, shift: int) -> KeptFragment:
        """The same fragment, as of another trace."""
        number = int.from_bytes(one.decision.trace_id[:2], "big") + shift
        about = msgspec.structs.replace(
            one.decision,
            trace_id=bytes.fromhex(trace_id(number)),
            decision_id=one.decision.decision_id[:-2] + shift.to_bytes(2, "big"),
        )
        spans = [msgspec.structs.replace(decode_span(raw), trace_id=trace_id(number)) for _, raw in one.items]
        return msgspec.structs.replace(fragment(about, spans), fragment=one.fragment, late=one.late)

    async def test_an_ended_span_replaces_its_pending_report_and_never_the_other_way_round(self) -> None:
        pending = span(1, 1, status=SpanStatus.PENDING, duration_ns=None, revision=4)
        async with self.sink() as sink, self.reader() as reader:
            await sink.write(batch(fragment(decision(1), [span(1, 0), pending])))
            stored = await reader.get(trace_id(1))
            assert stored is not None
            assert stored.spans[1].status == SpanStatus.PENDING
            await sink.write(batch(fragment(decision(1), [span(1, 1)], late=True)))
            await sink.write(batch(fragment(decision(1), [pending], late=True)))
            stored = await reader.get(trace_id(1))
            assert stored is not None
            assert [one.status for one in stored.spans] == [SpanStatus.SUCCESS] * 2
            assert stored.row.spans == 2

    async def test_late_spans_extend_the_row_and_the_tail(self) -> None:
        async with self.sink() as sink, self.reader() as reader:
            await sink.write(batch(whole(1), whole(2)))
            mark = await reader.newest_mark()
            late = span(1, 9, status=SpanStatus.ERROR, duration_ns=5 * SECOND, name="zebra")
            await sink.write(batch(fragment(decision(1), [late], late=True)))
            (row,) = await reader.tail(mark)
            assert (row.trace_id, row.spans, row.errors) == (trace_id(1), 3, 1)
            assert row.duration_ns == 100_000_000, "the duration is that of the root"
            for words in ("zebra", "zebra Lisbon1"):
                assert [one.trace_id for one in await reader.list_traces(TraceQuery(text=words))] == [trace_id(1)]

    @pytest.mark.parametrize("late", [False, True])
    async def test_start_and_duration_are_those_of_the_root_whatever_other_clocks_read(self, late: bool) -> None:
        root = span(1, 0)
        others = [
            span(1, 1, start_ns=root.start_ns - 40 * SECOND),
            span(1, 2, start_ns=0),
            span(1, 3, start_ns=root.start_ns + 40 * SECOND),
        ]
        assert await self._times(*((others, [root]) if late else ([*others, root],))) == (root.start_ns, 100_000_000)

    @pytest.mark.parametrize("late", [False, True])
    async def test_a_span_whose_parent_is_in_another_system_is_the_root_if_it_is_the_only_one(self, late: bool) -> None:
        root = span(1, 0, parent_span_id="ab" * 8)
        child = span(1, 1, start_ns=root.start_ns - 40 * SECOND)
        assert await self._times(*(([child], [root]) if late else ([child, root],))) == (root.start_ns, 100_000_000)

    @pytest.mark.parametrize("late", [False, True])
    async def test_without_a_root_a_trace_covers_its_spans_that_have_a_start(self, late: bool) -> None:
        spans = [span(1, 1), span(1, 2, start_ns=0), span(1, 3, duration_ns=SECOND)]
        expected = (spans[0].start_ns, SECOND + spans[2].start_ns - spans[0].start_ns)
        assert await self._times(*((spans[:2], spans[2:]) if late else (spans,))) == expected

    async def test_a_missing_start_is_not_1970(self) -> None:
        assert await self._times([span(1, 0, start_ns=0)]) == (NOW + SECOND - 100_000_000, 100_000_000)

    async def _times(self, *parts: Sequence[SpanData]) -> tuple[int, int]:
        """Start and duration of trace 1, of which all parts but the first are late."""
        about = decision(1, summary=msgspec.structs.replace(decision(1).summary, start_ns=0, duration_ns=0))
        async with self.sink() as sink, self.reader() as reader:
            for number, spans in enumerate(parts):
                await sink.write(batch(fragment(about, spans, late=number > 0, fragment=number)))
            (row,) = await reader.list_traces(TraceQuery())
        return row.start_ns, row.duration_ns

    async def test_dropped_traces_are_known_by_their_decision_alone(self) -> None:
        dropped = decision(5, kept=False, weight=0.0, reason="not interesting")
        async with self.sink() as sink, self.reader() as reader:
            await sink.write(batch(whole(1), decisions=[dropped, decision(1)]))
            assert await reader.decision(trace_id(5)) == dropped
            assert await reader.decision(trace_id(1)) == decision(1)
            assert await reader.decision(trace_id(6)) is None
            assert await reader.get(trace_id(5)) is None
            totals = await reader.totals()
            assert totals == {"traces": 1, "spans": 2, "decisions": 2, "kept": 1, "dropped": 1}

    async def test_hostile_text_is_read_unchanged_and_searched_for_safely(self) -> None:
        async with self.sink() as sink, self.reader() as reader:
            for number, text in enumerate(HOSTILE, start=1):
                summary = msgspec.structs.replace(decision(number).summary, root_name=text, service=text)
                about = decision(number, policy=text, reason=text, summary=summary)
                attributes = {text: text, "list": [text]}
                hostile = span(number, 0, name=text, status_message=text, attributes=attributes)
                await sink.write(batch(fragment(about, [hostile])))
            for number, text in enumerate(HOSTILE, start=1):
                stored = await reader.get(trace_id(number))
                assert stored is not None
                assert (stored.spans[0].name, stored.spans[0].attributes[text]) == (text, text)
                assert stored.decision.reason == text
                found = await reader.list_traces(TraceQuery(text=text))
                if any(character.isalnum() for character in text):
                    assert trace_id(number) in [row.trace_id for row in found]
                for where in (TraceQuery(service=text), TraceQuery(policy=text)):
                    assert [row.trace_id for row in await reader.list_traces(where)] == [trace_id(number)]
            assert await reader.list_traces(TraceQuery(text="\udcff lone", service="\ud800")) == []
            assert (await reader.totals())["traces"] == len(HOSTILE)

    async def test_reading_goes_on_while_another_writes(self) -> None:
        async with self.sink() as sink, self.reader() as reader:
            await sink.write(batch(whole(1)))
            for number in range(2, 12):
                mark = await reader.newest_mark()
                await sink.write(batch(whole(number)))
                assert len(await reader.list_traces(TraceQuery())) == number
                assert [row.trace_id for row in await reader.tail(mark)] == [trace_id(number)]

    async def test_a_reader_can_be_closed_twice(self) -> None:
        async with self.sink() as sink:
            await sink.write(batch(whole(1)))
        reader = self.reader()
        assert await reader.totals()
        await reader.aclose()
        await reader.aclose()
