"""What every sink and its reader promise, as tests. A test class per implementation inherits from `SinkContract`."""

import random
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import msgspec

from prela_stream.codec.sampled import KeptFragment, decode_kept, encode_kept
from prela_stream.codec.spans import decode_span, encode_resource
from prela_stream.model.decision import Decision, TraceSummary, Trigger
from prela_stream.model.span import COUNTED, Resource, SpanData, SpanEvent, SpanStatus, SpanType
from prela_stream.sinks.base import Sink, SinkBatch, TraceFilter, TraceReader
from prela_stream.transport.base import TopicPartition
from tests.support.items import encode_span

SOURCE = TopicPartition("prela.sampled", 0)
SECOND = 1_000_000_000
NOW = 1_790_000_000 * SECOND

HOSTILE = [
    "NUL \0 inside",
    "\x1b[31mred\x1b[0m \x07 \x9b1m",
    "'; DROP TABLE traces; --",
    '" OR 1=1 NEAR("a" "b") AND NOT *',
    "\ud7ff\ue000 \U0010ffff \u202e rtl",
    "[bold]markup[/bold] [/]",
    "%s {0} ${x}",
    "",
    "x" * 100_000,
]


def trace_id(number: int) -> str:
    """A trace id whose first digits tell the numbers apart."""
    return f"{number:04x}" + f"{number * 7919:028x}"


def span(number: int, index: int = 0, **changes: object) -> SpanData:
    """The span `index` of trace `number`: an agent, then its tools."""
    base = SpanData(
        trace_id=trace_id(number),
        span_id=f"{index + 1:016x}",
        parent_span_id=None if index == 0 else f"{1:016x}",
        name="plan trip" if index == 0 else f"tool {index}",
        span_type=SpanType.AGENT if index == 0 else SpanType.TOOL,
        status=SpanStatus.SUCCESS,
        start_ns=NOW + number * SECOND + index * 1_000_000,
        duration_ns=(100 - index) * 1_000_000,
        flags=0 if index == 0 else COUNTED,
        attributes={"city": f"Lisbon{number}", "nested": {"list": ["needle"]}},
        events=[SpanEvent("note", NOW, {"text": "haystack"})],
    )
    return msgspec.structs.replace(base, **changes)


def decision(number: int, **changes: object) -> Decision:
    """A decision to keep trace `number`, of two spans."""
    base = Decision(
        trace_id=bytes.fromhex(trace_id(number)),
        decision_id=number.to_bytes(16, "big"),
        kept=True,
        probability=0.5,
        threshold=1 << 55,
        weight=2.0,
        policy="slow",
        reason="duration over 10 s",
        trigger=Trigger.COMPLETE,
        complete=True,
        first_offset=number,
        cut_offset=number + 1,
        decided_at_ms=(NOW + number * SECOND) // 1_000_000,
        policy_version="v1",
        summary=TraceSummary(
            root_name="plan trip",
            service="travel",
            start_ns=NOW + number * SECOND,
            duration_ns=100_000_000,
            spans=2,
            input_tokens=10 * number,
            output_tokens=number,
            cost_usd=0.01 * number,
        ),
    )
    return msgspec.structs.replace(base, **changes)


def fragment(about: Decision, spans: Sequence[SpanData], **changes: object) -> KeptFragment:
    """A Record of `sampled`, as a sink gets it."""
    made = KeptFragment(
        decision=about,
        resources=[msgspec.Raw(encode_resource(Resource(service_name="travel", pid=7)))],
        items=[(0, msgspec.Raw(encode_span(one))) for one in spans],
    )
    return decode_kept(encode_kept(msgspec.structs.replace(made, **changes)))


def whole(number: int, spans: int = 2, **changes: object) -> KeptFragment:
    """Trace `number` in one fragment."""
    return fragment(decision(number, **changes), [span(number, index) for index in range(spans)])


def batch(*fragments: KeptFragment, next_offset: int = 1, decisions: Sequence[Decision] = ()) -> SinkBatch:
    """A batch of `SOURCE`."""
    return SinkBatch(source=SOURCE, fragments=fragments, decisions=decisions, next_offset=next_offset)


async def everything(reader: TraceReader) -> list[object]:
    """All that a reader can tell, but for the marks of change; equal for equal contents."""
    rows = await reader.list_traces(TraceFilter(), sort="oldest", limit=10_000)
    traces = [await reader.get(row.trace_id) for row in rows]
    plain = [msgspec.structs.replace(row, stored=0) for row in rows]
    return [plain, [(one.decision, one.spans) for one in traces if one is not None], await reader.totals()]


class SinkContract:
    """The promises. A subclass gives a fresh store a test."""

    def sink(self) -> AbstractAsyncContextManager[Sink]:
        """A sink on this test's store; a second one opens the same store again."""
        raise NotImplementedError

    def reader(self) -> TraceReader:
        """A reader of this test's store."""
        raise NotImplementedError

    async def test_a_trace_comes_back_as_it_was_sent(self) -> None:
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

    async def test_a_batch_that_comes_again_changes_nothing(self) -> None:
        late = fragment(decision(1), [span(1, 5, status=SpanStatus.ERROR)], late=True, fragment=9)
        async with self.sink() as sink, self.reader() as reader:
            first = batch(whole(1), whole(2), late, decisions=[decision(1), decision(4, kept=False)])
            await sink.write(first)
            before = await everything(reader)
            mark = (await reader.tail(0))[-1].stored
            await sink.write(first)
            await sink.write(first)
            assert await everything(reader) == before
            assert await reader.tail(mark) == []

    async def test_the_order_of_fragments_does_not_matter(self) -> None:
        fragments = [
            fragment(decision(1), [span(1, 0), span(1, 1)], fragment=0, last=False),
            fragment(decision(1), [span(1, 2, status=SpanStatus.ERROR), span(1, 1)], fragment=1, last=True),
            fragment(decision(1), [span(1, 3, status=SpanStatus.PENDING, duration_ns=None)], late=True, fragment=7),
            fragment(decision(1), [span(1, 3, revision=1)], late=True, fragment=8),
            fragment(
                decision(1, decision_id=b"again" + bytes(11), repeated=True, weight=0.0, decided_at_ms=NOW),
                [span(1, 4, duration_ns=3 * SECOND)],
            ),
            whole(2),
        ]
        seen = []
        for seed in range(6):
            shuffled = [*fragments, *fragments[:3]]
            random.Random(seed).shuffle(shuffled)
            for number, one in enumerate(shuffled):
                async with self.sink() as sink:
                    await sink.write(
                        SinkBatch(source=SOURCE, fragments=[self._under(one, 256 * seed)], next_offset=number)
                    )
        async with self.reader() as reader:
            for seed in range(6):
                stored = await reader.get(trace_id(1 + 256 * seed))
                assert stored is not None
                row = stored.row
                seen.append((row.spans, row.errors, row.duration_ns, row.weight, row.cost_usd, len(stored.spans)))
                assert [one.revision for one in stored.spans] == [0, 0, 0, 1, 0]
                assert not stored.decision.repeated
            assert (await reader.totals())["kept"] == 18
        assert seen == [(5, 1, 3 * SECOND + 4_000_000, 2.0, 0.02, 5)] * 6

    def _under(self, one: KeptFragment, shift: int) -> KeptFragment:
        """The same fragment, as of another trace."""
        number = int.from_bytes(one.decision.trace_id[:2], "big") + shift
        about = msgspec.structs.replace(
            one.decision,
            trace_id=bytes.fromhex(trace_id(number)),
            decision_id=one.decision.decision_id[:-2] + shift.to_bytes(2, "big"),
        )
        spans = [msgspec.structs.replace(decode_span(raw), trace_id=trace_id(number)) for _, raw in one.items]
        made = fragment(about, spans)
        return msgspec.structs.replace(made, fragment=one.fragment, last=one.last, late=one.late)

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
            marks = [row.stored for row in await reader.tail(0)]
            late = span(1, 9, status=SpanStatus.ERROR, duration_ns=5 * SECOND, name="zebra")
            await sink.write(batch(fragment(decision(1), [late], late=True)))
            (row,) = await reader.tail(max(marks))
            assert (row.trace_id, row.spans, row.errors) == (trace_id(1), 3, 1)
            assert row.duration_ns == 5 * SECOND + 9_000_000
            for words in ("zebra", "zebra Lisbon1"):
                assert [one.trace_id for one in await reader.list_traces(TraceFilter(text=words))] == [trace_id(1)]

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

    async def test_offsets_are_stored_by_partition(self) -> None:
        other = TopicPartition("prela.sampled", 1)
        async with self.sink() as sink:
            assert await sink.stored_offset(SOURCE) is None
            await sink.write(batch(whole(1), next_offset=41))
            await sink.write(batch(next_offset=42))
            assert await sink.stored_offset(SOURCE) == 42
            assert await sink.stored_offset(other) is None
        async with self.sink() as sink:
            assert await sink.stored_offset(SOURCE) == 42

    async def test_hostile_text_comes_back_unchanged_and_is_searched_for_safely(self) -> None:
        async with self.sink() as sink, self.reader() as reader:
            for number, text in enumerate(HOSTILE, start=1):
                told = msgspec.structs.replace(decision(number).summary, root_name=text, service=text)
                about = decision(number, policy=text, reason=text, summary=told)
                attributes = {text: text, "list": [text]}
                hostile = span(number, 0, name=text, status_message=text, attributes=attributes)
                await sink.write(batch(fragment(about, [hostile])))
            for number, text in enumerate(HOSTILE, start=1):
                stored = await reader.get(trace_id(number))
                assert stored is not None
                assert (stored.spans[0].name, stored.spans[0].attributes[text]) == (text, text)
                assert stored.decision.reason == text
                found = await reader.list_traces(TraceFilter(text=text))
                if any(character.isalnum() for character in text):
                    assert trace_id(number) in [row.trace_id for row in found]
                for where in (TraceFilter(service=text), TraceFilter(policy=text)):
                    assert [row.trace_id for row in await reader.list_traces(where)] == [trace_id(number)]
            assert await reader.list_traces(TraceFilter(text="\udcff lone", service="\ud800")) == []
            assert (await reader.totals())["traces"] == len(HOSTILE)

    async def test_one_unreadable_span_never_costs_its_neighbours(self) -> None:
        good = whole(1)
        alien = (0, msgspec.Raw(encode_span(span(2, 7))))
        no_resource = (5, msgspec.Raw(encode_span(span(1, 7))))
        broken = (0, msgspec.Raw(msgspec.msgpack.encode([0, b"short", b"x", None])))
        huge = span(1, 8, revision=(1 << 31) - 1, start_ns=(1 << 62) - 1, duration_ns=(1 << 62) - 1)
        items = [broken, alien, *good.items, no_resource, (0, msgspec.Raw(encode_span(huge)))]
        async with self.sink() as sink, self.reader() as reader:
            await sink.write(batch(msgspec.structs.replace(good, items=items)))
            stored = await reader.get(trace_id(1))
            assert stored is not None
            assert [one.name for one in stored.spans] == ["plan trip", "tool 1", "tool 8"]

    async def test_reading_goes_on_while_another_writes(self) -> None:
        async with self.sink() as sink, self.reader() as reader:
            await sink.write(batch(whole(1)))
            for number in range(2, 12):
                await sink.write(batch(whole(number)))
                assert len(await reader.list_traces(TraceFilter())) == number
                assert [row.trace_id for row in await reader.tail(number - 1)] == [trace_id(number)]

    async def test_closing_twice_is_fine(self) -> None:
        async with self.sink() as sink:
            await sink.write(batch(whole(1)))
            await sink.aclose()
            await sink.aclose()
        reader = self.reader()
        assert await reader.totals()
        await reader.aclose()
        await reader.aclose()
