"""Fixtures of the tests of delivery."""

from types import SimpleNamespace

import pytest

from prela_stream.delivery import pipeline
from tests.support.memory_transport import MemoryTransport
from tests.unit.delivery.pipelines import TOPICS, Clock


@pytest.fixture
def transport() -> MemoryTransport:
    return MemoryTransport({TOPICS.spans: TOPICS.partitions})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pipeline, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock
