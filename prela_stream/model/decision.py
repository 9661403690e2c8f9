"""A decision about a whole trace, why it was taken, and the arithmetic that makes its weight honest.

The arithmetic stands here and nowhere else: a policy says with which probability a trace should be kept, `threshold_of` turns
that into OpenTelemetry's rejection threshold, and both the test and the weight use that same threshold.
"""

import enum
import re
from hashlib import blake2b
from typing import Final

import msgspec

from prela_stream.model.ids import RANDOMNESS_BITS, RANDOMNESS_RANGE

_TH_DIGITS: Final = 4
_TH_FORM: Final = re.compile("[0-9a-f]{1,14}")


class Trigger(enum.StrEnum):
    """Why a trace was decided when it was."""

    COMPLETE = "complete"
    """Every counted span has arrived, and nothing new for `settle`."""
    REMOTE_WAIT = "remote_wait"
    """Whole but for contexts that other processes never answered."""
    ROOT_WAIT = "root_wait"
    """The root ended, the tree is not whole, and nothing came any more."""
    IDLE = "idle"
    """Nothing came any more, and no root."""
    LOST = "lost"
    """The heartbeats of an open span stopped: its process died."""
    MAX_AGE = "max_age"
    MAX_SPANS = "max_spans"
    MAX_BYTES = "max_bytes"


class TraceSummary(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What is worth knowing of a trace that may be gone. Tokens count each leaf LLM call once."""

    root_name: str = ""
    service: str = ""
    start_ns: int = 0
    duration_ns: int = 0
    spans: int = 0
    errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    """None: unknown, never 0 for unknown."""
    shape_hash: str = ""
    """Hex of the tree's shape: types and names, without order, times or ids."""


class Decision(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The verdict on one trace, as written to `decisions` (docs/wire.md). Fields are only ever appended."""

    trace_id: bytes
    decision_id: bytes
    """16 bytes, `decision_id_of`."""
    kept: bool
    probability: float
    """Probability with which traces like this one are kept: (2**56 - threshold) / 2**56."""
    threshold: int
    """Kept iff randomness >= threshold; 56 bits; 2**56 stands for never."""
    weight: float
    """How many traces this one stands for: 1 / probability if kept; 0 if dropped or decided a second time."""
    policy: str
    """Name of the policy that set the probability."""
    reason: str
    trigger: Trigger
    complete: bool
    """Whether every span that was counted had arrived."""
    first_offset: int
    """Offset of the Record that held the trace's first item."""
    cut_offset: int
    """Items in Records below this offset are in the decision; later ones are late."""
    decided_at_ms: int
    """Stream time of the decision, ms since the epoch."""
    policy_version: str
    """Content hash of the policy set."""
    summary: TraceSummary = TraceSummary()
    weight_biased: bool = False
    """Spans disagreed on the head-sampling threshold: the weight is an estimate."""
    repeated: bool = False
    """The trace had been decided before, longer than `late_window` ago."""

    @property
    def trace_id_hex(self) -> str:
        """The trace id as people write it: 32 lower-case hex digits."""
        return self.trace_id.hex()


def decision_id_of(topic: str, partition: int, trace_id: bytes, first_offset: int) -> bytes:
    """16 bytes that name a decision, the same in every replay: blake2b over where the trace began."""
    digest = blake2b(digest_size=16)
    digest.update(f"{topic}\0{partition}\0{first_offset}\0".encode())
    digest.update(trace_id)
    return digest.digest()


def threshold_of(probability: float) -> int:
    """The rejection threshold T = (1 - p) * 2**56, rounded to the form that `ot=th` writes.

    `ot=th` carries up to 14 hex digits without trailing zeros. We emit at most four of them past the leading `f`s, the
    precision that OpenTelemetry recommends, and use that rounded T for the test and for the weight alike. The probability
    that results is within 0.013 % of the one that was asked for wherever that is below 1/16, and within 2**-17 above.

    Source: OpenTelemetry "TraceState: Probability Sampling", converting floating-point probability to threshold value; and
    `ProbabilityToThresholdWithPrecision` of the Collector's pkg/sampling.

    Args:
        probability: In [0, 1]; raises ValueError outside. Above 0 and below 2**-56 counts as 2**-56, the least there is.

    Returns:
        An integer in [0, 2**56]; 2**56 means never and has no `ot=th` form.
    """
    if not 0.0 <= probability <= 1.0:
        msg = f"a probability is in [0, 1], got {probability!r}"
        raise ValueError(msg)
    if probability == 0.0:
        return RANDOMNESS_RANGE
    accepted = max(1, round(probability * RANDOMNESS_RANGE))  # 1 - p first would lose the digits of a small p
    leading_fs = (RANDOMNESS_BITS - accepted.bit_length()) // 4
    digits = min(_TH_DIGITS + leading_fs, RANDOMNESS_BITS // 4)
    unit = 1 << (RANDOMNESS_BITS - 4 * digits)
    return (RANDOMNESS_RANGE - accepted + unit // 2) // unit * unit


def format_threshold(threshold: int) -> str:
    """The `th` value of `ot=th:…`: hex digits of the 56 bits without trailing zeros, `0` for keep-all.

    Raises ValueError for 2**56 (never), which has no such form: a dropped trace is written nowhere.
    """
    if not 0 <= threshold < RANDOMNESS_RANGE:
        msg = f"`th` holds a threshold in [0, 2**56), got {threshold!r}"
        raise ValueError(msg)
    return f"{threshold:014x}".rstrip("0") or "0"


def parse_threshold(text: str) -> int | None:
    """The threshold that a `th` value stands for; None where it is not 1 to 14 lower-case hex digits."""
    return int(text.ljust(14, "0"), 16) if _TH_FORM.fullmatch(text) else None


def weight_of(threshold: int) -> float:
    """How many traces one that passed this threshold stands for: 2**56 / (2**56 - T); 0 for never."""
    return RANDOMNESS_RANGE / (RANDOMNESS_RANGE - threshold) if threshold < RANDOMNESS_RANGE else 0.0


def probability_of(threshold: int) -> float:
    """The share of traces that pass this threshold."""
    return (RANDOMNESS_RANGE - threshold) / RANDOMNESS_RANGE
