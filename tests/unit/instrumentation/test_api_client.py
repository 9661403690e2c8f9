"""A client library that lacks names which are patched: only what they provide is lost, and one log line reports it."""

import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx2
import pytest

from prela_stream.instrumentation import registry
from prela_stream.instrumentation.api_client import ApiClientInstrumentor
from prela_stream.instrumentation.import_hook import forget
from prela_stream.instrumentation.options import InstrumentationOptions
from prela_stream.instrumentation.provider import Failure, Operation, StreamState
from prela_stream.model import semconv
from prela_stream.model.span import SpanStatus, SpanType
from prela_stream.testing import CapturedSpans, capture_spans
from prela_stream.tracing.tracer import get_tracer

NAME = "prela_toy_library"
ANSWER = {"id": "r1", "tokens": 7}


class ToyOperation:
    """`POST /answers`."""

    name = "chat"
    span_type = SpanType.LLM
    price_flavor: str | None = None

    def request_attributes(self, body: object) -> dict[str, Any]:
        return {semconv.REQUEST_MODEL: "toy"}

    def request_content(self, body: object) -> dict[str, Any]:
        return {semconv.INPUT_MESSAGES: body}

    def response_attributes(self, answer: Mapping[str, Any], *, content: bool) -> dict[str, Any]:
        return {semconv.OUTPUT_TOKENS: answer["tokens"]} if "tokens" in answer else {}

    def response_failure(self, answer: Mapping[str, Any]) -> Failure | None:
        return None

    def stream_state(self, *, content: bool) -> StreamState:
        raise NotImplementedError


class ToyProvider:
    """The API of the toy library."""

    module = NAME
    request_id = ("request-id", "toy.request.id")

    def operation(self, method: str, path: str) -> Operation | None:
        return ToyOperation() if path == "/answers" else None

    def client_attributes(self, client: Any) -> dict[str, Any]:
        return {semconv.PROVIDER_NAME: "toy"}


class Answer:
    """What the toy library returns: it does not show its HTTP response."""

    def model_dump(self, mode: str) -> dict[str, Any]:
        return dict(ANSWER)


class Base:
    """Where `_build_request` and `_should_retry` are, in the older libraries."""

    base_url = httpx2.URL("http://toy.test")

    def _build_request(self, options: Any, *, retries_taken: int = 0) -> object:
        return object()

    def _should_retry(self, response: Any) -> bool:
        return bool(response.status_code == 529)


class Client(Base):
    """Sends each request twice: the first attempt fails."""

    def request(self, cast_to: Any, options: Any, *, stream: bool = False) -> Any:
        for attempt in range(2):
            response = self._send(SimpleNamespace(**vars(options)), attempt)
            if not self._should_retry(response):
                break
        return self._process_response(response=response)

    def _send(self, options: Any, attempt: int) -> httpx2.Response:
        self._build_request(options, retries_taken=attempt)
        headers = {"request-id": "req_1"}
        return httpx2.Response(200 if attempt else 529, json=ANSWER, headers=headers)

    def _process_response(self, *, response: Any) -> Answer:
        return Answer()


class NewerClient(Client):
    """With `_attempt_request`."""

    def request(self, cast_to: Any, options: Any, *, stream: bool = False) -> Any:
        for attempt in range(2):
            response, _ = self._attempt_request(SimpleNamespace(**vars(options)), retries_taken=attempt)
        return self._process_response(response=response)

    def _attempt_request(self, options: Any, *, retries_taken: int) -> tuple[httpx2.Response, object]:
        return self._send(options, retries_taken), options

    def _process_response(self, *, response: Any) -> Answer:
        return Answer()


class OlderClient(Base):
    """With `request` alone."""

    _build_request = _should_retry = None  # type: ignore[assignment]  # not there

    def request(self, cast_to: Any, options: Any, *, stream: bool = False) -> Any:
        return Answer()


class AsyncClient(Base):
    """An async client with all names."""

    async def request(self, cast_to: Any, options: Any, *, stream: bool = False) -> Any:
        return Answer()

    async def _process_response(self, *, response: Any) -> Answer:
        return Answer()


class Unpatchable:
    """A class of another library."""


OPTIONS = SimpleNamespace(method="post", url="/answers", json_data={"prompt": "hi"})


@contextmanager
def library(sync: type | None, asynchronous: type | None) -> Iterator[ModuleType]:
    module, base = ModuleType(NAME), ModuleType(f"{NAME}._base_client")
    for name, client in (("SyncAPIClient", sync), ("AsyncAPIClient", asynchronous)):
        if client is not None:
            vars(base)[name] = client
    vars(module)["_base_client"] = base
    sys.modules[NAME], sys.modules[base.__name__] = module, base
    try:
        yield module
    finally:
        del sys.modules[NAME], sys.modules[base.__name__]


@pytest.fixture
def instrumentor(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiClientInstrumentor]:
    monkeypatch.setenv("PRELA_STRICT", "1")
    one = ApiClientInstrumentor(NAME, ToyProvider(), oldest="1.2", complete_from="3.4")
    yield one
    forget(NAME)
    one.uninstrument()


def fresh(base: type) -> type:
    """A class with the methods of `base` as its own, so that a patch of one test is not one of another."""
    return type(base.__name__, base.__mro__[1:2], {k: v for k, v in vars(base).items() if k != "__dict__"})


def calls(sync: type, one: ApiClientInstrumentor, asynchronous: type | None = AsyncClient) -> CapturedSpans:
    with library(sync, None if asynchronous is None else fresh(asynchronous)), capture_spans() as captured:
        one.instrument(get_tracer(), InstrumentationOptions())
        assert isinstance(sync().request(object, OPTIONS), Answer)
    return captured


@pytest.mark.parametrize("client", [Client, NewerClient])
def test_with_every_name_all_of_it_is_traced(
    client: type, instrumentor: ApiClientInstrumentor, caplog: pytest.LogCaptureFixture
) -> None:
    (span,) = calls(fresh(client), instrumentor).spans
    found = span.attributes
    assert (span.name, span.status, found[semconv.OUTPUT_TOKENS]) == ("chat toy", SpanStatus.SUCCESS, 7)
    assert found[semconv.INPUT_MESSAGES] == {"prompt": "hi"}
    assert (found["toy.request.id"], found["http.response.status_code"]) == ("req_1", 200)
    assert found[semconv.RESEND_COUNT] == 1
    assert [event.attributes for event in span.events if event.name == "retry"] == [{"http.response.status_code": 529}]
    assert (found["server.address"], found["server.port"]) == ("toy.test", 80)
    assert caplog.records == []


def test_without_the_names_of_attempts_the_call_and_its_prompt_are_traced(
    instrumentor: ApiClientInstrumentor, caplog: pytest.LogCaptureFixture
) -> None:
    client = type("OlderClient", (), {"request": OlderClient.request, "base_url": Base.base_url})
    (span,) = calls(client, instrumentor).spans
    found = span.attributes
    assert (span.status, found[semconv.OUTPUT_TOKENS], found[semconv.PROVIDER_NAME]) == (SpanStatus.SUCCESS, 7, "toy")
    assert found[semconv.INPUT_MESSAGES] == {"prompt": "hi"}
    assert not {semconv.RESEND_COUNT, "toy.request.id"} & set(found)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert all(part in record.getMessage() for part in ("retries", "status of retries", "request id", f"{NAME}>=3.4"))


def test_threads_that_instrument_at_once_patch_once(instrumentor: ApiClientInstrumentor) -> None:
    client = fresh(Client)
    original = vars(client)["request"]
    start = threading.Barrier(8)

    def instrument() -> None:
        start.wait(30)
        instrumentor.instrument(get_tracer(), InstrumentationOptions())

    with library(client, fresh(AsyncClient)):
        threads = [threading.Thread(target=instrument) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert vars(client)["request"].__wrapped__ is original
        instrumentor.uninstrument()
    assert vars(client)["request"] is original


def test_without_an_async_client_the_sync_one_is_traced(
    instrumentor: ApiClientInstrumentor, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(calls(fresh(Client), instrumentor, None).spans) == 1
    (record,) = caplog.records
    assert "any call of async clients (AsyncAPIClient.request is missing)" in record.getMessage()


def test_a_client_that_reports_nothing_about_itself_is_traced(instrumentor: ApiClientInstrumentor) -> None:
    client = fresh(Client)
    client.base_url = None  # type: ignore[attr-defined]  # as of a mock
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRELA_STRICT", "0")
        (span,) = calls(client, instrumentor).spans
    assert "server.address" not in span.attributes
    assert (span.status, span.attributes[semconv.PROVIDER_NAME]) == (SpanStatus.SUCCESS, "toy")


def auto_instrument(monkeypatch: pytest.MonkeyPatch, one: ApiClientInstrumentor) -> list[str]:
    monkeypatch.setattr(registry, "INSTRUMENTORS", {NAME: "unused:unused"})
    monkeypatch.setattr(registry, "instrumentor", lambda _: one)
    return registry.auto_instrument(names=[NAME])


def test_a_library_without_any_patched_name_is_not_reported_as_traced(
    monkeypatch: pytest.MonkeyPatch, instrumentor: ApiClientInstrumentor, caplog: pytest.LogCaptureFixture
) -> None:
    with library(Unpatchable, None):
        assert auto_instrument(monkeypatch, instrumentor) == []
    (record,) = caplog.records
    assert f"expected {NAME}>=1.2" in record.getMessage()
    with library(fresh(Client), None):
        assert auto_instrument(monkeypatch, instrumentor) == [NAME]


@pytest.mark.parametrize(("version", "traced"), [("1.1.9", []), ("1.2.0rc1", [NAME]), ("1.10", [NAME]), ("2", [NAME])])
def test_an_installed_version_that_is_too_old_is_not_reported_as_traced(
    monkeypatch: pytest.MonkeyPatch,
    instrumentor: ApiClientInstrumentor,
    caplog: pytest.LogCaptureFixture,
    version: str,
    traced: list[str],
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: version)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: ModuleType(NAME))
    assert auto_instrument(monkeypatch, instrumentor) == traced
    assert [f"{NAME}>=1.2" in record.getMessage() for record in caplog.records] == ([] if traced else [True])


def test_a_library_that_is_not_installed_is_not_reported(
    monkeypatch: pytest.MonkeyPatch, instrumentor: ApiClientInstrumentor
) -> None:
    assert auto_instrument(monkeypatch, instrumentor) == []
