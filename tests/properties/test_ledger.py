"""Any steps in any order: the ledger balances after each, and every lost item is counted and its trace is named to the workers.

The machine drives the queue, the ledger and the outbox as the sender does, with a simulated clock, and keeps a model of how each
item ended. The model does not read the ledger: it sees what is sent and chooses how each attempt ends.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from prela_stream.codec.spans import decode_batch, encode_batch
from prela_stream.delivery.flush import PendingFlush
from prela_stream.delivery.ledger import Ledger
from prela_stream.delivery.options import Overflow, PipelineOptions
from prela_stream.delivery.outbox import Delivery, Outbox
from prela_stream.model.ids import partition_of
from prela_stream.model.span import ItemKind
from tests.support.items import make_item, span_id

PARTITIONS = 3
MAX_ITEMS = 10
PAUSES = st.sampled_from([0.0, 0.01, 0.11, 1.0, 6.0])
OUTCOMES = st.sampled_from(["stored", "stored", "failed", "unknown_stored", "unknown_lost", "too_large"])


class Delivering(RuleBasedStateMachine):
    """Record, flush, send with any outcome, fork, let time pass, shutdown."""

    @initialize(
        overflow=st.sampled_from(["drop_newest", "drop_oldest", "block"]),
        batch_items=st.integers(1, 6),
        max_lost=st.sampled_from([0, 3, 1_000]),
        expected_partitions=st.sampled_from([1, PARTITIONS, PARTITIONS, 8]),
    )
    def start(self, overflow: Overflow, batch_items: int, max_lost: int, expected_partitions: int) -> None:
        self.options = PipelineOptions(
            max_queue_items=MAX_ITEMS,
            max_queue_bytes=2_000,
            overflow=overflow,
            block_timeout_ms=0,
            batch_items=batch_items,
            max_lost_traces=max_lost,
            linger_ms=100,
            delivery_timeout_s=1.0,
        )
        self.now = 100.0
        self.next_item = 0
        self.traces: dict[bytes, bytes] = {}
        self.acknowledged: set[bytes] = set()
        self.warned: set[bytes] = set()
        self.warned_partitions: set[int] = set()
        self.in_flight: Delivery | None = None
        self.flushes: list[tuple[PendingFlush, int]] = []
        self.closed = False
        self.refused = 0
        self.ledger = Ledger(self.options)
        self.outbox = Outbox(self.ledger, self.options, expected_partitions=expected_partitions, max_batch_bytes=500)
        self.other_partitions = expected_partitions != PARTITIONS

    @rule(
        items=st.integers(1, 6),
        trace=st.integers(0, 30),
        padding=st.sampled_from([0, 0, 0, 100, 250, 600]),
        reserved=st.booleans(),
    )
    def record(self, items: int, trace: int, padding: int, *, reserved: bool) -> None:
        for _ in range(items):
            trace_id, item = make_item(self.next_item, trace=trace, padding=padding)
            self.traces[span_id(self.next_item)] = trace_id
            self.next_item += 1
            self.ledger.queue.put(trace_id, item, reserved=reserved)

    @rule(trace=st.integers(0, 8))
    def refuse(self, trace: int) -> None:
        trace_id, _ = make_item(self.next_item, trace=trace)
        self.traces[span_id(self.next_item)] = trace_id
        self.next_item += 1
        self.ledger.refuse(trace_id)

    @rule(seconds=PAUSES)
    def wait_and_fill(self, seconds: float) -> None:
        if not self.closed:
            self.now += seconds
            self.outbox.fill(lambda: self.now)

    @rule(flushing=st.booleans())
    def send(self, *, flushing: bool) -> None:
        if self.closed or self.in_flight is not None:
            return
        if flushing:
            self.outbox.retry_now()
        self.in_flight = self.outbox.next(self.now, flushing=flushing)
        if self.in_flight is not None:
            assert self.in_flight.retry_at <= self.now
            self.ledger.mark_in_flight(self.in_flight.batch)

    @rule(outcome=OUTCOMES)
    def end_of_attempt(self, outcome: str) -> None:
        if self.in_flight is None:
            return
        delivery, self.in_flight = self.in_flight, None
        if outcome == "stored" and self.other_partitions:
            self._repartition(delivery)
        elif outcome == "stored":
            self._store(delivery)
            self.outbox.acknowledge(delivery)
        elif outcome == "too_large":
            self.outbox.split(delivery)
        else:
            self.outbox.retry_later(delivery, self.now, uncertain=outcome.startswith("unknown"))

    @rule(seconds=PAUSES, outcome=OUTCOMES, times=st.integers(1, 4))
    def whole_attempts(self, seconds: float, outcome: str, times: int) -> None:
        for _ in range(times):
            self.end_of_attempt(outcome)
            self.wait_and_fill(seconds)
            self.send(flushing=True)
            self.end_of_attempt(outcome)

    def _repartition(self, delivery: Delivery) -> None:
        """The topic was reached for the first time, and has another number of partitions."""
        self.other_partitions = False
        self.ledger.requeue(delivery.batch)
        self.outbox.repartition(PARTITIONS, 500)

    def _store(self, delivery: Delivery) -> None:
        batch = delivery.batch
        value = encode_batch(b"\x80", [item for _, _, item, _ in batch.entries])
        for head in decode_batch(value).heads:
            if head.kind == ItemKind.LOST:
                if head.trace_id is None:
                    self.warned_partitions.add(batch.partition)
                else:
                    assert partition_of(head.trace_id, PARTITIONS) == batch.partition
                    self.warned.add(head.trace_id)
            else:
                assert head.span_id is not None
                assert head.span_id not in self.acknowledged, "acknowledged twice"
                self.acknowledged.add(head.span_id)

    @rule()
    def flush(self) -> None:
        snapshot = self.ledger.snapshot()
        flush = self.ledger._begin_flush()
        assert flush.pending == snapshot.queued + snapshot.in_flight
        self.flushes.append((flush, flush.pending))

    @precondition(lambda self: self.next_item > 40 and not self.closed)
    @rule()
    def close(self) -> None:
        self.ledger.queue.close()
        self.ledger.close()
        self.closed = True
        late, self.in_flight = self.in_flight, None
        before = self.ledger.snapshot()
        if late is not None:  # the result of an abandoned sender
            self.ledger.complete(late.batch, "acknowledged")
        assert self.ledger.snapshot() == before

    @invariant()
    def every_item_is_in_exactly_one_class(self) -> None:
        if not hasattr(self, "ledger"):
            return
        snapshot = self.ledger.snapshot()
        assert snapshot.balances, str(snapshot)
        assert "DOES NOT" not in str(snapshot)
        assert snapshot.recorded == self.next_item
        assert snapshot.acknowledged == len(self.acknowledged)
        assert self.ledger.queue.held_items <= MAX_ITEMS
        if not self.closed:
            assert snapshot.queued + snapshot.in_flight == self.ledger.queue.held_items
            held = self.ledger.queue.held_bytes
            assert 0 <= held <= self.options.max_queue_bytes

    @invariant()
    def a_flush_counts_its_own_items_and_no_other(self) -> None:
        for flush, pending in getattr(self, "flushes", ()):
            assert flush.pending >= 0
            assert flush.pending + flush.acknowledged + flush.dropped + flush.unknown == pending
            assert not (self.closed and flush.pending)

    def teardown(self) -> None:
        """The faults stop: everything that is left is sent, and every loss is known to the workers that need it."""
        if not hasattr(self, "ledger") or self.closed:
            return
        if self.in_flight is not None:
            self.end_of_attempt("failed")
        for _ in range(500):
            self.outbox.fill(lambda: self.now)
            self.outbox.retry_now()
            delivery = self.outbox.next(self.now, flushing=True)
            if delivery is None and not len(self.ledger.queue) and not self.ledger.lost:
                break
            if delivery is not None:
                self.ledger.mark_in_flight(delivery.batch)
                if self.other_partitions:
                    self._repartition(delivery)
                    continue
                self._store(delivery)
                self.outbox.acknowledge(delivery)
        snapshot = self.ledger.snapshot()
        assert snapshot.balances
        assert snapshot.queued == snapshot.in_flight == snapshot.lost_traces == 0, str(snapshot)
        assert (self.ledger.queue.held_items, self.ledger.queue.held_bytes) == (0, 0), "room was not freed"
        assert not self.outbox.full
        for span, trace_id in self.traces.items():
            everywhere = partition_of(trace_id, PARTITIONS) in self.warned_partitions
            assert span in self.acknowledged or trace_id in self.warned or everywhere, "lost, and no worker was warned"
        assert all(flush.pending == 0 for flush, _ in self.flushes)


TestDelivering = Delivering.TestCase
TestDelivering.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
