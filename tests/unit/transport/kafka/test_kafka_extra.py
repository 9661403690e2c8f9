"""Arguments of aiokafka's clients in `extra`: their names and kinds are checked, their values never shown."""

from typing import Any

import pytest

from prela_stream.errors import ConfigurationError
from prela_stream.transport.kafka.connect.arguments import connection
from prela_stream.transport.options import KafkaOptions


@pytest.mark.parametrize(
    ("extra", "mistake"),
    [
        ({"foo": "s3cret"}, "kafka.extra.foo: AIOKafkaClient of aiokafka has no such argument"),
        (
            {"metadata_max_age": 1},
            "kafka.extra.metadata_max_age: AIOKafkaClient of aiokafka has no such argument; did you mean",
        ),
        (
            {"metadata_max_age_ms": "s3cret"},
            "kafka.extra.metadata_max_age_ms: expected a number from 0 to 2,147,483,647",
        ),
        ({"retry_backoff_ms": -1}, "kafka.extra.retry_backoff_ms: expected a number from 0"),
        ({"retry_backoff_ms": float("nan")}, "kafka.extra.retry_backoff_ms: expected a number from 0"),
        ({"retry_backoff_ms": float("inf")}, "kafka.extra.retry_backoff_ms: expected a number from 0"),
        ({"request_timeout_ms": {"a": "s3cret"}}, "kafka.extra.request_timeout_ms: expected a number"),
        ({"api_version": ["s3cret"]}, "kafka.extra.api_version: expected a string or a number"),
        ({"loop": 1}, "kafka.extra.loop: AIOKafkaClient of aiokafka has no such argument"),
        ({"sasl_plain_password": "s3cret"}, "kafka.extra.sasl_plain_password: the transport depends on this argument"),
        ({"a\u202eb": 1}, "kafka.extra.a\\u202eb: AIOKafkaClient"),
    ],
)
def test_a_wrong_argument_is_reported_without_its_value(extra: dict[str, Any], mistake: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        connection(KafkaOptions(extra=extra))
    assert str(caught.value).startswith(mistake)
    assert "s3cret" not in str(caught.value)


def test_all_mistakes_of_the_three_tables_are_reported_at_once() -> None:
    options = KafkaOptions(extra={"foo": 1}, producer_extra={"acks": 1, "linger": 1}, consumer_extra={"check_crcs": 1})
    with pytest.raises(ConfigurationError) as caught:
        connection(options)
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        *(
            "kafka.extra.foo",
            "kafka.producer_extra.acks",
            "kafka.producer_extra.linger",
            "kafka.consumer_extra.check_crcs",
        ),
    ]


def test_good_arguments_pass() -> None:
    options = KafkaOptions(
        extra={"metadata_max_age_ms": 5}, producer_extra={"max_request_size": 5}, consumer_extra={"check_crcs": False}
    )
    assert connection(options)["metadata_max_age_ms"] == 5
