"""Completes what is recorded of a call with what no provider reports: finish reasons in one vocabulary, the cost, and events."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from prela_stream.instrumentation.prices import PRICES
from prela_stream.instrumentation.provider import Operation, Provider
from prela_stream.model import semconv
from prela_stream.model.span import SpanType
from prela_stream.otel.finish_reasons import normalise_finish_reason

_OUTSIDE_OF_THE_SUMS: Final = frozenset({"anthropic.usage.compaction.input_tokens"})
"""Tokens that are billed and that the price list does not see."""


def completed(
    attributes: dict[str, Any],
    answer: Mapping[str, Any],
    *,
    provider: Provider,
    operation: Operation,
    known: Mapping[str, Any],
    began: datetime,
) -> dict[str, Any]:
    """The attributes of an answer and what follows from them.

    Args:
        attributes: As the provider maps the answer.
        answer: As the API sent it.
        provider: Of the call.
        operation: Of the call.
        known: The attributes that the span has already.
        began: When the call began.
    """
    is_priced = operation.price_flavor is not None and semconv.INPUT_TOKENS in attributes
    if operation.span_type is SpanType.LLM and semconv.OUTPUT_TOKENS not in attributes:
        is_priced = False  # the stream was left before the usage came
    if _OUTSIDE_OF_THE_SUMS & attributes.keys():
        is_priced = False
    cost: dict[str, Any] = {}
    if is_priced:
        together = {**known, **attributes}
        flavor = operation.price_flavor or ""
        cost = PRICES.cost_attributes(answer, together, module=provider.module, flavor=flavor, began=began)
    return {**_with_normalised_reasons(attributes), **cost}


def event_of_request(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of the event `llm.request`. The messages are attributes of the span and are not copied."""
    return _chosen(attributes, semconv.REQUEST_MODEL)


def event_of_response(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of the event `llm.response`, from those of the ended call."""
    return _chosen(attributes, semconv.RESPONSE_MODEL, semconv.FINISH_REASONS)


def _chosen(attributes: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: attributes[name] for name in names if name in attributes}


def _with_normalised_reasons(attributes: dict[str, Any]) -> dict[str, Any]:
    """Finish reasons in the one vocabulary, and beside them the provider's words if these differ."""
    raw = attributes.get(semconv.FINISH_REASONS)
    if not raw or semconv.RAW_FINISH_REASONS in attributes:
        return attributes
    reasons = [normalise_finish_reason(one) for one in raw]
    beside = {} if reasons == raw else {semconv.RAW_FINISH_REASONS: raw}
    return {**attributes, semconv.FINISH_REASONS: reasons, **beside}
