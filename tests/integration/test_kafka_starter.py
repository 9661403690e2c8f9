"""The Kafka that tests run on: it answers, keeps its data, elects, says what is missing, and is gone with who started it."""

import pytest

from deploy.kafka.probe import known_brokers

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


def test_the_run_has_a_broker(kafka: str) -> None:
    host, _, port = kafka.split(",", maxsplit=1)[0].rpartition(":")
    assert known_brokers(host, int(port))
