"""Tracers with a name, a recorder or a sampler."""

from collections.abc import Iterator

import pytest

from prela_stream.testing import CapturedSpans, capture_spans
from prela_stream.tracing.tracer import Tracer, get_tracer

tracer = get_tracer()


@pytest.fixture(autouse=True)
def not_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)


@pytest.fixture
def captured() -> Iterator[CapturedSpans]:
    with capture_spans() as spans:
        yield spans


def test_a_tracer_with_a_name_and_a_recorder(captured: CapturedSpans) -> None:
    own = CapturedSpans()
    with Tracer(service_name="billing", exporter=own).span("x"):
        pass
    with Tracer(service_name="shared").span("y"):
        pass
    assert own.find("x").attributes == {"service.name": "billing"}
    assert captured.find("y").attributes == {"service.name": "shared"}
