"""A real Apache Kafka without Docker: from its jars, on this machine, for tests, benches and people. `python -m deploy.kafka`."""

from deploy.kafka.broker import Broker
from deploy.kafka.cluster import QUICK_START, THROUGHPUT, KafkaCluster
from deploy.kafka.errors import BrokerError, KafkaMissingError
from deploy.kafka.jars import kafka_version
from deploy.kafka.security import Certificates, Security, unsigned_token

__all__ = [
    "KafkaCluster",
    "Broker",
    "QUICK_START",
    "THROUGHPUT",
    "Security",
    "Certificates",
    "unsigned_token",
    "BrokerError",
    "KafkaMissingError",
    "kafka_version",
]
