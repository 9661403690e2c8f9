"""The contract of instrumentors: on every registered one, and on incomplete ones, which must fail it."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from prela_stream.instrumentation.anthropic.client import AnthropicInstrumentor
from prela_stream.instrumentation.base import Instrumentor
from prela_stream.instrumentation.llm_call import ModelCall
from prela_stream.instrumentation.options import InstrumentationOptions
from prela_stream.instrumentation.registry import INSTRUMENTORS, instrumentor
from prela_stream.tracing.tracer import Tracer
from tests.contracts.instrumentor_contract import CHECKS, Subject, run
from tests.contracts.instrumentor_rows import ROWS
from tests.support.model_api import ModelApi, serving_replies


@pytest.fixture(scope="module")
def api() -> Iterator[ModelApi]:
    with serving_replies() as api:
        yield api


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRELA_STRICT", "1")


def registry_problems(registered: dict[str, str], rows: set[str]) -> list[str]:
    """What is missing for the registered instrumentors, one sentence each."""
    problems = [f"{name} has no row in tests/contracts/instrumentor_rows.py" for name in registered if name not in rows]
    return problems + [
        f"{name} has a row and is not in INSTRUMENTORS" for name in sorted(rows) if name not in registered
    ]


def test_every_registered_instrumentor_has_a_row_and_is_installed_here() -> None:
    assert registry_problems(INSTRUMENTORS, set(ROWS)) == []
    for name in INSTRUMENTORS:
        one = instrumentor(name)
        assert one.name == name
        assert one.is_available(), f"{name}: its library is not installed for the tests"


def test_a_registered_instrumentor_without_a_row_is_named() -> None:
    registered = {"first": "a.module:Class", "second": "a.module:Class"}
    assert registry_problems(registered, {"first", "third"}) == [
        "second has no row in tests/contracts/instrumentor_rows.py",
        "third has a row and is not in INSTRUMENTORS",
    ]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", INSTRUMENTORS)
async def test_it_keeps_its_guarantees(name: str, check: str, api: ModelApi) -> None:
    if name not in ROWS:
        pytest.fail(registry_problems({name: INSTRUMENTORS[name]}, set(ROWS))[0])
    one = instrumentor(name)
    await run(CHECKS[check], Subject(one, type(one), ROWS[name], api))


class WithoutAsync(AnthropicInstrumentor):
    """Patches the sync client only."""

    def _patch_client(self, client: Any, class_name: str, missing: list[str]) -> None:
        if class_name == "SyncAPIClient":
            super()._patch_client(client, class_name, missing)


class IgnoresContentOption(AnthropicInstrumentor):
    """Records content whatever the options are."""

    def instrument(self, tracer: Tracer, options: InstrumentationOptions) -> None:
        super().instrument(tracer, msgspec.structs.replace(options, capture_content=True))


class NeverRestores(AnthropicInstrumentor):
    """Stays patched for the rest of the process."""

    def uninstrument(self) -> None:
        self._tracer = None


class RecordsEachLayer(AnthropicInstrumentor):
    """Does not ask whether the call is recorded already."""

    def _begin(self, client: Any, options: Any, streams: object) -> ModelCall | None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ModelCall, "covers", lambda *_: False)
            return super()._begin(client, options, streams)


class EndsStreamsAtOnce(AnthropicInstrumentor):
    """Takes a stream for an answer that ends when the client returns it."""

    def _begin(self, client: Any, options: Any, streams: object) -> ModelCall | None:
        call = super()._begin(client, options, streams)
        if call is not None and streams:
            vars(call)["returned"] = lambda _: call.end(None, read=False)
        return call


INCOMPLETE: list[tuple[Callable[[], Instrumentor], set[str], str]] = [
    (
        WithoutAsync,
        {
            "async_call",
            "async_stream",
            "early_break_async",
            "error_async",
            "cancellation",
            "content_off_async",
            "uninstrument",
        },
        "async call: expected exactly one LLM span, got 0",
    ),
    (IgnoresContentOption, {"content_off", "content_off_async"}, "capture_content is ignored for the prompt"),
    (NeverRestores, {"uninstrument"}, "SyncAPIClient.request is not restored"),
    (RecordsEachLayer, {"one_span_in_two_layers"}, "two layers of one library: expected exactly one LLM span, got 2"),
    (
        EndsStreamsAtOnce,
        {"sync_stream", "async_stream", "cancellation", "content_off"},
        "sync stream: the span ends before the stream was read",
    ),
]


@pytest.mark.parametrize(("make", "expected", "message"), INCOMPLETE, ids=lambda value: getattr(value, "__name__", ""))
async def test_an_incomplete_instrumentor_fails_the_suite(
    make: Callable[[], Instrumentor], expected: set[str], message: str, api: ModelApi
) -> None:
    failures: dict[str, str] = {}
    made: list[Any] = []

    def remember() -> Instrumentor:
        made.append(make())
        one: Instrumentor = made[-1]
        return one

    for name, check in CHECKS.items():
        try:
            await run(check, Subject(remember(), remember, ROWS["anthropic"], api))
        except AssertionError as error:
            failures[name] = str(error)
        finally:
            while made:
                AnthropicInstrumentor.uninstrument(made.pop())
    assert set(failures) == expected
    assert any(message in text for text in failures.values()), failures
