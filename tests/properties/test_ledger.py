"""Whatever happens in whatever order: the ledger balances after every step, and nothing is lost without being counted and told.

The machine drives the queue, the ledger and the outbox as the sender does, on a clock of its own, and keeps a model of what
became of every item. The model is told nothing by the ledger: it sees what is sent and decides how each attempt ends.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from prela_stream.codec.spans import decode_batch, encode_batch
from prela_stream.delivery.ledger import Ledger, Ticket
from prela_stream.delivery.options import PipelineOptions
from prela_stream.delivery.outbox import Delivery, Outbox
from prela_stream.delivery.queue import Overflow
from prela_stream.model.ids import partition_of
from prela_stream.model.span import ItemKind
from tests.support.items import make_item, span_id

PARTITIONS = 3
MAX_ITEMS = 10
PAUSES = st.sampled_from([0.0, 0.01, 0.11, 1.0, 6.0])
OUTCOMES = st.sampled_from(["stored", "stored", "failed", "unknown_stored", "unknown_lost", "too_large"])


class Delivering(RuleBasedStateMachine):
    """Record, flush, send with any outcome, fork away, time passing, shutdown."""

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
        self.told: set[bytes] = set()
        self.told_everywhere: set[int] = set()
        self.flying: Delivery | None = None
        self.tickets: list[tuple[Ticket, int]] = []
        self.closed = False
        self.refused = 0
        self.ledger = Ledger(self.options)
        self.outbox = Outbox(self.ledger, self.options, expected_partitions=expected_partitions, max_batch_bytes=500)
        self.misplaced = expected_partitions != PARTITIONS

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

    @rule(hurry=st.booleans())
    def send(self, *, hurry: bool) -> None:
        if self.closed or self.flying is not None:
            return
        if hurry:
            self.outbox.hasten()
        self.flying = self.outbox.next(self.now, hurry=hurry)
        if self.flying is not None:
            assert self.flying.retry_at <= self.now
            self.ledger.send(self.flying.batch)

    @rule(outcome=OUTCOMES)
    def end_of_attempt(self, outcome: str) -> None:
        if self.flying is None:
            return
        delivery, self.flying = self.flying, None
        if outcome == "stored" and self.misplaced:
            self._move(delivery)
        elif outcome == "stored":
            self._store(delivery)
            self.outbox.acknowledge(delivery)
        elif outcome == "too_large":
            self.outbox.split(delivery)
        else:
            self.outbox.fail(delivery, self.now, uncertain=outcome.startswith("unknown"))

    @rule(seconds=PAUSES, outcome=OUTCOMES, times=st.integers(1, 4))
    def whole_attempts(self, seconds: float, outcome: str, times: int) -> None:
        for _ in range(times):
            self.end_of_attempt(outcome)
            self.wait_and_fill(seconds)
            self.send(hurry=True)
            self.end_of_attempt(outcome)

    def _move(self, delivery: Delivery) -> None:
        """The topic was reached for the first time, and has another number of partitions."""
        self.misplaced = False
        self.ledger.postpone(delivery.batch)
        self.outbox.place(PARTITIONS, 500)

    def _store(self, delivery: Delivery) -> None:
        batch = delivery.batch
        value = encode_batch(b"\x80", [item for _, _, item, _ in batch.entries])
        for head in decode_batch(value).heads:
            if head.kind == ItemKind.LOST:
                if head.trace_id is None:
                    self.told_everywhere.add(batch.partition)
                else:
                    assert partition_of(head.trace_id, PARTITIONS) == batch.partition
                    self.told.add(head.trace_id)
            else:
                assert head.span_id is not None
                assert head.span_id not in self.acknowledged, "acknowledged twice"
                self.acknowledged.add(head.span_id)

    @rule()
    def flush(self) -> None:
        snapshot = self.ledger.snapshot()
        ticket = self.ledger._open_ticket()
        assert ticket.pending == snapshot.queued + snapshot.in_flight
        self.tickets.append((ticket, ticket.pending))

    @precondition(lambda self: self.next_item > 40 and not self.closed)
    @rule()
    def close(self) -> None:
        self.ledger.queue.close()
        self.ledger.close()
        self.closed = True
        late, self.flying = self.flying, None
        before = self.ledger.snapshot()
        if late is not None:  # a sender that was left behind says something
            self.ledger.settle(late.batch, "acknowledged")
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
        assert self.ledger.queue.unsettled <= MAX_ITEMS
        if not self.closed:
            assert snapshot.queued + snapshot.in_flight == self.ledger.queue.unsettled
            held = self.ledger.queue.unsettled_bytes
            assert 0 <= held <= self.options.max_queue_bytes

    @invariant()
    def a_flush_counts_its_own_items_and_no_other(self) -> None:
        for ticket, pending in getattr(self, "tickets", ()):
            assert ticket.pending >= 0
            assert ticket.pending + ticket.acknowledged + ticket.dropped + ticket.unknown == pending
            assert not (self.closed and ticket.pending)

    def teardown(self) -> None:
        """The weather clears: everything that is left is sent, and every loss has been told to who has to know."""
        if not hasattr(self, "ledger") or self.closed:
            return
        if self.flying is not None:
            self.end_of_attempt("failed")
        for _ in range(500):
            self.outbox.fill(lambda: self.now)
            self.outbox.hasten()
            delivery = self.outbox.next(self.now, hurry=True)
            if delivery is None and not len(self.ledger.queue) and not self.ledger.lost:
                break
            if delivery is not None:
                self.ledger.send(delivery.batch)
                if self.misplaced:
                    self._move(delivery)
                    continue
                self._store(delivery)
                self.outbox.acknowledge(delivery)
        snapshot = self.ledger.snapshot()
        assert snapshot.balances
        assert snapshot.queued == snapshot.in_flight == snapshot.lost_traces == 0, str(snapshot)
        assert (self.ledger.queue.unsettled, self.ledger.queue.unsettled_bytes) == (0, 0), "room was not given back"
        assert not self.outbox.full
        for span, trace_id in self.traces.items():
            everywhere = partition_of(trace_id, PARTITIONS) in self.told_everywhere
            assert span in self.acknowledged or trace_id in self.told or everywhere, "lost, and nobody was told"
        assert all(ticket.pending == 0 for ticket, _ in self.tickets)


TestDelivering = Delivering.TestCase
TestDelivering.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
