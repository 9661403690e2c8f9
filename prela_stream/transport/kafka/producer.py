"""Appending outside transactions: one idempotent batch per send, acknowledged by all replicas in sync."""

from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import aiokafka.errors as kafka
import anyio
from aiokafka.errors import KafkaError

from prela_stream.errors import OutcomeUnknownError, TooLargeError, TransportError
from prela_stream.transport.base import Record, TopicPartition
from prela_stream.transport.kafka.admin.topics import Topics
from prela_stream.transport.kafka.client.sender import Sender, cause_text
from prela_stream.transport.options import KafkaOptions
from prela_stream.transport.refusals import check_send, closed, unknown_topic

_REFUSED: Final = (
    *(
        kafka.MessageSizeTooLargeError,
        kafka.RecordListTooLargeError,
        kafka.InvalidTopicError,
        kafka.PolicyViolationError,
    ),
    *(kafka.TopicAuthorizationFailedError, kafka.ClusterAuthorizationFailedError, kafka.InvalidTimestampError),
    *(kafka.UnsupportedForMessageFormatError, kafka.InvalidRequiredAcksError),
)
"""Errors after which a broker has not appended a batch and never will."""


class KafkaProducer:
    """A Producer of the Kafka transport. A send is one batch, which a broker appends completely or not at all."""

    def __init__(self, options: KafkaOptions, topics: Topics) -> None:
        self._options = options
        self._topics = topics
        self._sender: Sender | None = None
        self.closed = False

    async def send(self, to: TopicPartition, records: Sequence[Record]) -> int:
        """See `Producer.send`."""
        self._require_open()
        check_send(records)
        await self._topics.check(to, records)
        sender = await self._open()
        started = sender.sends_started
        base = -1
        try:
            with anyio.fail_after(self._options.delivery_timeout_ms / 1000):
                base = (await (await sender.append(to, records))).offset
        except (TimeoutError, KafkaError) as error:
            raise await self._failed(to, records, error, sent=sender.sends_started > started) from error
        finally:
            if base < 0:  # also if the caller was cancelled
                await self._discard()
        if base < 0:
            msg = f"{len(records):,} records for {to} are stored, but the broker no longer knows their offsets"
            raise OutcomeUnknownError(msg)
        return int(base) + len(records) - 1

    async def _failed(
        self, to: TopicPartition, records: Sequence[Record], error: TimeoutError | KafkaError, *, sent: bool
    ) -> TransportError:
        count = f"{len(records):,} records for {to}"
        if isinstance(error, kafka.MessageSizeTooLargeError | kafka.RecordListTooLargeError):
            size = sum(len(record.value or b"") for record in records)
            return TooLargeError(
                f"{count}, {size:,} bytes, are more than the topic accepts at once (max.message.bytes); nothing was written. "
                "Send fewer at once, or raise the topic's limit"
            )
        if isinstance(error, _REFUSED):
            return TransportError(f"Kafka refused {count}: {cause_text(error)}; nothing was written")
        if not await self._topics.exists(to.topic):  # aiokafka waits for a deleted topic until the deadline
            return unknown_topic(to.topic, None, {})
        why = cause_text(error)
        if isinstance(error, TimeoutError):
            why = f"not acknowledged within {self._options.delivery_timeout_ms:,} ms (kafka.delivery_timeout_ms)"
        if not sent:
            return TransportError(f"{count} could not be sent: {why}; nothing was written")
        return OutcomeUnknownError(f"{count} may or may not be stored: {why}")

    def _require_open(self) -> None:
        if self.closed:
            raise closed("producer of the Kafka transport")

    async def _open(self) -> Sender:
        if self._sender is None:
            sender = Sender(self._options, None)
            await sender.start("a producer")
            self._sender = sender
        return self._sender

    async def _discard(self) -> None:
        sender, self._sender = self._sender, None
        if sender is not None:
            await sender.aclose()

    async def aclose(self) -> None:
        """Send nothing more. The records of a send in progress may or may not be stored."""
        self.closed = True
        await self._discard()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
