"""Traces at a steady rate, for the measurements of latency and of a crash."""

import time
from collections import defaultdict
from typing import Final

import anyio

from bench.peers.population import CHILDREN, FORMATS, STATUS, changed, span_id_of, traces
from bench.worker import SPANS_A_TRACE
from prela_stream.app import open_transport
from prela_stream.config import Settings
from prela_stream.model.ids import partition_of
from prela_stream.transport.base import TopicPartition

_TURN_S: Final = 0.05
_ERROR: Final = 2


class Load:
    """Traces at a steady rate. Every root is an error, so that both samplers keep every trace.

    Args:
        settings: Names the broker and the topic.
        form: `worker` or `collector`: the format of the records.
        traces_per_s: The rate.
        seconds: How long traces start.
        spread_s: The second half of a trace's spans, with the root, is sent so many seconds after the first.
        seed: Of the ids, so that each run has other traces.
    """

    def __init__(
        self, settings: Settings, form: str, *, traces_per_s: float, seconds: float, spread_s: float, seed: int
    ) -> None:
        self._settings = settings
        self._form = form
        self._interval_s = 1 / traces_per_s
        self._seconds = seconds
        self._spread_s = spread_s
        self._source = traces(10**9, seed=seed)
        self.sent: dict[bytes, set[bytes]] = {}
        self.began: dict[bytes, float] = {}
        self.ended: dict[bytes, float] = {}

    async def run(self) -> None:
        """Send everything. A record has the spans of a partition that became due within one turn of 50 ms."""
        partitions = self._settings.topics.partitions
        due: list[tuple[float, bytes, list[bytes], bool]] = []
        began, made = time.monotonic(), 0
        async with open_transport(self._settings) as transport, await transport.producer() as producer:
            while due or made * self._interval_s < self._seconds:
                now = time.monotonic() - began
                while made * self._interval_s < min(now, self._seconds):
                    due += self._trace(now)
                    made += 1
                ready = [part for part in due if part[0] <= now]
                due = [part for part in due if part[0] > now]
                batches: dict[int, list[bytes]] = defaultdict(list)
                for _, trace_id, items, _ in ready:
                    batches[partition_of(trace_id, partitions)] += items
                for partition, items in batches.items():
                    target = TopicPartition(self._settings.topics.spans, partition)
                    await producer.send(target, [FORMATS[self._form](items)])
                sent = time.monotonic()
                self.ended |= {trace_id: sent for _, trace_id, _, is_last in ready if is_last}
                await anyio.sleep(_TURN_S)

    def _trace(self, now: float) -> list[tuple[float, bytes, list[bytes], bool]]:
        trace_id, items = next(self._source)
        items[-1] = changed(items[-1], {STATUS: _ERROR, CHILDREN: SPANS_A_TRACE - 1})
        self.sent[trace_id] = {span_id_of(item) for item in items}
        self.began[trace_id] = time.monotonic()
        if not self._spread_s:
            return [(now, trace_id, items, True)]
        half = SPANS_A_TRACE // 2
        return [(now, trace_id, items[:half], False), (now + self._spread_s, trace_id, items[half:], True)]
