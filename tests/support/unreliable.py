"""A real transport whose commits fail on demand."""

from collections.abc import Sequence
from typing import Any

from prela_stream.transport.base import CommitOutcome, Committed, Record, TopicPartition, Writer
from prela_stream.transport.local import LocalTransport


class Unreliable:
    """A real transport whose commits report an unknown outcome after landing, or without landing."""

    def __init__(self, transport: LocalTransport, plan: list[str]) -> None:
        self._transport = transport
        self.plan = plan
        self.opened = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    async def writer(self, group: str, source: TopicPartition) -> Writer:
        self.opened += 1
        return _UnreliableWriter(await self._transport.writer(group, source), self.plan)


class _UnreliableWriter:
    def __init__(self, writer: Writer, plan: list[str]) -> None:
        self._writer = writer
        self._plan = plan

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    @property
    def committed(self) -> Committed | None:
        return self._writer.committed

    async def commit(
        self, records: Sequence[tuple[TopicPartition, Record]], offset: int, metadata: str = ""
    ) -> CommitOutcome:
        fault = self._plan.pop(0) if self._plan else ""
        if fault == "aborted":
            return CommitOutcome.ABORTED
        if fault == "unknown, lost":
            return CommitOutcome.UNKNOWN
        outcome = await self._writer.commit(records, offset, metadata)
        return CommitOutcome.UNKNOWN if fault == "unknown, landed" else outcome
