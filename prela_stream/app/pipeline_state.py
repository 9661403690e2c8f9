"""The state of the pipeline for the web page, read from what workers and sinks have committed. It needs no connection to them.

A worker stores its position, its clock and the class of every item with each commit (`worker.checkpoint`), so that any process
that can read the transport can report lag, watermark age and ledger, on the local transport and on Kafka.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio

from prela_stream import telemetry
from prela_stream.app.adapters import group_of, open_transport
from prela_stream.app.service_metrics import service_panel
from prela_stream.app.undecided import undecided_traces
from prela_stream.errors import PrelaError
from prela_stream.transport.base import TopicPartition
from prela_stream.views import formats
from prela_stream.web.api import Figure, Panel, RunningTrace
from prela_stream.worker.checkpoint import Checkpoint, read_checkpoint

if TYPE_CHECKING:
    from prela_stream.config import Settings
    from prela_stream.transport.base import Consumer, Transport

_ANSWER_S: Final = 4.0
_MOST_RUNNING: Final = 100
_BEHIND: Final = 1_000
"""Records; a partition with more of them to read is marked."""


class PipelineState:
    """Reads the committed state of workers and sinks.

    Args:
        settings: Of the pipeline.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def panels(self) -> list[Panel]:
        """Services, workers, their ledger, and sinks; a panel with a note if the transport does not answer."""
        services = await service_panel(self._settings)
        found: list[Panel] = [] if services is None else [services]
        try:
            with anyio.fail_after(_ANSWER_S):
                async with _observed(self._settings) as (transport, consumer):
                    if not await transport.topics([self._settings.topics.spans]):
                        found.append(_no_topic(self._settings))
                        return found
                    found += await self._workers(transport, consumer)
                    found.append(await self._sinks(transport, consumer))
        except PrelaError as error:
            found.append(Panel(title="Transport", note=str(error)))
        except TimeoutError:
            found.append(Panel(title="Transport", note=f"The transport has not answered within {_ANSWER_S:g} s."))
        return [*found, *_agent()]

    async def running(self) -> list[RunningTrace] | None:
        """The traces that have items in the log and no decision; None if the log cannot be read in time."""
        try:
            with anyio.fail_after(_ANSWER_S):
                found = await undecided_traces(self._settings)
        except (PrelaError, TimeoutError):
            return None
        return [
            RunningTrace(
                trace_id=one.trace_id,
                name=one.name,
                service=one.service,
                start_ns=one.start_ns,
                spans=one.spans,
                open_spans=one.open_spans,
                errors=one.errors,
                state=one.state,
            )
            for one in found.traces[:_MOST_RUNNING]
        ]

    async def _workers(self, transport: Transport, consumer: Consumer) -> list[Panel]:
        settings = self._settings
        group = group_of(settings, settings.worker.group)
        rows: list[Sequence[str]] = []
        checkpoints: list[Checkpoint] = []
        lag = 0
        for source in await _partitions(transport, settings.topics.spans):
            committed, end = await transport.committed(group, source), await consumer.end_offset(source)
            if committed is None:
                lag += end
                rows.append((str(source.partition), f"{end:,}", "", "", "no worker has committed yet"))
                continue
            one = read_checkpoint(committed.metadata, partitions=settings.topics.partitions, where=str(source))
            checkpoints.append(one)
            behind = max(0, end - one.position)
            lag += behind
            age_ns = max(0, one.clock_ms - one.clock_before_ms) * 1_000_000
            rows.append(
                (
                    str(source.partition),
                    f"{behind:,}",
                    f"{one.counters.open:,}",
                    formats.duration(age_ns) if one.position > committed.offset else "0",
                    f"{one.position:,}",
                )
            )
        columns = ("Partition", "Lag (records)", "Open items", "Watermark age", "Position")
        figures = (
            Figure(
                name="Lag",
                value=formats.plural(lag, "record"),
                state="warn" if lag > _BEHIND else "ok",
                meaning="records that agents have written and no worker has applied",
            ),
        )
        return [
            Panel(title="Workers", figures=figures, columns=columns, rows=rows),
            *([_ledger(checkpoints)] if checkpoints else []),
        ]

    async def _sinks(self, transport: Transport, consumer: Consumer) -> Panel:
        settings = self._settings
        sources = await _partitions(transport, settings.topics.sampled)
        rows: list[Sequence[str]] = []
        for sink in settings.sink:
            lag = 0
            started = False
            for source in sources:
                committed = await transport.committed(group_of(settings, sink.group), source)
                started = started or committed is not None
                lag += max(0, await consumer.end_offset(source) - (0 if committed is None else committed.offset))
            rows.append((sink.name, sink.type, f"{lag:,}", "" if started else "has committed nothing yet"))
        return Panel(title="Sinks", columns=("Sink", "Type", "Lag (records)", ""), rows=rows)


def _no_topic(settings: Settings) -> Panel:
    note = f"The topic {settings.topics.spans} does not exist yet: no agent has sent a span, and no worker or sink has started."
    return Panel(title="Transport", note=note)


def _ledger(checkpoints: Sequence[Checkpoint]) -> Panel:
    """Every consumed item in exactly one class, which must balance (docs/architecture.md)."""
    classes = ("open", "kept", "dropped", "duplicates", "late_kept", "late_dropped", "control", "dlq")
    meanings = {
        "open": "of undecided traces",
        "late_kept": "after the decision on a kept trace",
        "late_dropped": "after the decision on a dropped trace",
        "control": "starts, heartbeats, ticks and the like",
        "dlq": "unreadable, in the dead-letter topic",
    }
    consumed = sum(one.counters.consumed for one in checkpoints)
    missing = sum(one.counters.unaccounted() for one in checkpoints)
    figures = [
        Figure(
            name="consumed",
            value=f"{consumed:,}",
            state="bad" if missing else "ok",
            meaning=f"{missing:,} items are in no class" if missing else "the classes below balance",
        )
    ]
    for name in classes:
        count = sum(getattr(one.counters, name) for one in checkpoints)
        state = "bad" if name == "dlq" and count else ""
        figures.append(
            Figure(name=name.replace("_", " "), value=f"{count:,}", state=state, meaning=meanings.get(name, ""))
        )
    return Panel(title="Ledger of the workers, in items", figures=figures)


def _agent() -> list[Panel]:
    """Queue and ledger of this process, if it records spans, as the OTLP endpoint of `dev` does."""
    metrics = telemetry.snapshot("agent")
    recorded = metrics.value("prela_agent_items_total")
    if not recorded:
        return []
    drops = metrics.value("prela_agent_dropped_items_total")
    figures = (
        Figure(name="recorded", value=f"{recorded:,.0f}"),
        Figure(name="acknowledged", value=f"{metrics.value('prela_agent_acknowledged_items_total'):,.0f}"),
        Figure(name="queued or in flight", value=f"{metrics.value('prela_agent_queue_items'):,.0f}"),
        Figure(name="unknown", value=f"{metrics.value('prela_agent_unknown_items_total'):,.0f}"),
        Figure(name="dropped", value=f"{drops:,.0f}", state="bad" if drops else "ok"),
    )
    return [Panel(title="Delivery of this process, in items", figures=figures)]


async def _partitions(transport: Transport, topic: str) -> list[TopicPartition]:
    spec = (await transport.topics([topic])).get(topic)
    return [TopicPartition(topic, number) for number in range(0 if spec is None else spec.partitions)]


@asynccontextmanager
async def _observed(settings: Settings) -> AsyncIterator[tuple[Transport, Consumer]]:
    """The transport, and a consumer without a group that knows the ends of the partitions."""
    async with AsyncExitStack() as stack:
        transport = await stack.enter_async_context(open_transport(settings))
        names = [settings.topics.spans, settings.topics.sampled]
        existing = await transport.topics(names)
        consumer = await transport.consumer([name for name in names if name in existing])
        yield transport, await stack.enter_async_context(consumer)
