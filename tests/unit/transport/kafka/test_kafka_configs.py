"""The settings of a topic on Kafka, read back, and the problems that are reported for topics of others."""

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
def test_a_topic_reads_back_as_it_was_created(made: TopicSpec) -> None:
    found = DEFAULTS | entries(made, 3)
    assert read_spec("t", made.partitions, 3, found, OPTIONS) == made


def test_every_entry_that_is_checked_is_requested() -> None:
    assert sorted(READ) == sorted(DEFAULTS)


def test_a_batch_of_one_largest_record_fits_with_its_key_headers_and_framing() -> None:
    made = entries(TopicSpec(name="t", partitions=1, max_record_bytes=10_000), 1)
    assert int(made["max.message.bytes"]) == 10_000 + 16_384


def test_a_topic_with_three_replicas_requires_two_in_sync() -> None:
    assert entries(TopicSpec(name="t", partitions=1), 3)["min.insync.replicas"] == "2"
    assert "min.insync.replicas" not in entries(TopicSpec(name="t", partitions=1), 2)


def test_kafkas_defaults_accept_our_records_but_not_log_append_time() -> None:
    found = read_spec("t", 4, 1, DEFAULTS, OPTIONS)
    assert found.max_record_bytes >= max(one.max_record_bytes for one in topic_specs(TopicOptions()))
    [problem] = found.problems
    assert "LogAppendTime" in problem
    assert "CreateTime" in problem


@pytest.mark.parametrize(
    ("change", "replication", "wanted", "words"),
    [
        ({"cleanup.policy": "compact,delete"}, 3, None, ["compact,delete", "correct the topic"]),
        ({}, 1, 2, ["expected 2 replicas", "found 1", "kafka.replication"]),
        ({"min.insync.replicas": "2"}, 1, None, ["at most 1", "found 2", "nothing can be written"]),
        ({"min.insync.replicas": "1"}, 3, 3, ["min.insync.replicas of 2 or more", "found 1", "raise it"]),
    ],
)
def test_each_problem_has_one_line(
    change: dict[str, str], replication: int, wanted: int | None, words: list[str]
) -> None:
    right = {"message.timestamp.type": "LogAppendTime"}
    found = read_spec("t", 1, replication, DEFAULTS | right | change, KafkaOptions(replication=wanted))
    [problem] = found.problems
    for word in words:
        assert word in problem


def test_unreadable_settings_are_reported_and_limit_nothing() -> None:
    found = read_spec("t", 4, 1, None, OPTIONS)
    assert "DescribeConfigs" in found.problems[0]
    assert found.max_record_bytes > 2**40


def test_the_problems_are_among_the_mistakes_of_a_prefix() -> None:
    options = TopicOptions(prefix="acme")
    there = {one.name: one for one in topic_specs(options)}
    broken = read_spec("acme.spans", 4, 1, DEFAULTS | {"retention.ms": "-1"}, OPTIONS)
    [line] = check_topics(options, there | {"acme.spans": broken})
    assert line.startswith("topic acme.spans: expected message.timestamp.type LogAppendTime")
