"""A real transport whose producers wait or fail until a test releases them."""

from collections.abc import Sequence
from typing import Any

import anyio

from prela_stream.errors import TransportError
from prela_stream.transport.base import Record, TopicPartition


class Unreachable:
    """A transport whose producers wait, or fail, until they are released."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.failure: TransportError | None = None
        self.open = anyio.Event()
        self.sent = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def producer(self) -> Any:
        return _UnreachableProducer(self, await self._inner.producer())


class _UnreachableProducer:
    def __init__(self, owner: Unreachable, inner: Any) -> None:
        self._owner = owner
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def send(self, to: TopicPartition, records: Sequence[Record]) -> int:
        self._owner.sent += 1
        if self._owner.failure is not None:
            raise self._owner.failure
        await self._owner.open.wait()
        offset: int = await self._inner.send(to, records)
        return offset
