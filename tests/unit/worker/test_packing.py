"""Kept decisions are packed without a loss, and small."""

from hypothesis import given
from hypothesis import strategies as st

from prela_stream.model.decision import Basis, Decision, TraceSummary, Trigger, decision_id_of
from prela_stream.transport.base import TopicPartition
from prela_stream.worker.packing import PackedDecisions

SOURCE = TopicPartition("spans", 3)
texts = st.sampled_from(["", "kept", "ü" * 150]) | st.text(st.characters(codec="utf-8"), max_size=8)
numbers = st.integers(0, 1 << 62)
decisions = st.builds(
    Decision,
    trace_id=st.binary(min_size=16, max_size=16),
    decision_id=st.binary(min_size=16, max_size=16),
    kept=st.just(True),
    probability=st.sampled_from([1.0, 0.05]),
    threshold=numbers,
    weight=st.sampled_from([0.0, 1.0, 20.0]),
    policy=texts,
    reason=texts,
    trigger=st.sampled_from(Trigger),
    complete=st.booleans(),
    first_offset=numbers,
    cut_offset=numbers,
    decided_at_ms=numbers,
    policy_version=texts,
    summary=st.builds(
        TraceSummary,
        root_name=texts,
        service=texts,
        start_ns=numbers,
        duration_ns=numbers,
        spans=numbers,
        errors=numbers,
        input_tokens=numbers,
        output_tokens=numbers,
        cost_usd=st.none() | st.floats(0, 1e9),
        shape_hash=st.binary(min_size=16, max_size=16).map(bytes.hex) | texts,
        outside_parent=numbers,
    ),
    weight_biased=st.booleans(),
    repeated=st.booleans(),
    basis=st.none() | st.sampled_from(Basis),
)


@given(st.lists(decisions, max_size=20))
def test_unpacking_returns_what_was_packed(given: list[Decision]) -> None:
    packed = PackedDecisions(SOURCE)
    entries = [packed.pack(one) for one in given]
    assert [packed.unpack(one.trace_id, entry) for one, entry in zip(given, entries, strict=True)] == given


def decision(number: int, reason: str = "latency: 1.5 s is at least 1 s") -> Decision:
    trace_id = number.to_bytes(16, "big")
    return Decision(
        trace_id=trace_id,
        decision_id=decision_id_of(SOURCE.topic, SOURCE.partition, trace_id, 10_000_000 + number),
        kept=True,
        probability=0.05,
        threshold=0xF333000000000,
        weight=20.0,
        policy="rest",
        reason=reason,
        trigger=Trigger.COMPLETE,
        complete=True,
        first_offset=10_000_000 + number,
        cut_offset=10_000_020 + number,
        decided_at_ms=1_790_000_000_000 + number,
        policy_version="0123456789abcdef",
        summary=TraceSummary(
            root_name="research",
            service="agents",
            start_ns=1_789_999_999_000_000_000 + number,
            duration_ns=1_500_000_000,
            spans=10,
            input_tokens=12_340,
            output_tokens=560,
            cost_usd=0.0123,
            shape_hash="00112233445566778899aabbccddeeff",
        ),
        basis=Basis.COUNTS,
    )


def test_a_packed_decision_is_small_and_so_is_what_all_share() -> None:
    packed = PackedDecisions(SOURCE)
    given = [decision(number) for number in range(5_000)]
    entries = [packed.pack(one) for one in given]
    assert max(map(len, entries[2:])) <= 80  # with id, time and index at most 128 bytes
    assert [packed.unpack(one.trace_id, entry) for one, entry in zip(given, entries, strict=True)] == given
    assert len(packed._known) < 10


def test_texts_that_differ_in_each_trace_fill_nothing() -> None:
    packed = PackedDecisions(SOURCE)
    for number in range(5_000):
        packed.pack(decision(number, reason=f"latency: {number} ms"))
    assert len(packed._known) < 10
    assert len(packed._seen) <= 1_024
