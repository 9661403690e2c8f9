"""Recognises the format of a file and reads its spans."""

import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

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
from prela_stream.otel.spans import ForeignSpan, Rejected

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
_BOM: Final = b"\xef\xbb\xbf"
_GZIP: Final = b"\x1f\x8b"
_MOST_BYTES: Final = 2 << 30
"""Of a file, decompressed: its spans take several times as much memory."""
_TEXT: Final = re.compile(r"\S")
_INDEX: Final = re.compile(r"^\$\[(\d+)\]")


def read_text(data: bytes) -> Iterator[ForeignSpan | Rejected]:
    """The spans of a file: one JSON document, one document on each line, or documents one after the other; gzip or not.

    Raises:
        CodecError: It begins like gzip and is none, or is too large. No line is JSON, or no part of it is a known format. The
            message names what was expected.
    """
    if data.startswith(_GZIP):
        data = _gunzip(data)
    data = data.removeprefix(_BOM)
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        yield from _lines(data, str(error))
        return
    yield from _document(document)


def _gunzip(data: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as file:
            found = file.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        msg = f"the file begins like gzip data, which cannot be decompressed: {error}"
        raise CodecError(msg) from error
    if len(found) > _MOST_BYTES:
        msg = f"the file has more than {_MOST_BYTES:,} bytes after decompression: split it into several files"
        raise CodecError(msg)
    return found


def _lines(data: bytes, problem: str) -> Iterator[ForeignSpan | Rejected]:
    lines = [(number, line) for number, line in enumerate(data.splitlines(), 1) if line.strip()]
    documents: list[tuple[int, Any]] = []
    bad: list[Rejected] = []
    for number, line in lines:
        try:
            documents.append((number, msgspec.json.decode(line)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            bad.append(Rejected(place=f"line {number}", reason=f"not JSON: {error}"))
    if not documents and (several := _one_after_the_other(data) or _printed_by_node(data)):
        documents, bad = several, []
    if not documents:
        msg = f"neither a JSON document nor lines of JSON: {problem}"
        raise CodecError(msg)
    yield from bad
    if joined := _joined(documents):
        yield from joined
        return
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


def _joined(documents: Sequence[tuple[int, Any]]) -> Iterator[ForeignSpan | Rejected] | None:
    """The spans of lines that belong together; None if they are of another format."""
    for name in _JOINED:
        recognised, read = FORMATS[name]
        if all(isinstance(document, dict) and recognised(document) for _, document in documents):
            return _with_lines(read([document for _, document in documents]), [number for number, _ in documents])
    return None


def _with_lines(found: Iterator[ForeignSpan | Rejected], numbers: Sequence[int]) -> Iterator[ForeignSpan | Rejected]:
    for one in found:
        if isinstance(one, Rejected) and (index := _INDEX.match(one.place)):
            place = f"line {numbers[int(index[1])]}: ${one.place[index.end() :]}"
            yield Rejected(place=place, reason=one.reason)
        else:
            yield one


def _one_after_the_other(data: bytes) -> list[tuple[int, Any]]:
    """Documents that follow one another, each over several lines, with their first lines. Python's SDK prints spans so.

    Empty if the first is none. A document that cannot be read ends the list with a text, which is no document.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return []
    decoder, at, line, counted = json.JSONDecoder(), 0, 1, 0
    found: list[tuple[int, Any]] = []
    while (start := _TEXT.search(text, at)) is not None:
        at = start.start()
        line, counted = line + text.count("\n", counted, at), at
        try:
            document, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            if found:
                found.append((line, f"not JSON: {error}"))
            break
        found.append((line, document))
    return found


def _printed_by_node(data: bytes) -> list[tuple[int, Any]]:
    """As `_one_after_the_other`, of objects as Node prints them."""
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


def _document(document: Any) -> Iterator[ForeignSpan | Rejected]:
    for recognised, read in FORMATS.values():
        if recognised(document):
            yield from read(document)
            return
    msg = f"not a trace of a known format; expected one of {', '.join(FORMATS)}"
    raise CodecError(msg)
