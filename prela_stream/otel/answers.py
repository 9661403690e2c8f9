"""What the raw answer of a model holds beside its messages: usage, finish reasons, model and id.

Some tracers store the answer as the provider or the framework gave it, and do not repeat these facts as attributes. They are read
from there if no attribute has them. Answers of OpenAI, Anthropic, Gemini, Bedrock, Ollama and LangChain are known.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prela_stream.model import semconv
from prela_stream.otel.values import as_int, parsed

_USAGE_ALONE: Final = ("mlflow.chat.tokenUsage", "langsmith.usage_metadata", "llm.token.counts")
ANSWERS: Final = (
    *("gcp.vertex.agent.llm_response", *_USAGE_ALONE, "langfuse.observation.output", "output.value"),
    *("gen_ai.completion", "gen_ai.output", "genkit:output", "mlflow.spanOutputs", "response_data", "lmnr.span.output"),
    *("traceloop.entity.output", "output"),
)
"""Attributes that may hold an answer. The first that has a fact counts."""
INCLUDES: Final[Mapping[str, tuple[str, ...]]] = {
    semconv.INPUT_TOKENS: (semconv.CACHE_READ_TOKENS, semconv.CACHE_WRITE_TOKENS),
    semconv.OUTPUT_TOKENS: (semconv.REASONING_TOKENS,),
}
"""Counts, and the parts that they include."""
_PARTS: Final = {semconv.CACHE_READ_TOKENS: ("cache", "Cache"), semconv.REASONING_TOKENS: ("reasoning", "thoughts")}
"""Parts of a usage, and words that are in an answer which has them."""
_MOST_MAPS: Final = 64
_INNER: Final = (
    "response",
    "raw",
    "message",
    "kwargs",
    "response_metadata",
    "llm_output",
    "generation_info",
    "custom",
    "meta",
)
_LISTS: Final = ("choices", "candidates", "generations", "replies", "meta")
_USAGES: Final = ("usage", "usage_metadata", "usageMetadata", "token_usage", "tokenUsage")
_MODELS: Final = ("model", "modelVersion", "model_version")
_IDS: Final = ("id", "responseId", "response_id")
_REASONS: Final = ("finish_reason", "finishReason", "stop_reason", "stopReason", "done_reason")
_GEMINI_REASONS: Final = {1: "STOP", 2: "MAX_TOKENS", 3: "SAFETY", 4: "RECITATION", 5: "OTHER"}
_INPUT: Final = (
    *("prompt_tokens", "input_tokens", "promptTokens", "inputTokens", "prompt_token_count", "promptTokenCount"),
    "prompt_eval_count",
)
_OUTPUT: Final = (
    *("completion_tokens", "output_tokens", "completionTokens", "outputTokens"),
    *("candidates_token_count", "candidatesTokenCount", "eval_count"),
)
_TOTAL: Final = ("total_tokens", "totalTokens", "total_token_count", "totalTokenCount")
_THOUGHTS: Final = ("thoughts_token_count", "thoughtsTokenCount", "thoughtsTokens")
_BESIDE: Final = frozenset({"input_tokens", "inputTokens"})
"""Names of an input that may exclude cached tokens: Anthropic, Bedrock."""
_READ: Final = (
    *("cache_read_input_tokens", "cacheReadInputTokens", "cached_content_token_count", "cachedContentTokenCount"),
    *("cachedInputTokens", "cached_tokens", "cachedContentTokens"),
)
_WRITTEN: Final = ("cache_creation_input_tokens", "cacheWriteInputTokens", "cache_write_input_tokens")
_BESIDE_PARTS: Final = ("cache_read_input_tokens", "cacheReadInputTokens", *_WRITTEN)
_IN_INPUT: Final = ("prompt_tokens_details", "input_tokens_details", "input_token_details", "inputTokenDetails")
_IN_OUTPUT: Final = ("completion_tokens_details", "output_tokens_details", "output_token_details", "outputTokenDetails")


def facts_of_answers(attributes: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """The facts under the names of `model.semconv`. A fact that no answer holds is absent.

    Args:
        attributes: Of a model call.
        keys: Those of `ANSWERS` that it may have.
    """
    found: dict[str, Any] = {}
    for key in keys:
        answer = parsed(attributes.get(key))
        if not isinstance(answer, Mapping | list):
            continue
        if key in _USAGE_ALONE:
            answer = {"usage": answer}
        for name, value in _facts(answer):
            found.setdefault(name, value)
    return found


def has_parts(attributes: Mapping[str, Any], keys: tuple[str, ...], found: Mapping[str, Any]) -> bool:
    """Whether an answer may have a part of the usage that is not in `found`. It is not parsed for that."""
    return any(
        isinstance(value := attributes.get(key), str) and any(word in value for word in words)
        for name, words in _PARTS.items()
        if found.get(name) is None
        for key in keys
    )


def _facts(answer: Any) -> Iterator[tuple[str, Any]]:
    maps = list(_maps(answer))
    counts: dict[str, int] = {}
    for one in maps:
        usage = next((one[key] for key in _USAGES if isinstance(one.get(key), Mapping)), None)
        if usage is None and ("prompt_eval_count" in one or "eval_count" in one):  # Ollama
            usage = one
        if usage is not None and len(more := counts_of(usage)) > len(counts):
            counts = more  # LangChain has a short usage beside a full one
    yield from counts.items()
    reasons = [reason for one in maps if (reason := _reason(one)) is not None]
    if reasons:
        yield semconv.FINISH_REASONS, list(dict.fromkeys(reasons)) if _repeats(answer) else reasons
    for one in maps:
        if _has_usage(one) and isinstance(model := _first(one, _MODELS), str) and model:
            yield semconv.RESPONSE_MODEL, model
            break
    if maps and _is_response(maps[0]) and isinstance(value := _first(maps[0], _IDS), str) and value:
        yield semconv.RESPONSE_ID, value


def _repeats(answer: Any) -> bool:
    """Whether one reason is in several places: LangChain has it in the message and beside it."""
    return not (isinstance(answer, Mapping) and isinstance(answer.get("choices", answer.get("candidates")), list))


def _is_response(answer: Mapping[str, Any]) -> bool:
    return _has_usage(answer) and any(key in answer for key in (*_LISTS, "content", "output"))


def _has_usage(answer: Mapping[str, Any]) -> bool:
    return any(isinstance(answer.get(key), Mapping) for key in _USAGES)


def _maps(answer: Any) -> Iterator[Mapping[str, Any]]:
    """The maps of an answer that may hold facts, the outer ones first. Of a list of messages, the last is the answer."""
    waiting = [answer]
    for _ in range(_MOST_MAPS):
        if not waiting:
            return
        one = waiting.pop(0)
        if isinstance(one, list):
            waiting[:0] = one[-1:]
        elif isinstance(one, Mapping):
            yield one
            for key in _LISTS:
                if isinstance(several := one.get(key), list):
                    inner = [each for group in several for each in (group if isinstance(group, list) else [group])]
                    waiting += [each for each in inner[:_MOST_MAPS] if isinstance(each, Mapping)]
            waiting += [one[key] for key in _INNER if isinstance(one.get(key), Mapping)]


def _reason(answer: Mapping[str, Any]) -> str | None:
    for key in _REASONS:
        value = answer.get(key)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, int) and not isinstance(value, bool) and value in _GEMINI_REASONS:
            return _GEMINI_REASONS[value]
    if answer.get("object") != "response":
        return None
    items = answer.get("output")  # OpenAI's responses
    if isinstance(items, list) and any(
        isinstance(one, Mapping) and one.get("type") == "function_call" for one in items
    ):
        return "tool_call"
    details = answer.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, Mapping) else None
    reason = reason or answer.get("status")
    return reason if isinstance(reason, str) and reason else None


def counts_of(usage: Mapping[str, Any]) -> dict[str, int]:
    """Token counts of a provider's usage. Input includes cached tokens, and output includes reasoning."""
    if isinstance(inner := usage.get("tokens"), Mapping):  # Cohere
        usage = inner
    input_key = next((key for key in _INPUT if _count(usage.get(key)) is not None), "")
    into, out = _count(usage.get(input_key)), _number(usage, _OUTPUT)
    total = _number(usage, _TOTAL)
    read, written = _number(usage, _READ), _number(usage, _WRITTEN)
    reasoning = _number(usage, ("reasoning_tokens", "reasoningTokens"))
    for key in _IN_INPUT:
        if isinstance(details := usage.get(key), Mapping):
            read = _number(details, ("cached_tokens", "cache_read", "cacheReadTokens")) if read is None else read
            written = (
                _number(details, ("cache_write_tokens", "cache_creation", "cacheWriteTokens"))
                if written is None
                else written
            )
    for key in _IN_OUTPUT:
        if isinstance(details := usage.get(key), Mapping) and reasoning is None:
            reasoning = _number(details, ("reasoning_tokens", "reasoning", "reasoningTokens"))
    if (thoughts := _number(usage, _THOUGHTS)) is not None:  # Gemini has them beside its candidates
        reasoning = thoughts
        if out is not None and (total is None or into is None or total >= into + out + thoughts):
            out += thoughts
    parts = (read or 0) + (written or 0)
    has_beside = input_key in _BESIDE and any(key in usage for key in _BESIDE_PARTS)
    if into is not None and has_beside and (total is None or total >= into + (out or 0) + parts):
        into += parts
    counts = {
        semconv.INPUT_TOKENS: into,
        semconv.OUTPUT_TOKENS: out,
        semconv.CACHE_READ_TOKENS: read,
        semconv.CACHE_WRITE_TOKENS: written,
        semconv.REASONING_TOKENS: reasoning,
    }
    return {name: count for name, count in counts.items() if count is not None}


def _number(source: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((count for name in names if (count := _count(source.get(name))) is not None), None)


def _count(value: Any) -> int | None:
    count = as_int(value)
    return count if count is not None and count >= 0 else None


def _first(source: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((source[name] for name in names if source.get(name) is not None), None)
