"""The writer of a group and partition: a transactional producer whose id contains both, so opening it fences the previous one.

aiokafka commits a transaction even if one of its batches failed, and it retries for an unbounded time. So this writer awaits
every delivery, becomes unusable after any failure, and has a deadline for everything.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Self

import aiokafka
import aiokafka.errors as kafka
import anyio
from aiokafka.errors import KafkaError

from prela_stream.errors import FencedError, TransportError
from prela_stream.transport.base import CommitOutcome, Committed, Record, TopicPartition
from prela_stream.transport.kafka.admin.groups import Groups
from prela_stream.transport.kafka.admin.topics import Topics
from prela_stream.transport.kafka.client.sender import Sender, cause_text, failures
from prela_stream.transport.options import KafkaOptions
from prela_stream.transport.refusals import Batches, checked_batches, writer_fenced

logger = logging.getLogger("prela_stream.transport.kafka")

_BATCH_BYTES: Final = 256 << 10
"""Approximate size of the batches of a commit: compressing one blocks the event loop for a millisecond or two."""
_ABORT_S: Final = 2.0
"""How long aborting a transaction may take. If it stays open, the next writer or its timeout ends it."""
_FENCED: Final = (kafka.ProducerFenced, kafka.InvalidProducerEpoch)
_NOT_ENDED: Final = (kafka.InvalidTxnState, kafka.InvalidProducerIdMapping, kafka.TransactionalIdAuthorizationFailed)
"""Errors of a broker that refuses to end a transaction as requested."""


class KafkaWriter:
    """A Writer of the Kafka transport: each commit is a transaction. It opens 2 connections to one broker, n + 2 to n."""

    def __init__(
        self,
        options: KafkaOptions,
        topics: Topics,
        groups: Groups,
        group: str,
        source: TopicPartition,
    ) -> None:
        self._options = options
        self._topics = topics
        self._groups = groups
        self._group = group
        self._source = source
        self._limit_ms = options.transaction_timeout_ms * 5 // 6
        self._sender: Sender | None = None
        self._committed: Committed | None = None
        self._dead = "it was never opened"
        self.closed = False
        self.on_answer: Callable[[], None] | None = None
        """See `Writer.on_answer`."""

    async def open(self) -> None:
        """Fence the previous writer, resolve its transaction, read what is committed. Raises TransportError."""
        transactional_id = f"{self._group}-{self._source.topic}-{self._source.partition}"
        sender = Sender(self._options, transactional_id, on_answer=self._answered)
        # Returns once the previous writer's transaction has ended, its offset included: the coordinator refuses it until then.
        await sender.start(f"the writer of {self._source} for group {self._group!r}")
        try:
            found = await self._groups.committed(self._group, [self._source])
        except BaseException:
            await sender.aclose()
            raise
        self._committed = found.get(self._source)
        self._sender = sender
        self._dead = ""

    def _answered(self) -> None:
        if self.on_answer is not None:
            self.on_answer()

    @property
    def committed(self) -> Committed | None:
        """See `Writer.committed`."""
        return self._committed

    async def commit(
        self, records: Sequence[tuple[TopicPartition, Record]], offset: int, metadata: str = ""
    ) -> CommitOutcome:
        """See `Writer.commit`. It takes up to five sixths of `transaction_timeout_ms`."""
        self._require_alive()
        batches = checked_batches(records, offset, metadata)
        sender = self._sender
        assert sender is not None
        self._dead = "a commit of it was cancelled"  # unless it returns
        usable = False
        try:
            if (refused := await self._refusal(batches)) is not None:
                usable = True
                raise refused
            outcome = await self._commit(sender, batches, offset, metadata)
            usable = outcome is CommitOutcome.COMMITTED
        finally:
            if usable and not self.closed:
                self._dead = ""
            else:
                await self._release()
        return outcome

    async def _refusal(self, batches: Batches) -> TransportError | None:
        try:
            for to, records in batches.items():
                await self._topics.check(to, records)
        except TransportError as error:
            return error
        return None

    async def _commit(self, sender: Sender, batches: Batches, offset: int, metadata: str) -> CommitOutcome:
        ending, ends_before = False, sender.ends_started
        try:
            with anyio.fail_after(self._limit_ms / 1000):
                await self._write(sender, batches, offset, metadata)
                ending = True
                await sender.kafka.commit_transaction()
        except (TimeoutError, KafkaError, AssertionError) as error:  # aiokafka asserts the state of a transaction
            self._topics.forget({to.topic for to in batches})
            return self._failed(error, sender.ends_started - ends_before if ending else 0)
        # It is certain now, and readers see it once the brokers have marked its end in every partition.
        return CommitOutcome.COMMITTED

    async def _write(self, sender: Sender, batches: Batches, offset: int, metadata: str) -> None:
        """Everything but the end of the transaction."""
        await sender.kafka.begin_transaction()
        deliveries: list[asyncio.Future[Any]] = []
        for to, records in batches.items():
            deliveries += [await sender.append(to, batch) for batch in _cut(records)]
        for delivered in await asyncio.gather(*deliveries, return_exceptions=True):
            if isinstance(delivered, BaseException):
                raise delivered
        where = aiokafka.TopicPartition(self._source.topic, self._source.partition)
        await sender.kafka.send_offsets_to_transaction({where: (offset, metadata)}, self._group)

    def _failed(self, error: BaseException, ends: int) -> CommitOutcome:
        """The outcome after a failure. `ends`: how often the end of the transaction was requested: an answer may be lost."""
        causes = failures(error)
        fenced = any(isinstance(cause, _FENCED) for cause in causes)
        if fenced and ends <= 1:
            self._dead = "another writer has taken over the partition"
            raise self._fenced() from error
        refused = ends == 1 and any(isinstance(cause, _NOT_ENDED) for cause in causes)
        outcome = CommitOutcome.ABORTED if ends == 0 or refused else CommitOutcome.UNKNOWN
        self._dead = f"a commit of it ended {outcome.value}"
        why = (
            f"no end within {self._limit_ms:,} ms, five sixths of kafka.transaction_timeout_ms"
            if isinstance(error, TimeoutError)
            else cause_text(error)
        )
        logger.warning("commit of %s for group %s: %s (%s)", self._source, self._group, outcome.value, why)
        return outcome

    def _require_alive(self) -> None:
        if self._dead:
            raise self._fenced()

    def _fenced(self) -> FencedError:
        return writer_fenced(self._source, self._group, self._dead)

    async def _release(self) -> None:
        sender, self._sender = self._sender, None
        if sender is not None:
            with anyio.CancelScope(shield=True):
                with anyio.move_on_after(_ABORT_S):
                    await sender.abort()
                await sender.aclose()

    async def aclose(self) -> None:
        """Write nothing more. The partition stays as it is until another writer is opened."""
        self.closed = True
        self._dead = self._dead or "it was closed"
        await self._release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _cut(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Batches of about `_BATCH_BYTES`, in order; a larger record has its own batch."""
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
