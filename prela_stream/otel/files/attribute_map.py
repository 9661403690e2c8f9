"""The attributes of one span, without the span: a JSON map with dotted names, as the test data of converters has it.

Its ids are hashes of the document. It has no times.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from prela_stream.otel.evidence import EVIDENCE
from prela_stream.otel.spans import ForeignSpan, Rejected

_KINDS: Final = tuple(key for key, _ in EVIDENCE if "." in key)


def recognised(document: Any) -> bool:
    """Whether a document is a map of attributes, of which one names the kind of work."""
    return isinstance(document, Mapping) and any(isinstance(document.get(key), str) for key in _KINDS)


def read(document: Any) -> Iterator[ForeignSpan | Rejected]:
    """The span that has these attributes."""
    content = msgspec.json.encode(document, order="deterministic")
    kind = next(str(document[key]) for key in _KINDS if isinstance(document.get(key), str))
    yield ForeignSpan(
        trace_id=hashlib.blake2b(content, digest_size=16, person=b"trace").digest(),
        span_id=hashlib.blake2b(content, digest_size=8, person=b"span").digest(),
        name=kind,
        end_ns=0,
        attributes={str(key): value for key, value in document.items()},
    )
