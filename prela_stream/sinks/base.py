"""The interface of a sink, which writes kept traces. `sinks.reader` has that of what reads a store."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from prela_stream.model.decision import Decision
from prela_stream.sinks.kept_trace import KeptTrace
from prela_stream.transport.base import TopicPartition


class SinkBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What a sink receives at a time: the next records of one partition, in order."""

    source: TopicPartition
    traces: Sequence[KeptTrace] = ()
    """Whole kept traces, and late spans of traces that came before (`KeptTrace.late`). Never a part of a trace."""
    decisions: Sequence[Decision] = ()
    """Kept and dropped ones; empty for a sink that does not ask for them."""
    next_offset: int
    """The offset to continue from after this batch: the first record that a trace in progress needs, else the next record."""


class Sink(Protocol):
    """Writes kept traces somewhere. One task calls it, one batch at a time.

    The class docstring of a sink states its delivery guarantee: `exactly once` if it stores offsets with its data, else `at least
    once`. Its constructor takes its options and opens nothing.
    """

    wants_decisions: bool
    """Whether it receives the `decisions` topic too."""

    async def write(self, batch: SinkBatch) -> None:
        """Store the batch. After the return it is durable, and its offset may be committed.

        The same batch, or the same traces in other batches, may come again after a failure or a crash. Writing them again must
        have the effect of writing them once, for readers who identify a span by `(trace_id, span_id)` and a decision by its id.
        A batch may hold nothing but an offset.

        Raises:
            SinkError, OSError: The batch is not stored, for a reason that may pass: a full disk, a lock, a refused connection.
                The service calls again with the same batch after a pause.
            ConfigurationError: The options are wrong, as a file that belongs to another program. Ends the service if nothing
                was written before; else treated as a SinkError.
        """
        ...

    async def stored_offset(self, source: TopicPartition) -> int | None:
        """The `next_offset` of the last batch of `source`, for a sink that stores offsets with its data.

        None: nothing is stored, or the sink stores no offsets. Then the committed offset of the consumer group counts.
        Raises as `write`.
        """
        ...

    async def aclose(self) -> None:
        """Release everything. Safe to call twice."""
        ...


class PreparedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch of which a sink has done the work that needs no store."""

    source: TopicPartition
    next_offset: int
    content: Any
    """What the sink made of it."""


@runtime_checkable
class GroupingSink(Sink, Protocol):
    """A sink that makes several batches durable in one transaction, and prepares the next ones while it writes.

    One transaction costs less than one for each batch. Since a batch is prepared before it is known whether it will be written,
    its preparation changes nothing.
    """

    def prepare(self, batch: SinkBatch) -> PreparedBatch:
        """Do what can be done without the store. Called in a thread, also during `write_together`. Never raises."""
        ...

    async def write_together(self, batches: Sequence[PreparedBatch], began: Callable[[], None]) -> None:
        """As `write` for each batch in order. After a failure none of them is durable.

        Args:
            batches: At least one; any number of each partition.
            began: Called when the transaction has begun, if no other process can commit before it. From here on the next
                batches may be fetched and prepared: a member that receives one of the partitions in this time writes after this
                transaction, and what is stored already changes nothing.
        """
        ...
