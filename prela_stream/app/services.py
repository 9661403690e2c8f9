"""The services that read the log, each a coroutine that runs until it is cancelled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import msgspec

from prela_stream.app.adapters import (
    chosen_sinks,
    dev_policy_set,
    group_of,
    load_policy_set,
    open_sink,
    ready_transport,
)
from prela_stream.app.allocator import keep_freed_memory
from prela_stream.app.garbage import rare_collections
from prela_stream.app.health import Health, exposed
from prela_stream.app.switching import quick_switches
from prela_stream.codec.decisions import decode_decisions
from prela_stream.errors import PrelaError, TransportError, guard

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

    from prela_stream.config import Settings
    from prela_stream.model.decision import Decision
    from prela_stream.sampling.evaluator import Evaluator
    from prela_stream.sampling.policyset import PolicySet
    from prela_stream.sinks.settings import SinkSettings
    from prela_stream.transport.base import Transport


_RESTART_S: Final = 5.0
"""Pause before a sink with a defect is started again."""
_RETRY_S: Final = 1.0


async def run_worker(settings: Settings, *, on_ready: Callable[[], None] | None = None) -> None:
    """Assemble and decide traces until cancelled; then commit the decisions and leave the group.

    Args:
        settings: Everything.
        on_ready: Called once, when the first assignment is restored.
    """
    evaluator = _evaluator(load_policy_set(settings))
    health = Health(("worker",), ("worker",))
    async with exposed(settings.http, health), ready_transport(settings) as transport:
        await _run_worker(settings, transport, evaluator, health, on_ready)


def _evaluator(policies: PolicySet) -> Evaluator:
    from prela_stream.sampling.evaluator import Evaluator

    return Evaluator(policies)


async def _run_worker(
    settings: Settings,
    transport: Transport,
    evaluator: Evaluator,
    health: Health,
    on_ready: Callable[[], None] | None,
) -> None:
    from prela_stream.worker.service import Worker

    worker = Worker(
        transport,
        topics=settings.topics,
        evaluator=evaluator,
        options=msgspec.structs.replace(settings.worker, group=group_of(settings, settings.worker.group)),
        assembly=settings.assembly,
    )
    health.add("worker", worker.observer)
    keep_freed_memory()
    with rare_collections():
        await worker.run(on_ready)


async def run_sinks(
    settings: Settings, *, only: Sequence[str] = (), on_ready: Callable[[], None] | None = None
) -> None:
    """Write kept traces to the sinks until cancelled. Each sink has its own consumer group, so none waits for another.

    Args:
        settings: Everything.
        only: Names of the sinks to run; empty: all of them.
        on_ready: Called once, when every sink has its first partitions and the offset of each.
    """
    sinks = chosen_sinks(settings, only)
    health = Health(("sink",), _parts(sinks))
    async with exposed(settings.http, health), ready_transport(settings) as transport:
        with rare_collections(), quick_switches():  # a batch is many small objects, too
            await _run_sinks(settings, transport, sinks, health, on_ready)


def _parts(sinks: Iterable[SinkSettings]) -> list[str]:
    return [f"sink {sink.name}" for sink in sinks]


async def _run_sinks(
    settings: Settings,
    transport: Transport,
    sinks: Sequence[SinkSettings],
    health: Health,
    on_ready: Callable[[], None] | None,
) -> None:
    waiting = {sink.name for sink in sinks}

    def ready(name: str) -> None:
        waiting.discard(name)
        if not waiting and on_ready is not None:
            on_ready()

    async with anyio.create_task_group() as tasks:
        for sink in sinks:
            tasks.start_soon(_run_sink, settings, transport, sink, health, partial(ready, sink.name))


async def _run_sink(
    settings: Settings, transport: Transport, sink: SinkSettings, health: Health, on_ready: Callable[[], None]
) -> None:
    """Run one sink. A defect of the sink ends only its own service, which is started again with the same records."""
    from prela_stream.sinks.registry import SINK_TYPES
    from prela_stream.sinks.service import SinkService

    group = group_of(settings, sink.group)
    while True:
        records = SINK_TYPES[sink.type].records
        opened = open_sink(sink, transport)
        service = SinkService(
            transport,
            settings.topics,
            opened,
            name=sink.name,
            group=group,
            max_records=records,
            max_bytes=records << 13,
        )
        health.add(f"sink {sink.name}", service.observer)
        failure: PrelaError | None = None
        with guard(f"sink {sink.name}"):
            try:
                await service.run(on_ready=on_ready)
            except PrelaError as error:
                failure = error
        if failure is not None:
            raise failure
        await anyio.sleep(_RESTART_S)


async def run_dev(
    settings: Settings,
    *,
    on_ready: Callable[[], None] | None = None,
    on_page: Callable[[str], None] | None = None,
    on_decision: Callable[[Decision], None] | None = None,
) -> None:
    """Worker, all sinks, the OTLP receiver and the web page in one process and on one transport, until cancelled.

    Without a policy file every trace is kept. If the extra `otlp` is not installed, or another process uses the default address,
    a line in the log reports it.

    Args:
        settings: Everything.
        on_ready: Called once, when the first assignment is restored.
        on_page: Called before that with the URL of the web page, if it is served.
        on_decision: Called for each decision that is committed from now on.
    """
    from prela_stream.app.otlp import receive_beside
    from prela_stream.app.pages import page_beside

    evaluator = _evaluator(dev_policy_set(settings))
    health = Health(("worker", "sink", "otlp"), ["worker", *_parts(settings.sink)])
    async with (
        exposed(settings.http, health),
        ready_transport(settings) as transport,
        page_beside(settings) as url,
        anyio.create_task_group() as tasks,
    ):
        if url is not None and on_page is not None:
            on_page(url)
        if on_decision is not None:
            await tasks.start(_report_decisions, transport, settings.topics.decisions, on_decision)
        tasks.start_soon(_run_sinks, settings, transport, settings.sink, health, None)
        tasks.start_soon(receive_beside, settings, transport, health)
        await _run_worker(settings, transport, evaluator, health, on_ready)


async def _report_decisions(
    transport: Transport,
    topic: str,
    on_decision: Callable[[Decision], None],
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Call `on_decision` for what is appended to `decisions` from now on. What it raises is counted and changes nothing."""
    async with await transport.consumer([topic]) as consumer:
        is_ready = False
        while True:
            try:
                poll = await consumer.poll()
                for partition in poll.assigned:
                    await consumer.seek(partition, await consumer.end_offset(partition))
                    consumer.resume(partition)
            except TransportError:
                await anyio.sleep(_RETRY_S)  # the worker logs it
                continue
            if poll.assigned and not is_ready:
                is_ready = True
                task_status.started()
            for record in poll.records:
                with guard("dev.report_decisions"):
                    for decision in decode_decisions(record.value or b""):
                        on_decision(decision)
