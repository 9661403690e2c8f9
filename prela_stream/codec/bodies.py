"""Checks the body of a span completely, so that every later reader can read each of its values.

Readers decode a body, write it as JSON, or do both. A body that one of them would reject must not be stored.
"""

from typing import Any, Final

import msgspec

from prela_stream.codec.versions import READ_ERRORS, read
from prela_stream.errors import CodecError
from prela_stream.model.span import EMPTY_ARRAY, SpanEvent, SpanHead, SpanLink

MAX_NESTING: Final = 200
"""Most levels of arrays and maps in a body. Decoders and encoders recurse, so their limit depends on the caller's stack."""
attributes_decoder: Final = msgspec.msgpack.Decoder(dict[str, Any])
events_decoder: Final = msgspec.msgpack.Decoder(list[SpanEvent])
links_decoder: Final = msgspec.msgpack.Decoder(list[SpanLink])
_json: Final = msgspec.json.Encoder()


def check_bodies(head: SpanHead) -> None:
    """Raise CodecError unless every value of the attributes, events and links can be read and written as JSON.

    Args:
        head: A decoded item whose bodies are still bytes.
    """
    attributes = read(attributes_decoder, head.attributes, "attributes")
    events = [] if head.events == EMPTY_ARRAY else read(events_decoder, head.events, "events")
    links = [] if head.links == EMPTY_ARRAY else read(links_decoder, head.links, "links")
    if problem := _problem([attributes, *(event.attributes for event in events), *(link.attributes for link in links)]):
        msg = f"cannot read attributes: {problem}"
        raise CodecError(msg)


def is_readable(value: object) -> bool:
    """Whether a decoded attribute value can be written as JSON and is not nested too deep."""
    return _problem([value]) is None


def _problem(bodies: list[Any]) -> str | None:
    try:
        text = _json.encode(bodies)
    except (TypeError, *READ_ERRORS) as error:  # extension types, and keys that are neither text nor numbers
        return str(error)
    if text.count(b"[") + text.count(b"{") > MAX_NESTING and _is_deeper(bodies, MAX_NESTING):
        return f"they are nested deeper than {MAX_NESTING} levels"
    return None


def _is_deeper(bodies: list[Any], levels: int) -> bool:
    containers = [body for body in bodies if isinstance(body, dict | list)]
    for _ in range(levels):
        parts = (part for one in containers for part in (one.values() if isinstance(one, dict) else one))
        containers = [part for part in parts if isinstance(part, dict | list)]
        if not containers:
            return False
    return True
