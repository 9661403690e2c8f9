"""What every transport refuses before anything is written."""

from typing import Final

from prela_stream.errors import TransportError

METADATA_BYTES: Final = 4_000
"""Less than a Kafka broker takes with an offset by default (offset.metadata.max.bytes, 4,096)."""


def check_committed(offset: int, metadata: str) -> None:
    """Raise TransportError if this cannot be committed."""
    size = len(metadata.encode())
    if size > METADATA_BYTES:
        msg = (
            f"expected at most {METADATA_BYTES:,} bytes of metadata with an offset, got {size:,}; nothing was committed"
        )
        raise TransportError(msg)
    if offset < 0:
        msg = f"expected an offset of 0 or more, got {offset}; nothing was committed"
        raise TransportError(msg)
