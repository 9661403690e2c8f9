"""Attempts to send one batch: the producer, the check of the topic, and the result of each attempt.

A failed attempt never raises. The pipeline retries whatever the transport reports, also if the transport cannot be reached at
the start.
"""

import enum
from typing import Final

import anyio
import msgspec

from prela_stream import telemetry
from prela_stream.codec.spans import SPANS_FORMAT, encode_batch, encode_resource
from prela_stream.codec.versions import FORMAT_HEADER
from prela_stream.delivery.ledger import Ledger
from prela_stream.delivery.outbox import RECORD_HEADROOM, Delivery, Outbox
from prela_stream.delivery.setup import PipelineSetup
from prela_stream.errors import OutcomeUnknownError, TooLargeError, TransportError, UnknownTopicError, guard, logger
from prela_stream.model.plain import cut_text
from prela_stream.model.semconv import TRUNCATED
from prela_stream.model.span import Resource
from prela_stream.transport.base import Producer, Record, TopicPartition, TopicSpec, Transport

CLOSE_TIMEOUT: Final = 0.5
"""Seconds that closing a producer may take."""
_HEADERS: Final = ((FORMAT_HEADER, SPANS_FORMAT),)
_RESOURCE_SHARE: Final = 8
"""A resource larger than this fraction of a record is sent without its attributes, because every record repeats it."""
_RETRY_SHARE: Final = 0.1
"""Share of `send_timeout_s` that the second attempt may take while other partitions wait; the third may take twice as much."""


class AttemptResult(enum.Enum):
    """How one attempt to send ended."""

    ACKNOWLEDGED = enum.auto()
    FAILED = enum.auto()
    """Nothing was stored."""
    UNCERTAIN = enum.auto()
    """The batch may have been stored."""
    TOO_LARGE = enum.auto()
    OTHER_PARTITIONS = enum.auto()
    """Nothing was sent: the batches are divided and cut for another topic than the one that exists."""


class Attempts:
    """Sends batches through a producer that it opens when it needs one.

    Args:
        transport: Where to send; the caller closes it.
        setup: Topics, options, resource, preparation.
        ledger: Where items come from.
        outbox: Batches of a parked pipeline with this ledger; default: a new outbox.
    """

    def __init__(self, transport: Transport, setup: PipelineSetup, ledger: Ledger, outbox: Outbox | None) -> None:
        self._transport = transport
        self._topics = setup.topics
        self._options = setup.options
        self._resource = _encoded_resource(setup)
        self._prepare = setup.prepare
        self._producer: Producer | None = None
        self._topic: TopicSpec | None = None
        """The topic when it was last checked."""
        self._logged_failure = False
        if outbox is None:
            room = self._room(setup.topics.max_record_bytes)
            outbox = Outbox(ledger, setup.options, expected_partitions=setup.topics.partitions, max_batch_bytes=room)
        self.outbox = outbox

    async def send(self, delivery: Delivery, now: float) -> AttemptResult:
        """Make one attempt; `now` is in seconds of the outbox's clock."""
        batch = delivery.batch
        to = TopicPartition(self._topics.spans, batch.partition)
        value = encode_batch(self._resource, [item for _, _, item, _ in batch.entries])
        timeout = self._timeout(delivery, now)
        sending = False
        try:
            with anyio.fail_after(self._options.send_timeout_s) as scope:
                producer = await self._open_producer()
                if not self.outbox.topic_checked and not await self._topic_matches():
                    return AttemptResult.OTHER_PARTITIONS
                sending = True
                scope.deadline = min(scope.deadline, anyio.current_time() + timeout)
                await producer.send(to, (Record(value=value, headers=_HEADERS),))
        except OutcomeUnknownError as error:
            self._log_failure(str(error))
            return AttemptResult.UNCERTAIN
        except TooLargeError:
            return AttemptResult.TOO_LARGE
        except UnknownTopicError as error:
            self.outbox.topic_checked = False  # it may be created again with other partitions
            self._log_failure(str(error))
            return AttemptResult.FAILED
        except TransportError as error:
            self._log_failure(str(error))
            return AttemptResult.FAILED
        except TimeoutError:
            longest = timeout if sending else self._options.send_timeout_s
            self._log_failure(f"no answer within {longest:g} s (pipeline.send_timeout_s)")
            return AttemptResult.UNCERTAIN if sending else AttemptResult.FAILED
        telemetry.AGENT_BATCH_ITEMS.observe(len(batch.entries))
        telemetry.AGENT_BATCH_BYTES.observe(len(value))
        return AttemptResult.ACKNOWLEDGED

    def repartition(self) -> None:
        """Divide the batches for the topic as the last attempt found it."""
        assert self._topic is not None  # an attempt ended with OTHER_PARTITIONS
        self.outbox.repartition(self._topic.partitions, self._room(self._topic.max_record_bytes))

    async def close_producer(self) -> None:
        """Close the producer, so that the next attempt opens a new one. Bounded in time; never raises."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with (
                guard("pipeline.close_producer"),
                anyio.CancelScope(shield=True),
                anyio.move_on_after(CLOSE_TIMEOUT),
            ):
                await producer.aclose()

    def log_recovery(self) -> None:
        """Log that an outage is over, if one was logged and no batch waits for a retry any more."""
        if self._logged_failure and not self.outbox.retrying:
            self._logged_failure = False
            logger.info("prela_stream: the transport accepts spans again")

    def _timeout(self, delivery: Delivery, now: float) -> float:
        """Seconds that the send may take: fewer if its last attempt failed and other partitions wait."""
        longest = self._options.send_timeout_s
        if delivery.attempts and self.outbox.others_ready(delivery, now):
            return min(longest, longest * _RETRY_SHARE * delivery.attempts)
        return longest

    async def _open_producer(self) -> Producer:
        if self._prepare is not None:
            await self._prepare(self._transport)
            self._prepare = None
        if self._producer is None:
            self._producer = await self._transport.producer()
        return self._producer

    async def _topic_matches(self) -> bool:
        """Read the topic. A trace is whole only if all producers divide by the same number of partitions."""
        name = self._topics.spans
        topic = (await self._transport.topics([name])).get(name)
        if topic is None or topic.partitions < 1:
            msg = f"topic {name!r} does not exist; create it with `prela-stream topics create`"
            raise UnknownTopicError(msg)
        before, self._topic = self._topic, topic
        if topic.partitions != (self._topics.partitions if before is None else before.partitions):
            self._log_partitions(topic.partitions, before)
        if self.outbox.matches(topic.partitions, self._room(topic.max_record_bytes)):
            self.outbox.topic_checked = True
            return True
        return False

    def _room(self, max_record_bytes: int) -> int:
        """Bytes of items that surely fit into a record."""
        return max(1, max_record_bytes - len(self._resource) - RECORD_HEADROOM)

    def _log_partitions(self, found: int, before: TopicSpec | None) -> None:
        configured = self._topics.partitions
        logger.warning(
            "prela_stream: topic %s has %d partitions, not %d (%s). Spans are sent to all partitions of the topic, as by its "
            "other producers.%s",
            self._topics.spans,
            found,
            configured if before is None else before.partitions,
            "the setting topics.partitions" if before is None else "as before",
            "" if found == configured else f" Set topics.partitions to {found}: workers do not start otherwise.",
        )

    def _log_failure(self, reason: str) -> None:
        """Log the first failed attempt of an outage."""
        if not self._logged_failure:
            self._logged_failure = True
            logger.warning(
                "prela_stream: spans cannot be sent (%s). They stay in a queue of at most %d bytes (pipeline.max_queue_bytes) "
                "and are sent again for %g s (pipeline.delivery_timeout_s). The application is not affected.",
                reason,
                self._options.max_queue_bytes,
                self._options.delivery_timeout_s,
            )


def _encoded_resource(setup: PipelineSetup) -> bytes:
    """The resource as bytes. Nothing in it may cost the spans of the process."""
    resource = Resource()
    with guard("pipeline.resource"):
        resource = setup.resource()
    encoded = encode_resource(resource)
    longest = setup.topics.max_record_bytes // _RESOURCE_SHARE
    if len(encoded) <= longest:
        return encoded
    logger.warning(
        "prela_stream: the resource attributes have %d bytes, and every record repeats them; they are not sent, because they may "
        "have at most %d. Set fewer or shorter resource_attributes in init().",
        len(encoded),
        longest,
    )
    name = cut_text(str(resource.service_name))
    return encode_resource(msgspec.structs.replace(resource, service_name=name, attributes={TRUNCATED: len(encoded)}))
