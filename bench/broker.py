"""The broker that benchmarks run on: the one that `PRELA_TEST_BOOTSTRAP` names, else one of their own, made for throughput."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from deploy.kafka import THROUGHPUT, KafkaCluster
from prela_stream.config import Settings, load_settings

HEAP_MB = 1024


@contextmanager
def bench_broker() -> Iterator[str]:
    """Bootstrap servers, for the length of the block. Raises KafkaMissingError where this machine cannot run Kafka."""
    named = os.environ.get("PRELA_TEST_BOOTSTRAP")
    if named:
        yield named
        return
    with KafkaCluster(heap_mb=HEAP_MB, jvm=THROUGHPUT) as kafka:
        yield kafka.bootstrap


def kafka_settings(bootstrap: str, directory: str, **env: str) -> Settings:
    """Settings with topics of their own on that broker; `env` are further variables, without `PRELA_`."""
    given = {"KAFKA_BOOTSTRAP": bootstrap, "TOPICS_PREFIX": f"bench-{uuid.uuid4().hex[:8]}", "DIRECTORY": directory}
    return load_settings(env={f"PRELA_{name}": value for name, value in (given | env).items()})
