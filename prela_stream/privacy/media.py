"""Replaces images, sounds and documents in base64 by a note with their type and size.

It works on plain data, as decoded from MessagePack, so one pass finds the blocks of every API: Anthropic's `source`, OpenAI's
`image_url`, `input_audio`, `file_data` and `b64_json`, Gemini's `inline_data`, Bedrock's `bytes`, and data URLs in any text, JSON
text included.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

_GENERATED: Final = "image_generation_call"
_KEYS: Final = frozenset({"data", "b64_json", "file_data", "bytes"})
"""Keys of media data. Other keys hold it only as a data URL."""
_TYPES: Final = ("media_type", "mime_type", "mimeType", "mediaType", "format", "output_format")
_LEAST: Final = 64
"""A shorter value is not replaced: it may be an id or a digest."""
_LONGEST_TYPE: Final = 100
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{64,}={0,2}")
_NOTE: Final = re.compile(r"\[[^\[\]]*, \d+ bytes\]")
_HEX: Final = re.compile(r"[0-9a-fA-F]+")
_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[^;,\s\"]*)*);base64,([A-Za-z0-9+/_=%-]{64,})")
_IN_JSON: Final = re.compile(
    r'(\\*"(?:data|b64_json|file_data|bytes)\\*"\s*:\s*\\*")([A-Za-z0-9+/_-]{64,}={0,2})(?=\\*")'
)


def may_hold_media(item: bytes) -> bool:
    """Whether an encoded item may contain media: every item with media has one of these marks.

    The fifth is a key as MessagePack writes it.
    """
    # Written out, because it runs once a span: a generator over a tuple takes a third longer.
    return (
        b"base64" in item
        or b"b64_json" in item
        or b"audio" in item
        or b"mime" in item
        or b"\xa5bytes" in item
        or b"image_generation_call" in item
    )


def without_media(value: Any, key: object = None, holder: Mapping[Any, Any] | None = None) -> Any:
    """A copy of plain data with `[image/png, 1234 bytes]` in place of each piece of media.

    Args:
        value: Dicts, lists and scalars.
        key: The key of the value in `holder`.
        holder: The dict that contains the value. Its other keys may name the type.
    """
    if isinstance(value, dict):
        return {key: without_media(part, key, value) for key, part in value.items()}
    if isinstance(value, list):
        return [without_media(part) for part in value]
    if isinstance(value, str) and key == "data" and holder is not None and holder.get("type") == "base64":
        return value if _NOTE.fullmatch(value) else _note(_type_in(holder), decoded_size(value))
    if isinstance(value, str) and len(value) >= _LEAST:
        named = key in _KEYS or (key == "result" and holder is not None and holder.get("type") == _GENERATED)
        if named and _BASE64.fullmatch(value) and not _HEX.fullmatch(value):
            return _note(_type_in(holder), decoded_size(value))
        return _without_media_text(value)
    if isinstance(value, bytes) and len(value) >= _LEAST and key in _KEYS:
        return _note(_type_in(holder), len(value))
    return value


def _without_media_text(text: str) -> str:
    if ";base64," in text:
        text = _DATA_URL.sub(lambda found: _note(found[1] or "text/plain", decoded_size(found[3])), text)
    if '"' in text:
        text = _IN_JSON.sub(lambda found: f"{found[1]}{_note(None, decoded_size(found[2]))}", text)
    return text


def _type_in(holder: Mapping[Any, Any] | None) -> str | None:
    for key in _TYPES:
        if holder is not None and isinstance(kind := holder.get(key), str):
            return kind if len(kind) <= _LONGEST_TYPE else None
    return None


def _note(kind: str | None, size: int | None) -> str:
    return f"[{kind or 'media'}, {size} bytes]"


def decoded_size(data: object) -> int | None:
    """Bytes that a base64 text represents; None if `data` is no text."""
    return len(data.rstrip("=")) * 3 // 4 if isinstance(data, str) else None
