"""Appending outside of transactions: one batch a send, idempotent, acknowledged by all replicas in sync."""

from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import aiokafka.errors as kafka
import anyio
from aiokafka.errors import KafkaError

from prela_stream.errors import OutcomeUnknownError, TooLargeError, TransportError
from prela_stream.transport.base import Record, TopicPartition
from prela_stream.transport.kafka.admin.topics import Catalog, unknown
from prela_stream.transport.kafka.client.sender import Sending, said
from prela_stream.transport.options import KafkaOptions

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
"""What a broker says of a batch that it has not appended and never will."""


class KafkaProducer:
    """A Producer of the Kafka transport. A send is one batch, which a broker appends as a whole or not at all."""

    def __init__(self, options: KafkaOptions, catalog: Catalog) -> None:
        self._options = options
        self._catalog = catalog
        self._sending: Sending | None = None
        self.closed = False

    async def send(self, to: TopicPartition, records: Sequence[Record]) -> int:
        """See `Producer.send`."""
        self._require_open()
        if not records:
            msg = "expected at least one Record to send, got none"
            raise ValueError(msg)
        await self._catalog.check(to, records)
        sending = await self._open()
        begun = sending.sends_begun
        base = -1
        try:
            with anyio.fail_after(self._options.delivery_timeout_ms / 1000):
                base = (await (await sending.append(to, records))).offset
        except (TimeoutError, KafkaError) as error:
            raise await self._failed(to, records, error, sent=sending.sends_begun > begun) from error
        finally:
            if base < 0:  # also where the caller was cancelled
                await self._discard()
        if base < 0:
            msg = f"{len(records):,} Records for {to} are stored, but the broker no longer knows where"
            raise OutcomeUnknownError(msg)
        return int(base) + len(records) - 1

    async def _failed(
        self, to: TopicPartition, records: Sequence[Record], error: TimeoutError | KafkaError, *, sent: bool
    ) -> TransportError:
        count = f"{len(records):,} Records for {to}"
        if isinstance(error, kafka.MessageSizeTooLargeError | kafka.RecordListTooLargeError):
            size = sum(len(record.value or b"") for record in records)
            return TooLargeError(
                f"{count}, {size:,} bytes, are too large a batch for the topic (max.message.bytes); nothing was written. Send "
                "fewer at once, or raise the topic's limit"
            )
        if isinstance(error, _REFUSED):
            return TransportError(f"Kafka refused {count}: {said(error)}; nothing was written")
        if not await self._catalog.is_there(to.topic):  # aiokafka goes on asking for one that was deleted
            return unknown(to.topic, None, {})
        why = said(error)
        if isinstance(error, TimeoutError):
            why = f"not acknowledged within {self._options.delivery_timeout_ms:,} ms (delivery_timeout_ms)"
        if not sent:
            return TransportError(f"{count} could not be sent: {why}; nothing was written")
        return OutcomeUnknownError(f"{count} may or may not be stored: {why}")

    def _require_open(self) -> None:
        if self.closed:
            msg = "this producer of the Kafka transport is closed"
            raise TransportError(msg)

    async def _open(self) -> Sending:
        if self._sending is None:
            sending = Sending(self._options, None)
            await sending.start("a producer")
            self._sending = sending
        return self._sending

    async def _discard(self) -> None:
        sending, self._sending = self._sending, None
        if sending is not None:
            await sending.aclose()

    async def aclose(self) -> None:
        """Send nothing more. What a send is still waiting for may or may not be stored."""
        self.closed = True
        await self._discard()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
