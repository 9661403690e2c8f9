"""What a list or a tree shows of one span: model, tokens, cost, and what went wrong."""

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from prela_stream.model import semconv
from prela_stream.model.span import SpanData, SpanStatus, SpanType
from prela_stream.otel.finish_reasons import finish_reasons_of, normalise_finish_reason

_HTTP_STATUS: Final = ("http.response.status_code", "http.status_code", "rpc.grpc.status_code")
_RETRY_EVENT: Final = "retry"
_MOST: Final = 1 << 53
LOGICAL_TYPES: Final = frozenset(SpanType) - {SpanType.CUSTOM}
"""The span types of the logical view: agents, models, tools, retrievals and embeddings."""


class SpanFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of one span. Empty text and None mean that the span does not have it."""

    service: str = ""
    model: str = ""
    """The model that answered, else the requested one."""
    agent: str = ""
    tool: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: float | None = None
    first_chunk_ns: int | None = None
    """Time to the first chunk of a stream, ns."""
    error_type: str = ""
    error_message: str = ""
    retries: int = 0
    http_status: int | None = None
    finish_reasons: tuple[str, ...] = ()

    @property
    def cut_short(self) -> tuple[str, ...]:
        """The finish reasons that are neither the ordinary end of an answer nor a call of a tool."""
        return tuple(one for one in self.finish_reasons if normalise_finish_reason(one) not in ("stop", "tool_call"))


def facts_of(span: SpanData) -> SpanFacts:
    """The facts of a span. Values of another type than expected are left out."""
    own = span.attributes
    failed = span.status is SpanStatus.ERROR
    message = span.status_message or _text(semconv.read(own, semconv.ERROR_MESSAGE)) or _of_exception(span, "message")
    seconds = semconv.read(own, semconv.TIME_TO_FIRST_CHUNK)
    is_seconds = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds < 1e9
    return SpanFacts(
        service=span.resource.service_name,
        model=_text(semconv.read(own, semconv.RESPONSE_MODEL)) or _text(semconv.read(own, semconv.REQUEST_MODEL)),
        agent=_text(semconv.read(own, semconv.AGENT_NAME)),
        tool=_text(semconv.read(own, semconv.TOOL_NAME)),
        input_tokens=_count(semconv.read(own, semconv.INPUT_TOKENS)),
        output_tokens=_count(semconv.read(own, semconv.OUTPUT_TOKENS)),
        cached_tokens=_count(semconv.read(own, semconv.CACHE_READ_TOKENS)),
        reasoning_tokens=_count(semconv.read(own, semconv.REASONING_TOKENS)),
        cost_usd=_amount(semconv.read(own, semconv.COST_USD)),
        first_chunk_ns=int(seconds * 1e9) if is_seconds else None,
        error_type=(_text(semconv.read(own, semconv.ERROR_TYPE)) or _of_exception(span, "type")) if failed else "",
        error_message=message if span.status is not SpanStatus.SUCCESS else "",
        retries=_retries(span),
        http_status=_http_status(own),
        finish_reasons=tuple(finish_reasons_of(semconv.read(own, semconv.FINISH_REASONS))),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST else None


def _amount(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _of_exception(span: SpanData, part: str) -> str:
    events = (event.attributes for event in reversed(span.events) if event.name == "exception")
    return next((_text(found.get(f"exception.{part}")) for found in events), "")


def _retries(span: SpanData) -> int:
    resent = _count(semconv.read(span.attributes, semconv.RESEND_COUNT))
    return resent or sum(event.name == _RETRY_EVENT for event in span.events)


def _http_status(own: Mapping[str, Any]) -> int | None:
    for name in _HTTP_STATUS:
        value = own.get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 3:
            value = int(value)
        if (found := _count(value)) is not None:
            return found
    return None
