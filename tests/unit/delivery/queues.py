"""Queues and entries for the tests of delivery."""

from prela_stream.delivery.batch import Entry
from prela_stream.delivery.options import Overflow
from prela_stream.delivery.queue import BoundedQueue

Drop = tuple[int, bytes | None, str]


def trace(number: int) -> bytes:
    """A trace id."""
    return number.to_bytes(16, "big")


def entry(number: int, item: bytes = b"x") -> Entry:
    """An entry as the queue gives it to the sender."""
    return (number, trace(number), item, False)


def make_queue(
    *, items: int = 20, size: int = 1_000_000, overflow: Overflow = "drop_newest", timeout: float = 5.0
) -> tuple[BoundedQueue, list[Drop]]:
    """A queue, and the list of what it dropped."""
    drops: list[Drop] = []
    queue = BoundedQueue(
        max_items=items,
        max_bytes=size,
        overflow=overflow,
        block_timeout=timeout,
        on_drop=lambda sequence, trace_id, reason: drops.append((sequence, trace_id, reason)),
    )
    return queue, drops
