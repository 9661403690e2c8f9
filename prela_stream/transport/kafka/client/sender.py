"""A producer of aiokafka that can be discarded at any moment, in bounded time, and leaves no task behind.

The `stop()` of aiokafka waits until everything is delivered, and its sender retries without end. Here a producer is
discarded together with the records that it has not delivered. After a failure that is necessary: the sequence numbers of an
idempotent producer then have a gap, and the broker refuses every further batch.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import aiokafka
import anyio
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, ProducerClosed
from aiokafka.producer.transaction_manager import TransactionState

from prela_stream.transport.base import Record, TopicPartition
from prela_stream.transport.kafka.connect.arguments import connection, forbid_topic_creation
from prela_stream.transport.kafka.connect.steps import connected
from prela_stream.transport.options import KafkaOptions

_UNBOUNDED: Final = 2**31 - 1
_BACKGROUND: Final = (
    *("_send_produce_req", "_do_add_partitions_to_txn", "_do_add_offsets_to_txn", "_do_txn_offset_commit"),
    "_do_txn_commit",
)
"""The methods of aiokafka's Sender that run as separate tasks."""


class Sender:
    """A started producer of aiokafka, idempotent or transactional."""

    def __init__(
        self, options: KafkaOptions, transactional_id: str | None, *, on_answer: Callable[[], None] | None = None
    ) -> None:
        more: dict[str, Any] = {
            "acks": "all",
            "enable_idempotence": True,
            "compression_type": None if options.compression == "none" else options.compression,
            "max_batch_size": _UNBOUNDED,  # batches are cut by the transport, never by aiokafka
        }
        if transactional_id is not None:
            more |= {
                "transactional_id": transactional_id,
                "transaction_timeout_ms": options.transaction_timeout_ms,
            }
        self.kafka: Any = AIOKafkaProducer(**connection(options, **more) | options.producer_extra)
        forbid_topic_creation(self.kafka.client)
        if on_answer is not None:
            self._report_answers(on_answer)
        self._options = options
        self._tasks: set[asyncio.Task[Any]] = set()
        self.sends_started = 0
        """How many produce requests were started."""
        self.ends_started = 0
        """How often the end of a transaction was requested; more than once for one transaction: an answer was lost."""
        for name in _BACKGROUND:
            self._watch(name)

    def _report_answers(self, on_answer: Callable[[], None]) -> None:
        send = self.kafka.client.send

        async def reported(*arguments: Any, **more: Any) -> Any:
            answer = await send(*arguments, **more)
            on_answer()
            return answer

        self.kafka.client.send = reported

    def _watch(self, name: str) -> None:
        sender = self.kafka._sender
        original: Callable[..., Coroutine[Any, Any, Any]] = getattr(sender, name)

        async def watched(*arguments: Any) -> Any:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            self.sends_started += name == "_send_produce_req"
            self.ends_started += name == "_do_txn_commit"
            try:
                return await original(*arguments)
            finally:
                self._tasks.discard(task)

        setattr(sender, name, watched)

    async def start(self, what: str) -> None:
        """Connect. Raises TransportError; then it is closed already."""
        try:
            await connected(self._options, what, self.kafka.start)
        except BaseException:
            await self.aclose()
            raise

    async def append(self, to: TopicPartition, records: Sequence[Record]) -> "asyncio.Future[Any]":
        """Pass one batch to aiokafka; the future is done once it is delivered. Raises KafkaError."""
        batch = self.kafka.create_batch()
        for record in records:
            batch.append(timestamp=None, key=record.key, value=record.value, headers=list(record.headers))
        batch.close()
        future: asyncio.Future[Any] = await self.kafka.send_batch(batch, to.topic, partition=to.partition)
        future.add_done_callback(_seen)
        for waiting in self.kafka._message_accumulator._batches.get(
            aiokafka.TopicPartition(to.topic, to.partition), ()
        ):
            for inner in (waiting.future, waiting._drain_waiter):  # the returned future only shields the first
                inner.add_done_callback(_seen)
        return future

    async def abort(self) -> None:
        """Try to abort a transaction that was started and whose end was not requested. If that fails, it ends by its timeout."""
        manager = self.kafka._txn_manager
        if manager.state in (TransactionState.IN_TRANSACTION, TransactionState.ABORTABLE_ERROR):
            try:
                await self.kafka.abort_transaction()
            except (KafkaError, AssertionError):  # aiokafka asserts the state of a transaction
                return

    async def aclose(self) -> None:
        """Discard the producer and the records that it has not delivered."""
        producer, sender = self.kafka, self.kafka._sender
        producer._closed = True
        with anyio.CancelScope(shield=True):
            routine = [sender.sender_task] if sender.sender_task is not None else []
            for task in (tasks := [*routine, *self._tasks]):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            accumulator = producer._message_accumulator
            for batch in [batch for batches in accumulator._batches.values() for batch in batches]:
                accumulator._pending_batches.add(
                    batch
                )  # its callback requires that, also for a batch that waits for a retry
                batch._drain_waiter.add_done_callback(_seen)
            accumulator.fail_all(ProducerClosed())
            self._forget_failures()
            await producer.client.close()

    def _forget_failures(self) -> None:
        """Mark the errors of background futures as seen: a caller had them, or no caller waits."""
        manager = self.kafka._txn_manager
        for future in (manager._transaction_waiter, manager._pid_waiter):
            if future is not None and future.done():
                _seen(future)


def _seen(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()


def failures(error: BaseException) -> list[BaseException]:
    """An error and its causes: aiokafka wraps the error that ended its background task."""
    found: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in found:
        found.append(at)
        at = at.__cause__
    return found


def cause_text(error: BaseException) -> str:
    """The text of the first cause."""
    first = failures(error)[-1]
    text = str(first)
    return text if isinstance(first, KafkaError) and text else f"{type(first).__name__} {text}".strip()
