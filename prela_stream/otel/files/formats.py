"""Recognises the format of a file and reads its spans."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from prela_stream.errors import CodecError
from prela_stream.otel.files import (
    atof,
    attribute_map,
    jaeger,
    js_objects,
    langfuse,
    otlp_json,
    sdk_spans,
    swe_agent,
    zipkin,
)
from prela_stream.otel.files.documents import decoded, one_after_the_other, text_of
from prela_stream.otel.files.langfuse_table import observations_of
from prela_stream.otel.spans import ForeignSpan, Rejected
from prela_stream.otel.values import parsed

Reader = Callable[[Any], Iterator[ForeignSpan | Rejected]]

FORMATS: Final[dict[str, tuple[Callable[[Any], bool], Reader]]] = {
    "otlp": (otlp_json.recognised, otlp_json.read),
    "jaeger": (jaeger.recognised, jaeger.read),
    "langfuse": (langfuse.recognised, langfuse.read),
    "atof": (atof.recognised, atof.read),
    "sdk": (sdk_spans.recognised, sdk_spans.read),
    "zipkin": (zipkin.recognised, zipkin.read),
    "swe-agent": (swe_agent.recognised, swe_agent.read),
    "attributes": (attribute_map.recognised, attribute_map.read),
}
"""In the order in which they are tried. A new format is a module and a line here."""
_JOINED: Final = ("atof", "zipkin")
"""Formats in which one span may be on several lines."""
_WRAPPERS: Final = ("payload", "value", "message", "@message", "log", "event", "trace", "traces", "results", "data")
"""Keys under which tools that read topics and logs have a document, decoded or as a text, and others a trace."""
_MOST_WRAPPERS: Final = 3
_INDEX: Final = re.compile(r"^\$\[(\d+)\]")


def read_text(data: bytes) -> Iterator[ForeignSpan | Rejected]:
    """The spans of a file: one JSON document, one document on each line, or documents one after the other; gzip, zstd or neither.

    Raises:
        CodecError: It cannot be decompressed, or is too large. No line is JSON, or no part of it is a known format. The message
            names what was expected.
    """
    data = text_of(data)
    try:
        document = decoded(data)
    except CodecError as error:
        yield from _several(data, str(error))
        return
    yield from _document(document)


def _several(data: bytes, problem: str) -> Iterator[ForeignSpan | Rejected]:
    if table := observations_of(data):
        yield from _each(table)
        return
    documents, bad = _on_lines(data)
    after: list[Rejected] = []
    if bad:
        found, after = one_after_the_other(data)
        if found and (not after or not documents or found[0] != documents[0]):
            documents, bad = found, [one for one in bad if _line(one.place) < found[0][0]][:1]
        else:
            after = []
    if not documents and (printed := _printed_by_node(data)):
        documents, bad = printed, []
    if not documents:
        msg = f"neither a JSON document nor lines of JSON: {problem}"
        raise CodecError(msg)
    yield from bad
    if joined := _joined(documents):
        yield from joined
    else:
        yield from _each(documents)
    yield from after


def _each(documents: Sequence[tuple[int, Any]]) -> Iterator[ForeignSpan | Rejected]:
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


def _on_lines(data: bytes) -> tuple[list[tuple[int, Any]], list[Rejected]]:
    documents: list[tuple[int, Any]] = []
    bad: list[Rejected] = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            document = decoded(line)
        except CodecError as error:
            bad.append(Rejected(place=f"line {number}", reason=f"not JSON: {error}"))
            continue
        if isinstance(document, dict | list | str):
            documents.append((number, document))
        else:
            bad.append(Rejected(place=f"line {number}", reason=f"expected an object, found {document!r:.20}"))
    if all(isinstance(document, str) and not document.startswith(("{", "[")) for _, document in documents):
        bad += [Rejected(place=f"line {number}", reason="expected an object, found a text") for number, _ in documents]
        documents = []
    return documents, bad


def _line(place: str) -> int:
    return int(place.partition(" ")[2])


def _joined(documents: Sequence[tuple[int, Any]]) -> Iterator[ForeignSpan | Rejected] | None:
    """The spans of lines that belong together; None if they are of another format."""
    for name in _JOINED:
        read = FORMATS[name][1]
        if all(isinstance(document, dict) and _format_of(document) == name for _, document in documents):
            return _with_lines(read([document for _, document in documents]), [number for number, _ in documents])
    return None


def _with_lines(found: Iterator[ForeignSpan | Rejected], numbers: Sequence[int]) -> Iterator[ForeignSpan | Rejected]:
    for one in found:
        if isinstance(one, Rejected) and (index := _INDEX.match(one.place)):
            place = f"line {numbers[int(index[1])]}: ${one.place[index.end() :]}"
            yield Rejected(place=place, reason=one.reason)
        else:
            yield one


def _printed_by_node(data: bytes) -> list[tuple[int, Any]]:
    """As `one_after_the_other`, of objects as Node prints them."""
    found: list[tuple[int, Any]] = []
    try:
        text = data.decode()
        line, counted = 1, 0
        for at, document in js_objects.objects(text):
            line, counted = line + text.count("\n", counted, at), at
            found.append((line, document))
    except UnicodeDecodeError:
        return []
    except js_objects.NotAnObjectError as error:
        if found:
            found.append((found[-1][0], f"no object of JavaScript follows: {error}"))
    return found


def _at_line(one: ForeignSpan | Rejected, number: int) -> ForeignSpan | Rejected:
    return Rejected(place=f"line {number}: {one.place}", reason=one.reason) if isinstance(one, Rejected) else one


def _format_of(document: Any) -> str | None:
    return next((name for name, (recognised, _) in FORMATS.items() if recognised(document)), None)


def _document(document: Any, depth: int = 0) -> Iterator[ForeignSpan | Rejected]:
    if (name := _format_of(document)) is not None:
        yield from FORMATS[name][1](document)
    elif depth < _MOST_WRAPPERS and (inner := _unwrapped(document)) is not None:
        yield from _document(inner, depth + 1)
    else:
        msg = f"not a trace of a known format; expected one of {', '.join(FORMATS)}"
        raise CodecError(msg)


def _unwrapped(document: Any) -> Any:
    """A document that is in a text, under one of `_WRAPPERS`, or under keys that are names; None if there is none."""
    if isinstance(document, Mapping):
        if len(document) > 1 and all(isinstance(one, dict | list) for one in document.values()):
            several = [one if isinstance(one, list) else [one] for one in document.values()]
            return [one for group in several for one in group]
        document = next((document[key] for key in _WRAPPERS if isinstance(document.get(key), dict | list | str)), None)
        return parsed(document) if isinstance(document, str) else document
    return found if isinstance(document, str) and (found := parsed(document)) is not document else None
