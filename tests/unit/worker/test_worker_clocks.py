"""A wrong clock of a broker delays no decision, and an operator sees it."""

from pathlib import Path

import pytest

from prela_stream import telemetry
from prela_stream.app.adapters import group_of
from prela_stream.app.doctor import diagnose
from prela_stream.codec.spans import encode_item
from prela_stream.config import load_settings
from prela_stream.model.decision import Trigger
from prela_stream.model.span import COUNTED, ItemKind
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.sampling.policyset import default_policies
from prela_stream.transport.local import LocalTransport
from prela_stream.transport.local.transport import wall_ms
from prela_stream.transport.options import LocalOptions
from prela_stream.transport.topics import topic_specs
from tests.support.workers import (
    TOPICS,
    WHOLE_ONLY,
    decided,
    local_log,
    make_worker,
    running,
    send_items,
    whole_trace,
)

HOUR = 3_600_000
START_NS = 1_700_000_000 * 10**9


@pytest.mark.parametrize("ahead", [1, 3])
@pytest.mark.parametrize("first", [True, False])
async def test_records_that_are_stamped_an_hour_ahead_hold_no_trace(tmp_path: Path, ahead: int, first: bool) -> None:
    options = LocalOptions(path=str(tmp_path / "log.db"), session_timeout_ms=120_000)
    offset_ms = 0
    jumps = sum(telemetry.WORKER_CLOCK_JUMPS.value(direction) for direction in ("ahead", "back"))
    async with LocalTransport(options, clock=lambda: wall_ms() + offset_ms) as transport:
        await transport.create_topics(topic_specs(TOPICS))
        if not first:
            await send_items(transport, [encode_item(ItemKind.TICK)])
            await send_items(transport, [encode_item(ItemKind.TICK)])
        offset_ms = HOUR
        for number in range(ahead):
            await send_items(transport, whole_trace(number))
        offset_ms = 0
        for number in range(ahead, ahead + 7):
            await send_items(transport, whole_trace(number))
        async with running(make_worker(transport, assembly=WHOLE_ONLY)):
            found = await decided(transport, ahead + 7)
    assert {one.trigger for one in found} == {Trigger.COMPLETE}
    assert sum(telemetry.WORKER_CLOCK_JUMPS.value(direction) for direction in ("ahead", "back")) > jumps


@pytest.mark.parametrize(
    "start_ns", [0, START_NS - 40 * 10**9, START_NS + 40 * 10**9], ids=["missing", "behind", "ahead"]
)
async def test_the_clock_of_another_host_makes_no_trace_slow(tmp_path: Path, start_ns: int) -> None:
    """The default policies keep what took 30 s. This trace took 1 ms, whatever the clock of its child's host was."""
    trace_id, root, child = b"t" * 9 + bytes(7), b"r" * 8, b"c" * 8  # randomness 0: no share keeps it
    times = ((root, None, 0, 1, START_NS), (child, root, COUNTED, 0, start_ns))
    items = [
        encode_item(ItemKind.SPAN, trace_id, span, parent, flags, 1, 0, children, 0, None, 5, start, 10**6, "s")
        for span, parent, flags, children, start in times
    ]
    async with (
        local_log(tmp_path) as transport,
        running(make_worker(transport, evaluator=Evaluator(default_policies()))),
    ):
        await send_items(transport, items)
        (decision,) = await decided(transport, 1)
    assert (decision.kept, decision.policy) == (False, "rest")
    assert (decision.summary.start_ns, decision.summary.duration_ns) == (START_NS, 10**6)
    assert decision.summary.outside_parent == (1 if start_ns else 0)


async def test_doctor_reports_a_stream_time_that_is_ahead(tmp_path: Path) -> None:
    settings = load_settings(env={}, overrides={"directory": str(tmp_path), "topics": {"partitions": 1}})
    group = group_of(settings, settings.worker.group)
    offset_ms = HOUR
    async with LocalTransport(settings.local, clock=lambda: wall_ms() + offset_ms) as transport:
        await transport.create_topics(topic_specs(settings.topics))
        async with running(make_worker(transport, topics=settings.topics, assembly=WHOLE_ONLY, group=group)):
            await send_items(transport, whole_trace(1))
            await decided(transport, 1)
            offset_ms = 0
            await send_items(transport, whole_trace(2))
            await decided(transport, 2)
    (finding,) = [one async for one in diagnose(settings) if one.check == "stream time"]
    assert finding.state == "wrong"
    assert "prela.spans[0] by 3,600 s" in finding.came or "prela.spans[0] by 3,599 s" in finding.came


async def test_doctor_is_silent_about_a_stream_time_that_is_right(tmp_path: Path) -> None:
    settings = load_settings(env={}, overrides={"directory": str(tmp_path), "topics": {"partitions": 1}})
    group = group_of(settings, settings.worker.group)
    async with LocalTransport(settings.local) as transport:
        await transport.create_topics(topic_specs(settings.topics))
        async with running(make_worker(transport, topics=settings.topics, assembly=WHOLE_ONLY, group=group)):
            await send_items(transport, whole_trace(1))
            await decided(transport, 1)
    assert [one async for one in diagnose(settings) if one.check == "stream time"] == []


async def test_a_trace_after_hours_of_silence_is_decided_as_whole(tmp_path: Path) -> None:
    """Its first record needs confirmation, which a tick gives; its time is not lost."""
    options = LocalOptions(path=str(tmp_path / "log.db"), session_timeout_ms=120_000)
    offset_ms = -5 * HOUR
    async with LocalTransport(options, clock=lambda: wall_ms() + offset_ms) as transport:
        await transport.create_topics(topic_specs(TOPICS))
        async with running(make_worker(transport, assembly=WHOLE_ONLY)):
            await send_items(transport, whole_trace(1))
            await decided(transport, 1)
            offset_ms = 0
            for item in whole_trace(2):
                await send_items(transport, [item])
            _, second = await decided(transport, 2)
    assert (second.trigger, second.complete, second.summary.spans) == (Trigger.COMPLETE, True, 3)
    assert second.decided_at_ms > wall_ms() - HOUR
