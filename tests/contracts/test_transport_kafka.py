"""The Kafka transport under the transport contract, on a real broker."""

import pytest

from prela_stream.transport.base import Transport
from prela_stream.transport.kafka import KafkaTransport
from prela_stream.transport.options import KafkaOptions
from tests.contracts.transport_contract import TransportContract
from tests.contracts.transport_harness import Log


def open_kafka(bootstrap: str) -> Transport:
    """A transport on the broker at `bootstrap`."""
    return KafkaTransport(KafkaOptions(bootstrap=(bootstrap,), session_timeout_ms=6_000))


@pytest.fixture
def log(kafka: str, kafka_prefix: str) -> Log:
    """Topics and groups of the test's own."""
    return Log(
        opener="tests.contracts.test_transport_kafka:open_kafka",
        argument=kafka,
        prefix=kafka_prefix,
    )


@pytest.mark.kafka
class TestKafkaTransport(TransportContract):
    """The whole contract."""
