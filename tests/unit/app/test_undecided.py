"""Undecided traces are read from the log: what each is waiting for, and that decided ones are not among them."""

from functools import partial
from pathlib import Path

import anyio
import pytest

from prela_stream.app import run_worker, undecided_traces
from prela_stream.app.adapters import ready_transport
from prela_stream.codec.spans import encode_batch, encode_item, encode_resource
from prela_stream.config import Settings, load_settings
from prela_stream.errors import ConfigurationError
from prela_stream.model.span import ItemKind, Resource, SpanStatus
from prela_stream.transport.base import Record, TopicPartition
from tests.support.items import encode_span
from tests.support.kept import NOW, span, trace_id
from tests.support.processes import DEADLINE


def settings_in(folder: Path) -> Settings:
    return load_settings(env={}, overrides={"directory": str(folder), "topics": {"partitions": 1}})


async def append(settings: Settings, items: list[bytes], heartbeat_ms: int = 0) -> None:
    resource = encode_resource(Resource(service_name="travel", heartbeat_ms=heartbeat_ms))
    async with ready_transport(settings) as transport, await transport.producer() as producer:
        record = Record(value=encode_batch(resource, items), headers=(("prela-format", b"spans/1"),))
        await producer.send(TopicPartition(settings.topics.spans, 0), [record])


def control(kind: ItemKind, number: int, index: int = 0) -> bytes:
    of = bytes.fromhex(trace_id(number)), (index + 1).to_bytes(8, "big")
    name = "plan trip" if kind is ItemKind.START else ""
    return encode_item(kind, *of, None, 0, 0, 0, None, None, None, 0, NOW + number, None, name)


async def test_the_states_of_undecided_traces(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    await append(settings, [control(ItemKind.START, 1), control(ItemKind.HEARTBEAT, 1)], heartbeat_ms=3_600_000)
    await append(settings, [control(ItemKind.START, 2), control(ItemKind.SUSPEND, 2)])
    await append(settings, [encode_span(span(3, 0)), encode_span(span(3, 1, status=SpanStatus.ERROR))])
    await append(settings, [control(ItemKind.START, 4)], heartbeat_ms=1)
    await append(settings, [control(ItemKind.START, 5), control(ItemKind.SUSPEND, 5), control(ItemKind.RESUME, 5)])
    with anyio.fail_after(DEADLINE):
        found = await undecided_traces(settings)
        while {one.trace_id: one.state for one in found.traces}[
            trace_id(4)
        ] != "lost":  # its heartbeat of 1 ms has to be missed
            found = await undecided_traces(settings)
    assert found.complete
    states = {int(one.trace_id[:4], 16): one for one in found.traces}
    assert {number: one.state for number, one in states.items()} == {
        1: "running", 2: "suspended", 3: "waiting", 4: "lost", 5: "running",
    }  # fmt: skip
    assert (states[1].name, states[1].service, states[1].open_spans, states[1].spans) == ("plan trip", "travel", 1, 0)
    assert (states[3].name, states[3].open_spans, states[3].spans, states[3].errors) == ("plan trip", 0, 2, 1)


async def test_a_decided_trace_is_not_among_them(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    await append(settings, [encode_span(span(1, 0, child_count=0, inject_count=0))])
    await append(settings, [control(ItemKind.START, 2)])
    assert len((await undecided_traces(settings)).traces) == 2
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(run_worker, settings))
        with anyio.fail_after(DEADLINE):
            while [one.trace_id for one in (await undecided_traces(settings)).traces] != [trace_id(2)]:
                await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()


async def test_without_a_log(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no log at .*no agent wrote spans there yet"):
        await undecided_traces(settings_in(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
