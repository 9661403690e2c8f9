"""The cost of recorded calls: the price list's figure for the answer, by day and platform; absent where it is unknown."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import anthropic
import genai_prices
import openai
import pytest

from prela_stream.instrumentation import results
from prela_stream.instrumentation.prices import PriceList
from prela_stream.instrumentation.registry import auto_instrument, uninstrument
from prela_stream.model import semconv
from prela_stream.testing import CapturedSpans, capture_spans
from tests.support import openai_api
from tests.support.model_api import ModelApi, Reply, serving_replies, sse

USAGE = {
    "input_tokens": 10, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 100, "output_tokens": 25,
    "cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40},
}  # fmt: skip
ASKED: dict[str, Any] = {"max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}


def message(**changes: Any) -> dict[str, Any]:
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "stop_reason": "end_turn",
        "stop_sequence": None, "content": [{"type": "text", "text": "hello"}], "usage": USAGE, **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def api() -> Iterator[ModelApi]:
    with serving_replies() as served:
        yield served


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Iterator[CapturedSpans]:
    monkeypatch.setenv("PRELA_STRICT", "1")
    with capture_spans() as spans:
        auto_instrument(names=["anthropic", "openai"])
        try:
            yield spans
        finally:
            uninstrument()


def ask_anthropic(api: ModelApi, captured: CapturedSpans, reply: Reply, **asked: Any) -> dict[str, Any]:
    api.reply = reply
    with anthropic.Anthropic(api_key="k", base_url=api.url) as client:
        answer = client.messages.create(**{"model": "an-alias", **ASKED, **asked})
        if asked.get("stream"):
            list(answer)
    return dict(captured.spans[-1].attributes)


def check(found: dict[str, Any], expected: float) -> None:
    assert found[semconv.COST_USD] == pytest.approx(expected, rel=1e-9)
    assert expected > 0
    assert found[semconv.COST_SOURCE] == f"genai-prices {genai_prices.__version__}"
    assert len(found[semconv.COST_DATE]) == len("2026-11-28")


def test_a_message_with_both_lifetimes_of_its_cache(api: ModelApi, captured: CapturedSpans) -> None:
    usage = genai_prices.extract_usage(message(), provider_id="anthropic")
    found = ask_anthropic(api, captured, Reply(json.dumps(message()).encode()))
    check(found, float(usage.calc_price().total_price))
    # 10 new, 1000 read, 60 written for 5 minutes and 40 for an hour, 25 generated, in dollars for a million
    check(found, (10 * 3 + 1000 * 0.3 + 60 * 3.75 + 40 * 6 + 25 * 15) / 1e6)


def test_a_stream_has_the_same_cost(api: ModelApi, captured: CapturedSpans) -> None:
    whole = ask_anthropic(api, captured, Reply(json.dumps(message()).encode()))
    events = sse(
        {
            "type": "message_start",
            "message": message(content=[], stop_reason=None, usage={**USAGE, "output_tokens": 1}),
        },
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 25}},
        {"type": "message_stop"},
    )
    streamed = ask_anthropic(api, captured, Reply(events, content_type="text/event-stream"), stream=True)
    assert streamed[semconv.COST_USD] == whole[semconv.COST_USD]


@pytest.mark.parametrize("name", ["chat", "responses", "embeddings"])
def test_calls_of_openai(api: ModelApi, captured: CapturedSpans, name: str) -> None:
    answers = {
        "chat": openai_api.chat_answer("hello"),
        "responses": openai_api.response("hello"),
        "embeddings": {**openai_api.embeddings(), "model": "text-embedding-3-small"},
    }
    api.reply = Reply(json.dumps(answers[name]).encode())
    with openai.OpenAI(api_key="k", base_url=api.url) as client:
        if name == "chat":
            client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": "x"}])
        elif name == "responses":
            client.responses.create(model="gpt-5", input="x")
        else:
            client.embeddings.create(model="text-embedding-3-small", input="x")
    usage = genai_prices.extract_usage(answers[name], provider_id="openai", api_flavor=name)
    check(dict(captured.spans[0].attributes), float(usage.calc_price().total_price))


@pytest.mark.parametrize(
    "reply",
    [
        message(model="a-model-that-nobody-has"),
        message(usage=None),
        message(usage={**USAGE, "iterations": [{"type": "compaction", "input_tokens": 5, "output_tokens": 5}]}),
    ],
    ids=["model", "usage", "compaction"],
)
def test_an_unknown_cost_is_absent(api: ModelApi, captured: CapturedSpans, reply: dict[str, Any]) -> None:
    found = ask_anthropic(api, captured, Reply(json.dumps(reply).encode()))
    assert not {semconv.COST_USD, semconv.COST_SOURCE, semconv.COST_DATE} & set(found)


def test_a_stream_that_is_left_early_has_no_cost(api: ModelApi, captured: CapturedSpans) -> None:
    events = sse({"type": "message_start", "message": message(content=[], stop_reason=None)})
    api.reply = Reply(pieces=[events], content_type="text/event-stream")
    with (
        anthropic.Anthropic(api_key="k", base_url=api.url) as client,
        client.messages.create(model="an-alias", **ASKED, stream=True) as stream,
    ):
        next(stream)
    assert semconv.COST_USD not in captured.spans[0].attributes


def test_without_the_package_there_is_no_cost(
    api: ModelApi, captured: CapturedSpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    prices = PriceList()
    monkeypatch.setattr(results, "PRICES", prices)
    monkeypatch.setattr("prela_stream.instrumentation.prices.importlib.util.find_spec", lambda _: None)
    prices.load()
    assert semconv.COST_USD not in ask_anthropic(api, captured, Reply(json.dumps(message()).encode()))


def test_a_platform_has_its_own_prices() -> None:
    prices = PriceList()
    prices.load()

    def cost(provider: str) -> float:
        attributes = {
            semconv.PROVIDER_NAME: provider, semconv.INPUT_TOKENS: 1110, semconv.RESPONSE_MODEL: "claude-sonnet-4-5",
        }  # fmt: skip
        began = datetime(2026, 11, 1, tzinfo=UTC)
        found = prices.cost_attributes(message(), attributes, module="anthropic", flavor="default", began=began)
        assert found[semconv.COST_DATE] == "2026-11-01"
        return float(found[semconv.COST_USD])

    assert cost("anthropic") > 0
    assert cost("azure.ai.inference") > 0
    attributes = {semconv.PROVIDER_NAME: "a platform without prices", semconv.INPUT_TOKENS: 1}
    began = datetime(2026, 11, 1, tzinfo=UTC)
    assert prices.cost_attributes({}, attributes, module="anthropic", flavor="default", began=began) == {}
