"""A decision about a whole trace, why it was taken, and the arithmetic that makes its weight honest.

The arithmetic stands here and nowhere else: a policy says with which probability a trace should be kept, `threshold_of` turns
that into OpenTelemetry's rejection threshold, and both the test and the weight use that same threshold.
"""

import enum
from hashlib import blake2b

import msgspec

from prela_stream.model.ids import RANDOMNESS_BITS, RANDOMNESS_RANGE


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
    MEMORY = "memory"
    """The worker was short of memory. The one trigger that is not a function of the log."""


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
    """The rejection threshold T = round((1 - p) * 2**56), rounded to the form that `ot=th` writes.

    `ot=th` carries up to 14 hex digits without trailing zeros. We emit at most four significant digits past the leading
    `f`s, as OpenTelemetry's reference does (precision 4), and use that rounded T for the test and for the weight alike.

    Args:
        probability: In [0, 1]; raises ValueError outside.

    Returns:
        An integer in [0, 2**56]; 2**56 means never and has no `ot=th` form.
    """
    if not 0.0 <= probability <= 1.0:
        msg = f"a probability is in [0, 1], got {probability!r}"
        raise ValueError(msg)
    if probability == 0.0:
        return RANDOMNESS_RANGE
    exact = round((1.0 - probability) * RANDOMNESS_RANGE)
    digits = 4
    rest = RANDOMNESS_RANGE - exact
    while rest and rest < RANDOMNESS_RANGE >> (4 * (digits - 3)):
        digits += 1  # each leading f of T eats a digit of precision; give it back
    digits = min(digits, RANDOMNESS_BITS // 4)
    unit = 1 << (RANDOMNESS_BITS - 4 * digits)
    rounded = (exact + unit // 2) // unit * unit
    return min(rounded, RANDOMNESS_RANGE - unit)


def format_threshold(threshold: int) -> str:
    """The `th` value of `ot=th:…`: hex digits of the 56 bits without trailing zeros, `0` for keep-all."""
    return f"{threshold:014x}".rstrip("0") or "0"


def weight_of(threshold: int) -> float:
    """How many traces one that passed this threshold stands for: 2**56 / (2**56 - T); 0 for never."""
    return RANDOMNESS_RANGE / (RANDOMNESS_RANGE - threshold) if threshold < RANDOMNESS_RANGE else 0.0


def probability_of(threshold: int) -> float:
    """The share of traces that pass this threshold."""
    return (RANDOMNESS_RANGE - threshold) / RANDOMNESS_RANGE
