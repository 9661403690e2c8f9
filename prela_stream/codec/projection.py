"""Decoders for chosen attribute keys only; msgspec skips all others in C."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, TypedDict

import msgspec

from prela_stream.codec.versions import read


def projection(keys: Iterable[str]) -> Callable[[bytes | msgspec.Raw], dict[str, Any]]:
    """A decoder for these attribute keys.

    The returned function takes the bytes of an attribute map and returns the attributes with these keys. It raises CodecError if
    the bytes are not a map.
    """
    some: Any = selection(keys)
    if some is None:
        return lambda _: {}
    decoder: msgspec.msgpack.Decoder[dict[str, Any]] = msgspec.msgpack.Decoder(some)
    return lambda raw: read(decoder, raw, "attributes")


def selection(keys: Iterable[str]) -> Any:
    """The type of an attribute map of which only these keys are decoded; None if there are none."""
    wanted = sorted(set(keys))
    return _type_of(tuple(wanted)) if wanted else None


@lru_cache(maxsize=16)  # every partition of a worker reads the same keys
def _type_of(wanted: tuple[str, ...]) -> Any:
    # msgspec decodes a TypedDict to a dict of the present keys, five times as fast as reading each field of a Struct.
    # It compares keys by the cached UTF-8 form of a str; a non-ASCII str has none until it was encoded once.
    msgspec.msgpack.encode(wanted)
    some: Any = TypedDict("some", dict.fromkeys(wanted, Any), total=False)  # type: ignore[misc] # its fields are known only now
    return some
