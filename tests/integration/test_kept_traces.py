"""`kept_traces()` and `decisions()` on a real log: SDK, a real worker, members that share, leave, hang and come back."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest

import prela_stream as prela
from prela_stream import telemetry
from prela_stream.app import ready_transport
from prela_stream.app.adapters import make_topics
from prela_stream.codec.decisions import encode_decisions
from prela_stream.codec.sampled import KeptFragment, decode_kept, encode_kept
from prela_stream.codec.spans import encode_batch
from prela_stream.config import Settings, load_settings
from prela_stream.model.ids import partition_of
from prela_stream.sinks import iterators
from prela_stream.sinks.iterators import TopicIterator
from prela_stream.transport.base import Committed, TopicPartition, Transport
from prela_stream.worker.service import Worker
from tests.support.items import encode_span
from tests.support.kept import decision, fragment, span, trace_id, whole
from tests.support.threads import own_threads
from tests.support.workers import DEADLINE, WHOLE_ONLY, decided, make_worker, running, send, values


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A log of the test's own, and the settings that name it."""

    settings: Settings
    transport: Transport

    @property
    def sampled(self) -> str:
        return self.settings.topics.sampled

    @property
    def group(self) -> str:
        """A group that no other test has."""
        return f"{self.settings.topics.prefix}.readers"

    def worker(self) -> Worker:
        """A worker of a group that no other test has, which keeps every whole trace."""
        group = f"{self.settings.topics.prefix}.workers"
        return make_worker(self.transport, topics=self.settings.topics, assembly=WHOLE_ONLY, group=group)

    async def kept(self, *fragments: KeptFragment, partition: int = 0) -> None:
        """Append Records of `sampled`."""
        await send(self.transport, *map(encode_kept, fragments), to=TopicPartition(self.sampled, partition))

    async def committed(self, group: str, partition: int = 0) -> Committed | None:
        """What a group has committed."""
        return await self.transport.committed(group, TopicPartition(self.sampled, partition))

    async def rest(self, group: str) -> list[str]:
        """Trace ids that a new member of the group is given; all of them are committed."""
        async with prela.kept_traces(group, settings=self.settings, follow=False) as traces:
            with anyio.fail_after(DEADLINE):
                found = [trace.trace_id async for trace in traces]
            await traces.commit()
        return found


def settings_of(transport: str, folder: Path, request: pytest.FixtureRequest, session_timeout_ms: int) -> Settings:
    """Settings of a log that no other test uses."""
    topics: dict[str, object] = {"partitions": 2, "sampled_partitions": 2, "max_record_bytes": 10_000}
    common = {"topics": topics, "pipeline": {"shutdown_timeout_s": DEADLINE}}
    if transport == "local":
        local = {"path": str(folder / "log.db"), "session_timeout_ms": session_timeout_ms}
        return load_settings(env={}, overrides={**common, "local": local})
    topics["prefix"] = request.getfixturevalue("kafka_prefix")
    timeout_ms = max(session_timeout_ms, 6_000)  # brokers take no less
    kafka = {"bootstrap": [request.getfixturevalue("kafka")], "session_timeout_ms": timeout_ms}
    return load_settings(env={}, overrides={**common, "transport": "kafka", "kafka": kafka})


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Place]:
    """The place that these settings name, with its topics."""
    async with ready_transport(settings) as transport:
        await make_topics(settings, transport)
        yield Place(settings=settings, transport=transport)


PLACES = ["local", pytest.param("kafka", marks=[pytest.mark.kafka, pytest.mark.slow])]


@pytest.fixture(params=PLACES)
async def place(request: pytest.FixtureRequest, tmp_path: Path, patient_leaving: None) -> AsyncIterator[Place]:
    """Where members leave the group by themselves alone: no test takes as long as their session."""
    async with opened(settings_of(request.param, tmp_path, request, 120_000)) as made:
        yield made


@pytest.fixture(params=PLACES)
async def hasty(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """Where a member that hangs is soon out of its group."""
    async with opened(settings_of(request.param, tmp_path, request, 500)) as made:
        yield made


async def take(traces: AsyncIterator[prela.KeptTrace], count: int) -> list[str]:
    """Trace ids of the next items."""
    with anyio.fail_after(DEADLINE):
        return [(await anext(traces)).trace_id for _ in range(count)]


def in_pieces(number: int, pieces: int) -> list[KeptFragment]:
    """A trace as it is written where each span fills a Record."""
    about = decision(number)
    return [fragment(about, [span(number, piece)], fragment=piece, last=piece == pieces - 1) for piece in range(pieces)]


async def record(place: Place, *shapes: Sequence[int]) -> list[str]:
    """Let the SDK make traces: a root and, for each number, a tool whose result has that many characters."""
    ids = []
    async with prela.pipeline(place.settings):
        for shape in shapes:
            with prela.get_tracer().span("agent", span_type=prela.SpanType.AGENT) as root:
                for size in shape:
                    with prela.get_tracer().span("tool", attributes={"result": "x" * size}):
                        pass
            ids.append(root.trace_id)
    return ids


async def test_what_the_sdk_recorded_and_a_worker_kept_is_handed_out_whole(place: Place) -> None:
    async with running(place.worker()):
        small, large = await record(place, [10], [6_000] * 5)
        async with prela.kept_traces(group=place.group, settings=place.settings) as traces:
            with anyio.fail_after(DEADLINE):
                found = {trace.trace_id: trace for trace in [await anext(traces), await anext(traces)]}
            await traces.commit()
    assert set(found) == {small, large}
    trace = found[large]
    (root,) = trace.tree().roots
    assert [node.span.name for node in root.children] == ["tool"] * 5
    assert [len(node.span.attributes["result"]) for node in root.children] == [6_000] * 5
    assert {span.resource.service_name for span in trace.spans} == {root.span.resource.service_name} != {""}
    assert (trace.weight, trace.late, trace.unreadable, trace.decision.complete) == (1.0, False, 0, True)
    pieces = [decode_kept(value) for value in await values(place.transport, place.sampled)]
    assert len([one for one in pieces if one.decision.trace_id_hex == large]) > 1, "the large trace fits a Record"
    assert await place.rest(place.group) == []
    assert set(await place.rest(f"{place.group}.others")) == {small, large}


async def test_late_spans_are_an_item_of_their_own(place: Place) -> None:
    at = TopicPartition(place.settings.topics.spans, partition_of(bytes.fromhex(trace_id(1)), 2))
    items = [encode_span(msgspec.structs.replace(one, child_count=0)) for one in (span(1), span(1, 1))]
    async with running(place.worker()):
        await send(place.transport, encode_batch(b"\x80", items[:1]), to=at)
        await decided(place.transport, 1, place.settings.topics)
        await send(place.transport, encode_batch(b"\x80", items[1:]), to=at)
        async with prela.kept_traces(group=None, settings=place.settings) as traces:
            with anyio.fail_after(DEADLINE):
                first, second = await anext(traces), await anext(traces)
    assert [[one.name for one in trace.spans] for trace in (first, second)] == [["plan trip"], ["tool 1"]]
    assert (first.late, second.late) == (False, True)
    assert first.decision == second.decision
    assert [node.span.name for node in second.tree().orphans] == ["tool 1"]


async def test_what_is_not_committed_comes_again_and_what_is_committed_does_not(place: Place) -> None:
    await place.kept(*(whole(number) for number in range(1, 6)))
    ids = [trace_id(number) for number in range(1, 6)]
    async with prela.kept_traces(group=place.group, settings=place.settings) as traces:
        assert await take(traces, 2) == ids[:2]
        await traces.commit()
        assert await take(traces, 1) == ids[2:3]
    committed = await place.committed(place.group)
    assert committed is not None
    assert committed.offset <= 2
    assert await place.rest(place.group) == ids[2:]
    assert await place.rest(place.group) == []


async def test_a_commit_stops_before_a_trace_whose_last_fragment_has_not_come(place: Place) -> None:
    begun, ended = in_pieces(1, 2)
    await place.kept(whole(2), begun, whole(3))
    async with prela.kept_traces(group=place.group, settings=place.settings) as traces:
        assert await take(traces, 2) == [trace_id(2), trace_id(3)]
        await traces.commit()
    await place.kept(ended)
    assert await place.rest(place.group) == [trace_id(3), trace_id(1)]
    assert await place.rest(place.group) == []


async def test_a_record_of_decisions_is_done_with_its_last_one(place: Place) -> None:
    about = [decision(number, kept=number % 2 == 0) for number in range(6)]
    at = TopicPartition(place.settings.topics.decisions, 0)
    await send(place.transport, encode_decisions(about[:4]), encode_decisions(about[4:]), to=at)
    async with prela.decisions(group=place.group, settings=place.settings) as found:
        with anyio.fail_after(DEADLINE):
            assert [await anext(found) for _ in range(3)] == about[:3]
        await found.commit()
    async with prela.decisions(group=place.group, settings=place.settings) as found:
        with anyio.fail_after(DEADLINE):
            assert [await anext(found) for _ in range(4)] == about[:4]
        await found.commit()
    async with prela.decisions(group=place.group, settings=place.settings, follow=False) as found:
        assert [one async for one in found] == about[4:]


async def test_records_that_cannot_be_read_or_are_torn_are_counted_and_passed(place: Place) -> None:
    before = telemetry.SINK_BAD_RECORDS.value(place.sampled)
    good = encode_kept(whole(1))
    torn = encode_kept(in_pieces(2, 3)[1])
    await send(place.transport, b"", b"\x07future", torn, good, good[:-20], to=TopicPartition(place.sampled, 0))
    assert await place.rest(place.group) == [trace_id(1)]
    assert telemetry.SINK_BAD_RECORDS.value(place.sampled) == before + 4
    committed = await place.committed(place.group)
    assert committed is not None
    assert committed.offset >= 5, "a Record that nobody can read is not read again and again"


async def test_an_item_that_cannot_be_read_costs_its_trace_no_other(place: Place) -> None:
    made = whole(1)
    spoilt = [*made.items, (7, made.items[0][1]), (0, msgspec.Raw(b"\x93\x00\xc0\xc0"))]
    await place.kept(msgspec.structs.replace(made, items=spoilt))
    async with prela.kept_traces(None, settings=place.settings, follow=False) as traces:
        (trace,) = [one async for one in traces]
    assert ([one.name for one in trace.spans], trace.unreadable) == (["plan trip", "tool 1"], 2)


async def test_members_share_and_nothing_is_handed_out_twice_where_each_item_is_committed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iterators, "_CHECK_S", 0.0)  # look before each item: partitions move while many are waiting
    sent = [trace_id(number) for number in range(300)]
    for partition in (0, 1):
        await place.kept(*(whole(number) for number in range(300) if number % 2 == partition), partition=partition)
    handed: list[tuple[str, str]] = []
    committed = 0
    both = anyio.Event()

    async def member(name: str, traces: TopicIterator[prela.KeptTrace]) -> None:
        nonlocal committed
        while True:
            handed.append((name, (await anext(traces)).trace_id))
            await traces.commit()
            committed += 1
            if name == "second":
                both.set()
            with anyio.move_on_after(0.1):  # work, for as long as it takes another one to join
                await both.wait()

    async with (
        prela.kept_traces(place.group, settings=place.settings) as first,
        prela.kept_traces(place.group, settings=place.settings) as second,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(member, "first", first)
        with anyio.fail_after(DEADLINE):
            while not handed:
                await anyio.sleep(0.01)
        tasks.start_soon(member, "second", second)
        for count in range(len(sent)):
            with anyio.fail_after(DEADLINE):  # each of them, not all
                while committed <= count:
                    await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert sorted(found for _, found in handed) == sorted(sent)
    assert {name for name, _ in handed} == {"first", "second"}, "the first one gave nothing up while items were waiting"
    assert await place.rest(place.group) == []


async def test_a_member_that_hung_commits_nothing_over_the_one_that_took_over(hasty: Place) -> None:
    await hasty.kept(*(whole(number) for number in range(4)))
    ids = [trace_id(number) for number in range(4)]
    hung, go_on = threading.Event(), threading.Event()

    async def hang() -> list[str]:
        async with prela.kept_traces(hasty.group, settings=hasty.settings) as traces:
            seen = await take(traces, 2)
            hung.set()
            assert go_on.wait(DEADLINE)  # the loop stands still: no heartbeat leaves it
            await traces.commit()  # fenced, and passed over
            return seen

    async def observe() -> None:
        assert await anyio.to_thread.run_sync(hung.wait, DEADLINE)
        if first.done():
            await first  # says why it did not get so far
        async with prela.kept_traces(hasty.group, settings=hasty.settings) as traces:
            assert await take(traces, 4) == ids
            await traces.commit()
            go_on.set()
            assert await first == ids[:2]

    first = asyncio.ensure_future(asyncio.to_thread(asyncio.run, hang()))
    first.add_done_callback(lambda _: hung.set())
    await observe()
    assert await hasty.rest(hasty.group) == []


async def test_a_wait_that_is_cancelled_loses_nothing(place: Place) -> None:
    async with prela.kept_traces(place.group, settings=place.settings) as traces:
        with anyio.move_on_after(0.1) as waited:
            await anext(traces)
        assert waited.cancelled_caught
        await place.kept(whole(1))
        assert await take(traces, 1) == [trace_id(1)]


async def test_a_plain_loop_leaves_its_group_when_it_is_broken_off(place: Place) -> None:
    await place.kept(whole(1), whole(2))
    traces = prela.kept_traces(place.group, settings=place.settings)
    async for trace in traces:
        assert trace.trace_id == trace_id(1)
        await traces.commit()
        break
    gc.collect()
    assert await place.rest(place.group) == [trace_id(2)]


async def test_a_block_gives_everything_back_at_its_end(tmp_path: Path) -> None:
    before = own_threads()
    async with prela.kept_traces("g", directory=tmp_path):
        assert own_threads() - before
    assert own_threads() <= before


async def test_without_a_group_everything_comes_and_nothing_can_be_committed(place: Place) -> None:
    await place.kept(whole(1))
    await place.kept(whole(2), partition=1)
    for _ in range(2):
        async with prela.kept_traces(None, settings=place.settings, follow=False) as traces:
            assert sorted([one.trace_id async for one in traces]) == [trace_id(1), trace_id(2)]
            with pytest.raises(prela.ConfigurationError, match="without a group"):
                await traces.commit()


async def test_a_reading_is_used_once_and_inside_its_block(place: Place) -> None:
    traces = prela.kept_traces(place.group, settings=place.settings)
    with pytest.raises(prela.ConfigurationError, match="async with"):
        await traces.commit()
    async with traces:
        pass
    with pytest.raises(prela.ConfigurationError, match="not open"):
        await anext(traces)
    with pytest.raises(prela.ConfigurationError, match="opened before"):
        await traces.__aenter__()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"group": ""}, "printable"),
        ({"group": "two\nlines"}, "printable"),
        ({"group": "x" * 250}, "1 to 249"),
        ({"group": 7}, "printable"),
        ({"group": "sampler"}, "worker or a store"),
        ({"group": "prela.sampler"}, "worker or a store"),
        ({"group": "sinks.sqlite"}, "worker or a store"),
        ({"group": "prela.sinks.sqlite"}, "worker or a store"),
        ({"group": "g", "follow": 1}, "True or False"),
        ({"group": "g", "directory": 3}, "directory is a path"),
        ({"group": "g", "settings": load_settings(env={}), "directory": "x"}, "give either"),
        ({"group": "g", "config": "nowhere.toml"}, "nowhere.toml"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_opened(arguments: dict[str, Any], what: str) -> None:
    for function in (prela.kept_traces, prela.decisions):
        with pytest.raises(prela.ConfigurationError, match=what):
            function(**arguments)
