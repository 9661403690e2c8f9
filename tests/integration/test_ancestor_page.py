"""Every example of the ancestor SDK's page "Distributed Tracing", run with nothing changed but the import.

Model calls go through the real `anthropic` client to the bundled model server, spans through the real pipeline into a log in a
separate folder. The sections are in the order of the page.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anthropic
import anyio
import pytest
from anthropic import Anthropic, AsyncAnthropic

import prela_stream as prela
from prela_stream.app.adapters import open_transport
from prela_stream.codec.spans import decode_batch, decode_resource
from prela_stream.compat import BaseExporter, ExportResult
from prela_stream.config import load_settings
from prela_stream.demo.model_server import serving
from prela_stream.errors import SpanEndedError
from prela_stream.model.span import Resource
from prela_stream.testing import assert_tree
from tests.support.processes import DEADLINE

pytestmark = pytest.mark.filterwarnings("ignore:The model 'claude-sonnet-4-20250514' is deprecated")  # it is the page's
QUERIES = ["What is a reef?", "How deep is the sea?", "Who built the ark?", "Why is it blue?", "When was that?", "How?"]


class Kept(BaseExporter):
    """What `init(exporter=…)` is given: keeps whole traces."""

    def __init__(self) -> None:
        self.traces: list[list[prela.SpanData]] = []

    def export(self, spans: list[prela.SpanData]) -> ExportResult:
        self.traces.append(spans)
        return ExportResult.SUCCESS

    def shutdown(self) -> None:
        pass

    @property
    def spans(self) -> list[prela.SpanData]:
        return [span for trace in self.traces for span in trace]

    def named(self, name: str) -> list[prela.SpanData]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture(scope="module")
def model_server() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def kept(tmp_path: Path, model_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """Tracing is on: `prela.init()` was called."""
    monkeypatch.setenv("PRELA_STRICT", "1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", model_server)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "demo")
    monkeypatch.setenv("PRELA_PIPELINE_HEARTBEAT_MS", "600000")  # items are counted here: no test takes that long
    kept = Kept()
    prela.init(service_name="page", directory=tmp_path, exporter=kept)
    yield kept
    ledger = prela.shutdown(DEADLINE)
    assert ledger is not None
    assert ledger.queued == ledger.in_flight == ledger.unknown == 0
    assert ledger.dropped.total == 0


@pytest.fixture
def client(kept: Kept) -> Iterator[Anthropic]:
    with Anthropic() as client:
        yield client


@pytest.fixture
async def async_client(kept: Kept) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic() as client:
        yield client


def ask(client: Anthropic, text: str = "Hello") -> anthropic.types.Message:
    return client.messages.create(
        model="claude-sonnet-4-20250514", max_tokens=100, messages=[{"role": "user", "content": text}]
    )


# --- Anatomy of a trace ---


def test_anatomy_of_a_trace(kept: Kept, client: Anthropic) -> None:
    tracer = prela.get_tracer()
    with tracer.span("Agent Execution", span_type=prela.SpanType.AGENT) as agent:
        ask(client, "1")
        with tracer.span("Search", span_type=prela.SpanType.TOOL):
            ask(client, "2")
        with tracer.span("Calculator", span_type=prela.SpanType.TOOL):
            ask(client, "3")
        assert (agent.status, agent.ended_at, agent.duration_ms) == (prela.SpanStatus.PENDING, None, None)
    [trace] = kept.traces
    call = next(span.name for span in trace if span.span_type == prela.SpanType.LLM)
    assert_tree(
        trace,
        f"""
        Agent Execution [AGENT]
          {call} [LLM]
          Search [TOOL]
            {call} [LLM]
          Calculator [TOOL]
            {call} [LLM]
        """,
    )
    by_id = {span.span_id: span for span in trace}
    assert len({span.trace_id for span in trace}) == 1
    assert len(by_id) == 6
    for span in trace:
        parent = None if span.parent_span_id is None else by_id[span.parent_span_id]
        assert span.ended_at is not None
        assert span.duration_ms is not None
        assert abs(span.ended_at - span.started_at - timedelta(milliseconds=span.duration_ms)) <= timedelta(
            microseconds=2
        )
        assert parent is None or parent.start_ns <= span.start_ns
    assert [span.name for span in trace if span.parent_span_id is None] == ["Agent Execution"]


def test_types_and_statuses_are_those_of_the_page() -> None:
    assert [*prela.SpanType] == ["AGENT", "LLM", "TOOL", "RETRIEVAL", "EMBEDDING", "CUSTOM"]
    assert [*prela.SpanStatus][:3] == ["PENDING", "SUCCESS", "ERROR"]
    assert prela.SpanType("agent") is prela.SpanType.AGENT
    assert prela.SpanStatus("success") is prela.SpanStatus.SUCCESS


# --- How Prela traces work ---


def test_1_initialization_makes_the_global_tracer_and_calls_are_traced(kept: Kept, tmp_path: Path) -> None:
    tracer = prela.init(service_name="page", directory=tmp_path, exporter=kept)
    assert tracer is prela.get_tracer()
    assert {"anthropic", "openai"} <= set(prela.auto_instrument())


async def test_1_the_service_is_named_by_init(kept: Kept, tmp_path: Path) -> None:
    with prela.get_tracer().span("work"):
        pass
    assert (await prela.aflush(DEADLINE)).complete
    resources = await logged_resources(tmp_path)
    assert {resource.service_name for resource in resources} == {"page"}


async def logged_resources(directory: Path) -> list[Resource]:
    """The resource of every Record of the spans topic."""
    settings = load_settings(overrides={"directory": str(directory)})
    found: list[Resource] = []
    async with open_transport(settings) as transport, await transport.consumer([settings.topics.spans]) as consumer:
        assigned = (await consumer.poll()).assigned
        ends = {part: await consumer.end_offset(part) for part in assigned}
        consumer.resume(*assigned)
        with anyio.fail_after(DEADLINE):
            while any([await consumer.position(part) < end for part, end in ends.items()]):
                for record in (await consumer.poll(timeout=0.05)).records:
                    assert record.value is not None
                    found.append(decode_resource(decode_batch(record.value).resource))
    return found


def test_2_automatic_span_creation(kept: Kept, client: Anthropic) -> None:
    response = ask(client)
    [[span]] = kept.traces
    assert (span.span_type, span.status) == (prela.SpanType.LLM, prela.SpanStatus.SUCCESS)
    assert span.attribute("llm.model") == "claude-sonnet-4-20250514"
    assert span.attribute("llm.output_tokens") == response.usage.output_tokens
    assert span.duration_ms is not None


def test_3_context_propagation(kept: Kept, client: Anthropic) -> None:
    tracer = prela.get_tracer()

    # Root span
    with tracer.span("agent_execution"):  # noqa: SIM117 - as on the page
        # Child span (automatically linked)
        with tracer.span("tool_call"):
            # Grandchild span (automatically linked)
            ask(client)
    [trace] = kept.traces
    assert_tree(trace, f"agent_execution\n  tool_call\n    {trace[0].name} [LLM]")


def test_4_thread_safety(kept: Kept, client: Anthropic) -> None:
    tracer = prela.get_tracer()
    together = threading.Barrier(3)

    def process_query(query: str) -> anthropic.types.Message:
        # Each thread has its own trace context
        with tracer.span("process_query"):
            together.wait(DEADLINE)
            return ask(client, query)

    with ThreadPoolExecutor(max_workers=3) as executor:
        results = list(executor.map(process_query, QUERIES))
    assert len(results) == len(kept.traces) == 6
    assert len({span.trace_id for span in kept.spans}) == 6
    for trace in kept.traces:
        assert_tree(trace, f"process_query\n  {trace[0].name} [LLM]")


def test_4_threads_of_one_trace(kept: Kept, client: Anthropic) -> None:
    """What the ancestor had no executor for."""
    tracer = prela.get_tracer()

    def process_query(query: str) -> None:
        with tracer.span("process_query"):
            ask(client, query)

    with tracer.span("all"), prela.ContextThreadPoolExecutor(max_workers=4) as executor:
        list(executor.map(process_query, QUERIES))
    [trace] = kept.traces
    [root] = [span for span in trace if span.parent_span_id is None]
    assert {span.parent_span_id for span in kept.named("process_query")} == {root.span_id}
    assert root.child_count == 6


async def test_5_async_support(kept: Kept, async_client: AsyncAnthropic) -> None:
    tracer = prela.get_tracer()

    async def process_async(query: str) -> anthropic.types.Message:
        # Automatic tracing in async context
        with tracer.span("async_process"):
            return await async_client.messages.create(
                model="claude-sonnet-4-20250514", max_tokens=100, messages=[{"role": "user", "content": query}]
            )

    await asyncio.gather(*[process_async(query) for query in QUERIES])
    assert len(kept.traces) == 6
    for trace in kept.traces:
        assert_tree(trace, f"async_process\n  {trace[0].name} [LLM]")
    kept.traces.clear()
    with tracer.span("all"):
        await asyncio.gather(*[process_async(query) for query in QUERIES])
    [trace] = kept.traces
    call = trace[0].name
    assert_tree(trace, "all\n" + f"  async_process\n    {call} [LLM]\n" * 6)


# --- Span attributes ---


def test_llm_attributes_under_the_names_of_the_page(kept: Kept, client: Anthropic) -> None:
    response = client.messages.create(
        model="claude-sonnet-4-20250514",
        max_tokens=100,
        messages=[{"role": "user", "content": "Hello"}],
        extra_body={"temperature": 0.5},
    )
    [[span]] = kept.traces
    usage = response.usage
    tokens_in = usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    read = {
        name: span.attribute(f"llm.{name}")
        for name in ("vendor", "model", "temperature", "max_tokens", "input_tokens", "output_tokens", "total_tokens",
                     "latency_ms", "finish_reason", "stop_reason")
    }  # fmt: skip
    assert read == {
        "vendor": "anthropic",
        "model": "claude-sonnet-4-20250514",
        "temperature": 0.5,
        "max_tokens": 100,
        "input_tokens": tokens_in,
        "output_tokens": usage.output_tokens,
        "total_tokens": tokens_in + usage.output_tokens,
        "latency_ms": span.duration_ms,
        "finish_reason": response.stop_reason,
        "stop_reason": response.stop_reason,
    }


def test_tool_attributes(kept: Kept) -> None:
    with prela.get_tracer().span("tool", prela.SpanType.TOOL) as span:
        span.set_attribute("tool.name", "search")
        span.set_attribute("tool.arguments", '{"query":"reefs"}')
    with prela.tool("search", arguments={"query": "reefs"}):
        pass
    for found in kept.spans:
        assert found.attribute("tool.name") == found.attribute("gen_ai.tool.name") == "search"
        assert found.attribute("tool.arguments") == '{"query":"reefs"}'


def test_error_attributes(kept: Kept) -> None:
    with pytest.raises(ZeroDivisionError), prela.get_tracer().span("divide"):
        1 / 0  # noqa: B018 - it raises
    [[span]] = kept.traces
    assert (span.status, span.status_message) == (prela.SpanStatus.ERROR, "division by zero")
    assert span.attributes["error.type"] == "ZeroDivisionError"
    assert span.attributes["error.message"] == "division by zero"
    assert "1 / 0" in span.attributes["error.stacktrace"]


# --- Span events ---


def test_events(kept: Kept) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    with prela.get_tracer().span("call", span_type=prela.SpanType.LLM) as span:
        span.add_event("llm.request", {"messages": [{"role": "user", "content": "Hello"}]})
        span.add_event("llm.response", {"content": "Hi"})
        span.add_event("tool.call", attributes={"name": "search"})
        span.add_event(name="tool.result")
    [[found]] = kept.traces
    first = found.events[0].to_dict()
    assert before <= datetime.fromisoformat(first.pop("timestamp")) <= datetime.now(UTC)
    assert first == {"name": "llm.request", "attributes": {"messages": [{"role": "user", "content": "Hello"}]}}
    assert [event.name for event in found.events] == ["llm.request", "llm.response", "tool.call", "tool.result"]
    assert [event.time_ns for event in found.events] == sorted(event.time_ns for event in found.events)


# --- Best practices ---


def test_meaningful_names(kept: Kept) -> None:
    tracer = prela.get_tracer()
    with tracer.span("fetch_user_data"):
        ...
    with tracer.span("generate_response"):
        ...
    assert [[span.name for span in trace] for trace in kept.traces] == [["fetch_user_data"], ["generate_response"]]


def test_granularity(kept: Kept) -> None:
    tracer = prela.get_tracer()

    def good(doc: str) -> str:
        # Good: One span for the whole process
        with tracer.span("process_document"):
            text = doc.strip()
            return text[:3]

    def too_granular(doc: str) -> str:
        # Bad: Too granular
        with tracer.span("process_document"):
            with tracer.span("extract_text"):
                text = doc.strip()
            with tracer.span("summarize"):
                return text[:3]

    assert good(" document ") == too_granular(" document ") == "doc"
    assert_tree(kept.traces[0], "process_document")
    assert_tree(kept.traces[1], "process_document\n  extract_text\n  summarize")


def test_context_with_attributes(kept: Kept) -> None:
    sql_query, db_name = "SELECT 1", "users"
    with prela.get_tracer().span("query_database") as span:
        span.set_attribute("query", sql_query)
        span.set_attribute("database", db_name)
        result = [1]
        span.set_attribute("rows_returned", len(result))
    [[found]] = kept.traces
    assert found.attributes == {"query": "SELECT 1", "database": "users", "rows_returned": 1}


def test_events_for_milestones(kept: Kept) -> None:
    with prela.get_tracer().span("agent_workflow") as span:
        span.add_event("planning_started")
        span.add_event("execution_started")
        span.add_event("validation_started")
    [[found]] = kept.traces
    assert [event.name for event in found.events] == ["planning_started", "execution_started", "validation_started"]


def test_errors_are_captured_and_context_is_added(kept: Kept) -> None:
    def dangerous_function() -> None:
        raise ValueError("not a number")

    def example() -> None:
        with prela.get_tracer().span("risky_operation") as span:
            try:
                dangerous_function()
            except ValueError:
                span.set_attribute("error.context", "Invalid input format")
                raise  # Re-raise to mark span as error

    with pytest.raises(ValueError, match="not a number"):
        example()
    [[found]] = kept.traces
    assert found.status == prela.SpanStatus.ERROR
    assert found.attributes["error.context"] == "Invalid input format"
    assert found.attributes["error.type"] == "ValueError"
    assert "dangerous_function" in found.attributes["error.stacktrace"]


# --- Trace lifecycle ---


def test_lifecycle_created_active_ended_exported(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    span = prela.get_tracer().span("work")  # Created
    assert prela.get_current_span() is None
    with span as entered:  # Active
        assert entered is span
        assert prela.get_current_span() is span
        span.set_attribute("step", 1)
        span.add_event("milestone")
        assert span.status == prela.SpanStatus.PENDING
        assert kept.traces == []
    assert span.is_ended  # Ended, immutable
    assert prela.get_current_span() is None
    with pytest.raises(SpanEndedError):
        span.set_attribute("late", 1)
    with pytest.raises(SpanEndedError):
        span.add_event("late")
    with pytest.raises(SpanEndedError):
        span.set_status(prela.SpanStatus.ERROR)
    with pytest.raises(SpanEndedError):
        span.update_name("late")
    with pytest.raises(SpanEndedError):
        span.end()
    monkeypatch.setenv("PRELA_STRICT", "0")  # and outside of tests nothing is raised into the application
    span.set_attribute("late", 1)
    [[found]] = kept.traces  # Exported
    assert (found.name, found.status, found.attributes) == ("work", prela.SpanStatus.SUCCESS, {"step": 1})


def test_lifecycle_error_then_ended(kept: Kept) -> None:
    with pytest.raises(KeyError), prela.get_tracer().span("work") as span:
        raise KeyError("missing")
    assert span.is_ended
    assert kept.spans[0].status == prela.SpanStatus.ERROR


def test_spans_are_delivered_as_they_end_not_only_with_their_root(kept: Kept) -> None:
    """The page documents `only root spans`: a crash then lost everything, and a root that never ended exported nothing."""
    tracer = prela.get_tracer()
    with tracer.span("root"):
        with tracer.span("child"):
            pass
        assert prela.flush(DEADLINE).complete
        assert acknowledged() == 2, "the START of the root, and the child"
    assert prela.flush(DEADLINE).complete
    assert acknowledged() == 3


def acknowledged() -> int:
    """Items that the log has."""
    ledger = prela.ledger()
    assert ledger is not None
    return ledger.acknowledged


# --- Performance considerations ---


def test_sampling_by_rate_keeps_or_leaves_whole_traces(kept: Kept, tmp_path: Path) -> None:
    tracer = prela.init(service_name="page", directory=tmp_path, exporter=kept, sample_rate=0.5)
    for number in range(200):
        with tracer.span(f"root {number}"), tracer.span("child"):
            pass
    assert all(len(trace) == 2 for trace in kept.traces)
    assert 60 < len(kept.traces) < 140
    assert {span.threshold for span in kept.spans} == {1 << 55}, "each span has the threshold with which it was kept"


def test_sampling_by_sampler(kept: Kept, tmp_path: Path) -> None:
    def spans_with(sampler: Any) -> int:
        kept.traces.clear()
        tracer = prela.init(service_name="page", directory=tmp_path, exporter=kept, sampler=sampler)
        for _ in range(50):
            with tracer.span("root"):
                pass
        return len(kept.spans)

    assert spans_with(prela.AlwaysOnSampler()) == 50
    assert spans_with(prela.AlwaysOffSampler()) == 0
    assert 0 < spans_with(prela.ProbabilitySampler(rate=0.5)) < 50
    assert 1 <= spans_with(prela.RateLimitingSampler(traces_per_second=1)) < 50
