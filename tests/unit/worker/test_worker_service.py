"""The worker on a real local log: ticks, fences, commits with unknown outcomes, poison, and logs that it rejects."""

from pathlib import Path

import anyio
import pytest

from prela_stream.assembly.options import AssemblyOptions
from prela_stream.codec.spans import encode_batch
from prela_stream.errors import PrelaError, UnknownTopicError
from prela_stream.model.decision import Trigger
from prela_stream.transport.base import CommitOutcome
from prela_stream.transport.local import LocalTransport
from prela_stream.transport.options import LocalOptions, TopicOptions
from prela_stream.worker.checkpoint import CheckpointError
from prela_stream.worker.intake import PoisonLimitError
from prela_stream.worker.restore import TruncatedLogError
from tests.support.unreliable import Unreliable
from tests.support.workers import (
    DEADLINE,
    SPANS,
    dead_letters,
    decided,
    decisions,
    end,
    kept_spans,
    local_log,
    make_worker,
    pass_retention,
    running,
    send,
    send_items,
    whole_trace,
)


async def test_a_whole_trace_on_a_silent_topic_is_decided_by_ticks(tmp_path: Path) -> None:
    async with local_log(tmp_path) as transport, running(make_worker(transport)):
        await send_items(transport, whole_trace(1))
        (decision,) = await decided(transport, 1)
        assert (decision.trigger, decision.complete, decision.kept) == (Trigger.COMPLETE, True, True)
        assert (decision.summary.root_name, decision.summary.spans) == ("agent", 3)
        assert await kept_spans(transport) == whole_trace(1)


async def test_a_silent_topic_without_open_traces_gets_no_ticks(tmp_path: Path) -> None:
    async with local_log(tmp_path) as transport, running(make_worker(transport, tick_max_ms=20)):
        await send_items(transport, whole_trace(1))
        await decided(transport, 1)
        ticked = await end(transport)  # its task ticks and commits alternately, so no tick is in flight
        with anyio.move_on_after(0.3):  # 15 times tick_max_ms
            await anyio.sleep_forever()
        assert await end(transport) == ticked


async def test_late_spans_follow_their_trace(tmp_path: Path) -> None:
    items = whole_trace(1)
    async with local_log(tmp_path) as transport:
        worker = make_worker(transport)
        async with running(worker):
            await send_items(transport, items[1:])
            await decided(transport, 1)
            await send_items(transport, items[:1])
            with anyio.fail_after(DEADLINE):
                while len(await kept_spans(transport)) < len(items):
                    await anyio.sleep(0.01)
            counters = worker.status()[SPANS].counters
        assert await kept_spans(transport) == [*items[1:], items[0]]
        assert (counters.late_kept, counters.unaccounted()) == (1, 0)
        assert len(await decisions(transport)) == 1


async def test_poison_is_dead_lettered_with_its_offset_and_affects_no_other_item(tmp_path: Path) -> None:
    items = whole_trace(1)
    async with local_log(tmp_path) as transport, running(make_worker(transport)):
        await send(transport, b"\x09foreign", encode_batch(b"\x80", [items[0], b"\xc3", *items[1:]]))
        await decided(transport, 1)
        whole, one = await dead_letters(transport)
        assert whole == (0, -1, b"\x09foreign", "format version 9 is not known; this release reads version 1")
        assert one[:3] == (1, 1, b"\xc3")
        assert await kept_spans(transport) == items


async def test_too_much_poison_stops_the_worker_after_the_commit(tmp_path: Path) -> None:
    async with local_log(tmp_path) as transport:
        await send(transport, *[b"\x09"] * 30)
        with pytest.raises(PoisonLimitError) as caught:
            await make_worker(transport, poison_window=20, poison_action="stop").run()
    assert str(caught.value) == (
        "100% of the last 20 items of prela.spans[0] were unreadable (worker.poison_limit: 50%); they are in prela.dlq with the "
        "reason. A producer probably writes another format; to continue anyway, set worker.poison_action to report"
    )


async def test_missing_topics_are_named(tmp_path: Path) -> None:
    async with LocalTransport(LocalOptions(path=str(tmp_path / "log.db"))) as transport:
        with pytest.raises(UnknownTopicError) as caught:
            await make_worker(transport).run()
    assert str(caught.value) == (
        "the worker needs the topics prela.decisions, prela.dlq, prela.sampled, prela.spans, which do not exist: "
        "run `prela-stream topics create`"
    )


async def test_a_worker_that_is_fenced_writes_nothing_more_until_it_has_taken_over_again(tmp_path: Path) -> None:
    async with local_log(tmp_path) as transport:
        worker = make_worker(transport)
        async with running(worker):
            await send_items(transport, whole_trace(1))
            await decided(transport, 1)
            thief = await transport.writer("sampler", SPANS)  # as a worker with a stale assignment would
            await send_items(transport, whole_trace(2))
            assert [d.trace_id[-1] for d in await decided(transport, 2)] == [1, 2]
            await thief.aclose()
        assert await kept_spans(transport) == [*whole_trace(1), *whole_trace(2)]


@pytest.mark.parametrize("fault", ["aborted", "unknown, lost", "unknown, landed"])
async def test_the_log_shows_the_outcome_of_a_failed_commit(tmp_path: Path, fault: str) -> None:
    async with local_log(tmp_path) as transport:
        unreliable = Unreliable(transport, ["", fault, fault])
        worker = make_worker(unreliable)
        async with running(worker):
            for number in range(1, 6):
                await send_items(transport, whole_trace(number))
                await decided(transport, number)
            assert unreliable.opened >= 3
            counters = worker.status()[SPANS].counters
        assert [d.trace_id[-1] for d in await decisions(transport)] == [1, 2, 3, 4, 5]
        assert await kept_spans(transport) == [item for number in range(1, 6) for item in whole_trace(number)]
        assert counters.unaccounted() == 0


async def commit_as(transport: LocalTransport, metadata: str, offset: int = 0) -> None:
    writer = await transport.writer("sampler", SPANS)
    assert await writer.commit([], offset, metadata) is CommitOutcome.COMMITTED
    await writer.aclose()


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("of another program", "has no checkpoint of a worker"),
        (
            '{"position":0,"clock_before_ms":0,"clock_ms":0,"partitions":8,"counters":[0,0,0,0,0,0,0,0,0],"format":1}',
            "was written when the topic had 8 partitions, now it has 1. The partition count of a prefix is fixed",
        ),
        (
            '{"position":0,"clock_before_ms":0,"clock_ms":0,"partitions":1,"counters":[0,0,0,0,0,0,0,0,0],"format":7}',
            "has format 7, this release reads 1",
        ),
    ],
)
async def test_a_checkpoint_that_does_not_fit_stops_the_worker(tmp_path: Path, metadata: str, expected: str) -> None:
    async with local_log(tmp_path) as transport:
        await commit_as(transport, metadata)
        with pytest.raises(CheckpointError) as caught:
            await make_worker(transport).run()
    assert expected in str(caught.value)


async def test_records_that_retention_deleted_stop_the_takeover(tmp_path: Path) -> None:
    topics = TopicOptions(partitions=1, retention_hours=0.5)
    waiting = AssemblyOptions(root_wait_ms=36_000_000, idle_without_heartbeats_ms=36_000_000)
    async with local_log(tmp_path, topics) as transport:
        async with running(make_worker(transport, topics=topics, assembly=waiting)):
            await send_items(transport, whole_trace(1)[1:])
            with anyio.fail_after(DEADLINE):
                while (found := await transport.committed("sampler", SPANS)) is None or found.offset != 0:
                    await anyio.sleep(0.01)
        await pass_retention(tmp_path, whole_trace(2)[1:])
        with pytest.raises(TruncatedLogError) as caught:
            await make_worker(transport, topics=topics, assembly=waiting).run()
        assert "undecided traces need the log from offset 0 on, but it begins at" in str(caught.value)
        assert "worker.accept_truncation = true" in str(caught.value)
        worker = make_worker(transport, topics=topics, assembly=waiting, accept_truncation=True)
        async with running(worker):
            with anyio.fail_after(DEADLINE):
                while (status := worker.status()[SPANS]).replaying or status.counters.consumed == 2:
                    await send_items(transport, whole_trace(2)[1:])
                    await anyio.sleep(0.01)
        assert status.counters.unaccounted() == 0


def test_the_errors_that_stop_a_worker_are_prela_errors() -> None:
    assert all(issubclass(kind, PrelaError) for kind in (CheckpointError, PoisonLimitError, TruncatedLogError))
