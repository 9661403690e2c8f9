"""What the reader of a store finds: every filter, page, count, sum and estimate, compared with plain Python."""

import itertools
import math
from collections.abc import Callable, Sequence

import msgspec
import pytest

from prela_stream.codec.spans import encode_resource
from prela_stream.errors import ConfigurationError
from prela_stream.model.decision import Decision, TraceSummary
from prela_stream.model.span import Resource, SpanData, SpanStatus, SpanType
from prela_stream.model.tree import SpanTree
from prela_stream.sinks.base import Sink
from prela_stream.sinks.query import Estimate, SortKey, TraceQuery, TraceRow
from tests.contracts.sink_contract import StoreContract
from tests.support.items import encode_span
from tests.support.kept import NOW, SECOND, batch, decision, fragment, span, trace_id

SORTS: dict[SortKey, Callable[[TraceRow], float]] = {
    "newest": lambda row: -row.start_ns,
    "oldest": lambda row: row.start_ns,
    "slowest": lambda row: -row.duration_ns,
    "costliest": lambda row: -(row.cost_usd if row.cost_usd is not None else -1),
    "most_tokens": lambda row: -(row.input_tokens + row.output_tokens),
    "most_spans": lambda row: -row.spans,
}
COUNT = 24


def about(number: int, **changes: object) -> Decision:
    """A decision on trace `number`, with a summary in which every number differs from that of other traces."""
    summary = TraceSummary(
        root_name=("plan trip", "plan dinner", "Chat [1]")[number % 3],
        service=("travel", "kitchen")[number % 2],
        start_ns=NOW + number * SECOND,
        duration_ns=(number * 7 % COUNT + 1) * SECOND,
        spans=number % 5 + 1,
        errors=int(number % 4 == 0),
        input_tokens=number * 11 % COUNT * 10,
        output_tokens=1,
        cost_usd=None if number % 6 == 0 else number * 5 % COUNT / 100,
    )
    return decision(number, policy=("slow", "rest")[number % 2], summary=summary, **changes)


def spans_of(number: int) -> list[SpanData]:
    """An agent with a model call and tools."""
    status = SpanStatus.ERROR if number % 4 == 0 else SpanStatus.CANCELLED if number % 4 == 1 else SpanStatus.SUCCESS
    if number % 4 == 2:
        status = SpanStatus.PENDING
    summary = about(number).summary
    root = span(
        number,
        status=status,
        name=summary.root_name,
        duration_ns=None if status == SpanStatus.PENDING else summary.duration_ns,
        attributes={
            "gen_ai.conversation.id": f"session {number // 4}",
            "user.id": f"user {number % 3}",
            "tier": number % 3,
        },
    )
    llm = span(
        number,
        1,
        name="chat",
        span_type=SpanType.LLM,
        duration_ns=number * SECOND // 100,
        attributes={
            "gen_ai.request.model": f"model-{number % 2}",
            "gen_ai.usage.input_tokens": 100 + number,
            "gen_ai.usage.output_tokens": number,
            "gen_ai.response.finish_reasons": ["stop"],
            "prela.cost.usd": 0.5,
            "http.request.resend_count": 2,
            "http.response.status_code": 200,
        },
    )
    failed = span(
        number,
        2,
        status=SpanStatus.ERROR,
        status_message="boom",
        attributes={
            "gen_ai.tool.name": "search",
            "error.type": "TimeoutError",
            "retry": True,
            "city": f"Lisbon{number}",
        },
    )
    rest = [span(number, index, attributes={"gen_ai.tool.name": f"tool {index}"}) for index in range(3, 5)]
    return [root, llm, *([failed] if number % 4 == 0 else []), *rest][: number % 5 + 1]


def expected_status(number: int) -> str:
    return ("error", "cancelled", "pending", "success")[number % 4]


async def fill(sink: Sink) -> None:
    """Store traces 1 to COUNT, and decisions to drop traces 101 to 100 + COUNT."""
    kept = [fragment(about(number), spans_of(number)) for number in range(1, COUNT + 1)]
    decisions = [about(number) for number in range(1, COUNT + 1)]
    decisions += [about(100 + number, kept=False, weight=0.0) for number in range(1, COUNT + 1)]
    await sink.write(batch(*kept, decisions=decisions))


def has(number: int, key: str, value: object) -> bool:
    """Whether a span of the trace has this attribute."""
    return any(one.attributes.get(key) == value for one in spans_of(number))


def numbers(rows: Sequence[TraceRow]) -> list[int]:
    return sorted(int(row.trace_id[:4], 16) for row in rows)


KEPT: list[tuple[dict[str, object], Callable[[int], bool]]] = [
    ({}, lambda _: True),
    ({"service": "travel"}, lambda _: True),
    ({"service": "kitchen"}, lambda n: n % 2 == 1),
    ({"name": "plan trip"}, lambda n: n % 3 == 0),
    ({"name": "plan *"}, lambda n: n % 3 < 2),
    ({"name": "*t?i?"}, lambda n: n % 3 == 0),
    ({"name": "Chat [1]"}, lambda n: n % 3 == 2),
    ({"name": "Chat [*"}, lambda n: n % 3 == 2),
    ({"name": "none*"}, lambda _: False),
    ({"status": "error"}, lambda n: n % 4 == 0),
    ({"status": "cancelled"}, lambda n: n % 4 == 1),
    ({"status": "pending"}, lambda n: n % 4 == 2),
    ({"status": "success"}, lambda n: n % 4 == 3),
    ({"errors": True}, lambda n: n % 4 == 0),
    ({"errors": False}, lambda n: n % 4 != 0),
    ({"session": "session 2"}, lambda n: n // 4 == 2),
    ({"user": "user 1"}, lambda n: n % 3 == 1),
    ({"model": "model-1"}, lambda n: has(n, "gen_ai.request.model", "model-1")),
    ({"tool": "tool 3"}, lambda n: has(n, "gen_ai.tool.name", "tool 3")),
    ({"error_type": "TimeoutError"}, lambda n: has(n, "error.type", "TimeoutError")),
    ({"attributes": ("tier=2",)}, lambda n: n % 3 == 2),
    ({"attributes": ("retry=true",)}, lambda n: has(n, "retry", True)),
    ({"attributes": ("llm.model_name=model-0", "tier=1")}, lambda n: n % 3 == 1 and has(n, "gen_ai.request.model", "model-0")),
    ({"attributes": ("service.name=travel",)}, lambda _: True),
    ({"attributes": ("tier=7",)}, lambda _: False),
    ({"min_duration_ms": 9_000.0}, lambda n: duration_ms(n) >= 9_000),
    ({"max_duration_ms": 9_000.0}, lambda n: duration_ms(n) < 9_000),
    ({"min_tokens": 101}, lambda n: tokens(n) >= 101),
    ({"min_cost_usd": 0.1}, lambda n: (about(n).summary.cost_usd or 0.0) >= 0.1),
    ({"policy": "slow"}, lambda n: n % 2 == 0),
    ({"text": "timeouterror boom"}, lambda n: has(n, "error.type", "TimeoutError")),
    ({"text": "lisb*"}, lambda n: any("city" in one.attributes for one in spans_of(n))),
    ({"since_ns": NOW + 10 * SECOND}, lambda n: n >= 10),
    ({"until_ns": NOW + 10 * SECOND}, lambda n: n < 10),
]  # fmt: skip


def duration_ms(number: int) -> float:
    return about(number).summary.duration_ns / 1e6


def tokens(number: int) -> int:
    return about(number).summary.input_tokens + 1


class ReaderContract(StoreContract):
    """What every store answers."""

    async def test_every_filter_alone_and_with_another_finds_what_a_plain_search_finds(self) -> None:
        async with self.sink() as sink, self.reader() as reader:
            await fill(sink)
            for (first, one), (second, two) in itertools.combinations_with_replacement(KEPT, 2):
                if first.keys() & second.keys() and first != second:
                    continue
                where = msgspec.convert({**first, **second}, TraceQuery)
                wanted = [number for number in range(1, COUNT + 1) if one(number) and two(number)]
                assert numbers(await reader.list_traces(where)) == wanted, where

    async def test_the_pages_of_every_sort_are_the_whole_list(self) -> None:
        async with self.sink() as sink, self.reader() as reader:
            await fill(sink)
            for (sort, key), dropped in itertools.product(SORTS.items(), (False, True)):
                where = TraceQuery(dropped=dropped, errors=False)
                whole = await reader.list_traces(where, sort=sort)
                assert len(whole) == COUNT * 3 // 4
                assert [key(row) for row in whole] == sorted(map(key, whole))
                pages: list[TraceRow] = []
                while page := await reader.list_traces(
                    where, sort=sort, limit=5, after=pages[-1].cursor if pages else None
                ):
                    pages += page
                assert pages == whole, sort
                assert await reader.list_traces(where, sort=sort, limit=7, offset=3) == whole[3:10]

    async def test_what_is_no_query_is_refused(self) -> None:
        async with self.sink() as sink, self.reader() as reader:
            await fill(sink)
            (row,) = await reader.list_traces(TraceQuery(), limit=1)
            for cursor in (
                "",
                "x",
                "newest:1",
                "newest:x:1",
                "newest:1:' OR 1",
                row.cursor.replace("newest", "slowest"),
            ):
                with pytest.raises(ConfigurationError, match="after: expected the cursor of a row"):
                    await reader.list_traces(TraceQuery(), after=cursor)
            with pytest.raises(ConfigurationError, match="status: expected one of success"):
                await reader.list_traces(TraceQuery(status="running"))  # type: ignore[arg-type]  # what is tested
            with pytest.raises(ConfigurationError, match="by: expected one of model"):
                await reader.statistics(TraceQuery(), "city")  # type: ignore[arg-type]  # what is tested
            with pytest.raises(ConfigurationError, match="by: expected service or policy"):
                await reader.decided_totals("city")  # type: ignore[arg-type]  # what is tested
            with pytest.raises(ConfigurationError, match="bars: expected 1 to 1,000"):
                await reader.histograms(TraceQuery(), bars=0)

    async def test_a_row_lists_what_the_spans_have(self) -> None:
        async with self.sink() as sink, self.reader() as reader:
            await fill(sink)
            rows = {int(row.trace_id[:4], 16): row for row in await reader.list_traces(TraceQuery())}
        for number, row in rows.items():
            assert row.status == expected_status(number), number
            assert (row.session, row.user) == (f"session {number // 4}", f"user {number % 3}")
        row = rows[4]
        assert (row.services, row.models, row.tools) == (("travel",), ("model-0",), ("search", "tool 3", "tool 4"))
        assert (row.error_types, row.policy, row.kept) == (("TimeoutError",), "slow", True)

    async def test_counts_end_at_their_bound(self) -> None:
        async with self.sink() as sink, self.reader() as reader:
            await fill(sink)
            assert await reader.count(TraceQuery()) == COUNT
            assert await reader.count(TraceQuery(), at_most=5) == 5
            assert await reader.count(TraceQuery(status="error", text="boom")) == 4
            assert await reader.count(TraceQuery(dropped=True, service="kitchen")) == COUNT // 2
            assert await reader.count(TraceQuery(service="none")) == 0

    @pytest.mark.parametrize("dropped", [False, True])
    async def test_the_bars_of_a_histogram_are_the_traces_of_their_ranges(self, dropped: bool) -> None:
        async with self.sink() as sink, self.reader() as reader:
            await fill(sink)
            for where in (TraceQuery(dropped=dropped), TraceQuery(dropped=dropped, errors=True, policy="slow")):
                every = await reader.list_traces(where)
                found = await reader.histograms(where, bars=7)
                assert found.traces == len(every)
                assert len(found.time) <= 7
                for bars, low, high in (
                    (found.time, "since_ns", "until_ns"),
                    (found.duration, "min_duration_ms", "max_duration_ms"),
                ):
                    assert sum(bar.total for bar in bars) == len(every)
                    assert all(one.high == two.low for one, two in itertools.pairwise(bars))
                    for bar in bars:
                        ends = (bar.low, bar.high) if low == "since_ns" else (bar.low / 1e6, bar.high / 1e6)
                        brushed = msgspec.structs.replace(where, **{low: ends[0], high: ends[1]})
                        rows = await reader.list_traces(brushed)
                        counts = {status: sum(row.status == status for row in rows) for status in bar.counts}
                        assert (len(rows), counts) == (bar.total, bar.counts)
            empty = await reader.histograms(TraceQuery(dropped=dropped, policy="none"))
            assert (empty.time, empty.duration, empty.traces) == ([], [], 0)

    async def test_sessions_sum_their_traces_and_have_pages(self) -> None:
        async with self.sink() as sink, self.reader() as reader:
            await fill(sink)
            rows = await reader.sessions(TraceQuery())
            assert [row.session for row in rows] == [f"session {number}" for number in range(COUNT // 4, -1, -1)]
            one = rows[-2]
            assert (one.traces, one.errors, one.first_ns, one.last_ns) == (4, 1, NOW + 4 * SECOND, NOW + 7 * SECOND)
            assert (one.services, one.spans) == (
                ("kitchen", "travel"),
                sum(len(spans_of(number)) for number in range(4, 8)),
            )
            assert one.input_tokens == sum(about(number).summary.input_tokens for number in range(4, 8))
            costs = [cost for number in range(4, 8) if (cost := about(number).summary.cost_usd) is not None]
            assert one.cost_usd == pytest.approx(sum(costs))
            pages = await reader.sessions(TraceQuery(), limit=3)
            pages += await reader.sessions(TraceQuery(), limit=10, after=pages[-1].cursor)
            assert pages == rows
            failed = await reader.sessions(TraceQuery(errors=True, until_ns=NOW + 10 * SECOND))
            assert [row.session for row in failed] == ["session 2", "session 1"]
            thread = await reader.list_traces(TraceQuery(session="session 1"), sort="oldest")
            assert [int(row.trace_id[:4], 16) for row in thread] == [4, 5, 6, 7]

    async def test_statistics_are_exact_if_everything_was_kept_with_certainty(self) -> None:
        made = [
            fragment(about(number, weight=1.0, probability=1.0), spans_of(number)) for number in range(1, COUNT + 1)
        ]
        calls = [number for number in range(1, COUNT + 1) if len(spans_of(number)) > 1]
        async with self.sink() as sink, self.reader() as reader:
            await sink.write(batch(*made))
            found = await reader.statistics(TraceQuery(), "model")
            assert (found.exact, found.traces, found.matching) == (True, COUNT, COUNT)
            assert sorted(row.name for row in found.rows) == ["model-0", "model-1"]
            assert found.rows[0].stored >= found.rows[1].stored
            for row in found.rows:
                own = [number for number in calls if f"model-{number % 2}" == row.name]
                assert row.stored == len(own)
                assert row.calls == Estimate(value=len(own), error=0)
                assert row.errors == Estimate(value=0, error=0)
                assert row.input_tokens == Estimate(value=sum(100 + number for number in own), error=0)
                assert row.output_tokens == Estimate(value=sum(own), error=0)
                assert row.cost_usd == Estimate(value=len(own) / 2, error=0)
                for estimate, q in ((row.p50_ms, 0.5), (row.p95_ms, 0.95), (row.p99_ms, 0.99)):
                    assert estimate.error == 0
                    assert estimate.value == pytest.approx(sorted(own)[math.ceil(q * len(own)) - 1] * 10.0)
            tools = {row.name: row for row in (await reader.statistics(TraceQuery(status="error"), "tool")).rows}
            assert tools.keys() == {"search", "tool 3", "tool 4"}
            assert tools["search"].errors == tools["search"].calls
            assert tools["search"].cost_usd is None

    async def test_statistics_of_weighted_traces_are_estimates_with_their_errors(self) -> None:
        made = [fragment(about(number, weight=4.0), spans_of(number)) for number in (6, 8, 12)]
        async with self.sink() as sink, self.reader() as reader:
            await sink.write(batch(*made, fragment(about(2, weight=1.0), spans_of(2))))
            found = await reader.statistics(TraceQuery(), "model")
        (row,) = found.rows
        assert not found.exact
        assert (row.stored, row.calls.value) == (4, 13.0)
        assert row.calls.error == pytest.approx(math.sqrt(3 * 4 * 3))
        assert row.output_tokens.value == 2 + 4 * (6 + 8 + 12)
        assert row.output_tokens.error == pytest.approx(math.sqrt(4 * 3 * (6**2 + 8**2 + 12**2)))
        assert row.p50_ms.value == 80
        assert row.p50_ms.error > 0

    async def test_dropped_traces_in_the_same_time_make_statistics_an_estimate(self) -> None:
        async with self.sink() as sink, self.reader() as reader:
            dropped = about(9, kept=False, weight=0.0)
            await sink.write(batch(fragment(about(1, weight=1.0), spans_of(1)), decisions=[dropped]))
            assert not (await reader.statistics(TraceQuery(), "model")).exact
            assert (await reader.statistics(TraceQuery(until_ns=NOW + 5 * SECOND), "model")).exact

    async def test_sums_over_decisions_are_exact(self) -> None:
        async with self.sink() as sink, self.reader() as reader:
            await fill(sink)
            found = {row.name: row for row in await reader.decided_totals("service")}
            assert found.keys() == {"travel", "kitchen"}
            for name, row in found.items():
                own = [number for number in range(1, COUNT + 1) if about(number).summary.service == name]
                assert row.kept.traces == row.dropped.traces == len(own)
                assert row.kept.input_tokens == sum(about(number).summary.input_tokens for number in own)
                assert row.kept.errors == sum(about(number).summary.errors for number in own)
                dropped = [about(100 + number).summary for number in own]
                assert row.dropped.spans == sum(one.spans for one in dropped)
                assert row.dropped.cost_usd == pytest.approx(sum(one.cost_usd or 0.0 for one in dropped))
            early = await reader.decided_totals("policy", until_ns=NOW + 3 * SECOND)
            assert [(row.name, row.kept.traces, row.dropped.traces) for row in early] == [
                ("rest", 1, 0),
                ("slow", 1, 0),
            ]

    async def test_dropped_traces_are_listed_by_what_their_decision_contains(self) -> None:
        every = range(101, 101 + COUNT)
        async with self.sink() as sink, self.reader() as reader:
            await fill(sink)
            finds: list[tuple[TraceQuery, Callable[[int], bool]]] = [
                (TraceQuery(dropped=True), lambda _: True),
                (TraceQuery(dropped=True, service="kitchen", name="plan*"), lambda n: n % 2 == 1 and n % 3 < 2),
                (TraceQuery(dropped=True, status="error"), lambda n: n % 4 == 0),
                (TraceQuery(dropped=True, min_duration_ms=9_000), lambda n: duration_ms(n) >= 9_000),
                (TraceQuery(dropped=True, min_tokens=50), lambda n: tokens(n) >= 50),
                (TraceQuery(dropped=True, policy="rest", since_ns=NOW + 110 * SECOND), lambda n: n % 2 == 1 and n >= 110),
                (TraceQuery(dropped=True, model="model-1"), lambda _: False),
                (TraceQuery(dropped=True, text="boom"), lambda _: False),
                (TraceQuery(dropped=True, attributes=("tier=1",)), lambda _: False),
            ]  # fmt: skip
            for where, wanted in finds:
                assert numbers(await reader.list_traces(where)) == [number for number in every if wanted(number)], where
            (row,) = await reader.list_traces(TraceQuery(dropped=True), limit=1)
            summary = about(124).summary
            assert (row.kept, row.kept_because, row.service, row.weight) == (
                False,
                "slow: duration over 10 s",
                "travel",
                0.0,
            )
            assert (row.root_name, row.spans, row.duration_ns) == (
                summary.root_name,
                summary.spans,
                summary.duration_ns,
            )
            found = await reader.outline(row.trace_id[:8])
            assert found is not None
            assert (found.row.trace_id, found.decision, found.spans) == (
                row.trace_id,
                about(124, kept=False, weight=0.0),
                [],
            )

    async def test_a_trace_that_was_dropped_and_then_kept_is_a_kept_one(self) -> None:
        async with self.sink() as sink, self.reader() as reader:
            first = about(1, kept=False, weight=0.0, decision_id=b"first decision..")
            await sink.write(batch(decisions=[first]))
            assert numbers(await reader.list_traces(TraceQuery(dropped=True))) == [1]
            await sink.write(batch(fragment(about(1), spans_of(1))))
            assert await reader.list_traces(TraceQuery(dropped=True)) == []
            found = await reader.decision(trace_id(1))
            assert found is not None
            assert found.kept

    async def test_an_outline_has_every_span_without_its_body(self) -> None:
        async with self.sink() as sink, self.reader() as reader:
            await fill(sink)
            outline = await reader.outline(trace_id(4))
            stored = await reader.get(trace_id(4))
            assert outline is not None
            assert stored is not None
            assert await reader.outline("ffff") is None
            assert (outline.row, outline.decision) == (stored.row, stored.decision)
            for light, whole in zip(outline.spans, stored.spans, strict=True):
                for name in (
                    "span_id",
                    "parent_span_id",
                    "name",
                    "span_type",
                    "status",
                    "start_ns",
                    "duration_ns",
                    "flags",
                ):
                    assert getattr(light, name) == getattr(whole, name)
                assert light.bytes == len(encode_span(whole))
                assert await reader.span(trace_id(4), whole.span_id) == whole
            assert await reader.span(trace_id(4), "f" * 16) is None
            assert await reader.span("x", "y") is None
        assert SpanTree(outline.spans).max_depth == SpanTree(stored.spans).max_depth == 1
        llm, failed = outline.spans[1], outline.spans[2]
        assert (llm.model, llm.input_tokens, llm.output_tokens, llm.cost_usd) == ("model-0", 104, 4, 0.5)
        assert (llm.finish_reason, llm.resends, llm.http_status, llm.service) == ("stop", 2, 200, "travel")
        assert (failed.tool, failed.error_type, failed.status_message, failed.events) == (
            "search",
            "TimeoutError",
            "boom",
            1,
        )

    async def test_late_spans_are_found_by_every_filter_as_if_they_had_come_with_their_trace(self) -> None:
        late = [
            span(1, 7, attributes={"user.id": "late user", "tier": 9}, name="zebra crossing"),
            span(1, 8, span_type=SpanType.LLM, duration_ns=SECOND, attributes={"gen_ai.request.model": "model-1"}),
        ]
        async with self.sink() as sink, self.reader() as reader:
            await fill(sink)
            for number, one in enumerate(late):
                await sink.write(batch(fragment(about(1), [one], late=True, fragment=number)))
                await sink.write(batch(fragment(about(1), [one], late=True, fragment=number)))
            for where in (
                TraceQuery(user="late user"),
                TraceQuery(attributes=("tier=9", "tier=1")),
                TraceQuery(text="zebra crossing"),
                TraceQuery(text="zebra chat", user="late user"),
                TraceQuery(text="zeb* chat"),
                TraceQuery(text="zebra cha*"),
            ):
                assert numbers(await reader.list_traces(where)) == [1], where
                assert await reader.count(where) == 1
            assert await reader.list_traces(TraceQuery(text="zebra boom")) == []
            (row,) = (await reader.statistics(TraceQuery(user="late user"), "model")).rows
            assert (row.stored, row.output_tokens.value) == (2, 2.0)

    async def test_spans_of_several_services_are_found_by_each(self) -> None:
        other = Resource(service_name="payments", attributes={"region": "eu"})
        mixed = fragment(about(1), spans_of(1))
        more = fragment(about(1), [span(1, 9)], late=True)
        more = msgspec.structs.replace(more, resources=[msgspec.Raw(encode_resource(other))])
        async with self.sink() as sink, self.reader() as reader:
            await sink.write(batch(mixed, more))
            for where in (
                TraceQuery(service="travel"),
                TraceQuery(service="payments"),
                TraceQuery(attributes=("region=eu",)),
            ):
                (row,) = await reader.list_traces(where)
                assert row.services == ("kitchen", "payments", "travel")
            outline = await reader.outline(trace_id(1))
            assert outline is not None
            assert [one.service for one in outline.spans] == ["travel", "travel", "payments"]

    async def test_nothing_is_found_in_an_empty_store(self) -> None:
        async with self.sink() as sink, self.reader() as reader:
            await sink.write(batch())
            for dropped in (False, True):
                where = TraceQuery(dropped=dropped)
                assert await reader.list_traces(where) == []
                assert await reader.count(where) == 0
                assert (await reader.histograms(where)).traces == 0
            assert await reader.sessions(TraceQuery()) == []
            assert (await reader.statistics(TraceQuery(), "tool")).rows == []
            assert await reader.decided_totals("policy") == []
            assert await reader.outline("abcd") is None
