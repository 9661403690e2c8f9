"""Attribute names: aliases lead somewhere, and our own spelling goes first."""

import pytest

from prela_stream.model import semconv

OURS = {value for name, value in vars(semconv).items() if name.isupper() and isinstance(value, str)}


def test_every_alias_stands_for_a_name_that_we_write_and_is_none_itself() -> None:
    assert set(semconv.ALIASES.values()) <= OURS
    assert OURS.isdisjoint(semconv.ALIASES)


def test_names_follow_opentelemetry_or_are_marked_as_ours() -> None:
    prefixes = ("gen_ai.", "error.", "service.", "deployment.", "http.", "user.", "prela.")
    assert all(name.startswith(prefixes) for name in OURS)


@pytest.mark.parametrize("key", [semconv.INPUT_TOKENS, "llm.token_count.prompt", "llm.input_tokens"])
def test_all_spellings_of_a_name_are_known_from_any_of_them(key: str) -> None:
    assert semconv.read_keys(key)[0] == "gen_ai.usage.input_tokens"
    assert {"gen_ai.usage.prompt_tokens", "llm.token_count.prompt", "llm.input_tokens"} < set(semconv.read_keys(key))


def test_a_name_without_aliases_has_one_spelling() -> None:
    assert semconv.read_keys("my.own") == ("my.own",)


def test_our_own_spelling_goes_first_and_an_alias_fills_in() -> None:
    both = {"llm.model_name": "alias", "gen_ai.request.model": "ours"}
    assert semconv.read(both, semconv.REQUEST_MODEL) == "ours"
    assert semconv.read({"llm.model_name": "alias", "gen_ai.request.model": None}, semconv.REQUEST_MODEL) == "alias"
    assert semconv.read(both, "llm.model") == "ours"
    assert semconv.read({}, semconv.REQUEST_MODEL) is None


@pytest.mark.parametrize("value", [0, "", False, []])
def test_an_empty_value_is_a_value(value: object) -> None:
    assert semconv.read({semconv.INPUT_TOKENS: value, "llm.input_tokens": 5}, semconv.INPUT_TOKENS) == value


def test_the_prompt_of_one_and_the_vendor_of_another_is_nobodys_alias() -> None:
    assert "llm.system" not in semconv.ALIASES
