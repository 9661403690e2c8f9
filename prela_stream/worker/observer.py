"""The gauges of a running worker, and whether it is ready. They are computed only when they are read."""

import time
from collections.abc import Iterator, Mapping

import anyio

from prela_stream import telemetry
from prela_stream.assembly.selection import CoreKind
from prela_stream.errors import TransportError
from prela_stream.measures import Collected
from prela_stream.transport.base import Consumer, TopicPartition
from prela_stream.worker.assignment import AssignedPartition
from prela_stream.worker.partition_data import PartitionStatus

_REFRESH_S = 2.0
"""Time limit for reading the end offsets. A partition without an answer keeps its last known end offset."""
_SILENT_S = 15.0
"""A poll takes 0.1 s, or as long as the timeouts of the transport allow. After this long the worker is not ready."""


class WorkerObserver:
    """The metrics and the readiness of one worker.

    Args:
        partitions: The assigned partitions of the worker, which changes this mapping.
        core: The core that does the work per span.
    """

    def __init__(self, partitions: Mapping[TopicPartition, AssignedPartition], core: CoreKind) -> None:
        self._partitions = partitions
        self.core = core
        """The core of partitions that are restored now."""
        self._ends: dict[TopicPartition, int] = {}
        self._assigned = False
        self.consumer: Consumer | None = None
        """The consumer of the worker; None unless the worker runs."""
        self._polled = time.monotonic()
        self.failure = ""
        """Why the last poll failed; empty if it succeeded."""
        telemetry.register(self)

    def polled(self) -> None:
        """A poll has ended."""
        self._polled = time.monotonic()

    def rebalanced(self) -> None:
        """The group has completed an assignment."""
        self._assigned = True
        telemetry.WORKER_REBALANCES.add()

    async def refresh(self) -> None:
        """Read the end offset of every restored partition. After an error of the transport the last known ones remain."""
        with anyio.move_on_after(_REFRESH_S):
            async with anyio.create_task_group() as tasks:
                for source in self._statuses():
                    tasks.start_soon(self._find_end, source)

    async def _find_end(self, source: TopicPartition) -> None:
        if self.consumer is not None:
            try:
                self._ends[source] = await self.consumer.end_offset(source)
            except TransportError:
                return

    def problems(self, max_lag_s: float) -> list[str]:
        """Why the worker is not ready: it has no assignment, cannot read, restores partitions, or is over `max_lag_s` behind."""
        if self.failure:
            return [f"the worker cannot read from the transport, and tries again: {self.failure}"]
        silent_s = time.monotonic() - self._polled
        if self.consumer is not None and silent_s > _SILENT_S:
            return [f"the transport has not answered for {silent_s:.0f} s"]
        if self.consumer is None or not self._assigned:
            return ["the worker has not received its partitions from the consumer group"]
        statuses = self._statuses()
        found = [f"{source} is being restored" for source in self._partitions if source not in statuses]
        found += [
            f"{source} makes no progress: it was restored several times without a commit"
            for source, one in self._partitions.items()
            if one.is_stalled
        ]
        found += [one.poison for one in self._partitions.values() if one.poison is not None]
        for source, status in statuses.items():
            age = self._applied_age_s(source, status)
            if status.replaying:
                found.append(f"{source} is being replayed")
            elif age > max_lag_s:
                found.append(f"{source} is {age:.0f} s behind, {self._lag(source, status)} records are not applied")
        return found

    def collect(self) -> Iterator[Collected]:
        """The gauges of the worker and of its partitions."""
        yield telemetry.WORKER_CORE, 1, (self.core.name, self.core.version)
        statuses = self._statuses()
        replaying = sum(status.replaying for status in statuses.values())
        stalled = sum(one.is_stalled for one in self._partitions.values())
        states = {
            "restoring": len(self._partitions) - len(statuses),
            "replaying": replaying,
            "running": len(statuses) - replaying,
            "stalled": stalled,
            "poisoned": sum(one.poison is not None for one in self._partitions.values()),
        }
        for state, count in states.items():
            yield telemetry.WORKER_PARTITIONS, count, (state,)
        for source, status in statuses.items():
            labels = (str(source.partition),)
            yield telemetry.WORKER_LAG, self._lag(source, status), labels
            yield telemetry.WORKER_APPLIED_AGE, self._applied_age_s(source, status), labels
            yield telemetry.WORKER_OPEN_TRACES, status.open_traces, labels
            yield telemetry.WORKER_OPEN_BYTES, status.open_bytes, labels
            yield telemetry.WORKER_OLDEST_AGE, _age_s(status, status.oldest_ms), labels
            yield telemetry.WORKER_WATERMARK_AGE, _age_s(status, status.watermark_ms), labels

    def _statuses(self) -> dict[TopicPartition, PartitionStatus]:
        found = {source: one.status() for source, one in list(self._partitions.items())}
        return {source: status for source, status in found.items() if status is not None}

    def _lag(self, source: TopicPartition, status: PartitionStatus) -> int:
        return max(0, self._ends.get(source, status.position) - status.position)

    def _applied_age_s(self, source: TopicPartition, status: PartitionStatus) -> float:
        if not self._lag(source, status) or not status.applied_ms:
            return 0.0
        return max(0.0, time.time() - status.applied_ms / 1000)


def _age_s(status: PartitionStatus, since_ms: int | None) -> float:
    """Stream time from `since_ms` to the partition's clock; 0 if there is none."""
    return max(0, status.clock_ms - since_ms) / 1000 if since_ms else 0.0
