"""The topics of a prefix, and the mistakes that are reported for existing ones."""

import msgspec
import pytest

from prela_stream.transport.base import TopicSpec
from prela_stream.transport.options import TopicOptions
from prela_stream.transport.topics import check_retention, check_topics, merge_mistakes, topic_specs

OPTIONS = TopicOptions(prefix="acme", partitions=6, sampled_partitions=2, retention_hours=1.5, max_record_bytes=500_000)


def there(**changes: object) -> dict[str, TopicSpec]:
    """What is there: all as it should be, but for `changes` of the spans topic."""
    specs = {spec.name: spec for spec in topic_specs(OPTIONS)}
    specs["acme.spans"] = msgspec.structs.replace(specs["acme.spans"], **changes)
    return specs


def test_the_four_topics_of_a_prefix() -> None:
    specs = {spec.name: spec for spec in topic_specs(OPTIONS)}
    assert {name: spec.partitions for name, spec in specs.items()} == {
        "acme.spans": 6,
        "acme.decisions": 6,
        "acme.sampled": 2,
        "acme.dlq": 1,
    }
    assert {spec.cleanup for spec in specs.values()} == {"delete"}
    assert {spec.retention_ms for spec in specs.values()} == {5_400_000}
    assert specs["acme.spans"].max_record_bytes == 500_000
    assert specs["acme.dlq"].max_record_bytes > 500_000, "a record of the largest size must fit with its reason"


def test_topics_as_expected_have_no_mistakes() -> None:
    assert check_topics(OPTIONS, there()) == []
    assert check_topics(OPTIONS, there(retention_ms=None, max_record_bytes=9_000_000)) == []


def test_each_missing_topic_is_named_with_the_command_that_creates_it() -> None:
    mistakes = check_topics(OPTIONS, {})
    assert len(mistakes) == 4
    assert all("does not exist" in line and "prela-stream topics create" in line for line in mistakes)
    assert "acme.spans" in mistakes[0]
    assert "6 partitions" in mistakes[0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"partitions": 8}, ["expected 6 partitions", "found 8", "another prefix", "topics create"]),
        ({"cleanup": "compact"}, ["expected cleanup delete", "found compact"]),
        ({"max_record_bytes": 1000}, ["500,000", "it accepts 1,000", "max_record_bytes"]),
        ({"retention_ms": 60_000}, ["5,400,000 ms", "60,000", "retention_hours"]),
    ],
)
def test_a_mistake_has_what_was_expected_what_was_found_and_what_to_do(
    change: dict[str, object], expected: list[str]
) -> None:
    [line] = check_topics(OPTIONS, there(**change))
    assert line.startswith("topic acme.spans: ")
    assert [part for part in expected if part not in line] == []


def test_every_mistake_of_a_topic_has_a_line() -> None:
    assert len(check_topics(OPTIONS, there(partitions=1, cleanup="compact", max_record_bytes=1))) == 3


def test_a_topic_whose_settings_are_unreadable_gets_only_mistakes_that_are_certain() -> None:
    unread = TopicSpec(name="acme.decisions", partitions=5, problems=("its settings cannot be read",), readable=False)
    lines = check_topics(OPTIONS, there() | {"acme.decisions": unread})
    assert len(lines) == 2
    assert "expected 6 partitions, found 5" in lines[0]
    assert lines[1] == "topic acme.decisions: its settings cannot be read"


def test_topics_with_the_same_mistake_share_one_line() -> None:
    fewer = {name: msgspec.structs.replace(spec, partitions=1) for name, spec in there(cleanup="compact").items()}
    fixed = "and the number is fixed for a prefix: set it to 1, or"
    other = "choose another prefix than 'acme' and run `prela-stream topics create`"
    assert merge_mistakes(check_topics(OPTIONS, fewer)) == [
        f"topics acme.spans, acme.decisions: expected 6 partitions, found 1, {fixed} {other}",
        f"topic acme.spans: expected cleanup delete, found compact: correct the topic's cleanup.policy, or {other}",
        f"topic acme.sampled: expected 2 partitions, found 1, {fixed} {other}",
    ]
    assert merge_mistakes([]) == []


def test_retention_has_to_cover_what_a_worker_may_have_to_read_again() -> None:
    ages = {"max_age_ms": 5_400_000, "late_window_ms": 2_700_000}
    assert check_retention(OPTIONS, there(), **ages) == []
    assert check_retention(OPTIONS, there(retention_ms=None), **ages) == []
    assert check_retention(OPTIONS, {}, **ages) == []
    assert check_retention(OPTIONS, there(retention_ms=1, readable=False), **ages) == []
    [line] = check_retention(OPTIONS, there(retention_ms=5_399_999), **ages)
    assert line == (
        "topic acme.spans: expected records to be retained for at least 5,400,000 ms, because traces stay undecided for as long "
        "(assembly.max_age_ms); they are retained for 5,399,999 ms: raise the topic's retention, or lower that setting"
    )
    [line] = check_retention(OPTIONS, there(), max_age_ms=1, late_window_ms=2_700_001)
    assert line.startswith("topic acme.decisions: expected records to be retained for at least 5,400,002 ms")
