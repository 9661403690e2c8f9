"""What the formats of all topics share: the version byte, the header that names a format, and strict decoding."""

from typing import Final, TypeVar

import msgspec

from prela_stream.errors import CodecError
from prela_stream.transport.base import UNREAD, why_unread

T = TypeVar("T")

VERSION: Final = 1
FORMAT_HEADER: Final = "prela-format"
GROUP_HEADER: Final = "prela-group"
"""Names the consumer group whose worker wrote a record: two groups may decide about the spans of one prefix."""
PREFIX: Final = bytes([VERSION])
READ_ERRORS: Final = (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what its decoder expects."""


def check_version(view: memoryview) -> None:
    """Raise CodecError unless the value starts with the version byte of this release."""
    if not view:
        msg = "an empty value; expected a version byte and a MessagePack array"
        raise CodecError(msg)
    if view[0] == UNREAD:
        raise CodecError(why_unread(view)[0])
    if view[0] != VERSION:
        msg = f"format version {view[0]} is not known; this release reads version {VERSION}"
        raise CodecError(msg)


def read_versioned(decoder: msgspec.msgpack.Decoder[T], value: bytes | memoryview, what: str) -> T:
    """Decode a record's value after its version byte; raises CodecError that names `what`."""
    view = memoryview(value)
    check_version(view)
    return read(decoder, view[1:], what)


def read(decoder: msgspec.msgpack.Decoder[T], raw: bytes | memoryview | msgspec.Raw, what: str) -> T:
    """Decode MessagePack; raises CodecError that names `what`."""
    try:
        return decoder.decode(raw)
    except READ_ERRORS as error:
        msg = f"cannot read {what}: {error}"
        raise CodecError(msg) from error
