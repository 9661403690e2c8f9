"""The `tracestate` header: reads and writes OpenTelemetry's `ot` and our member, and keeps the members of other vendors.

Our member is `prela=<parent span id>-<ordinal>`. It contains the span id, because a process without this SDK forwards
`tracestate` unchanged below its own span. The ordinal then belongs to another parent, and must not be used.

Source: W3C Trace Context level 2, section 3.3; OpenTelemetry "TraceState: Probability Sampling".
"""

import re
from typing import Final, NamedTuple

from prela_stream.model.decision import format_threshold
from prela_stream.model.ids import RANDOMNESS_BITS
from prela_stream.model.ot_member import read_ot

MEMBER: Final = "prela"
_OT: Final = "ot"
_MAX_MEMBERS: Final = 32
_MAX_LENGTH: Final = 512
_LONG: Final = 128
_DIGITS: Final = RANDOMNESS_BITS // 4
_KEY: Final = re.compile(r"[a-z0-9][a-z0-9_\-*/]{0,255}(@[a-z][a-z0-9_\-*/]{0,13})?\Z")
_VALUE: Final = re.compile(r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]\Z")
_MEMBER_VALUE: Final = re.compile(r"([0-9a-f]{16})-(0|[1-9][0-9]{0,8})\Z")


class TraceState(NamedTuple):
    """A `tracestate` header, parsed."""

    others: tuple[tuple[str, str], ...] = ()
    """Members of other vendors, in order; and `ot` without `th` and `rv`, unless nothing remains of it."""
    threshold: int | None = None
    randomness: int | None = None
    parent_span_id: bytes | None = None
    """The span to whose injects `ordinal` belongs."""
    ordinal: int | None = None


def parse(header: str) -> TraceState:
    """Read a header; never raises. Invalid members are ignored, and all but the first of a repeated key."""
    state = TraceState()
    seen: set[str] = set()
    others: list[tuple[str, str]] = []
    for part in header.split(",")[: 2 * _MAX_MEMBERS]:
        key, _, value = part.strip(" \t").partition("=")
        if key in seen or not (_KEY.match(key) and _VALUE.match(value)):
            continue
        seen.add(key)
        if key == MEMBER:
            if found := _MEMBER_VALUE.match(value):
                state = state._replace(parent_span_id=bytes.fromhex(found[1]), ordinal=int(found[2]))
        elif key == _OT:
            rest, threshold, randomness = read_ot(value)
            state = state._replace(threshold=threshold, randomness=randomness)
            if rest:
                others.append((key, rest))
        else:
            others.append((key, value))
    return state._replace(others=tuple(others[:_MAX_MEMBERS]))


def render(state: TraceState) -> str:
    """The header: our member, then `ot`, then the others, within 32 members and 512 characters. May be empty."""
    members: list[tuple[str, str]] = []
    if state.parent_span_id is not None and state.ordinal is not None:
        members.append((MEMBER, f"{state.parent_span_id.hex()}-{state.ordinal}"))
    ot = [] if state.threshold is None else [f"th:{format_threshold(state.threshold)}"]
    if state.randomness is not None:
        ot.append(f"rv:{state.randomness:0{_DIGITS}x}")
    ot += [value for key, value in state.others if key == _OT]
    if ot:
        members.append((_OT, ";".join(ot)))
    texts = [f"{key}={value}" for key, value in (*members, *(pair for pair in state.others if pair[0] != _OT))]
    own = len(members)
    if len(",".join(texts)) > _MAX_LENGTH:
        # W3C: remove members of more than 128 characters first, then the last ones.
        texts = texts[:own] + [text for text in texts[own:] if len(text) <= _LONG]
    texts = texts[:_MAX_MEMBERS]
    while len(texts) > own and len(",".join(texts)) > _MAX_LENGTH:
        texts.pop()
    return ",".join(texts)
