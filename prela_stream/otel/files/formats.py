"""Recognises the format of a file and reads its spans."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from prela_stream.errors import CodecError
from prela_stream.otel.files import jaeger, langfuse, otlp_json, sdk_spans, zipkin
from prela_stream.otel.spans import ForeignSpan, Rejected

Reader = Callable[[Any], Iterator[ForeignSpan | Rejected]]

FORMATS: Final[dict[str, tuple[Callable[[Any], bool], Reader]]] = {
    "otlp": (otlp_json.recognised, otlp_json.read),
    "jaeger": (jaeger.recognised, jaeger.read),
    "langfuse": (langfuse.recognised, langfuse.read),
    "sdk": (sdk_spans.recognised, sdk_spans.read),
    "zipkin": (zipkin.recognised, zipkin.read),
}
"""In the order in which they are tried. A new format is a module and a line here."""


def read_text(data: bytes) -> Iterator[ForeignSpan | Rejected]:
    """The spans of a file: one JSON document, or one document on each line.

    Raises:
        CodecError: No line is JSON, or no part of it is a known format. The message names what was expected.
    """
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        yield from _lines(data, str(error))
        return
    yield from _document(document)


def _lines(data: bytes, problem: str) -> Iterator[ForeignSpan | Rejected]:
    lines = [(number, line) for number, line in enumerate(data.splitlines(), 1) if line.strip()]
    documents: list[tuple[int, Any]] = []
    bad: list[Rejected] = []
    for number, line in lines:
        try:
            documents.append((number, msgspec.json.decode(line)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            bad.append(Rejected(place=f"line {number}", reason=f"not JSON: {error}"))
    if not documents:
        msg = f"neither a JSON document nor lines of JSON: {problem}"
        raise CodecError(msg)
    yield from bad
    known = False
    for number, document in documents:
        try:
            for one in _document(document):
                known = known or isinstance(one, ForeignSpan)
                yield _at_line(one, number)
        except CodecError as error:
            yield Rejected(place=f"line {number}", reason=str(error))
    if not known:
        msg = f"no line is a document of a known format ({', '.join(FORMATS)})"
        raise CodecError(msg)


def _at_line(one: ForeignSpan | Rejected, number: int) -> ForeignSpan | Rejected:
    return Rejected(place=f"line {number}: {one.place}", reason=one.reason) if isinstance(one, Rejected) else one


def _document(document: Any) -> Iterator[ForeignSpan | Rejected]:
    for recognised, read in FORMATS.values():
        if recognised(document):
            yield from read(document)
            return
    msg = f"not a trace of a known format; expected one of {', '.join(FORMATS)}"
    raise CodecError(msg)
