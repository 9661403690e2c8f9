"""What a span does if its recorder fails, or if there is none."""

import pytest

from prela_stream import telemetry
from prela_stream.tracing.tracer import Tracer, get_tracer

tracer = get_tracer()


@pytest.fixture(autouse=True)
def not_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)


def test_before_init_spans_work_and_are_not_recorded() -> None:
    alone = Tracer()
    assert alone.recorder is None
    with alone.span("x") as span:
        span.set_attribute("a", 1)
    assert span.status == "SUCCESS"


def test_a_recorder_that_fails_does_not_reach_the_application(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def record(self, trace_id: bytes, item: bytes, reserved: bool = False) -> None:
            raise OSError("disk")

        def refuse(self, trace_id: bytes) -> None:
            raise OSError("disk")

    before = telemetry.SWALLOWED.value("span.end", "OSError")
    with Tracer(exporter=Broken()).span("x") as span:
        pass
    assert span.is_ended
    assert telemetry.SWALLOWED.value("span.end", "OSError") == before + 1
