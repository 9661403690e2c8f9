"""The 19 scenarios, sync and async, with `anthropic` and `openai`: the same result for the application, and whole spans.

Each runs twice over real HTTP, without and with instrumentation. The rows are in `tests/support/*_scenarios.py`.
"""

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import anthropic
import openai
import pytest

from prela_stream.instrumentation.registry import auto_instrument, uninstrument
from prela_stream.model import semconv
from prela_stream.model.span import SpanData, SpanType
from prela_stream.testing import CapturedSpans, capture_spans
from prela_stream.tracing.tracer import get_tracer
from tests.support import anthropic_scenarios, openai_scenarios
from tests.support.model_api import ModelApi, serving_replies
from tests.support.scenarios import DEADLINE, NAMES, Expected, Row

LIBRARIES: dict[str, dict[str, Row]] = {"anthropic": anthropic_scenarios.ROWS, "openai": openai_scenarios.ROWS}
SYNC: dict[str, Callable[..., Any]] = {"anthropic": anthropic.Anthropic, "openai": openai.OpenAI}
ASYNC: dict[str, Callable[..., Any]] = {"anthropic": anthropic.AsyncAnthropic, "openai": openai.AsyncOpenAI}
VARYING = {"server.port", semconv.TIME_TO_FIRST_CHUNK, semconv.ERROR_STACKTRACE}
VARYING |= {semconv.COST_USD, semconv.COST_SOURCE, semconv.COST_DATE}  # the price list changes
every_scenario = pytest.mark.parametrize("name", NAMES)
both_libraries = pytest.mark.parametrize("library", LIBRARIES)


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRELA_STRICT", "1")


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> Iterator[None]:
    """The scenarios collect garbage; what was imported is none."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def server() -> Iterator[ModelApi]:
    with serving_replies() as api:
        yield api


def test_every_library_has_every_scenario() -> None:
    assert len(set(NAMES)) == 19
    assert all(tuple(rows) == NAMES for rows in LIBRARIES.values())


def spans_of(captured: CapturedSpans) -> list[SpanData]:
    """All spans but that of the application, in the order of their starts."""
    return sorted((span for span in captured.spans if span.name != "application"), key=lambda span: span.start_ns)


def check(captured: CapturedSpans, row: Row, application: str) -> None:
    found = spans_of(captured)
    assert [span.name for span in found] == [one.name for one in row.spans]
    agent = next((span.span_id for span in found if span.span_type is SpanType.AGENT), "")
    for span, one in zip(found, row.spans, strict=True):
        check_span(span, one, agent if one.is_below_agent else application)


def check_span(span: SpanData, expected: Expected, parent: str) -> None:
    assert (span.span_type, span.status) == (expected.span_type, expected.status)
    assert span.parent_span_id == parent
    assert {name: value for name, value in span.attributes.items() if name not in VARYING} == expected.attributes
    names = [" ".join([event.name, *map(str, _statuses(event.attributes))]) for event in span.events]
    assert tuple(names) == expected.events
    if expected.message != "":
        assert span.status_message == expected.message
    is_read = semconv.REQUEST_STREAM in expected.attributes and semconv.RESPONSE_ID in expected.attributes
    assert (semconv.TIME_TO_FIRST_CHUNK in span.attributes) is is_read


def _statuses(attributes: dict[str, Any]) -> list[int]:
    return [value for name, value in attributes.items() if name == "http.response.status_code"]


def skip_if_older(library: str, row: Row) -> None:
    have, needed = (tuple(int(part) for part in text.split(".")[:2]) for text in (version(library), row.since or "0.0"))
    if have < needed:
        pytest.skip(f"{library} {version(library)} is older than {row.since}")


def run(row: Row, api: ModelApi, client: Any) -> Any:
    gate = threading.Event()
    api.replies = iter(row.replies(gate))
    try:
        return row.sync(client)
    finally:
        gate.set()


async def run_async(row: Row, api: ModelApi, client: Any, ended: Callable[[], bool]) -> Any:
    gate = threading.Event()
    api.replies = iter(row.replies(gate))
    try:
        result = await row.asynchronous(client)
        deadline = time.monotonic() + DEADLINE
        while not ended():  # the event loop closes a generator that was dropped, and then what it held is garbage
            assert time.monotonic() < deadline, "a span did not end"
            await asyncio.sleep(0)
            gc.collect()
        return result
    finally:
        gate.set()


@both_libraries
@every_scenario
def test_sync(server: ModelApi, library: str, name: str) -> None:
    row = LIBRARIES[library][name]
    skip_if_older(library, row)
    server.requests.clear()
    with SYNC[library](base_url=server.url, api_key="k") as client:
        expected = run(row, server, client)
        sent = list(server.requests)
        with capture_spans() as captured:
            assert auto_instrument(names=[library]) == [library]
            try:
                with get_tracer().span("application") as application:
                    assert run(row, server, client) == expected
            finally:
                uninstrument()
    assert server.requests == sent * 2
    check(captured, row, application.span_id)


@both_libraries
@every_scenario
async def test_async(server: ModelApi, library: str, name: str) -> None:
    row = LIBRARIES[library][name]
    skip_if_older(library, row)
    server.requests.clear()
    async with ASYNC[library](base_url=server.url, api_key="k") as client:
        expected = await run_async(row, server, client, lambda: True)
        sent = list(server.requests)
        with capture_spans() as captured:
            assert auto_instrument(names=[library]) == [library]
            try:
                async with get_tracer().span("application") as application:
                    found = await run_async(row, server, client, lambda: len(captured) >= len(row.spans))
                    assert found == expected
            finally:
                uninstrument()
    assert server.requests == sent * 2
    check(captured, row, application.span_id)
