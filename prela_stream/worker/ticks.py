"""Ticks: control items that a worker appends to silent partitions, so that their stream time advances."""

import anyio

from prela_stream.codec.spans import SPANS_FORMAT, encode_batch, encode_item
from prela_stream.codec.versions import FORMAT_HEADER
from prela_stream.model.span import ItemKind
from prela_stream.transport.base import Producer, Record, TopicPartition

_EMPTY_RESOURCE = b"\x80"


def tick_record() -> Record:
    """A record that carries only its log-append time."""
    value = encode_batch(_EMPTY_RESOURCE, [encode_item(ItemKind.TICK)])
    return Record(value=value, headers=((FORMAT_HEADER, SPANS_FORMAT),))


class Ticks:
    """Appends ticks for all partitions of a worker, one at a time because a producer takes one send at a time.

    Args:
        producer: The producer of the worker.
        timeout_s: Time limit of one tick.
    """

    def __init__(self, producer: Producer, timeout_s: float) -> None:
        self._producer = producer
        self._timeout_s = timeout_s
        self._sending = anyio.Lock()

    async def send(self, to: TopicPartition) -> None:
        """Append one tick, or none if that takes too long. The caller tries again later. Raises TransportError."""
        with anyio.move_on_after(self._timeout_s):
            async with self._sending:
                await self._producer.send(to, [tick_record()])
