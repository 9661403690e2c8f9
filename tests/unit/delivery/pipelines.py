"""Pipelines on a transport in memory, for the tests of delivery."""

import time
from collections.abc import Callable
from typing import Any

import anyio

from prela_stream.delivery.options import PipelineOptions
from prela_stream.delivery.pipeline import Pipeline
from prela_stream.delivery.setup import PipelineSetup
from prela_stream.model.span import Resource
from prela_stream.transport.options import TopicOptions
from tests.support.memory_transport import MemoryTransport
from tests.support.processes import DEADLINE

TOPICS = TopicOptions(partitions=4)


def options(**others: Any) -> PipelineOptions:
    """Options of a pipeline that sends at once, and that may take long to close unless the test sets a limit."""
    quick = {"linger_ms": 1, "backoff_min_ms": 1, "backoff_max_ms": 5, "shutdown_timeout_s": DEADLINE}
    return PipelineOptions(**{**quick, **others})


QUICK = options()


class Clock:
    """The pipeline's clock, which a test can advance, so that it does not have to wait for a deadline."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.step = 0.0
        """Seconds that each reading advances it. If that is more than a backoff, every failed batch is due again."""

    def monotonic(self) -> float:
        """Seconds."""
        self.ahead += self.step
        return time.monotonic() + self.ahead


def make_pipeline(transport: MemoryTransport, options: PipelineOptions = QUICK) -> Pipeline:
    """A pipeline that sends to `transport`."""
    setup = PipelineSetup(topics=TOPICS, options=options, resource=lambda: Resource(service_name="agent"))
    return Pipeline(transport, setup)


async def until(condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
    """Wait for a condition; fails after `seconds`."""
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.001)
