"""Tokens and cost of a model call, each counted once, from the names of any tracer.

`gen_ai.usage.input_tokens` includes the tokens that were read from or written to a cache, and `output_tokens` includes
reasoning, as OpenTelemetry defines them. Tracers that report the parts beside the rest are recognised by their total.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import msgspec

from prela_stream.model import semconv
from prela_stream.otel.values import as_float, as_int, as_map

_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    semconv.INPUT_TOKENS: (
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "gen_ai.response.prompt_tokens",
        "llm.token_count.prompt",
        "llm.usage.prompt_tokens",
        "ai.usage.inputTokens",
        "ai.usage.promptTokens",
        "llm.input_tokens",
        "llm.prompt_tokens",
        "llm.usage.input_tokens",
        "embedding.token_count",
        "ai.usage.tokens",
    ),
    semconv.OUTPUT_TOKENS: (
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "gen_ai.response.completion_tokens",
        "llm.token_count.completion",
        "llm.usage.completion_tokens",
        "ai.usage.outputTokens",
        "ai.usage.completionTokens",
        "llm.output_tokens",
        "llm.completion_tokens",
        "llm.usage.output_tokens",
    ),
    semconv.CACHE_READ_TOKENS: (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.cached_tokens",
        "gen_ai.usage.cached_input_tokens",
        "gen_ai.usage.cache_read_tokens",
        "gen_ai.usage.details.cache_read_input_tokens",
        "gen_ai.usage.details.cache_read_tokens",
        "gen_ai.usage.details.cached_tokens",
        "llm.token_count.prompt_details.cache_read",
        "llm.token_count.prompt_details.cache_input",
        "llm.usage.cache_read_input_tokens",
        "ai.usage.cachedInputTokens",
        "ai.usage.inputTokenDetails.cacheReadTokens",
    ),
    semconv.CACHE_WRITE_TOKENS: (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.cache_write_input_tokens",
        "gen_ai.usage.cache_creation_tokens",
        "gen_ai.usage.details.cache_write_tokens",
        "gen_ai.usage.details.cache_creation_input_tokens",
        "llm.token_count.prompt_details.cache_write",
        "llm.usage.cache_creation_input_tokens",
        "ai.usage.inputTokenDetails.cacheWriteTokens",
    ),
    semconv.REASONING_TOKENS: (
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.details.reasoning_tokens",
        "gen_ai.usage.experimental.reasoning_tokens",
        "llm.token_count.completion_details.reasoning",
        "llm.usage.reasoning_tokens",
        "ai.usage.reasoningTokens",
        "ai.usage.outputTokenDetails.reasoningTokens",
    ),
    semconv.AUDIO_INPUT_TOKENS: (
        "gen_ai.usage.audio.input_tokens",
        "llm.token_count.prompt_details.audio",
        "gen_ai.usage.details.input_audio_tokens",
    ),
    semconv.AUDIO_OUTPUT_TOKENS: (
        "gen_ai.usage.audio.output_tokens",
        "llm.token_count.completion_details.audio",
        "gen_ai.usage.details.output_audio_tokens",
    ),
}
_TOTALS: Final = (
    "gen_ai.usage.total_tokens",
    "llm.token_count.total",
    "llm.usage.total_tokens",
    "llm.total_tokens",
    "ai.usage.totalTokens",
)
_COSTS: Final = (
    "prela.cost.usd",
    "llm.cost.total",
    "gen_ai.usage.cost",
    "gen_ai.cost.total_cost",
    "llm.cost_usd",
    "operation.cost",
)
_COST_PARTS: Final = (
    ("gen_ai.usage.input_cost", "gen_ai.usage.output_cost"),
    ("llm.cost.prompt", "llm.cost.completion"),
)
_DETAILS: Final[Mapping[str, str]] = {
    "input": semconv.INPUT_TOKENS,
    "prompt_tokens": semconv.INPUT_TOKENS,
    "input_tokens": semconv.INPUT_TOKENS,
    "prompt_token_count": semconv.INPUT_TOKENS,
    "output": semconv.OUTPUT_TOKENS,
    "completion_tokens": semconv.OUTPUT_TOKENS,
    "output_tokens": semconv.OUTPUT_TOKENS,
    "candidates_token_count": semconv.OUTPUT_TOKENS,
    "input_cache_read": semconv.CACHE_READ_TOKENS,
    "input_cached_tokens": semconv.CACHE_READ_TOKENS,
    "cache_read_tokens": semconv.CACHE_READ_TOKENS,
    "input_cache_read_tokens": semconv.CACHE_READ_TOKENS,
    "cache_read_input_tokens": semconv.CACHE_READ_TOKENS,
    "prompt_details.cache_read": semconv.CACHE_READ_TOKENS,
    "cache_read": semconv.CACHE_READ_TOKENS,
    "prompt_tokens_details.cached_tokens": semconv.CACHE_READ_TOKENS,
    "input_tokens_details.cached_tokens": semconv.CACHE_READ_TOKENS,
    "cached_content_token_count": semconv.CACHE_READ_TOKENS,
    "input_cache_creation": semconv.CACHE_WRITE_TOKENS,
    "cache_creation_input_tokens": semconv.CACHE_WRITE_TOKENS,
    "input_cache_write": semconv.CACHE_WRITE_TOKENS,
    "input_cache_creation_tokens": semconv.CACHE_WRITE_TOKENS,
    "cache_creation": semconv.CACHE_WRITE_TOKENS,
    "prompt_details.cache_write": semconv.CACHE_WRITE_TOKENS,
    "output_reasoning": semconv.REASONING_TOKENS,
    "output_reasoning_tokens": semconv.REASONING_TOKENS,
    "reasoning_tokens": semconv.REASONING_TOKENS,
    "completion_details.reasoning": semconv.REASONING_TOKENS,
    "reasoning": semconv.REASONING_TOKENS,
    "completion_tokens_details.reasoning_tokens": semconv.REASONING_TOKENS,
    "output_tokens_details.reasoning_tokens": semconv.REASONING_TOKENS,
    "thoughts_token_count": semconv.REASONING_TOKENS,
}
"""Keys of the usage maps of Langfuse."""
_DETAIL_TOTALS: Final = ("total", "total_tokens", "total_token_count")
_BESIDE: Final = ("cache_read_input_tokens", "cache_creation_input_tokens")
"""Keys of Anthropic's usage, whose input excludes them."""

CONSUMED: Final[frozenset[str]] = frozenset(
    [name for names in _NAMES.values() for name in names]
    + list(_COSTS)
    + [name for pair in _COST_PARTS for name in pair]
)
"""Attributes whose information is in the result of `usage_of`. Totals stay: some tracers count what they do not itemise."""


_USAGE_DETAILS: Final = "langfuse.observation.usage_details"
_COST_DETAILS: Final = "langfuse.observation.cost_details"
_PRICED: Final = frozenset({*_COSTS, _COST_DETAILS, *(name for pair in _COST_PARTS for name in pair)})


class UsageKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The attributes of a span that have counts or costs."""

    counts: tuple[tuple[str, tuple[str, ...]], ...]
    """A name of `model.semconv` and its spellings that are there."""
    totals: tuple[str, ...]
    details: bool
    cost: bool


def usage_keys(keys: Collection[str]) -> UsageKeys | None:
    """Which of these names have counts or costs; None if no name has."""
    found = UsageKeys(
        counts=tuple(
            (name, present)
            for name, spellings in _NAMES.items()
            if (present := tuple(key for key in spellings if key in keys))
        ),
        totals=tuple(key for key in _TOTALS if key in keys),
        details=_USAGE_DETAILS in keys,
        cost=any(key in _PRICED for key in keys),
    )
    return found if found.counts or found.totals or found.details or found.cost else None


def usage_of(attributes: Mapping[str, Any], keys: UsageKeys) -> dict[str, Any]:
    """Token counts and cost under the names of `model.semconv`. A count that no tracer reported is absent."""
    found: dict[str, int] = {}
    for name, spellings in keys.counts:
        count = attributes.get(spellings[0])
        if count.__class__ is not int or count < 0:
            count = _first(attributes, spellings)
        if count is not None:
            found[name] = count
    total = _first(attributes, keys.totals) if keys.totals else None
    if keys.details:
        total = _add_details(found, _flat(as_map(attributes.get(_USAGE_DETAILS))), total)
    result: dict[str, Any] = found
    if total is not None or semconv.CACHE_READ_TOKENS in found or semconv.CACHE_WRITE_TOKENS in found:
        result = dict(_with_parts_included(found, total))
    if keys.cost and (cost := cost_of(attributes)) is not None:
        result[semconv.COST_USD] = cost
    return result


def _add_details(found: dict[str, int], details: Mapping[str, Any], total: int | None) -> int | None:
    """Add the counts that only a map of usage has. Returns the total, of the map if there is no other."""
    counted = semconv.INPUT_TOKENS in found or semconv.OUTPUT_TOKENS in found
    for key, name in _DETAILS.items():
        if name not in found and (count := as_int(details.get(key))) is not None:
            found[name] = count
    if total is None and not counted:  # Langfuse adds all of its counts up, also parts that another one includes
        total = _first(details, _DETAIL_TOTALS)
        if total is None and any(key in details for key in _BESIDE) and semconv.INPUT_TOKENS in found:
            found[semconv.INPUT_TOKENS] += sum(as_int(details.get(key)) or 0 for key in _BESIDE)
    return total


def _with_parts_included(found: dict[str, int], total: int | None) -> dict[str, int]:
    """Add cache and reasoning tokens to input and output if the total shows that they are beside them."""
    into, out = found.get(semconv.INPUT_TOKENS), found.get(semconv.OUTPUT_TOKENS)
    parts = found.get(semconv.CACHE_READ_TOKENS, 0) + found.get(semconv.CACHE_WRITE_TOKENS, 0)
    if into is not None and parts > into:  # a part is never larger than the whole
        found = {**found, semconv.INPUT_TOKENS: (into := into + parts)}
    if total is None or into is None or out is None or total <= into + out:
        return found
    missing = total - into - out
    cached = found.get(semconv.CACHE_READ_TOKENS, 0) + found.get(semconv.CACHE_WRITE_TOKENS, 0)
    reasoning = found.get(semconv.REASONING_TOKENS, 0)
    if missing == cached:
        return {**found, semconv.INPUT_TOKENS: into + cached}
    if missing == reasoning:
        return {**found, semconv.OUTPUT_TOKENS: out + reasoning}
    if missing == cached + reasoning:
        return {**found, semconv.INPUT_TOKENS: into + cached, semconv.OUTPUT_TOKENS: out + reasoning}
    return found


def _flat(details: Mapping[str, Any]) -> Mapping[str, Any]:
    """The counts of maps inside of this one, with both keys and a dot between them."""
    if not any(isinstance(value, Mapping) for value in details.values()):
        return details
    inner = ((key, value) for key, value in details.items() if isinstance(value, Mapping))
    return {**details, **{f"{key}.{name}": count for key, value in inner for name, count in value.items()}}


def cost_of(attributes: Mapping[str, Any]) -> float | None:
    """The cost in US dollars; None if no tracer reported one."""
    for name in _COSTS:
        if (cost := as_float(attributes.get(name))) is not None:
            return cost
    details = as_map(attributes.get(_COST_DETAILS))
    if (cost := as_float(details.get("total"))) is not None:
        return cost
    if costs := [cost for value in details.values() if (cost := as_float(value)) is not None]:
        return sum(costs)
    for pair in _COST_PARTS:
        parts = [cost for name in pair if (cost := as_float(attributes.get(name))) is not None]
        if parts:
            return sum(parts)
    return None


def _first(attributes: Mapping[str, Any], names: Iterable[str]) -> int | None:
    for name in names:
        if (count := as_int(attributes.get(name))) is not None and count >= 0:
            return count
    return None
