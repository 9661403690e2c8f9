"""When an iterator with `follow=False` ends: rebalances in every order, and a transport that cannot report ends of partitions."""

import logging
from pathlib import Path
from typing import Any, Self

import anyio
import pytest

import prela_stream as prela
from prela_stream.codec.sampled import encode_kept
from prela_stream.config import Settings, load_settings
from prela_stream.errors import TransportError, UnknownTopicError
from prela_stream.sinks.iterators import KeptTraceItems, TopicIterator
from prela_stream.transport.base import LogRecord, Poll, TopicPartition
from prela_stream.transport.local.consumer import LocalConsumer
from prela_stream.transport.options import TopicOptions
from tests.support.kept import trace_id, whole
from tests.support.workers import DEADLINE, local_log, send

TOPIC = TopicOptions().sampled
ONE, TWO = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)


def record(part: TopicPartition, offset: int, number: int) -> LogRecord:
    """A kept trace in one record."""
    value = encode_kept(whole(number))
    return LogRecord(topic=part.topic, partition=part.partition, offset=offset, timestamp_ms=1_000, value=value)


class Scripted:
    """A consumer with given polls: an order of rebalances that no real group makes on request."""

    def __init__(self, polls: list[Poll], ends: dict[TopicPartition, int]) -> None:
        self.polls = polls
        self._ends = ends
        self._positions: dict[TopicPartition, int] = {}

    async def poll(self, **_: object) -> Poll:
        """The next one; the iterator must end before they are used up."""
        assert self.polls, "polled after everything was read"
        poll = self.polls.pop(0)
        for part in poll.revoked:
            del self._positions[part]
        self._positions.update(dict.fromkeys(poll.assigned, 0))
        for found in poll.records:
            self._positions[TopicPartition(found.topic, found.partition)] = found.offset + 1
        return poll

    def assignment(self) -> frozenset[TopicPartition]:
        """What the polls have assigned."""
        return frozenset(self._positions)

    def resume(self, *_: TopicPartition) -> None:
        """Nothing is paused."""

    async def position(self, part: TopicPartition) -> int:
        """After the records that were polled."""
        return self._positions[part]

    async def end_offset(self, part: TopicPartition) -> int:
        """As given."""
        return self._ends[part]

    async def consumer(self, *_: object, **__: object) -> Self:
        """The object is its own transport."""
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close."""


async def read_all(polls: list[Poll], ends: dict[TopicPartition, int]) -> list[str]:
    """Ids of the traces up to the end of an iterator with these polls, all of which it must use."""
    script: Any = Scripted(polls, ends)
    async with TopicIterator(lambda: script, TOPIC, KeptTraceItems, group="g", follow=False) as traces:
        found = [trace.trace_id async for trace in traces]
    assert script.polls == [], "it ended too early"
    return found


async def test_an_empty_assignment_is_an_end() -> None:
    assert await read_all([Poll(), Poll(rebalanced=True)], {}) == []


async def test_what_was_revoked_may_be_assigned_again_until_the_rebalance_ends() -> None:
    polls = [
        Poll(assigned=(ONE,), rebalanced=True),
        Poll(records=(record(ONE, 0, 1),)),
        Poll(revoked=(ONE,)),
        Poll(),
        Poll(assigned=(ONE,), rebalanced=True),
        Poll(records=(record(ONE, 0, 1), record(ONE, 1, 2))),
    ]
    assert await read_all(polls, {ONE: 2}) == [trace_id(1), trace_id(1), trace_id(2)]


async def test_what_was_revoked_and_assigned_to_others_is_an_end() -> None:
    assert (
        await read_all([Poll(assigned=(ONE,), rebalanced=True), Poll(revoked=(ONE,), rebalanced=True)], {ONE: 2}) == []
    )


async def test_a_partition_that_others_have_yet_to_release_is_waited_for() -> None:
    polls = [
        Poll(assigned=(ONE,)),
        Poll(records=(record(ONE, 0, 1),)),
        Poll(assigned=(TWO,), rebalanced=True),
        Poll(records=(record(TWO, 0, 2),)),
    ]
    assert await read_all(polls, {ONE: 1, TWO: 1}) == [trace_id(1), trace_id(2)]


@pytest.fixture
async def settings(tmp_path: Path) -> Settings:
    """Of a log with two kept traces."""
    async with local_log(tmp_path) as transport:
        await send(transport, *(encode_kept(whole(number)) for number in (1, 2)), to=ONE)
    return load_settings(env={}, overrides={"local": {"path": str(tmp_path / "log.db"), "session_timeout_ms": 60_000}})


@pytest.mark.slow
async def test_a_transport_that_cannot_report_an_end_is_asked_again_and_each_reason_is_logged_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ask = LocalConsumer.end_offset
    refusals = ["the disk is away", "the disk is away", "the disk is slow", "the disk is away"]

    async def refuse_first(self: LocalConsumer, partition: TopicPartition) -> int:
        if refusals:
            raise TransportError(refusals.pop())
        return await ask(self, partition)

    monkeypatch.setattr(LocalConsumer, "end_offset", refuse_first)
    with caplog.at_level(logging.WARNING), anyio.fail_after(DEADLINE):
        async with prela.kept_traces("g", settings=settings, follow=False) as traces:
            assert [trace.trace_id async for trace in traces] == [trace_id(1), trace_id(2)]
    logged = [one.message.split(": ")[-1] for one in caplog.records if "cannot read from the transport" in one.message]
    assert logged == ["the disk is away", "the disk is slow", "the disk is away"]


async def test_a_deleted_topic_is_not_waited_for(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(self: LocalConsumer, partition: TopicPartition) -> int:
        raise UnknownTopicError(f"no {partition}")

    monkeypatch.setattr(LocalConsumer, "end_offset", gone)
    async with prela.kept_traces("g", settings=settings, follow=False) as traces:
        with anyio.fail_after(DEADLINE), pytest.raises(UnknownTopicError, match=TOPIC):
            await anext(traces)
