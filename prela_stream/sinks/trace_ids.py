"""Trace ids as users write them: complete, or the first digits. Pure."""

import re
from typing import Final

from prela_stream.errors import ConfigurationError

_PREFIX: Final = re.compile(r"[0-9a-f]{4,32}")


def id_range(prefix: str) -> tuple[bytes, bytes]:
    """The smallest and the largest trace id that begin with these hex digits; raises ConfigurationError."""
    digits = prefix.lower()
    if not _PREFIX.fullmatch(digits):
        msg = f"a trace id is 32 hex digits, or at least the first 4 of them, got {prefix!r}"
        raise ConfigurationError(msg)
    return bytes.fromhex(digits.ljust(32, "0")), bytes.fromhex(digits.ljust(32, "f"))


def only_id(found: list[bytes], prefix: str) -> bytes | None:
    """The id that was found; None if none was. Raises ConfigurationError if there are several."""
    if len(found) > 1:
        msg = f"several trace ids begin with {prefix!r}, for instance {found[0].hex()} and {found[1].hex()}"
        raise ConfigurationError(msg)
    return found[0] if found else None
