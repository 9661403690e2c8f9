"""What a sampler writes: reads a topic while it grows, and collects spans per trace."""

import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from bench.peers.population import span_id_of
from prela_stream.app import open_transport
from prela_stream.codec.decisions import decode_decisions
from prela_stream.codec.sampled import decode_kept
from prela_stream.config import Settings


@asynccontextmanager
async def reading(settings: Settings, topic: str, take: Callable[[bytes], None]) -> AsyncIterator[None]:
    """For the length of the block, `take` gets the value of every committed record of the topic."""

    async def run() -> None:
        async with open_transport(settings) as transport, await transport.consumer([topic]) as consumer:
            while True:
                poll = await consumer.poll(timeout=0.05)
                consumer.resume(*poll.assigned)
                for record in poll.records:
                    if record.value is not None:
                        take(bytes(record.value))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        yield
        tasks.cancel_scope.cancel()


class Kept:
    """Kept traces: how often each span was written, and when the trace was first seen (monotonic seconds)."""

    def __init__(self) -> None:
        self.spans: dict[bytes, Counter[bytes]] = defaultdict(Counter)
        self.first_s: dict[bytes, float] = {}
        self.messages = 0

    def take(self, form: str) -> Callable[[bytes], None]:
        """The function that reads records of the worker or of the Collector."""
        return self._of_worker if form == "worker" else self._of_collector

    def _of_collector(self, value: bytes) -> None:
        self.messages += 1
        now = time.monotonic()
        for resource in TracesData.FromString(value).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans[span.trace_id][span.span_id] += 1
                    self.first_s.setdefault(span.trace_id, now)

    def _of_worker(self, value: bytes) -> None:
        self.messages += 1
        fragment = decode_kept(value)
        trace_id = fragment.decision.trace_id
        for _, item in fragment.items:
            self.spans[trace_id][span_id_of(bytes(item))] += 1
        self.first_s.setdefault(trace_id, time.monotonic())


class Decided:
    """How many decisions the worker wrote for each trace."""

    def __init__(self) -> None:
        self.count: Counter[bytes] = Counter()

    def take(self, value: bytes) -> None:
        """Read one record of `decisions`."""
        for decision in decode_decisions(value):
            self.count[decision.trace_id] += 1
