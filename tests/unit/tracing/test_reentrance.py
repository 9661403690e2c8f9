"""Code of the application that this package calls can use this package: log handlers, redact, samplers, exporters, values."""

import logging
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from prela_stream import telemetry
from prela_stream.model.span import SpanData
from prela_stream.privacy.rules import Privacy, Redactable
from prela_stream.testing import capture_spans
from prela_stream.tracing.sampler import BaseSampler
from prela_stream.tracing.span import Span
from prela_stream.tracing.tracer import Tracer, get_tracer

tracer = get_tracer()
logger = logging.getLogger("application")


@pytest.fixture(autouse=True)
def not_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)
    telemetry.restart()  # the first error of a kind is the one that is logged


class Handler(logging.Handler):
    """Calls a function for every log record of the process."""

    def __init__(self, act: Callable[[logging.LogRecord], object]) -> None:
        super().__init__()
        self.act = act
        self.calls = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.calls += 1
        assert self.calls < 50, "the handler is called without end"
        self.act(record)


@pytest.fixture
def handle() -> Iterator[Callable[[Callable[[logging.LogRecord], object]], Handler]]:
    added: list[Handler] = []

    def add(act: Callable[[logging.LogRecord], object]) -> Handler:
        added.append(Handler(act))
        logging.getLogger().addHandler(added[-1])
        return added[-1]

    yield add
    for handler in added:
        logging.getLogger().removeHandler(handler)


def nested_span(_: object) -> None:
    with tracer.span("in the hook", attributes={"value": Recursive()}):
        pass


CHANGES: dict[str, Callable[[Span], object]] = {
    "add_event": lambda span: span.add_event("log"),
    "set_attribute": lambda span: span.set_attribute("log", 1),
    "set_attributes": lambda span: span.set_attributes({"log": 1}),
    "add_link": lambda span: span.add_link(span),
    "set_status": lambda span: span.set_status("ERROR"),
    "record_exception": lambda span: span.record_exception(ValueError()),
    "update_name": lambda span: span.update_name("other"),
    "suspend": lambda span: span.suspend(),
    "resume": lambda span: span.resume(),
    "end": lambda span: span.end(),
    "as a decorator": lambda span: span(print),
    "start a span with a wrong argument": lambda span: tracer.span("x", span_type=3, parent=4).end(),  # type: ignore[call-overload]
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_log_handler_may_change_an_ended_span(change: Callable[[Span], object], handle: Any) -> None:
    with capture_spans() as captured, tracer.span("run") as run:
        pass
    handler = handle(lambda _: change(run))
    for _ in range(3):
        logger.warning("one line after the run")
    change(run)
    assert handler.calls <= 3 + 2, "at most two kinds of errors were logged, once each"
    assert captured.find("run").events == []


def test_changes_of_an_ended_span_in_a_log_handler_are_counted(handle: Any) -> None:
    with capture_spans(), tracer.span("run") as run:
        pass
    handle(lambda _: run.add_event("log"))
    logger.warning("first")  # the handler adds an event, whose report calls the handler again
    assert telemetry.ENDED_SPAN_CHANGES.value("add_event") == 2


def test_a_log_handler_that_raises_does_not_reach_the_application(handle: Any) -> None:
    def fail(_: logging.LogRecord) -> None:
        raise ValueError("the handler is broken")

    handle(fail)
    with capture_spans(), tracer.span("run") as run:
        run.set_status("no such status")
    run.add_event("too late")
    assert telemetry.SWALLOWED.value("log", "ValueError") == 3, "the status, the report of that, and the event"


class Recursive:
    """Its text ends a span that has it as an attribute, a name and an error."""

    calls = 0

    def __repr__(self) -> str:
        Recursive.calls += 1
        assert Recursive.calls < 50, "the value is read without end"
        with tracer.span("in repr", attributes={"again": self, "list": [self, {"deep": self}]}) as span:
            span.set_attribute("error", SelfRecordingError())
            span.update_name(self)  # type: ignore[arg-type]  # what the test is about
        return "recursive"


class SelfRecordingError(Exception):
    """Its text records it."""

    calls = 0

    def __str__(self) -> str:
        SelfRecordingError.calls += 1
        assert SelfRecordingError.calls < 50, "the error is read without end"
        with tracer.span("in str") as span:
            span.record_exception(self)
        return "self recording"


@pytest.fixture(autouse=True)
def reset() -> None:
    Recursive.calls = SelfRecordingError.calls = 0


def test_a_value_whose_text_uses_spans() -> None:
    with capture_spans() as captured, tracer.span("outer", attributes={"value": Recursive(), "other": 1}):
        pass
    outer = captured.find("outer")
    assert (outer.attributes["value"], outer.attributes["other"]) == ("recursive", 1)
    assert len(captured.spans) == Recursive.calls + 1
    assert "not read" in str(captured.spans[0].attributes["again"])


def test_a_mapping_whose_items_use_spans() -> None:
    class Lazy(dict[str, int]):
        calls = 0

        def items(self) -> Any:
            Lazy.calls += 1
            assert Lazy.calls < 50, "the mapping is read without end"
            with tracer.span("in items", attributes={"again": self}):
                pass
            return super().items()

    with capture_spans() as captured, tracer.span("outer", attributes={"value": Lazy(a=1)}):
        pass
    assert captured.find("outer").attributes["value"] == {"a": 1}
    assert Lazy.calls < 5


def test_an_error_whose_text_records_it() -> None:
    with capture_spans() as captured, pytest.raises(SelfRecordingError), tracer.span("outer"):
        raise SelfRecordingError
    assert captured.find("outer").attributes["error.message"] == "self recording"
    assert {span.name for span in captured.spans} == {"outer", "in str"}
    assert SelfRecordingError.calls < 5


def test_redact_may_use_spans_and_the_log(handle: Any) -> None:
    calls: list[str] = []

    def redact(span: Redactable) -> None:
        calls.append(span.name)
        assert len(calls) < 50, "redact is called without end"
        logger.warning("redacting")
        with tracer.span("in redact", attributes={"gen_ai.input.messages": "secret"}):
            pass
        span.attributes.pop("password", None)

    handle(lambda _: tracer.get_current_span())
    with capture_spans() as captured:
        tracer.configure(privacy=Privacy(redact=redact))
        try:
            with tracer.span("outer", attributes={"password": "p", "kept": 1}):
                pass
        finally:
            tracer.configure(privacy=Privacy())
    assert calls == ["outer"]
    assert captured.find("outer").attributes == {"kept": 1}
    assert "secret" not in str(captured.find("in redact").attributes)


def test_a_sampler_may_start_traces_and_log(handle: Any) -> None:
    class Sampler(BaseSampler):
        calls = 0

        def should_sample(self, trace_id: str) -> bool:
            Sampler.calls += 1
            assert Sampler.calls < 50, "the sampler is called without end"
            logger.warning("deciding")
            return True

    def start_a_trace(_: object) -> None:
        tracer.start_span("in the handler", parent=None).end()

    handle(start_a_trace)
    with capture_spans() as captured:
        tracer.configure(sampler=Sampler())
        try:
            with tracer.span("outer"):
                pass
        finally:
            tracer.configure(sampler=None)
    assert Sampler.calls == 1
    assert sorted(span.name for span in captured.spans) == ["in the handler", "outer"]


class Exporter:
    """Uses the tracer whose spans it exports."""

    def __init__(self) -> None:
        self.tracer = Tracer(exporter=cast("Any", self))
        self.exported: list[str] = []

    def export(self, spans: list[SpanData]) -> None:
        self.exported += [span.name for span in spans]
        assert len(self.exported) < 50, "export() is called without end"
        with self.tracer.span("in export"):
            pass

    def shutdown(self) -> None:
        with self.tracer.span("in shutdown"):
            pass


def test_an_exporter_may_use_spans() -> None:
    exporter = Exporter()
    for _ in range(2):
        with exporter.tracer.span("outer"):
            pass
    assert exporter.exported == ["outer", "outer"]
    assert telemetry.SWALLOWED.value("exporter.export", "RuntimeError") == 2


def test_a_recorder_may_use_spans() -> None:
    class Recorder:
        def __init__(self) -> None:
            self.items = 0

        def record(self, trace_id: bytes, item: bytes, reserved: bool = False) -> None:
            self.items += 1
            assert self.items < 50, "record() is called without end"
            with made.span("in record"):
                pass

    recorder = Recorder()
    made = Tracer(exporter=cast("Any", recorder))
    with made.span("outer"):
        pass
    assert recorder.items == 1
    assert cast("Any", made.recorder) is recorder


def test_all_hooks_at_once(handle: Any) -> None:
    exporter = Exporter()
    handle(nested_span)
    with capture_spans() as captured, exporter.tracer.span("outer", attributes={"value": Recursive()}) as span:
        span.set_status("wrong")
        logger.warning("now")
    span.add_event("late")
    assert exporter.exported[0] == "outer"
    assert len(captured.spans) < 50
