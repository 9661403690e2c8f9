"""The attributes of a span, without its ids: a JSON map with dotted names, as the test data of converters has it.

Its ids are hashes of the map. It has no times.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from prela_stream.otel.evidence import EVIDENCE, may_be_model_call
from prela_stream.otel.spans import ForeignSpan, Rejected

_KINDS: Final = tuple(key for key, _ in EVIDENCE if "." in key)


def recognised(document: Any) -> bool:
    """Whether a document is a map of attributes, of which some state the kind of work, or a list of such maps."""
    several = document if isinstance(document, list) else [document]
    return bool(several) and all(isinstance(one, Mapping) and _is_evident(_attributes(one)) for one in several)


def read(document: Any) -> Iterator[ForeignSpan | Rejected]:
    """The spans that have these attributes."""
    for one in document if isinstance(document, list) else [document]:
        content = msgspec.json.encode(one, order="deterministic")
        attributes = {str(key): value for key, value in _attributes(one).items()}
        kind = next((str(attributes[key]) for key in _KINDS if isinstance(attributes.get(key), str)), "")
        yield ForeignSpan(
            trace_id=hashlib.blake2b(content, digest_size=16, person=b"trace").digest(),
            span_id=hashlib.blake2b(content, digest_size=8, person=b"span").digest(),
            name=name if isinstance(name := one.get("name"), str) else kind,
            end_ns=0,
            attributes=attributes,
        )


def _is_evident(attributes: Mapping[Any, Any]) -> bool:
    return any(isinstance(attributes.get(key), str) for key in _KINDS) or may_be_model_call(attributes.keys())


def _attributes(one: Mapping[str, Any]) -> Mapping[Any, Any]:
    """The map itself, or its `attributes`: a span without ids."""
    inner = one.get("attributes")
    return inner if isinstance(inner, Mapping) else one
