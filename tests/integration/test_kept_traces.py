"""`kept_traces()` and `decisions()` on a real log: SDK, a real worker, members that share, leave, hang and rejoin."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest

import prela_stream as prela
from prela_stream import telemetry
from prela_stream.codec.decisions import encode_decisions
from prela_stream.codec.sampled import decode_kept, encode_kept
from prela_stream.codec.spans import encode_batch
from prela_stream.config import load_settings
from prela_stream.model.ids import partition_of
from prela_stream.sinks import iterators
from prela_stream.sinks.iterators import TopicIterator
from prela_stream.transport.base import TopicPartition
from tests.support.items import encode_span
from tests.support.kept import decision, fragments_of, span, trace_id, whole
from tests.support.kept_log import KeptLog, OpenLog
from tests.support.threads import own_threads
from tests.support.workers import DEADLINE, decided, running, send, values


@pytest.fixture
async def log(open_log: OpenLog, patient_leaving: None) -> AsyncIterator[KeptLog]:
    """Members leave the group only on request: no test takes as long as their session."""
    async with open_log(session_timeout_ms=120_000) as opened:
        yield opened


@pytest.fixture
async def impatient_log(open_log: OpenLog) -> AsyncIterator[KeptLog]:
    """A member that hangs is soon removed from its group."""
    async with open_log(session_timeout_ms=500) as opened:
        yield opened


async def take(traces: AsyncIterator[prela.KeptTrace], count: int) -> list[str]:
    """Trace ids of the next items."""
    with anyio.fail_after(DEADLINE):
        return [(await anext(traces)).trace_id for _ in range(count)]


async def record(log: KeptLog, *shapes: Sequence[int]) -> list[str]:
    """Let the SDK make traces: a root and, for each number, a tool whose result has that many characters."""
    ids = []
    async with prela.pipeline(log.settings):
        for shape in shapes:
            with prela.get_tracer().span("agent", span_type=prela.SpanType.AGENT) as root:
                for size in shape:
                    with prela.get_tracer().span("tool", attributes={"result": "x" * size}):
                        pass
            ids.append(root.trace_id)
    return ids


async def test_what_the_sdk_recorded_and_a_worker_kept_is_returned_whole(log: KeptLog) -> None:
    async with running(log.worker()):
        small, large = await record(log, [10], [6_000] * 5)
        async with prela.kept_traces(group=log.group, settings=log.settings) as traces:
            with anyio.fail_after(DEADLINE):
                found = {trace.trace_id: trace for trace in [await anext(traces), await anext(traces)]}
            await traces.commit()
    assert set(found) == {small, large}
    trace = found[large]
    (root,) = trace.tree().roots
    assert [node.span.name for node in root.children] == ["tool"] * 5
    assert trace.tree().critical_path()
    assert [len(node.span.attributes["result"]) for node in root.children] == [6_000] * 5
    assert {span.resource.service_name for span in trace.spans} == {root.span.resource.service_name} != {""}
    assert (trace.weight, trace.late, trace.unreadable, trace.decision.complete) == (1.0, False, 0, True)
    pieces = [decode_kept(value) for value in await values(log.transport, log.sampled)]
    assert len([one for one in pieces if one.decision.trace_id_hex == large]) > 1, "the large trace fits a Record"
    assert await log.rest(log.group) == []
    assert set(await log.rest(f"{log.group}.others")) == {small, large}


async def test_late_spans_are_a_separate_item(log: KeptLog) -> None:
    at = TopicPartition(log.settings.topics.spans, partition_of(bytes.fromhex(trace_id(1)), 2))
    items = [encode_span(msgspec.structs.replace(one, child_count=0)) for one in (span(1), span(1, 1))]
    async with running(log.worker()):
        await send(log.transport, encode_batch(b"\x80", items[:1]), to=at)
        await decided(log.transport, 1, log.settings.topics)
        await send(log.transport, encode_batch(b"\x80", items[1:]), to=at)
        async with prela.kept_traces(group=None, settings=log.settings) as traces:
            with anyio.fail_after(DEADLINE):
                first, second = await anext(traces), await anext(traces)
    assert [[one.name for one in trace.spans] for trace in (first, second)] == [["plan trip"], ["tool 1"]]
    assert (first.late, second.late) == (False, True)
    assert first.decision == second.decision
    assert [node.span.name for node in second.tree().orphans] == ["tool 1"]


async def test_only_what_is_not_committed_is_returned_again(log: KeptLog) -> None:
    await log.kept(*(whole(number) for number in range(1, 6)))
    ids = [trace_id(number) for number in range(1, 6)]
    async with prela.kept_traces(group=log.group, settings=log.settings) as traces:
        assert await take(traces, 2) == ids[:2]
        await traces.commit()
        assert await take(traces, 1) == ids[2:3]
    committed = await log.committed(log.group)
    assert committed is not None
    assert committed.offset <= 2
    assert await log.rest(log.group) == ids[2:]
    assert await log.rest(log.group) == []


async def test_a_commit_stops_before_a_trace_whose_last_fragment_is_missing(log: KeptLog) -> None:
    begun, ended = fragments_of(1, 2)
    await log.kept(whole(2), begun, whole(3))
    async with prela.kept_traces(group=log.group, settings=log.settings) as traces:
        assert await take(traces, 2) == [trace_id(2), trace_id(3)]
        await traces.commit()
    await log.kept(ended)
    assert await log.rest(log.group) == [trace_id(3), trace_id(1)]
    assert await log.rest(log.group) == []


async def test_a_record_of_decisions_is_done_with_its_last_one(log: KeptLog) -> None:
    about = [decision(number, kept=number % 2 == 0) for number in range(6)]
    at = TopicPartition(log.settings.topics.decisions, 0)
    await send(log.transport, encode_decisions(about[:4]), encode_decisions(about[4:]), to=at)
    async with prela.decisions(group=log.group, settings=log.settings) as found:
        with anyio.fail_after(DEADLINE):
            assert [await anext(found) for _ in range(3)] == about[:3]
        await found.commit()
    async with prela.decisions(group=log.group, settings=log.settings) as found:
        with anyio.fail_after(DEADLINE):
            assert [await anext(found) for _ in range(4)] == about[:4]
        await found.commit()
    async with prela.decisions(group=log.group, settings=log.settings, follow=False) as found:
        assert [one async for one in found] == about[4:]


async def test_records_that_cannot_be_read_or_joined_are_counted_and_skipped(log: KeptLog) -> None:
    before = telemetry.SINK_BAD_RECORDS.value(log.sampled)
    good = encode_kept(whole(1))
    torn = encode_kept(fragments_of(2, 3)[1])
    await send(log.transport, b"", b"\x07future", torn, good, good[:-20], to=TopicPartition(log.sampled, 0))
    assert await log.rest(log.group) == [trace_id(1)]
    assert telemetry.SINK_BAD_RECORDS.value(log.sampled) == before + 4
    committed = await log.committed(log.group)
    assert committed is not None
    assert committed.offset >= 5, "a record that cannot be read is not read again and again"


async def test_an_item_that_cannot_be_read_costs_its_trace_no_other(log: KeptLog) -> None:
    made = whole(1)
    spoilt = [*made.items, (7, made.items[0][1]), (0, msgspec.Raw(b"\x93\x00\xc0\xc0"))]
    await log.kept(msgspec.structs.replace(made, items=spoilt))
    async with prela.kept_traces(None, settings=log.settings, follow=False) as traces:
        (trace,) = [one async for one in traces]
    assert ([one.name for one in trace.spans], trace.unreadable) == (["plan trip", "tool 1"], 2)


async def test_members_share_and_nothing_is_returned_twice_if_each_item_is_committed(
    log: KeptLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iterators, "_CHECK_S", 0.0)  # check before each item: partitions move while many are waiting
    sent = [trace_id(number) for number in range(300)]
    for partition in (0, 1):
        await log.kept(*(whole(number) for number in range(300) if number % 2 == partition), partition=partition)
    returned: list[tuple[str, str]] = []
    committed = 0
    both = anyio.Event()

    async def member(name: str, traces: TopicIterator[prela.KeptTrace]) -> None:
        nonlocal committed
        while True:
            returned.append((name, (await anext(traces)).trace_id))
            await traces.commit()
            committed += 1
            if name == "second":
                both.set()
            with anyio.move_on_after(0.1):  # work, for as long as it takes another one to join
                await both.wait()

    async with (
        prela.kept_traces(log.group, settings=log.settings) as first,
        prela.kept_traces(log.group, settings=log.settings) as second,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(member, "first", first)
        with anyio.fail_after(DEADLINE):
            while not returned:
                await anyio.sleep(0.01)
        tasks.start_soon(member, "second", second)
        for count in range(len(sent)):
            with anyio.fail_after(DEADLINE):  # each of them, not all
                while committed <= count:
                    await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert sorted(found for _, found in returned) == sorted(sent)
    assert {name for name, _ in returned} == {"first", "second"}, (
        "the first one released no partition while items were waiting"
    )
    assert await log.rest(log.group) == []


async def test_a_member_that_hung_commits_nothing_over_its_successor(impatient_log: KeptLog) -> None:
    await impatient_log.kept(*(whole(number) for number in range(4)))
    ids = [trace_id(number) for number in range(4)]
    hung, go_on = threading.Event(), threading.Event()

    async def hang() -> list[str]:
        async with prela.kept_traces(impatient_log.group, settings=impatient_log.settings) as traces:
            seen = await take(traces, 2)
            hung.set()
            assert go_on.wait(DEADLINE)  # the loop is blocked: no heartbeat leaves it
            await traces.commit()  # fenced, and skipped
            return seen

    async def observe() -> None:
        assert await anyio.to_thread.run_sync(hung.wait, DEADLINE)
        if first.done():
            await first  # raises the error that stopped it
        async with prela.kept_traces(impatient_log.group, settings=impatient_log.settings) as traces:
            assert await take(traces, 4) == ids
            await traces.commit()
            go_on.set()
            assert await first == ids[:2]

    first = asyncio.ensure_future(asyncio.to_thread(asyncio.run, hang()))
    first.add_done_callback(lambda _: hung.set())
    await observe()
    assert await impatient_log.rest(impatient_log.group) == []


async def test_a_wait_that_is_cancelled_loses_nothing(log: KeptLog) -> None:
    async with prela.kept_traces(log.group, settings=log.settings) as traces:
        with anyio.move_on_after(0.1) as waited:
            await anext(traces)
        assert waited.cancelled_caught
        await log.kept(whole(1))
        assert await take(traces, 1) == [trace_id(1)]


async def test_a_loop_without_a_block_leaves_its_group_after_a_break(log: KeptLog) -> None:
    await log.kept(whole(1), whole(2))
    traces = prela.kept_traces(log.group, settings=log.settings)
    async for trace in traces:
        assert trace.trace_id == trace_id(1)
        await traces.commit()
        break
    gc.collect()
    assert await log.rest(log.group) == [trace_id(2)]


async def test_a_block_releases_everything_at_its_end(tmp_path: Path) -> None:
    before = own_threads()
    async with prela.kept_traces("g", directory=tmp_path):
        assert own_threads() - before
    assert own_threads() <= before


async def test_without_a_group_everything_is_returned_and_nothing_can_be_committed(log: KeptLog) -> None:
    await log.kept(whole(1))
    await log.kept(whole(2), partition=1)
    for _ in range(2):
        async with prela.kept_traces(None, settings=log.settings, follow=False) as traces:
            assert sorted([one.trace_id async for one in traces]) == [trace_id(1), trace_id(2)]
            with pytest.raises(prela.ConfigurationError, match="needs a consumer group"):
                await traces.commit()


async def test_an_iterator_is_used_once_and_inside_its_block(log: KeptLog) -> None:
    traces = prela.kept_traces(log.group, settings=log.settings)
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
        ({"group": "sampler"}, "worker or a sink"),
        ({"group": "prela.sampler"}, "worker or a sink"),
        ({"group": "sinks.sqlite"}, "worker or a sink"),
        ({"group": "prela.sinks.sqlite"}, "worker or a sink"),
        ({"group": "g", "follow": 1}, "True or False"),
        ({"group": "g", "directory": 3}, "directory: expected a path"),
        ({"group": "g", "settings": load_settings(env={}), "directory": "x"}, "pass either"),
        ({"group": "g", "config": "nowhere.toml"}, "nowhere.toml"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_opened(arguments: dict[str, Any], what: str) -> None:
    for function in (prela.kept_traces, prela.decisions):
        with pytest.raises(prela.ConfigurationError, match=what):
            function(**arguments)
