"""Attribute names: every alias has a canonical name, which has priority."""

import pytest

from prela_stream.model import semconv

CANONICAL = {
    value
    for name, value in vars(semconv).items()
    if name.isupper() and not name.startswith(("EVENT_", "_")) and isinstance(value, str)
}


def test_every_alias_has_a_canonical_name_and_is_none() -> None:
    assert set(semconv.ALIASES.values()) <= CANONICAL
    assert CANONICAL.isdisjoint(semconv.ALIASES)


def test_names_are_those_of_opentelemetry_or_start_with_prela() -> None:
    prefixes = ("gen_ai.", "error.", "service.", "deployment.", "http.", "user.", "prela.")
    assert all(name.startswith(prefixes) for name in CANONICAL)


@pytest.mark.parametrize("key", [semconv.INPUT_TOKENS, "llm.token_count.prompt", "llm.input_tokens"])
def test_all_spellings_of_a_name_are_known_from_any_of_them(key: str) -> None:
    assert semconv.read_keys(key)[0] == "gen_ai.usage.input_tokens"
    assert {"gen_ai.usage.prompt_tokens", "llm.token_count.prompt", "llm.input_tokens"} < set(semconv.read_keys(key))


def test_a_name_without_aliases_has_one_spelling() -> None:
    assert semconv.read_keys("my.own") == ("my.own",)


def test_the_canonical_spelling_has_priority_over_an_alias() -> None:
    both = {"llm.model_name": "alias", "gen_ai.request.model": "canonical"}
    assert semconv.read(both, semconv.REQUEST_MODEL) == "canonical"
    assert semconv.read({"llm.model_name": "alias", "gen_ai.request.model": None}, semconv.REQUEST_MODEL) == "alias"
    assert semconv.read(both, "llm.model") == "canonical"
    assert semconv.read({}, semconv.REQUEST_MODEL) is None


@pytest.mark.parametrize("value", [0, "", False, []])
def test_an_empty_value_is_a_value(value: object) -> None:
    assert semconv.read({semconv.INPUT_TOKENS: value, "llm.input_tokens": 5}, semconv.INPUT_TOKENS) == value


def test_a_name_with_two_meanings_is_not_an_alias() -> None:
    assert "llm.system" not in semconv.ALIASES


ANCESTOR = {
    "llm.vendor": "anthropic",
    "llm.model": "claude",
    "llm.temperature": 0.5,
    "llm.max_tokens": 100,
    "llm.input_tokens": 7,
    "llm.output_tokens": 5,
    "llm.total_tokens": 12,
    "llm.finish_reason": "end_turn",
    "llm.stop_reason": "end_turn",
    "llm.time_to_first_token_ms": 250.0,
    "llm.system": "be brief",
    "tool.name": "search",
    "tool.arguments": '{"query":"reefs"}',
    "my.own": 1,
}
GENAI = {
    "gen_ai.provider.name": "anthropic",
    "gen_ai.request.model": "claude",
    "gen_ai.request.temperature": 0.5,
    "gen_ai.request.max_tokens": 100,
    "gen_ai.usage.input_tokens": 7,
    "gen_ai.usage.output_tokens": 5,
    "gen_ai.response.finish_reasons": ["end_turn"],
    "gen_ai.response.time_to_first_chunk": 0.25,
    "gen_ai.system_instructions": [{"type": "text", "content": "be brief"}],
    "gen_ai.tool.name": "search",
    "gen_ai.tool.call.arguments": '{"query":"reefs"}',
    "my.own": 1,
}


def test_the_ancestors_attributes_become_ours_and_ours_become_the_ancestors() -> None:
    assert semconv.to_genai(ANCESTOR) == GENAI
    assert semconv.to_ancestor(GENAI) == ANCESTOR
    assert semconv.to_ancestor(ANCESTOR) == ANCESTOR
    assert semconv.to_genai(GENAI) == GENAI


def test_a_model_calls_latency_is_its_duration() -> None:
    assert semconv.to_ancestor({"gen_ai.request.model": "m"}, duration_ms=12.5)["llm.latency_ms"] == 12.5
    assert "llm.latency_ms" not in semconv.to_ancestor({"gen_ai.tool.name": "t"}, duration_ms=12.5)


def test_structured_arguments_become_the_ancestors_json_whatever_they_hold() -> None:
    assert semconv.to_ancestor({semconv.TOOL_CALL_ARGUMENTS: {"a": [1]}}) == {"tool.arguments": '{"a":[1]}'}
    assert "object at" in semconv.to_ancestor({semconv.TOOL_CALL_ARGUMENTS: {"a": object()}})["tool.arguments"]


def test_a_total_that_is_not_the_sum_is_kept() -> None:
    odd = {"llm.input_tokens": 1, "llm.output_tokens": 1, "llm.total_tokens": 5}
    assert semconv.to_genai(odd)["llm.total_tokens"] == 5
    assert semconv.to_ancestor(odd)["llm.total_tokens"] == 5
    assert semconv.to_genai({"gen_ai.usage.total_tokens": 5}) == {"gen_ai.usage.total_tokens": 5}


def test_llm_system_is_the_vendor_where_openinference_speaks_and_stays_where_nobody_can_tell() -> None:
    vendor = {"openinference.span.kind": "LLM", "llm.system": "openai"}
    assert semconv.to_genai(vendor)[semconv.PROVIDER_NAME] == "openai"
    assert semconv.to_genai({"llm.system": "who knows"}) == {"llm.system": "who knows"}


def test_our_own_name_wins_over_an_alias_and_none_is_no_value() -> None:
    both = {"llm.model": "alias", "gen_ai.request.model": "canonical"}
    assert semconv.to_genai(both) == {"gen_ai.request.model": "canonical"}
    assert semconv.to_genai({"gen_ai.request.model": None, "llm.model": "m"}) == {"gen_ai.request.model": "m"}
    assert semconv.to_genai({"llm.model": None}) == {"gen_ai.request.model": None}
