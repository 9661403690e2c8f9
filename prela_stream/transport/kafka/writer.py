"""The one writer of a group and partition: a transactional producer whose id names both, so that opening it fences the last one.

aiokafka neither spoils a transaction when one of its batches fails nor bounds how long it tries: every delivery is awaited here,
anything but success ends the writer, and everything has a deadline.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Self

import aiokafka
import aiokafka.errors as kafka
import anyio
from aiokafka.errors import KafkaError

from prela_stream.errors import FencedError, TransportError
from prela_stream.transport.base import CommitOutcome, Committed, Record, TopicPartition
from prela_stream.transport.checks import check_committed
from prela_stream.transport.kafka.admin.groups import Groups
from prela_stream.transport.kafka.admin.offsets import Offsets
from prela_stream.transport.kafka.admin.topics import Catalog
from prela_stream.transport.kafka.client.sender import Sending, failures, said
from prela_stream.transport.options import KafkaOptions

logger = logging.getLogger("prela_stream.transport.kafka")

_BATCH_BYTES: Final = 256 << 10
"""Records of a commit go in batches of about so much: compressing one holds the event loop up for a millisecond or two."""
_ABORT_S: Final = 2.0
"""How long giving up a transaction may take. One that is left open is settled by the next writer, or by its timeout."""
_VISIBLE_S: Final = 1.0
"""How long a commit waits until it can be seen. Other writers' commits to the same partitions may hold it back for longer."""
_FENCED: Final = (kafka.ProducerFenced, kafka.InvalidProducerEpoch)
_NOT_ENDED: Final = (kafka.InvalidTxnState, kafka.InvalidProducerIdMapping, kafka.TransactionalIdAuthorizationFailed)
"""What a broker says that does not end a transaction as it was asked to."""
Batches = dict[TopicPartition, list[Record]]


class KafkaWriter:
    """A Writer of the Kafka transport: one transaction a commit. It uses two connections to one broker, n + 2 to n brokers."""

    def __init__(
        self,
        options: KafkaOptions,
        catalog: Catalog,
        offsets: Offsets,
        groups: Groups,
        group: str,
        source: TopicPartition,
    ) -> None:
        self._options = options
        self._catalog = catalog
        self._offsets = offsets
        self._groups = groups
        self._group = group
        self._source = source
        self._sending: Sending | None = None
        self._committed: Committed | None = None
        self._dead = "it was never opened"
        self.closed = False

    async def open(self) -> None:
        """Fence the last writer, settle its transaction, read what is committed. Raises TransportError."""
        sending = Sending(self._options, f"{self._group}-{self._source.topic}-{self._source.partition}")
        # Returns when the last writer's transaction has ended, its offset included: until then the coordinator says "not yet".
        await sending.start(f"the writer of {self._source} for group {self._group!r}")
        try:
            found = await self._groups.committed(self._group, [self._source])
        except BaseException:
            await sending.aclose()
            raise
        self._committed = found.get(self._source)
        self._sending = sending
        self._dead = ""

    @property
    def committed(self) -> Committed | None:
        """See `Writer.committed`."""
        return self._committed

    async def commit(
        self, records: Sequence[tuple[TopicPartition, Record]], offset: int, metadata: str = ""
    ) -> CommitOutcome:
        """See `Writer.commit`. It takes up to half of `transaction_timeout_ms`."""
        self._require_alive()
        check_committed(offset, metadata)
        batches: Batches = {}
        for to, record in records:
            batches.setdefault(to, []).append(record)
        sending = self._sending
        assert sending is not None
        self._dead = "a commit of it was cancelled"  # until we know better
        lives = False
        try:
            if (refused := await self._refusal(batches)) is not None:
                lives = True
                raise refused
            outcome = await self._commit(sending, batches, offset, metadata)
            lives = outcome is CommitOutcome.COMMITTED
        finally:
            if lives and not self.closed:
                self._dead = ""
            else:
                await self._give_up()
        return outcome

    async def _refusal(self, batches: Batches) -> TransportError | None:
        try:
            for to, records in batches.items():
                await self._catalog.check(to, records)
        except TransportError as error:
            return error
        return None

    async def _commit(self, sending: Sending, batches: Batches, offset: int, metadata: str) -> CommitOutcome:
        ending, ends_before = False, sending.ends_begun
        try:
            with anyio.fail_after(self._options.transaction_timeout_ms / 2000):
                ends = await self._write(sending, batches, offset, metadata)
                ending = True
                await sending.kafka.commit_transaction()
        except (TimeoutError, KafkaError, AssertionError) as error:  # aiokafka asserts what state a transaction is in
            self._catalog.forget({to.topic for to in batches})
            return self._failed(error, sending.ends_begun - ends_before if ending else 0)
        # It is certain now, but readers see it when the brokers have marked its end in every partition.
        await self._offsets.wait_readable(ends, _VISIBLE_S)
        return CommitOutcome.COMMITTED

    async def _write(self, sending: Sending, batches: Batches, offset: int, metadata: str) -> dict[TopicPartition, int]:
        """Everything but the end of the transaction: nothing of it is ever visible without that. Returns where it ends."""
        await sending.kafka.begin_transaction()
        deliveries: list[tuple[TopicPartition, int, asyncio.Future[Any]]] = []
        for to, records in batches.items():
            deliveries += [(to, len(batch), await sending.append(to, batch)) for batch in _cut(records)]
        found = await asyncio.gather(*(future for _, _, future in deliveries), return_exceptions=True)
        ends: dict[TopicPartition, int] = {}
        for (to, count, _), delivered in zip(deliveries, found, strict=True):
            if isinstance(delivered, BaseException):
                raise delivered
            ends[to] = delivered.offset + count + 1  # the mark of the transaction's end included
        where = aiokafka.TopicPartition(self._source.topic, self._source.partition)
        await sending.kafka.send_offsets_to_transaction({where: (offset, metadata)}, self._group)
        return ends

    def _failed(self, error: BaseException, ends: int) -> CommitOutcome:
        """What a failure means. `ends`: how often the broker was asked to end the transaction; it may have done so unheard."""
        causes = failures(error)
        fenced = any(isinstance(cause, _FENCED) for cause in causes)
        if fenced and ends <= 1:
            self._dead = "another writer has taken the partition over"
            raise self._fenced() from error
        told = ends == 1 and any(isinstance(cause, _NOT_ENDED) for cause in causes)
        outcome = CommitOutcome.ABORTED if ends == 0 or told else CommitOutcome.UNKNOWN
        self._dead = f"a commit of it ended {outcome.value}"
        why = (
            f"no end within {self._options.transaction_timeout_ms // 2:,} ms"
            if isinstance(error, TimeoutError)
            else said(error)
        )
        logger.warning("commit of %s for group %s: %s (%s)", self._source, self._group, outcome.value, why)
        return outcome

    def _require_alive(self) -> None:
        if self._dead:
            raise self._fenced()

    def _fenced(self) -> FencedError:
        msg = (
            f"the writer of {self._source.topic}/{self._source.partition} for group {self._group!r} can write nothing any more: "
            f"{self._dead}; open a new one"
        )
        return FencedError(msg)

    async def _give_up(self) -> None:
        sending, self._sending = self._sending, None
        if sending is not None:
            with anyio.CancelScope(shield=True):
                with anyio.move_on_after(_ABORT_S):
                    await sending.abort()
                await sending.aclose()

    async def aclose(self) -> None:
        """Write nothing more. The partition stays as it is until another writer is opened."""
        self.closed = True
        self._dead = self._dead or "it was closed"
        await self._give_up()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _cut(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Batches of about `_BATCH_BYTES`, in order; a larger Record is one by itself."""
    batch: list[Record] = []
    room = _BATCH_BYTES
    for record in records:
        size = len(record.value or b"") + len(record.key or b"")
        if batch and size > room:
            yield batch
            batch, room = [], _BATCH_BYTES
        batch.append(record)
        room -= size
    if batch:
        yield batch
