"""What stores index of a span: a brief of its attributes for trees and statistics, and labels that find its trace. Pure.

A label is a short token for one fact of a trace, for instance that a span of it has the model `m`. A store finds the traces with
several labels without reading their spans. Session, user, model and the like are found under every name that `semconv` knows.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from itertools import product, repeat
from typing import Any, Final, Literal

import msgspec

from prela_stream.model import semconv
from prela_stream.model.span import Resource, SpanData
from prela_stream.sinks.query import LightSpan, TraceQuery

LabelKind = Literal["service", "session", "user", "model", "tool", "error_type", "attribute"]

VALUE_CHARS: Final = 256
"""A longer attribute value is no label; its words are found by free text."""
KIND_LABELS: Final = 64
"""The most labels of one kind and trace, except attributes."""
ATTRIBUTE_LABELS: Final = 512
"""The most attribute labels of one trace."""
LISTED: Final = 16
"""The most values of one kind in the row of a trace."""
_MESSAGE_CHARS: Final = 500
_NAME_CHARS: Final = 200
_MOST: Final = 1 << 53

_HTTP_STATUS: Final = "http.response.status_code"
_CANONICAL: Final = {
    spelling: name
    for name in (
        semconv.ERROR_TYPE, semconv.AGENT_NAME, semconv.REQUEST_MODEL, semconv.RESPONSE_MODEL, semconv.TOOL_NAME,
        semconv.INPUT_TOKENS, semconv.OUTPUT_TOKENS, semconv.COST_USD, semconv.FINISH_REASONS, semconv.RESEND_COUNT,
    )
    for spelling in semconv.read_keys(name)
} | {_HTTP_STATUS: _HTTP_STATUS, "http.status_code": _HTTP_STATUS}  # fmt: skip
_KINDS: Final[dict[str, LabelKind]] = {
    semconv.CONVERSATION_ID: "session",
    semconv.USER_ID: "user",
    semconv.REQUEST_MODEL: "model",
    semconv.RESPONSE_MODEL: "model",
    semconv.TOOL_NAME: "tool",
    semconv.ERROR_TYPE: "error_type",
}
_aliases: Final = dict(semconv.ALIASES)
_PAIRS: Final = ["".join(pair) for pair in product("abcdefghijklmnopqrstuvwxyz234567", repeat=2)]
"""Ten bits as two digits of base 32."""
_NO_LABEL: Final = frozenset({
    *(name for name in semconv.CONTENT_NAMES if not name.endswith(".*")),
    *semconv.read_keys(semconv.RESPONSE_ID), *semconv.read_keys(semconv.TOOL_CALL_ID),
    *semconv.read_keys(semconv.ERROR_STACKTRACE),
})  # fmt: skip
"""Contents, and ids of which each span has another one."""


class Brief(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a store keeps beside a span, so that a tree can be shown without the span's body. Fields are only appended."""

    service: str = ""
    status_message: str = ""
    error_type: str = ""
    agent: str = ""
    model: str = ""
    tool: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    finish_reason: str = ""
    resends: int = 0
    http_status: int | None = None
    events: int = 0
    links: int = 0
    bytes: int = 0
    flags: int = 0
    inject_ordinal: int | None = None


_encoder: Final = msgspec.msgpack.Encoder()
_briefs: Final = msgspec.msgpack.Decoder(Brief)


def encode_brief(brief: Brief) -> bytes:
    """The bytes that a store keeps."""
    return _encoder.encode(brief)


def decode_brief(value: bytes) -> Brief:
    """Reads what `encode_brief` wrote."""
    return _briefs.decode(value)


def brief_of(span: SpanData, size: int) -> Brief:
    """The brief of a span whose item has `size` bytes."""
    facts = {name: _READ[name](value) for name, value in _facts(span.attributes).items()}
    model = facts.pop(semconv.REQUEST_MODEL, "")
    return Brief(
        service=span.resource.service_name[:_NAME_CHARS],
        status_message=(span.status_message or "")[:_MESSAGE_CHARS],
        model=facts.pop(semconv.RESPONSE_MODEL, "") or model,
        events=len(span.events),
        links=len(span.links),
        bytes=size,
        flags=span.flags,
        inject_ordinal=span.inject_ordinal,
        **{_FIELDS[name]: value for name, value in facts.items()},
    )


def light_span(brief: Brief, **fields: Any) -> LightSpan:
    """A LightSpan of a brief and of what the head of the span gives."""
    own = {name: getattr(brief, name) for name in Brief.__struct_fields__}
    return LightSpan(**own, **fields)


class Labels:
    """The labels of one trace. The result does not depend on the order in which spans are added."""

    __slots__ = ("_resources", "attributes", "values")

    def __init__(self) -> None:
        self.values: dict[LabelKind, set[str]] = {}
        """The values by kind, attributes excepted."""
        self.attributes: set[str] = set()
        """`key=value` of each attribute."""
        self._resources: dict[int, Resource] = {}
        """By identity; the object is kept, so that its identity is not used again."""

    def add(self, span: SpanData) -> None:
        """Add the labels of a span and of its resource."""
        self._add_all(span.attributes)
        if id(span.resource) not in self._resources:
            self._resources[id(span.resource)] = span.resource
            self._add_resource(span.resource)

    def add_service(self, service: str) -> None:
        """Add the service that a decision names."""
        self.values.setdefault("service", set()).add(service[:_NAME_CHARS])

    def tokens(self) -> set[str]:
        """All labels as tokens, within their bounds."""
        found: set[str] = set()
        for kind, values in self.values.items():
            found.update(_tokens(kind, values, KIND_LABELS))
        found.update(_tokens("attribute", self.attributes, ATTRIBUTE_LABELS))
        return found

    def listed(self) -> dict[str, list[str]]:
        """The values by kind for the row of the trace: the first of the alphabet."""
        found = {kind: _least(values - {""}, LISTED) for kind, values in self.values.items()}
        return {kind: values for kind, values in found.items() if values}

    def _add_resource(self, resource: Resource) -> None:
        service = resource.service_name
        if service:
            self.add_service(service)
            self.attributes.add(f"{semconv.SERVICE_NAME}={service[:_NAME_CHARS]}")
        if resource.host:
            self.attributes.add(f"host.name={resource.host[:VALUE_CHARS]}")
        self._add_all(resource.attributes)

    def _add_all(self, attributes: Mapping[Any, Any]) -> None:
        add = self.attributes.add
        for key, value in attributes.items():
            if not isinstance(key, str) or key in _NO_LABEL:
                continue
            name = _aliases.get(key, key)
            kind = _KINDS.get(name)
            for one in value if isinstance(value, list) and len(value) <= LISTED else (value,):
                text = attribute_text(one)
                if text is None:
                    continue
                add(f"{name}={text}")
                if kind is not None and text:
                    self.values.setdefault(kind, set()).add(text[:_NAME_CHARS])


def merged_listed(first: Mapping[str, list[str]], second: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """`Labels.listed` of two parts of one trace."""
    kinds = {**first, **second}
    return {kind: _least({*first.get(kind, ()), *second.get(kind, ())}, LISTED) for kind in kinds}


def attribute_text(value: object) -> str | None:
    """How the value of an attribute is written in `key=value`; None if it is no label: too long, or no plain value."""
    if isinstance(value, str):
        return value if len(value) <= VALUE_CHARS else None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if -_MOST < value < _MOST else None
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() and abs(value) < _MOST else repr(value)
    return None


@lru_cache(maxsize=65_536)
def token(kind: LabelKind, value: str) -> str:
    """A label as a word of 10 letters and digits: 50 bits of a hash, so that one of a million labels fits by chance."""
    digest = blake2b(f"{kind}\0{value}".encode("utf-8", "replace"), digest_size=8).digest()
    bits = int.from_bytes(digest[:7], "big") >> 6
    return "".join((
        _PAIRS[bits >> 40], _PAIRS[bits >> 30 & 1023], _PAIRS[bits >> 20 & 1023], _PAIRS[bits >> 10 & 1023], _PAIRS[bits & 1023]
    ))  # fmt: skip


def _tokens(kind: LabelKind, values: set[str], most: int) -> Iterable[str]:
    """The tokens of the labels of one kind, the least of them if they are too many."""
    found = map(token, repeat(kind), values)
    return found if len(values) <= most else _least(found, most)


def wanted_tokens(where: TraceQuery) -> list[str]:
    """The tokens of every label that a query asks for."""
    wanted: list[tuple[LabelKind, str | None]] = [
        ("service", where.service), ("session", where.session), ("user", where.user), ("model", where.model),
        ("tool", where.tool), ("error_type", where.error_type),
    ]  # fmt: skip
    found = [token(kind, value[:_NAME_CHARS]) for kind, value in wanted if value is not None]
    for pair in where.attributes:
        key, _, value = pair.partition("=")
        found.append(token("attribute", f"{semconv.ALIASES.get(key, key)}={value}"))
    return found


def _least(values: Iterable[str], most: int) -> list[str]:
    return sorted(set(values))[:most]


def _facts(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that a brief needs, by canonical name; a canonical spelling has priority."""
    found: dict[str, Any] = {}
    for key, value in attributes.items():
        name = _CANONICAL.get(key)
        if name is not None and value is not None and (name == key or name not in found):
            found[name] = value
    return found


def _text(value: object) -> str:
    return value[:_NAME_CHARS] if isinstance(value, str) else ""


def _first(value: object) -> object:
    return value[0] if isinstance(value, list) and value else value


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST else None


def _amount(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


_READ: Final[dict[str, Callable[[object], Any]]] = {
    semconv.ERROR_TYPE: _text,
    semconv.AGENT_NAME: _text,
    semconv.REQUEST_MODEL: _text,
    semconv.RESPONSE_MODEL: _text,
    semconv.TOOL_NAME: _text,
    semconv.INPUT_TOKENS: _count,
    semconv.OUTPUT_TOKENS: _count,
    semconv.COST_USD: _amount,
    semconv.FINISH_REASONS: lambda value: _text(_first(value)),
    semconv.RESEND_COUNT: lambda value: _count(value) or 0,
    _HTTP_STATUS: _count,
}
"""Reads the value of a fact; a value of another type is none."""
_FIELDS: Final = {
    semconv.ERROR_TYPE: "error_type",
    semconv.AGENT_NAME: "agent",
    semconv.TOOL_NAME: "tool",
    semconv.INPUT_TOKENS: "input_tokens",
    semconv.OUTPUT_TOKENS: "output_tokens",
    semconv.COST_USD: "cost_usd",
    semconv.FINISH_REASONS: "finish_reason",
    semconv.RESEND_COUNT: "resends",
    _HTTP_STATUS: "http_status",
}
"""The field of a brief with a fact; the model is one of two."""
