"""The Kafka transport: topics of a Kafka cluster, reached through aiokafka. The only package that imports it."""

from prela_stream.transport.kafka.transport import KafkaTransport

__all__ = ["KafkaTransport"]
