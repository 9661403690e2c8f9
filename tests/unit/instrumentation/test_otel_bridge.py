"""The bridge records the spans of OpenTelemetry with exact child counts, in one tree with the spans of this SDK."""

import ast
import asyncio
import copy
import gc
import importlib
import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import opentelemetry.context
import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ConcurrentMultiSpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, Sampler, SamplingResult

from prela_stream.codec.spans import decode_head
from prela_stream.errors import ConfigurationError
from prela_stream.instrumentation.otel import is_joined
from prela_stream.instrumentation.otel_bridge import _bridge, bridge_opentelemetry, unbridge_opentelemetry
from prela_stream.instrumentation.otel_scopes import heed_scopes, ignore_scopes, is_ignored
from prela_stream.instrumentation.otel_spans import known
from prela_stream.instrumentation.registry import auto_instrument, uninstrument
from prela_stream.model.span import AFTER_END, COUNTED, REMOTE_PARENT, ItemKind, SpanStatus, SpanType
from prela_stream.propagation.w3c import inject
from prela_stream.testing import CapturedSpans, capture_spans
from prela_stream.tracing.exporters import Tee
from prela_stream.tracing.open_spans import OpenSpans
from prela_stream.tracing.sampler import AlwaysOffSampler, ProbabilitySampler
from prela_stream.tracing.session import session
from prela_stream.tracing.tracer import get_tracer

prela = get_tracer()
exporter = InMemorySpanExporter()
resource = Resource.create({"service.name": "shop", "deployment.environment.name": "test"})
provider = TracerProvider(resource=resource, shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(exporter))
otel = provider.get_tracer("a library", "1.2")


@pytest.fixture
def captured() -> Iterator[CapturedSpans]:
    assert bridge_opentelemetry(provider) is provider
    exporter.clear()
    try:
        with capture_spans() as spans:
            yield spans
    finally:
        unbridge_opentelemetry()
        assert not is_joined()


def family(captured: CapturedSpans) -> dict[str, tuple[str | None, int, int | None]]:
    """Parent's name, flags and child count of each span."""
    names = {span.span_id: span.name for span in captured}
    return {
        span.name: (names.get(span.parent_span_id or "", span.parent_span_id), span.flags, span.child_count)
        for span in captured
    }


async def test_children_are_counted_under_gather_and_task_groups_and_late_ones_are_not(captured: CapturedSpans) -> None:
    async def work(name: str) -> None:
        with otel.start_as_current_span(name):
            await asyncio.sleep(0)
            await asyncio.to_thread(lambda: otel.start_span(f"{name} in a thread").end())

    late = asyncio.Event()

    async def work_later() -> None:
        await late.wait()
        otel.start_span("late").end()

    with otel.start_as_current_span("root"):
        await asyncio.gather(work("a"), work("b"))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(work("c"))
            tasks.create_task(work("d"))
        with otel.start_as_current_span("tool"):
            job = asyncio.create_task(work_later())
    late.set()
    await job
    expected: dict[str, tuple[str | None, int, int | None]] = {
        "root": (None, 0, 5),
        "tool": ("root", COUNTED, 0),
        "late": ("tool", AFTER_END, 0),
    }
    for name in ("a", "b", "c", "d"):
        expected[name] = ("root", COUNTED, 1)
        expected[f"{name} in a thread"] = (name, COUNTED, 0)
    assert family(captured) == expected


def test_one_tree_of_both_libraries_is_counted_throughout(captured: CapturedSpans) -> None:
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
    assert family(captured) == {
        "t1": (None, 0, 1),
        "o2": ("t1", COUNTED, 1),
        "o3": ("o2", COUNTED, 1),
        "t4": ("o3", COUNTED, 2),
        "t5": ("t4", COUNTED, 1),
        "o6": ("t5", COUNTED, 0),
        "o7": ("t4", COUNTED, 0),
    }
    assert {span.name for span in exporter.get_finished_spans()} == {"t1", "t4", "t5"}  # of the program's own exporter


def test_a_child_of_an_ended_span_of_either_library_is_not_counted(captured: CapturedSpans) -> None:
    with otel.start_as_current_span("t1"):
        inside = opentelemetry.context.get_current()
    token = opentelemetry.context.attach(inside)
    prela.span("o late").end()
    otel.start_span("t late").end()
    opentelemetry.context.detach(token)
    with prela.span("o1"):
        inside = opentelemetry.context.get_current()
    otel.start_span("t later", context=inside).end()
    found = family(captured)
    assert found["o late"] == ("t1", AFTER_END, 0)
    assert found["t late"] == ("t1", AFTER_END, 0)
    assert found["t later"] == ("o1", AFTER_END, 0)
    assert (found["t1"][2], found["o1"][2]) == (0, 0)


def test_threads_that_start_children_while_the_parent_ends_never_leave_a_count_wrong(captured: CapturedSpans) -> None:
    for number in range(200):
        parent = otel.start_span(f"root {number}")
        context = trace.set_span_in_context(parent)
        ready = threading.Barrier(3)

        def start_children(context: Any = context, ready: threading.Barrier = ready) -> None:
            ready.wait()
            for _ in range(5):
                otel.start_span("child", context=context).end()

        threads = [threading.Thread(target=start_children) for _ in range(2)]
        for thread in threads:
            thread.start()
        ready.wait()
        parent.end()
        for thread in threads:
            thread.join()
    counted: dict[str, int] = {}
    for span in captured:
        if span.flags & COUNTED:
            assert span.parent_span_id is not None
            counted[span.parent_span_id] = counted.get(span.parent_span_id, 0) + 1
    roots = [span for span in captured if span.name != "child"]
    assert len(captured) == 200 * 11
    assert all(span.child_count == counted.get(span.span_id, 0) for span in roots)


def test_everything_of_a_span_is_carried_over(captured: CapturedSpans) -> None:
    linked = otel.start_span("linked")
    link = trace.Link(linked.get_span_context(), {"why": "batch"})

    def fail() -> None:
        with otel.start_as_current_span("GET /", kind=trace.SpanKind.SERVER, links=[link], start_time=1_000) as span:
            span.set_attributes({"k": (1, 2), "service.name": "own"})
            span.add_event("retry", {"attempt": 2}, timestamp=2_000)
            raise ValueError("no seats")

    with pytest.raises(ValueError, match="no seats"):
        fail()
    with otel.start_as_current_span("chat m") as call:
        call.set_attributes({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 7})
        call.set_status(trace.StatusCode.OK)
    found = captured.find("GET /")
    assert found.start_ns == 1_000
    assert (found.status, found.status_message) == (SpanStatus.ERROR, "ValueError: no seats")
    attributes = dict(found.attributes)
    assert attributes.pop("error.stacktrace").startswith("Traceback")
    assert attributes == {
        "k": [1, 2],
        "service.name": "own",
        "deployment.environment.name": "test",
        "otel.span.kind": "server",
        "otel.scope.name": "a library",
        "otel.scope.version": "1.2",
        "error.type": "ValueError",
        "error.message": "no seats",
    }
    retry = found.events[0]
    assert (retry.name, retry.time_ns, retry.attributes) == ("retry", 2_000, {"attempt": 2})
    context = linked.get_span_context()
    assert [(one.trace_id, one.span_id, one.attributes) for one in found.links] == [
        (context.trace_id.to_bytes(16), context.span_id.to_bytes(8), {"why": "batch"})
    ]
    chat = captured.find("chat m")
    assert chat.span_type is SpanType.LLM
    assert chat.attributes["gen_ai.usage.input_tokens"] == 7
    assert chat.attributes["otel.status_code"] == "OK"
    assert chat.attributes["service.name"] == "shop"


class OneResult(Sampler):
    """Gives every span one decision and tracestate."""

    def __init__(self, decision: Decision, state: str = "") -> None:
        self.result = SamplingResult(decision, trace_state=trace.TraceState.from_header([state]) if state else None)

    def should_sample(self, *_: Any, **__: Any) -> SamplingResult:
        return self.result

    def get_description(self) -> str:
        return "OneResult"


def other_provider(**arguments: Any) -> Any:
    """A tracer of another bridged provider."""
    other = TracerProvider(shutdown_on_exit=False, **arguments)
    bridge_opentelemetry(other)
    return other.get_tracer("other")


def test_randomness_and_threshold_of_the_tracestate(captured: CapturedSpans) -> None:
    tracer = other_provider(sampler=OneResult(Decision.RECORD_AND_SAMPLE, "ot=th:8;rv:90000000000001,v=1"))
    with tracer.start_as_current_span("t"), prela.span("o"):
        pass
    for name in ("t", "o"):
        assert (captured.find(name).threshold, captured.find(name).randomness) == (1 << 55, 0x90000000000001)


def test_a_span_that_opentelemetry_samples_out_is_not_recorded_and_not_counted(captured: CapturedSpans) -> None:
    off = other_provider(sampler=ALWAYS_OFF)
    recorded_only = other_provider(sampler=OneResult(Decision.RECORD_ONLY))
    with otel.start_as_current_span("root"):
        with off.start_as_current_span("off"), prela.span("below off"):
            pass
        with recorded_only.start_as_current_span("not sent"):
            other_provider(sampler=ALWAYS_ON).start_span("below not sent").end()
    assert family(captured) == {"root": (None, 0, 1), "below not sent": ("root", COUNTED, 0)}


def test_a_trace_that_the_head_sampler_drops_has_no_span_of_either_library(captured: CapturedSpans) -> None:
    prela.configure(sampler=AlwaysOffSampler())
    try:
        with otel.start_as_current_span("t1"), prela.span("o2"), otel.start_as_current_span("t3"):
            otel.start_span("t4").end()
        with prela.span("o1"), otel.start_as_current_span("t2"), prela.span("o3"):
            pass
        prela.configure(sampler=ProbabilitySampler(0.999999))
        with other_provider(sampler=OneResult(Decision.RECORD_AND_SAMPLE, "ot=th:8")).start_as_current_span("kept"):
            pass
    finally:
        prela.configure(sampler=None)
    assert family(captured) == {"kept": (None, 0, 0)}
    assert captured.find("kept").threshold == 1 << 55  # the larger one of both samplers


def test_a_span_below_a_remote_parent_answers_its_inject(captured: CapturedSpans) -> None:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers: dict[str, str] = {}
    with prela.span("client"):
        inject(headers)
    context = TraceContextTextMapPropagator().extract(headers)
    with otel.start_as_current_span("server", context=context), prela.span("inside"):
        pass
    server = captured.find("server")
    assert (server.flags, server.inject_ordinal) == (REMOTE_PARENT, 0)
    assert server.parent_span_id == captured.find("client").span_id
    assert (captured.find("client").child_count, captured.find("client").inject_count) == (0, 1)
    assert captured.find("inside").flags == COUNTED


def test_a_span_below_a_parent_that_no_one_records_is_a_local_root(captured: CapturedSpans) -> None:
    not_bridged = TracerProvider(shutdown_on_exit=False).get_tracer("x")
    with not_bridged.start_as_current_span("elsewhere") as above, otel.start_as_current_span("t"), prela.span("o"):
        pass
    assert captured.find("t").flags == REMOTE_PARENT
    assert captured.find("t").parent_span_id == f"{above.get_span_context().span_id:016x}"
    assert family(captured)["o"] == ("t", COUNTED, 0)


def test_ignored_scopes_give_no_span_and_their_children_hang_above(captured: CapturedSpans) -> None:
    ignore_scopes("test", ["com.anthropic.*", "*.instrumentation.anthropic"])
    try:
        ignored = provider.get_tracer("opentelemetry.instrumentation.anthropic")
        with prela.span("call"), ignored.start_as_current_span("chat"):
            with ignored.start_as_current_span("inner"):
                otel.start_span("http").end()
            prela.span("o").end()
        with ignored.start_as_current_span("an ignored root"):
            otel.start_span("t root").end()
            prela.span("o root").end()
        assert not is_ignored("opentelemetry.instrumentation.anthropic.more")
    finally:
        heed_scopes("test")
    assert not is_ignored("com.anthropic.sdk.python")
    assert family(captured) == {
        "call": (None, 0, 2),
        "http": ("call", COUNTED, 0),
        "o": ("call", COUNTED, 0),
        "t root": (None, 0, 0),
        "o root": (None, 0, 0),
    }
    assert captured.find("t root").trace_id == captured.find("o root").trace_id


def test_the_processor_works_in_threads_of_another_processor(captured: CapturedSpans) -> None:
    threaded = TracerProvider(active_span_processor=ConcurrentMultiSpanProcessor(2), shutdown_on_exit=False)
    bridge_opentelemetry(threaded)
    with prela.span("o1"), threaded.get_tracer("x").start_as_current_span("t2"):
        threaded.get_tracer("x").start_span("t3").end()
    assert family(captured) == {"o1": (None, 0, 1), "t2": ("o1", COUNTED, 1), "t3": ("t2", COUNTED, 0)}
    threaded.shutdown()


def test_sessions_reach_the_spans_of_opentelemetry(captured: CapturedSpans) -> None:
    with session("s1", user_id="u"), otel.start_as_current_span("t"):
        pass
    assert captured.find("t").attributes["gen_ai.conversation.id"] == "s1"
    assert captured.find("t").attributes["user.id"] == "u"


def test_an_open_root_is_announced_and_sends_heartbeats(captured: CapturedSpans) -> None:
    root = otel.start_span("root")
    open_spans = OpenSpans(prela)
    assert len(list(open_spans.heartbeats())) == 1
    otel.start_span("child", context=trace.set_span_in_context(root)).end()
    assert len(list(open_spans.heartbeats())) == 1
    root.end()
    assert not list(open_spans.heartbeats())
    kinds = [ItemKind(decode_head(item).kind) for item in captured.items]
    assert kinds == [ItemKind.START, ItemKind.SPAN, ItemKind.HEARTBEAT, ItemKind.SPAN]


def test_spans_that_are_open_at_the_end_of_tracing_end_as_cancelled(captured: CapturedSpans) -> None:
    root = otel.start_span("root", attributes={"k": 1})
    child = otel.start_span("child", context=trace.set_span_in_context(root))
    assert OpenSpans(prela).cancel("shutdown") == 2
    child.end()
    root.end()
    assert family(captured) == {"root": (None, 0, 1), "child": ("root", COUNTED, 0)}
    found = captured.find("root")
    assert (found.status, found.attributes["prela.cancelled_by"]) == (SpanStatus.CANCELLED, "shutdown")
    assert found.attributes["k"] == 1
    assert found.duration_ns is not None


def test_flush_and_shutdown_of_the_provider_deliver(captured: CapturedSpans) -> None:
    waited: list[float] = []

    class Result:
        complete = False

    class Flushing:
        record, refuse = captured.record, captured.refuse

        def flush(self, timeout: float) -> Result:
            waited.append(timeout)
            return Result()

    other = TracerProvider(shutdown_on_exit=False)
    bridge_opentelemetry(other)
    assert other.force_flush(100) is True  # nothing to wait for
    prela.configure(recorder=Tee(captured, captured))
    assert other.force_flush(100) is True
    prela.configure(recorder=Tee(Flushing(), CapturedSpans()))  # as `init(exporter=…)` does
    open_before = other.get_tracer("x").start_span("open")
    assert other.force_flush(2_000) is False
    assert waited[0] == pytest.approx(2.0, abs=0.5)
    other.shutdown()
    assert len(waited) == 2
    other.get_tracer("x").start_span("after the shutdown").end()
    open_before.end()
    assert family(captured) == {"open": (None, 0, 0)}


def test_a_span_dropped_without_an_end_is_not_kept(captured: CapturedSpans) -> None:
    root = otel.start_span("root")
    child = otel.start_span("child", context=trace.set_span_in_context(root))
    prela._output.hold_weakly()
    dropped = weakref.ref(child)
    assert len(known) == 2
    del child, root
    gc.collect()
    assert dropped() is None
    assert len(known) == 0
    assert not captured.spans


def test_copies_and_pickles_of_what_belongs_to_opentelemetry_work_as_before(captured: CapturedSpans) -> None:
    with otel.start_as_current_span("t") as span:
        context = span.get_span_context()
        assert pickle.loads(pickle.dumps(context)) == copy.deepcopy(context) == context
    shadow = known[context.trace_id, context.span_id]
    assert pickle.loads(pickle.dumps(shadow)).span_id == f"{context.span_id:016x}"
    assert len(captured) == 1


def test_an_error_of_the_bridge_reaches_no_program(captured: CapturedSpans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRELA_STRICT", "0")

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr("prela_stream.instrumentation.otel_processor.start", broken)
        otel.start_span("not started here").end()
    with monkeypatch.context() as patch:
        patch.setattr("prela_stream.instrumentation.otel_spans.encode_foreign", broken)
        otel.start_span("not encoded").end()
    assert not captured.spans
    assert len(captured.refused) == 1  # its trace is known to be not whole


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_after_a_fork_the_parent_process_ends_its_spans_and_children_are_local_roots(captured: CapturedSpans) -> None:
    read, write = os.pipe()
    with prela.span("o1"), otel.start_as_current_span("t2") as span:
        pid = os.fork()
        if pid == 0:
            try:
                otel.start_span("in the child").end()
                prela.span("o in the child").end()
                span.end()
                os.write(write, repr(family(captured)).encode())
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        found = ast.literal_eval(pipe.read())
    parent = captured.find("t2").span_id
    assert found == {"in the child": (parent, REMOTE_PARENT, 0), "o in the child": (parent, REMOTE_PARENT, 0)}
    assert family(captured) == {"o1": (None, 0, 1), "t2": ("o1", COUNTED, 0)}


def test_it_is_added_once_and_changes_no_provider(captured: CapturedSpans) -> None:
    before = trace._TRACER_PROVIDER
    for _ in range(3):
        bridge_opentelemetry(provider)
    otel.start_span("t").end()
    assert len(captured) == 1
    assert trace._TRACER_PROVIDER is before


def test_after_unbridging_nothing_is_recorded(captured: CapturedSpans) -> None:
    unbridge_opentelemetry()
    with otel.start_as_current_span("t"), prela.span("o"):
        pass
    assert family(captured) == {"o": (None, 0, 0)}
    assert not is_joined()


def test_a_provider_of_another_implementation_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"add_span_processor.*NoOpTracerProvider"):
        bridge_opentelemetry(trace.NoOpTracerProvider())  # type: ignore[arg-type]  # which is the mistake
    assert not _bridge.was_asked_for


def run(program: str, **variables: str) -> str:
    """The output of a program in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PRELA_STRICT": "1", **variables},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


SET_UP = """
import prela_stream as prela
from prela_stream.testing import capture_spans

def provider():
    from opentelemetry.sdk.trace import TracerProvider
    return TracerProvider(shutdown_on_exit=False)

def recorded():
    from opentelemetry import trace
    with capture_spans() as spans:
        with trace.get_tracer("x").start_as_current_span("t"), prela.span("o"):
            pass
    return ",".join(f"{one.name}:{one.child_count}" for one in spans)
"""


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        pytest.param(
            "from opentelemetry import trace\nmine = provider()\ntrace.set_tracer_provider(mine)\n"
            "prela.init(directory=folder)\nassert trace.get_tracer_provider() is mine\nprint(recorded())",
            "o:0,t:1",
            id="set up before init",
        ),
        pytest.param(
            "prela.init(directory=folder)\nfrom opentelemetry import trace\ntrace.set_tracer_provider(provider())\n"
            "print(recorded())",
            "o:0,t:1",
            id="set up after init",
        ),
        pytest.param(
            "from opentelemetry.trace import set_tracer_provider\nprela.init(directory=folder)\n"
            "set_tracer_provider(provider())\nprint(recorded())",
            "o:0,t:1",
            id="set up after init by a function that was imported before",
        ),
        pytest.param(
            "from opentelemetry import trace\nprela.init(directory=folder)\nprint(recorded(), trace._TRACER_PROVIDER)",
            "o:0 None",
            id="not set up",
        ),
        pytest.param(
            "prela.init(directory=folder, opentelemetry=True)\nprint(recorded())", "o:0,t:1", id="asked for in init"
        ),
        pytest.param(
            "prela.bridge_opentelemetry()\nprela.init(directory=folder)\nprint(recorded())\nprela.shutdown()\n"
            "print(recorded())",
            "o:0,t:1\no:0,t:1",
            id="asked for, and it outlives init",
        ),
        pytest.param(
            "from opentelemetry import trace\ntrace.set_tracer_provider(provider())\n"
            "prela.init(directory=folder, opentelemetry=False)\nprint(recorded())",
            "o:0",
            id="refused",
        ),
        pytest.param(
            "from opentelemetry import trace\noriginal = trace._set_tracer_provider\nprela.init(directory=folder)\n"
            "assert trace._set_tracer_provider is not original\nprela.shutdown()\n"
            "assert trace._set_tracer_provider is original\ntrace.set_tracer_provider(provider())\nprint(recorded())",
            "o:0",
            id="after shutdown",
        ),
        pytest.param(
            "from opentelemetry import trace\ntrace.set_tracer_provider(provider())\nprela.init(directory=folder)\n"
            "prela.shutdown()\nprint(recorded())\nprela.init(directory=folder)\nprint(recorded())",
            "o:0\no:0,t:1",
            id="again after shutdown",
        ),
        pytest.param(
            "import sys\nprela.init(directory=folder)\n"
            "print([name for name in sys.modules if name.startswith('opentelemetry')])",
            "[]",
            id="OpenTelemetry is not imported",
        ),
    ],
)
def test_init_bridges_what_the_program_has_set_up(tmp_path: Any, program: str, expected: str) -> None:
    assert run(f"{SET_UP}\nfolder = {str(tmp_path)!r}\n{program}", PRELA_OPENTELEMETRY="") == expected


def test_a_variable_turns_it_off(tmp_path: Any) -> None:
    program = f"{SET_UP}\nfrom opentelemetry import trace\ntrace.set_tracer_provider(provider())\n"
    program += f"prela.init(directory={str(tmp_path)!r})\nprint(recorded())"
    assert run(program, PRELA_OPENTELEMETRY="off") == "o:0"


def test_without_the_sdk_the_error_names_the_extra() -> None:
    program = """
import sys
sys.modules["opentelemetry.sdk.trace"] = None
import prela_stream as prela
try:
    prela.bridge_opentelemetry()
except prela.ConfigurationError as error:
    print(error)
"""
    assert "pip install 'prela-stream[otel]'" in run(program)


@pytest.mark.parametrize(
    ("scope", "owner"),
    [
        ("com.anthropic.sdk.python", "anthropic"),
        ("opentelemetry.instrumentation.anthropic", "anthropic"),
        ("openinference.instrumentation.anthropic", "anthropic"),
        ("opentelemetry.instrumentation.genai.anthropic", "anthropic"),
        ("openinference.instrumentation.openai", "openai"),
        ("opentelemetry.instrumentation.openai.v1", "openai"),
        ("opentelemetry.instrumentation.openai_v2", "openai"),
        ("opentelemetry.instrumentation.genai.openai", "openai"),
        ("openinference.instrumentation.openai_agents", None),
        ("opentelemetry.instrumentation.httpx", None),
    ],
)
def test_the_scopes_of_a_library_are_ignored_while_its_instrumentor_is_active(scope: str, owner: str | None) -> None:
    assert not is_ignored(scope)
    try:
        switched_on = auto_instrument(prela)
        assert is_ignored(scope) == (owner in switched_on and owner in sys.modules)
        if owner is not None:
            importlib.import_module(owner)
            assert is_ignored(scope)
    finally:
        uninstrument()
    assert not is_ignored(scope)
