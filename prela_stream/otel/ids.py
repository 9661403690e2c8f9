"""Trace and span ids in every form that a format uses: hex, base64, decimal numbers and bytes."""

import base64
import binascii
import hashlib
import re
from typing import Final

from prela_stream.errors import CodecError

_HEX: Final = re.compile(r"(?:0[xX])?[0-9a-fA-F]+")


def id_of(value: object, size: int, what: str) -> bytes:
    """The bytes of an id.

    Args:
        value: Bytes, hex of any case (shorter ids are padded with zeros on the left, as in B3), standard or URL-safe base64, or a
            decimal number, as text only if it is too long for hex.
        size: 16 for a trace id, 8 for a span id.
        what: For the error: `trace id` or `span id`.

    Raises:
        CodecError: It is none of these, or is all zeros, which W3C Trace Context forbids.
    """
    found = _bytes_of(value, size)
    if found is None:
        msg = f"the {what} {_shown(value)} is not {size * 2} hex digits, base64 of {size} bytes, or a number"
        raise CodecError(msg)
    if not any(found):
        msg = f"the {what} is all zeros"
        raise CodecError(msg)
    return found


def _bytes_of(value: object, size: int) -> bytes | None:
    if isinstance(value, bytes):
        return value if len(value) == size else None
    if isinstance(value, int) and not isinstance(value, bool):
        return value.to_bytes(size, "big") if 0 <= value < 1 << (8 * size) else None
    if not isinstance(value, str):
        return None
    text = value.strip().replace("-", "") if len(value) == 36 and size == 16 else value.strip()
    if _HEX.fullmatch(text):
        digits = text[2:] if text[:2].lower() == "0x" else text
        if len(digits) <= size * 2:
            return bytes.fromhex(digits.zfill(size * 2))
        if text.isdigit() and len(text) > size * 2 and int(text) < 1 << (8 * size):  # decimal, as text
            return int(text).to_bytes(size, "big")
        if len(digits) == 32 and size == 8:  # a 64-bit id that was padded to 128 bits
            return bytes.fromhex(digits[16:]) if digits[:16].strip("0") == "" else None
    return _base64(text, size)


def _base64(text: str, size: int) -> bytes | None:
    plain = text.replace("-", "+").replace("_", "/").rstrip("=")
    if len(plain) != -(-size * 4 // 3):
        return None
    try:
        found = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return found if len(found) == size else None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def id_or_hash(value: object, size: int, what: str) -> bytes:
    """As `id_of`; a text of another form, such as a name, gives the start of its BLAKE2b hash. Raises CodecError for no text."""
    try:
        return id_of(value, size, what)
    except CodecError:
        if not isinstance(value, str) or not value.strip("0- "):
            raise
    return hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=size).digest()
