"""The composition root: puts the parts together for a process. The only file that names concrete transports and stores.

Adapters are imported where they are chosen, so that a process loads only what its settings ask for.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from prela_stream.errors import ConfigurationError

if TYPE_CHECKING:
    from prela_stream.config import Settings
    from prela_stream.sampling.policyset import PolicySet
    from prela_stream.sinks.base import Sink, TraceReader
    from prela_stream.transport.base import Transport

logger = logging.getLogger("prela_stream")


def open_transport(settings: Settings) -> Transport:
    """The transport that the settings name. Connects to nothing yet."""
    from prela_stream.transport.local import LocalTransport

    return LocalTransport(settings.local)


def open_sink(settings: Settings) -> Sink:
    """The store, for writing."""
    from prela_stream.sinks.sqlite import SqliteSink

    return SqliteSink(settings.store)


def open_reader(settings: Settings) -> TraceReader:
    """The store, for reading; also while another process writes it."""
    from prela_stream.sinks.sqlite_reader import SqliteReader

    return SqliteReader(settings.store)


def load_policy_set(settings: Settings) -> PolicySet:
    """The policies of `policies_file`, or the default ones; raises ConfigurationError with every mistake of the file."""
    from prela_stream.sampling.policyset import default_policies, load_policies

    if settings.policies_file is None:
        return default_policies()
    path = Path(settings.policies_file)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read the policy file {path}: {error}. Name a TOML file that exists, or none for the default policies"
        raise ConfigurationError(msg) from error
    return load_policies(text, source=str(path))


async def create_topics(settings: Settings) -> list[str]:
    """Make the topics that are missing; returns their names."""
    from prela_stream.transport.topics import topic_specs

    async with open_transport(settings) as transport:
        return await transport.create_topics(topic_specs(settings.topics))


async def check_topics(settings: Settings) -> list[str]:
    """One line for each thing that is wrong with the topics; empty if all is well."""
    from prela_stream.transport.topics import check_topics as check

    async with open_transport(settings) as transport:
        return check(settings.topics, await transport.topics())


@asynccontextmanager
async def _ready_transport(settings: Settings) -> AsyncIterator[Transport]:
    """A transport whose topics exist. A local one makes them: on one machine nobody else would."""
    from prela_stream.transport.topics import topic_specs

    async with open_transport(settings) as transport:
        if settings.transport == "local":
            await transport.create_topics(topic_specs(settings.topics))
        yield transport


async def run_worker(settings: Settings, *, on_ready: Callable[[], None] | None = None) -> None:
    """Sample until cancelled; then commit what is decided and leave the group.

    Args:
        settings: Everything.
        on_ready: Called once, when the first assignment is restored.
    """
    from prela_stream.sampling.evaluator import Evaluator
    from prela_stream.worker.service import Worker

    evaluator = Evaluator(load_policy_set(settings))
    async with _ready_transport(settings) as transport:
        worker = Worker(
            transport,
            topics=settings.topics,
            evaluator=evaluator,
            options=settings.worker,
            assembly=settings.assembly,
        )
        await worker.run(on_ready)


async def run_sink(settings: Settings) -> None:
    """Store kept traces until cancelled."""
    from prela_stream.sinks.service import SinkService

    async with _ready_transport(settings) as transport:
        await SinkService(transport, settings.topics, open_sink(settings)).run()


async def run_dev(settings: Settings, *, on_ready: Callable[[], None] | None = None) -> None:
    """Worker and store in one process, until cancelled."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_sink, settings)
        await run_worker(settings, on_ready=on_ready)
