"""The member `ot` of `tracestate`: threshold and randomness (OpenTelemetry "TraceState: Probability Sampling")."""

import re
from typing import Final

from prela_stream.model.decision import parse_threshold
from prela_stream.model.ids import RANDOMNESS_BITS

_DIGITS: Final = RANDOMNESS_BITS // 4
_HEX: Final = re.compile(r"[0-9a-f]{1,14}\Z")


def read_ot(value: str) -> tuple[str, int | None, int | None]:
    """The rest of `ot`, its threshold and its randomness. Invalid values are None."""
    threshold = randomness = None
    rest: list[str] = []
    for part in value.split(";"):
        key, _, text = part.partition(":")
        if key == "th":
            threshold = parse_threshold(text)
        elif key == "rv":
            randomness = int(text, 16) if _HEX.match(text) and len(text) == _DIGITS else None
        elif part:
            rest.append(part)
    return ";".join(rest), threshold, randomness


def read_odds(tracestate: str) -> tuple[int | None, int | None]:
    """Threshold and randomness of a `tracestate` header; None for what it does not have."""
    for part in tracestate.split(","):
        key, _, value = part.strip(" \t").partition("=")
        if key == "ot":
            return read_ot(value)[1:]
    return None, None
