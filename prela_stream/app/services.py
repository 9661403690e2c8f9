"""The services of the right-hand side, each a coroutine that runs until it is cancelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import anyio
import msgspec

from prela_stream.app.adapters import group_of, load_policy_set, open_sink, ready_transport

if TYPE_CHECKING:
    from prela_stream.config import Settings

SINK_GROUP: Final = "sinks.sqlite"


async def run_worker(settings: Settings, *, on_ready: Callable[[], None] | None = None) -> None:
    """Sample until cancelled; then commit what is decided and leave the group.

    Args:
        settings: Everything.
        on_ready: Called once, when the first assignment is restored.
    """
    from prela_stream.sampling.evaluator import Evaluator
    from prela_stream.worker.service import Worker

    evaluator = Evaluator(load_policy_set(settings))
    async with ready_transport(settings) as transport:
        worker = Worker(
            transport,
            topics=settings.topics,
            evaluator=evaluator,
            options=msgspec.structs.replace(settings.worker, group=group_of(settings, settings.worker.group)),
            assembly=settings.assembly,
        )
        await worker.run(on_ready)


async def run_sink(settings: Settings, *, on_ready: Callable[[], None] | None = None) -> None:
    """Store kept traces until cancelled.

    Args:
        settings: Everything.
        on_ready: Called once, when the first partitions are ours and positioned.
    """
    from prela_stream.sinks.service import SinkService

    async with ready_transport(settings) as transport:
        sink = SinkService(transport, settings.topics, open_sink(settings), group=group_of(settings, SINK_GROUP))
        await sink.run(on_ready=on_ready)


async def run_dev(settings: Settings, *, on_ready: Callable[[], None] | None = None) -> None:
    """Worker and store in one process, until cancelled."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_sink, settings)
        await run_worker(settings, on_ready=on_ready)
