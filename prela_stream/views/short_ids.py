"""Short trace ids that people read and paste: the same in every command and on the page. Pure."""

from collections.abc import Iterable
from typing import Final

SHORT_ID: Final = 12
"""Digits of a short id: the chance that two of a million traces share them is 1 in 280,000,000 for each trace."""
_ZEROS: Final = "0" * 16


def short_id(trace_id: str) -> str:
    """The first digits of an id; of an id of 64 bits, which begins with 16 zeros, the first digits after them too."""
    return trace_id[: SHORT_ID + (len(_ZEROS) if trace_id.startswith(_ZEROS) else 0)]


def short_ids(trace_ids: Iterable[str]) -> dict[str, str]:
    """The first digits of each id: as many as `short_id` has, and as many as are unique among these ids."""
    ids = sorted(set(trace_ids))
    found = {}
    for at, trace_id in enumerate(ids):
        around = [ids[near] for near in (at - 1, at + 1) if 0 <= near < len(ids)]
        length = len(short_id(trace_id))
        while length < len(trace_id) and any(other.startswith(trace_id[:length]) for other in around):
            length += 1
        found[trace_id] = trace_id[:length]
    return found
