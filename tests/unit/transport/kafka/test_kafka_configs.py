"""What a topic's settings are on Kafka, read back, and what is said of those that others made."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.transport.base import TopicSpec
from prela_stream.transport.kafka.admin.configs import READ, entries, read_spec
from prela_stream.transport.options import KafkaOptions, TopicOptions
from prela_stream.transport.topics import check_topics, topic_specs

OPTIONS = KafkaOptions()
DEFAULTS = {
    "cleanup.policy": "delete",
    "retention.ms": "604800000",
    "retention.bytes": "-1",
    "delete.retention.ms": "86400000",
    "max.message.bytes": "1048588",
    "message.timestamp.type": "CreateTime",
    "min.insync.replicas": "1",
}
"""Of Apache Kafka 4.0."""
bounds = st.none() | st.integers(0, 2**60)


@given(
    st.builds(
        TopicSpec,
        name=st.just("t"),
        partitions=st.integers(1, 64),
        retention_ms=bounds,
        retention_bytes=bounds,
        max_record_bytes=st.integers(1, 2**30),
    )
    | st.builds(TopicSpec, name=st.just("t"), partitions=st.just(1), cleanup=st.just("compact"), retention_ms=bounds)
)
def test_a_topic_reads_back_as_it_was_made(made: TopicSpec) -> None:
    found = DEFAULTS | entries(made, 3)
    assert read_spec("t", made.partitions, 3, found, OPTIONS) == made


def test_all_that_is_looked_at_is_asked_for() -> None:
    assert sorted(READ) == sorted(DEFAULTS)


def test_a_batch_of_one_largest_record_fits_with_its_key_headers_and_framing() -> None:
    made = entries(TopicSpec(name="t", partitions=1, max_record_bytes=10_000), 1)
    assert int(made["max.message.bytes"]) == 10_000 + 16_384


def test_a_topic_with_three_replicas_takes_nothing_that_one_alone_has() -> None:
    assert entries(TopicSpec(name="t", partitions=1), 3)["min.insync.replicas"] == "2"
    assert "min.insync.replicas" not in entries(TopicSpec(name="t", partitions=1), 2)


def test_kafkas_own_defaults_take_our_records_but_are_stamped_by_the_sender() -> None:
    found = read_spec("t", 4, 1, DEFAULTS, OPTIONS)
    assert found.max_record_bytes >= max(one.max_record_bytes for one in topic_specs(TopicOptions()))
    [flaw] = found.flaws
    assert "LogAppendTime" in flaw
    assert "CreateTime" in flaw


@pytest.mark.parametrize(
    ("change", "replication", "wanted", "words"),
    [
        ({"cleanup.policy": "compact,delete"}, 3, None, ["compact,delete", "correct the topic"]),
        ({}, 1, 2, ["expected 2 replicas", "it has 1", "kafka.replication"]),
        ({"min.insync.replicas": "2"}, 1, None, ["at most its 1 replicas", "it is 2", "nothing can be written"]),
        ({"min.insync.replicas": "1"}, 3, 3, ["min.insync.replicas of 2 or more", "it is 1", "raise it"]),
    ],
)
def test_each_flaw_has_its_line(change: dict[str, str], replication: int, wanted: int | None, words: list[str]) -> None:
    right = {"message.timestamp.type": "LogAppendTime"}
    found = read_spec("t", 1, replication, DEFAULTS | right | change, KafkaOptions(replication=wanted))
    [flaw] = found.flaws
    for word in words:
        assert word in flaw


def test_settings_that_may_not_be_read_are_told_and_bound_nothing() -> None:
    found = read_spec("t", 4, 1, None, OPTIONS)
    assert "DescribeConfigs" in found.flaws[0]
    assert found.max_record_bytes > 2**40


def test_flaws_are_among_what_is_wrong_with_a_prefix() -> None:
    options = TopicOptions(prefix="acme")
    there = {one.name: one for one in topic_specs(options)}
    broken = read_spec("acme.spans", 4, 1, DEFAULTS | {"retention.ms": "-1"}, OPTIONS)
    [line] = check_topics(options, there | {"acme.spans": broken})
    assert line.startswith("topic acme.spans: expected the broker to stamp")
