"""The records of a commit fit into their topics, whatever the names of spans are."""

from prela_stream.codec.decisions import decode_decisions
from prela_stream.model.decision import Decision, TraceSummary, Trigger
from prela_stream.transport.base import TopicPartition
from prela_stream.transport.options import TopicOptions
from prela_stream.worker.outputs import Outputs

TOPICS = TopicOptions(partitions=1, max_record_bytes=20_000)


def decision(number: int, text: str) -> Decision:
    return Decision(
        trace_id=number.to_bytes(16, "big"),
        decision_id=number.to_bytes(16, "little"),
        kept=False,
        probability=0.0,
        threshold=1 << 56,
        weight=0.0,
        policy="all",
        reason=text[:500],
        trigger=Trigger.COMPLETE,
        complete=True,
        first_offset=number,
        cut_offset=number + 1,
        decided_at_ms=0,
        policy_version="1",
        summary=TraceSummary(root_name=text[:200], service=text[:200]),
    )


def test_decisions_with_the_longest_texts_fit_into_their_records_in_order() -> None:
    made = [decision(number, ("\N{ROBOT FACE}" if number % 3 else "a") * 500) for number in range(100)]
    outputs = Outputs(TopicPartition(TOPICS.spans, 0), TOPICS, "sampler")
    for one in made:
        outputs.decide(one)
    records = outputs.take()
    sizes = [len(record.value or b"") for _, record in records]
    assert max(sizes) <= TOPICS.max_record_bytes
    assert len(sizes) < 40, "nearly every decision has a separate record"
    assert [one for _, record in records for one in decode_decisions(record.value or b"")] == made


def test_decisions_are_encoded_as_they_are_added_and_the_size_stays_about_right() -> None:
    outputs = Outputs(TopicPartition(TOPICS.spans, 0), TOPICS, "sampler")
    for number in range(100):
        outputs.decide(decision(number, "a short name"))
        assert len(outputs._decisions) < 20_000 // 1_600  # what is left to encode at the commit
    records = outputs.take()
    assert outputs.bytes == 0
    found = [one.first_offset for _, record in records for one in decode_decisions(record.value or b"")]
    assert found == list(range(100))
