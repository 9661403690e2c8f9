"""Reads a Kafka from outside: plain aiokafka and a socket, nothing of the transport under test."""

import socket
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import aiokafka
import anyio
import anyio.to_thread
import msgspec
from aiokafka.admin import AIOKafkaAdminClient

from prela_stream.transport.base import Committed, LogRecord, TopicPartition
from tests.support.processes import DEADLINE

_DESCRIBE_TRANSACTIONS = 65
_OVER = frozenset({"Empty", "CompleteCommit", "CompleteAbort", "Dead"})
_ENDING = frozenset({"PrepareCommit", "PrepareAbort", "PrepareEpochFence"})


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """What the coordinator knows of a transactional id."""

    state: str
    epoch: int
    """Grows with each producer that is opened, and once more where that one had to end its predecessor's transaction."""

    @property
    def is_over(self) -> bool:
        """Whether nothing is under way."""
        return self.state in _OVER

    @property
    def is_ending(self) -> bool:
        """Whether its writer has ended it, and the brokers have still to mark its end in every partition."""
        return self.state in _ENDING


class KafkaLog:
    """An `oracle.Outside` on Kafka; for one with a single broker.

    Args:
        bootstrap: `host:port` of the broker.
    """

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._admin: Any = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        self._readers: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        await self._admin.start()
        for level in ("read_committed", "read_uncommitted"):
            reader: Any = aiokafka.AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                isolation_level=level,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
            )
            await reader.start()
            self._readers[level] = reader
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reader in self._readers.values():
            await reader.stop()
        await self._admin.close()

    async def records(self, topic: str, partitions: int) -> list[LogRecord]:
        """Every record of a topic that a read_committed reader sees."""
        all_ = [aiokafka.TopicPartition(topic, number) for number in range(partitions)]
        reader = self._readers["read_committed"]
        reader.assign(all_)
        await reader.seek_to_beginning(*all_)
        ends = await reader.end_offsets(all_)
        found: list[LogRecord] = []
        with anyio.fail_after(DEADLINE):
            while any([await reader.position(partition) < end for partition, end in ends.items()]):
                for records in (await reader.getmany(timeout_ms=200)).values():
                    found += [
                        LogRecord(
                            topic=record.topic,
                            partition=record.partition,
                            offset=record.offset,
                            timestamp_ms=record.timestamp,
                            value=record.value,
                            key=record.key,
                            headers=tuple(record.headers),
                        )
                        for record in records
                    ]
        return found

    async def committed(self, group: str, partition: TopicPartition) -> Committed | None:
        """What a group has committed."""
        found = await self._admin.list_consumer_group_offsets(
            group, partitions=[aiokafka.TopicPartition(partition.topic, partition.partition)]
        )
        ((_, one),) = found.items()
        return None if one.offset < 0 else Committed(offset=one.offset, metadata=one.metadata)

    async def end(self, partition: TopicPartition) -> int:
        """Where a read_committed reader ends."""
        return (await self._ends("read_committed", [aiokafka.TopicPartition(partition.topic, partition.partition)]))[0]

    async def held_back(self, topic: str, partitions: int) -> int:
        """How many offsets of a topic an open transaction keeps from read_committed readers."""
        all_ = [aiokafka.TopicPartition(topic, number) for number in range(partitions)]
        readable = await self._ends("read_committed", all_)
        written = await self._ends("read_uncommitted", all_)
        return sum(written) - sum(readable)

    async def group_is_stable(self, group: str, members: int) -> bool:
        """Whether a group has shared its partitions out among so many members, and nothing has come up since."""
        (answer,) = await self._admin.describe_consumer_groups([group])
        ((code, _, state, _, _, found, *_),) = answer.groups
        return bool(code == 0 and state == "Stable" and len(found) == members)

    async def _ends(self, level: str, partitions: list[Any]) -> list[int]:
        found = await self._readers[level].end_offsets(partitions)
        return [found[partition] for partition in partitions]

    async def transaction(self, transactional_id: str) -> Transaction:
        """What the coordinator knows of this id."""
        return await anyio.to_thread.run_sync(describe_transaction, self._bootstrap, transactional_id)

    async def transactions_are_over(self, transactional_ids: Sequence[str]) -> None:
        """No writer has left a transaction open. Of those that were ended the mark may come to the partitions a moment later."""
        with anyio.fail_after(DEADLINE):
            for name in transactional_ids:
                while not (found := await self.transaction(name)).is_over:
                    assert found.is_ending, f"{name} is left open: {found}"
                    await anyio.sleep(0.05)


def describe_transaction(bootstrap: str, transactional_id: str) -> Transaction:
    """Ask a broker for a transaction's state (DescribeTransactions, version 0: aiokafka has no such request)."""
    host, _, port = bootstrap.rpartition(":")
    name = transactional_id.encode()
    assert len(name) < 127, "a longer length takes more than one byte"
    header = struct.pack(">hhih", _DESCRIBE_TRANSACTIONS, 0, 1, -1) + b"\0"
    request = header + bytes([2, len(name) + 1]) + name + b"\0"
    with socket.create_connection((host, int(port)), timeout=10.0) as connection, connection.makefile("rwb") as file:
        file.write(struct.pack(">i", len(request)) + request)
        file.flush()
        (size,) = struct.unpack(">i", file.read(4))
        answer = file.read(size)
    error, length = struct.unpack_from(">hB", answer, 4 + 1 + 4 + 1)  # behind correlation, tags, throttling, count
    assert error == 0, f"expected to learn about {transactional_id}; the broker answered error {error}"
    at = 4 + 1 + 4 + 1 + 3 + length - 1
    state = answer[at + 1 : at + answer[at]].decode()
    _, _, _, epoch = struct.unpack_from(">iqqh", answer, at + answer[at])
    return Transaction(state=state, epoch=epoch)
