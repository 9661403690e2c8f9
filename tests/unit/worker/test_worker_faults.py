"""Faults in the worker and around it: no partly applied record is committed, and no wait is endless."""

import sqlite3
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from prela_stream import telemetry
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.codec.dlq import decode_dead_letter
from prela_stream.codec.spans import encode_batch, encode_item
from prela_stream.errors import TransportError
from prela_stream.model.span import ItemKind
from prela_stream.model.trace import Trace
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.sampling.policy import Verdict
from prela_stream.transport.base import Poll
from prela_stream.transport.local import LocalTransport
from prela_stream.transport.local.consumer import LocalConsumer
from prela_stream.transport.local.transport import wall_ms
from prela_stream.transport.options import LocalOptions, TopicOptions
from prela_stream.transport.topics import TopicMismatchError, topic_specs
from prela_stream.worker.intake import PoisonLimitError
from tests.support.unreliable import Unreliable
from tests.support.workers import (
    DEADLINE,
    KEEP_ALL,
    QUICK,
    TOPICS,
    checkpoint,
    dead_letters,
    decided,
    decisions,
    kept_spans,
    local_log,
    make_worker,
    pass_retention,
    running,
    send,
    send_items,
    values,
    whole_trace,
)

PATIENT = AssemblyOptions(settle_ms=3_600_000, root_wait_ms=3_600_000, idle_without_heartbeats_ms=3_600_000)


async def test_poison_over_the_limit_is_dead_lettered_once_and_other_items_are_counted(tmp_path: Path) -> None:
    value = encode_batch(b"\x80", [whole_trace(1)[0], b"\xc3", b"\xc3", b"\xc3"])
    async with local_log(tmp_path) as transport:
        await send(transport, *[value] * 30)
        with pytest.raises(PoisonLimitError):
            await make_worker(transport, poison_window=20, poison_action="stop").run()
        stopped = await checkpoint(transport, 1)
        assert (stopped.position, stopped.counters.dlq, stopped.counters.unaccounted()) == (5, 15, 0)
        assert len(await dead_letters(transport)) == 5
        async with running(make_worker(transport, poison_limit=1.0)):
            await checkpoint(transport, 30)
        letters = await dead_letters(transport)
    assert [(offset, place, raw) for offset, place, raw, _ in letters] == [(n, 1, b"\xc3" * 3) for n in range(30)]


async def test_poison_over_the_limit_is_reported_and_ends_no_worker(tmp_path: Path) -> None:
    def poisoned() -> float:
        return telemetry.snapshot().value("prela_worker_partitions", state="poisoned")

    async with local_log(tmp_path) as transport:
        worker = make_worker(transport, poison_window=20)
        async with running(worker):
            await send(transport, *[b"\x09"] * 30, encode_batch(b"\x80", whole_trace(1)))
            await decided(transport, 1)
            await checkpoint(transport, 31)
            with anyio.fail_after(DEADLINE):
                while not poisoned():
                    await anyio.sleep(0.01)
            (problem,) = worker.observer.problems(60.0)
            assert problem == (
                "100% of the last 20 items of prela.spans[0] were unreadable (worker.poison_limit: 50%); they are in prela.dlq "
                "with the reason. A producer probably writes another format; the worker continues without them"
            )
            await send(transport, *[encode_batch(b"\x80", whole_trace(number)) for number in range(2, 20)])
            with anyio.fail_after(DEADLINE):
                while poisoned():
                    await anyio.sleep(0.01)
            assert worker.observer.problems(60.0) == []


async def test_dead_letters_of_a_record_are_grouped_by_reason_with_their_places(tmp_path: Path) -> None:
    good = whole_trace(1)
    items = [b"\xc3", good[0], b"\xc3", b"\xc3", b"\x91\x00", good[1], b"\xc3", good[2]]
    async with local_log(tmp_path) as transport, running(make_worker(transport)):
        await send(transport, encode_batch(b"\x80", items))
        await decided(transport, 1)
        letters = [decode_dead_letter(value) for value in await values(transport, TOPICS.dlq)]
        assert await kept_spans(transport) == good
        assert (await checkpoint(transport, 1)).counters.dlq == 5
    assert [(one.index, one.count, one.places, one.raw) for one in letters] == [
        (0, 4, [(0, 1), (2, 2), (6, 1)], b"\xc3" * 4),
        (4, 1, [(4, 1)], b"\x91\x00"),
    ]


async def test_an_item_too_large_to_be_kept_is_dead_lettered_and_does_not_stop_its_partition(tmp_path: Path) -> None:
    topics = TopicOptions(partitions=1, max_record_bytes=10_000)
    large = encode_item(ItemKind.SPAN, bytes(16), b"too long", None, 0, 1, 0, 0, 0, None, 0, 1, 1, "x" * 9_500)
    async with LocalTransport(LocalOptions(path=str(tmp_path / "log.db"))) as transport:
        await transport.create_topics([*topic_specs(TOPICS)])  # this producer's topic accepts larger records
        async with running(make_worker(transport, topics=topics)):
            await send(transport, encode_batch(b"\x81\xa1k\xda\x02\x00" + b"v" * 512, [large, *whole_trace(1)]))
            (decision,) = await decided(transport, 1)
            (letter,) = [decode_dead_letter(value) for value in await values(transport, TOPICS.dlq)]
    assert decision.summary.spans == 3
    assert (letter.index, letter.count) == (0, 1)
    assert letter.reason.startswith(
        "an item and its resource have at most 10,000 bytes (topics.max_record_bytes), these have 10,"
    )


@pytest.mark.parametrize("fault", ["aborted", "unknown, lost"])
async def test_the_poison_limit_is_reported_when_the_dead_letters_are_in_the_log(tmp_path: Path, fault: str) -> None:
    """The message names `dlq`. It must not come from a commit that failed."""
    async with local_log(tmp_path) as transport:
        await send(transport, *[b"\x09"] * 30)
        unreliable = Unreliable(transport, [fault, fault])
        with pytest.raises(PoisonLimitError, match=r"they are in prela\.dlq"):
            await make_worker(unreliable, poison_window=20, poison_action="stop").run()
        assert unreliable.plan == []
        assert len(await dead_letters(transport)) == 20


class _FailsAtTheSecond(Evaluator):
    """A policy that raises at the second trace."""

    def decide(self, trace: Trace) -> Verdict:
        if trace.trace_id == (2).to_bytes(16, "big"):
            msg = "a bug"
            raise ZeroDivisionError(msg)
        return super().decide(trace)


async def test_a_partly_applied_record_is_not_committed_at_the_stop(tmp_path: Path) -> None:
    faulty = _FailsAtTheSecond(KEEP_ALL.policy_set)
    async with local_log(tmp_path) as transport:
        await send_items(transport, whole_trace(1))
        await send_items(transport, whole_trace(2))
        worker = make_worker(transport, evaluator=faulty, commit_interval_ms=3_600_000)
        with anyio.fail_after(DEADLINE), pytest.raises(ExceptionGroup) as caught:
            await worker.run()
        assert caught.group_contains(ZeroDivisionError)
        async with running(make_worker(transport)):
            assert [d.trace_id[-1] for d in await decided(transport, 2)] == [1, 2]
        assert await kept_spans(transport) == [*whole_trace(1), *whole_trace(2)]


async def test_a_replay_that_decides_more_than_a_commit_takes_goes_on_to_its_end(tmp_path: Path) -> None:
    """Shorter waits decide open traces in the replay. A replay cannot commit, so it must not wait for a commit."""
    async with local_log(tmp_path) as transport:
        async with running(make_worker(transport, assembly=PATIENT)):
            for number in range(1, 51):
                await send_items(transport, whole_trace(number))
                await anyio.sleep(0.002)  # different log-append times, so that each record makes the one before it due
            await checkpoint(transport, 50)
        hasty = msgspec.structs.replace(QUICK, settle_ms=1)
        async with running(make_worker(transport, assembly=hasty, commit_bytes=100, poll_bytes=500)):
            await decided(transport, 50)
        assert sorted(await kept_spans(transport)) == sorted(i for n in range(1, 51) for i in whole_trace(n))


@pytest.mark.slow
async def test_a_locked_log_does_not_stop_a_worker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged once per outage. Only the worker has a short timeout, because slow disks are not tested here."""
    patient = LocalOptions(path=str(tmp_path / "log.db"), session_timeout_ms=300)
    impatient = msgspec.structs.replace(patient, busy_timeout_ms=300)
    refused: list[int] = []
    """Number of failed polls of each outage."""
    works = True
    poll = LocalConsumer.poll

    async def counted(consumer: LocalConsumer, **limits: Any) -> Poll:
        nonlocal works
        try:
            found = await poll(consumer, **limits)
        except TransportError:
            if works:
                refused.append(0)
            refused[-1] += 1
            works = False
            raise
        works = True
        return found

    monkeypatch.setattr(LocalConsumer, "poll", counted)
    async with LocalTransport(patient) as log, LocalTransport(impatient) as transport:
        await log.create_topics(topic_specs(TOPICS))
        async with running(make_worker(transport)):
            other = sqlite3.connect(patient.path, timeout=DEADLINE, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with anyio.fail_after(DEADLINE):
                while works or refused[-1] < 3:
                    await anyio.sleep(0.01)
            assert caplog.text.count("cannot read") == len(refused)
            other.execute("ROLLBACK")
            other.close()
            await send_items(log, whole_trace(1))
            await decided(log, 1)


async def test_records_that_were_deleted_unread_are_logged_with_their_offsets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    topics = msgspec.structs.replace(TOPICS, retention_hours=0.5)
    async with local_log(tmp_path, topics) as transport:
        async with running(make_worker(transport, topics=topics)):
            await send_items(transport, whole_trace(1))
            await decided(transport, 1)
        position = (await checkpoint(transport, 1)).position
        await send_items(transport, whole_trace(2))
        begin = await pass_retention(tmp_path, whole_trace(3))
        assert begin > position
        async with running(make_worker(transport, topics=topics)):
            pass
    assert "topic prela.spans: expected records to be retained for at least 86,400,000 ms" in caplog.text
    assert f"retention deleted the records from offset {position} to {begin}" in caplog.text


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"sampled_partitions": 2}, "topic prela.sampled: expected 2 partitions, found 1"),
        ({"partitions": 8}, "topics prela.spans, prela.decisions: expected 8 partitions, found 1"),
        ({"max_record_bytes": 2_000_000}, "topics prela.sampled, prela.dlq: expected records of up to 2,016,384 bytes"),
    ],
)
async def test_topics_that_could_not_hold_the_output_stop_the_worker_at_once(
    tmp_path: Path, settings: dict[str, int], expected: str
) -> None:
    async with local_log(tmp_path) as transport:
        worker = make_worker(transport, topics=msgspec.structs.replace(TOPICS, **settings))
        with pytest.raises(TopicMismatchError) as caught:
            await worker.run()
    assert len([line for line in str(caught.value).splitlines() if line.startswith(expected)]) == 1


async def test_a_shorter_retention_than_the_settings_does_not_stop_a_worker(tmp_path: Path) -> None:
    topics = msgspec.structs.replace(TOPICS, retention_hours=1_000.0)
    async with local_log(tmp_path) as transport, running(make_worker(transport, topics=topics)):
        await send_items(transport, whole_trace(1))
        await decided(transport, 1)


async def test_a_clock_that_was_ahead_for_a_while_lets_no_trace_be_decided_twice(tmp_path: Path) -> None:
    """The spans' log keeps the later time that it was once stamped with; the decisions' log, empty then, has the right one."""
    ahead_ms = 3_600_000
    short = AssemblyOptions(late_window_ms=1_000, max_spans=2, root_wait_ms=50_000)
    options = LocalOptions(path=str(tmp_path / "log.db"), session_timeout_ms=60_000)
    async with LocalTransport(options, clock=lambda: wall_ms() + ahead_ms) as transport:
        await transport.create_topics(topic_specs(TOPICS))
        await send_items(transport, [encode_item(ItemKind.TICK)])
        await send_items(transport, whole_trace(1)[2:])  # holds the low watermark here
    async with LocalTransport(options) as transport:
        for number in range(2, 12):
            await send_items(
                transport, whole_trace(number)
            )  # over max_spans: decided while stream time does not advance
            async with running(make_worker(transport, assembly=short)):
                await decided(transport, number - 1)
        assert [d.trace_id[-1] for d in await decisions(transport)] == list(range(2, 12))
        assert len(await kept_spans(transport)) == 30
