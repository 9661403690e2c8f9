"""Spans of OpenTelemetry's SDK and of this one are parents of each other."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import opentelemetry.context
import pytest
from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from prela_stream.instrumentation.otel import join_opentelemetry, leave_opentelemetry
from prela_stream.model.span import REMOTE_PARENT
from prela_stream.propagation.w3c import extract
from prela_stream.testing import CapturedSpans, capture_spans
from prela_stream.tracing.context import attach
from prela_stream.tracing.tracer import get_tracer

prela = get_tracer()
exporter = InMemorySpanExporter()
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(exporter))
otel = provider.get_tracer("test")


@pytest.fixture
def captured() -> Iterator[CapturedSpans]:
    join_opentelemetry()
    exporter.clear()
    try:
        with capture_spans() as spans:
            yield spans
    finally:
        leave_opentelemetry()


def exported(name: str) -> tuple[str, str, str | None]:
    """Trace, span and parent id of their span."""
    span: ReadableSpan = next(one for one in exporter.get_finished_spans() if one.name == name)
    assert span.context is not None
    parent = None if span.parent is None else f"{span.parent.span_id:016x}"
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", parent


def test_each_is_the_others_child_in_any_order(captured: CapturedSpans) -> None:
    with (
        otel.start_as_current_span("t1"),
        prela.span("o2"),
        prela.span("o3"),
        otel.start_as_current_span("t4"),
    ):
        with otel.start_as_current_span("t5"), prela.span("o6"):
            pass
        with prela.span("o7"):
            pass
    chain = {}
    for name in ("t1", "t4", "t5"):
        chain[name] = exported(name)
    for name in ("o2", "o3", "o6", "o7"):
        span = captured.find(name)
        chain[name] = (span.trace_id, span.span_id, span.parent_span_id)
    above = {"t1": None, "o2": "t1", "o3": "o2", "t4": "o3", "t5": "t4", "o6": "t5", "o7": "t4"}
    for name, parent in above.items():
        assert chain[name][2] == (None if parent is None else chain[parent][1]), name
    assert len({trace_id for trace_id, _, _ in chain.values()}) == 1


def test_a_span_below_an_otel_span_is_a_local_root_and_otel_spans_are_not_counted(captured: CapturedSpans) -> None:
    with (
        otel.start_as_current_span("t1"),
        prela.span("o2"),
        otel.start_as_current_span("t3"),
        prela.span("o4"),
    ):
        pass
    for name in ("o2", "o4"):
        assert (captured.find(name).flags, captured.find(name).inject_ordinal) == (REMOTE_PARENT, None)
    assert (captured.find("o2").child_count, captured.find("o2").inject_count) == (0, 0)


def test_siblings_after_each_other(captured: CapturedSpans) -> None:
    with prela.span("root") as root:
        with otel.start_as_current_span("t1"):
            pass
        with prela.span("o2"):
            pass
        with otel.start_as_current_span("t3"):
            pass
    assert exported("t1")[2] == exported("t3")[2] == root.span_id
    assert captured.find("o2").parent_span_id == root.span_id
    assert trace.get_current_span() is trace.INVALID_SPAN
    with prela.span("alone"):
        pass
    assert captured.find("alone").parent_span_id is None


async def test_in_tasks_and_threads(captured: CapturedSpans) -> None:
    async def work(name: str) -> None:
        with otel.start_as_current_span(f"t {name}"):
            await asyncio.sleep(0)
            await asyncio.to_thread(lambda: prela.span(f"o {name}").end())

    with prela.span("root") as root:
        await asyncio.gather(work("a"), work("b"))
    for name in ("a", "b"):
        _, span_id, parent = exported(f"t {name}")
        assert parent == root.span_id
        assert captured.find(f"o {name}").parent_span_id == span_id


def test_a_context_without_an_otel_span_leaves_the_current_span_nearest(captured: CapturedSpans) -> None:
    with prela.span("root") as root:
        token = opentelemetry.context.attach(baggage.set_baggage("user", "7"))
        with prela.span("below"), otel.start_as_current_span("t"):
            assert baggage.get_baggage("user") == "7"
        carried = opentelemetry.context.get_current()
        opentelemetry.context.detach(token)
    assert captured.find("below").parent_span_id == root.span_id
    assert captured.find("root").child_count == 1
    token = opentelemetry.context.attach(carried)  # somewhere else, later
    with prela.span("continued"):
        pass
    opentelemetry.context.detach(token)
    assert captured.find("continued").parent_span_id == root.span_id


def test_a_generators_span_is_not_the_parent_of_its_consumers_otel_spans(captured: CapturedSpans) -> None:
    def numbers() -> Iterator[int]:
        with prela.span("generator"), otel.start_as_current_span("inside"):
            yield 1

    with prela.span("root") as root:
        for _ in numbers():
            with prela.span("used"), otel.start_as_current_span("t used"):
                pass
    used = captured.find("used")
    assert used.parent_span_id == root.span_id
    assert exported("t used")[2] == used.span_id
    assert exported("inside")[2] == captured.find("generator").span_id


def test_sampling_and_tracestate_travel(captured: CapturedSpans) -> None:
    unsampled = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("test")
    with unsampled.start_as_current_span("off"), prela.span("left out") as span:
        assert not span.sampled
    headers = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03",
        "tracestate": "a=1,ot=th:8",
    }
    with attach(extract(headers)), otel.start_as_current_span("t"), prela.span("o"):
        state = trace.get_current_span().get_span_context()
    assert exported("t")[2] == "b7ad6b7169203331"
    assert captured.find("o").threshold == 1 << 55
    assert state.trace_state.to_header() == "ot=th:8,a=1"
    assert state.trace_flags == 3
    assert [span.name for span in captured.spans] == ["o"]


def test_without_joining_neither_sees_the_other() -> None:
    with capture_spans() as captured, otel.start_as_current_span("t"), prela.span("o"):
        assert trace.get_current_span().is_recording()
    assert captured.find("o").parent_span_id is None


def test_it_is_joined_when_the_program_imports_it_and_not_imported_for_that() -> None:
    program = """
import sys
from prela_stream.instrumentation.otel import join_opentelemetry
from prela_stream.tracing.tracer import get_tracer
join_opentelemetry()
with get_tracer().span("before"):
    pass
assert not any(name.startswith("opentelemetry") for name in sys.modules)
from opentelemetry import trace
with get_tracer().span("x") as span:
    assert f"{trace.get_current_span().get_span_context().span_id:016x}" == span.span_id
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)


def test_a_span_during_the_import_of_opentelemetry_has_the_parent_of_this_sdk(
    captured: CapturedSpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prela_stream.instrumentation.otel.is_importing", lambda name: name == "opentelemetry.trace")
    with prela.span("outer"), otel.start_as_current_span("being imported"), prela.span("inner"):
        pass
    assert captured.find("inner").parent_span_id == captured.find("outer").span_id
