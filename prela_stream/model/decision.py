"""A decision on a whole trace, the reason for it, and the arithmetic of thresholds and weights.

This is the only place with that arithmetic. A policy returns the probability with which a trace should be kept. `threshold_of`
converts it to OpenTelemetry's rejection threshold, and both the test and the weight use that threshold.
"""

import enum
import re
from functools import lru_cache
from hashlib import blake2b
from typing import Final

import msgspec

from prela_stream.model.ids import RANDOMNESS_BITS, RANDOMNESS_RANGE

_TH_DIGITS: Final = 4
_TH_FORM: Final = re.compile("[0-9a-f]{1,14}")


class Trigger(enum.StrEnum):
    """Why a trace was decided at this time."""

    __hash__ = str.__hash__  # that of Enum is a Python function

    COMPLETE = "complete"
    """Every counted span was received, and no new item for `settle_ms`."""
    REMOTE_WAIT = "remote_wait"
    """Complete except for injects without an answer."""
    ROOT_WAIT = "root_wait"
    """The root ended, the tree is not whole, and no new item arrived."""
    IDLE = "idle"
    """No root, and no new item arrived."""
    LOST = "lost"
    """The heartbeats of an open span stopped, because its process died."""
    MAX_AGE = "max_age"
    MAX_SPANS = "max_spans"
    MAX_BYTES = "max_bytes"
    MEMORY = "memory"
    """The worker holds more undecided items than `worker.max_open_bytes`, and this trace has the most bytes x age."""


class Basis(enum.StrEnum):
    """The evidence on which the completeness of a trace rests. If its spans have several kinds, the weakest one holds."""

    COUNTS = "counts"
    """Every span has the exact number of its children, from this SDK or from the OpenTelemetry bridge."""
    COUNTING_PROCESSOR = "counting_processor"
    """Every span has that number. For some of them the counting processor of another tracer's process counted."""
    QUIET_TIME = "quiet_time"
    """A span has no such number, so the trace is never complete: it was decided because no more spans arrived."""


class TraceSummary(msgspec.Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """Summary of a decided trace, kept or dropped. Tokens count each leaf LLM call once."""

    root_name: str = ""
    service: str = ""
    start_ns: int = 0
    """Start of the root, or the first known start. If no start is known, the time of the decision minus the duration."""
    duration_ns: int = 0
    """Duration of the root, if it ended."""
    spans: int = 0
    errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    """None if unknown; 0 means free."""
    shape_hash: str = ""
    """Hex digest of the tree's shape: types and names, without order, times or ids."""
    outside_parent: int = 0
    """Number of spans that start before their parent or end after it: clocks differ, or the work outlives its parent."""


class Decision(msgspec.Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """The verdict on one trace, as written to `decisions` (docs/wire.md). Fields are only ever appended."""

    trace_id: bytes
    decision_id: bytes
    """16 bytes, `decision_id_of`."""
    kept: bool
    probability: float
    """Probability with which such traces are kept: (2**56 - threshold) / 2**56."""
    threshold: int
    """Kept if and only if randomness >= threshold; 56 bits. 2**56 means never."""
    weight: float
    """Number of traces that this one represents: 1 / probability if kept; 0 if dropped or decided again."""
    policy: str
    """Name of the policy that set the probability."""
    reason: str
    trigger: Trigger
    complete: bool
    """Whether every counted span was received."""
    first_offset: int
    """Offset of the record with the first item of the trace."""
    cut_offset: int
    """Items in records below this offset are part of the decision; later ones are late."""
    decided_at_ms: int
    """Stream time of the decision, ms since the epoch."""
    policy_version: str
    """Content hash of the policy set."""
    summary: TraceSummary = TraceSummary()
    weight_biased: bool = False
    """Spans disagree on the head-sampling threshold, so the weight is an estimate."""
    repeated: bool = False
    """The trace was decided before, and its decision was forgotten: after `late_window_ms`, or early to bound memory."""
    basis: Basis | None = None
    """The evidence for `complete`. None in a decision of a version that did not record it."""

    @property
    def trace_id_hex(self) -> str:
        """The trace id as 32 lower-case hex digits."""
        return self.trace_id.hex()


def decision_id_of(topic: str, partition: int, trace_id: bytes, first_offset: int) -> bytes:
    """The 16-byte id of a decision: blake2b of where the trace began, so it is the same in every replay."""
    digest = _begun_digest(topic, partition, first_offset).copy()
    digest.update(trace_id)
    return digest.digest()


def decision_source(topic: str, partition: int) -> bytes:
    """What the ids of all decisions of a partition are computed from."""
    return f"{topic}\0{partition}\0".encode()


@lru_cache(maxsize=256)  # the traces of one record are decided together
def _begun_digest(topic: str, partition: int, first_offset: int) -> blake2b:
    return blake2b(decision_source(topic, partition) + b"%d\0" % first_offset, digest_size=16)


@lru_cache(maxsize=1_024)  # a policy set has few probabilities
def threshold_of(probability: float) -> int:
    """The rejection threshold T = (1 - p) * 2**56, rounded to the precision of `ot=th`.

    `ot=th` has up to 14 hex digits without trailing zeros. At most four of them after the leading `f`s are written, which is the
    precision that OpenTelemetry recommends. The test and the weight use the rounded T. The resulting probability is within
    0.013 % of the requested one if that is below 1/16, and within 2**-17 otherwise.

    Source: OpenTelemetry "TraceState: Probability Sampling", converting floating-point probability to threshold value; and
    `ProbabilityToThresholdWithPrecision` of the Collector's pkg/sampling.

    Args:
        probability: In [0, 1]; raises ValueError otherwise. A value between 0 and 2**-56 counts as 2**-56, the minimum.

    Returns:
        An integer in [0, 2**56]; 2**56 means never and has no `ot=th` form.
    """
    if not 0.0 <= probability <= 1.0:
        msg = f"a probability is in [0, 1], got {probability!r}"
        raise ValueError(msg)
    if probability == 0.0:
        return RANDOMNESS_RANGE
    accepted = max(1, round(probability * RANDOMNESS_RANGE))  # computing 1 - p first would lose the digits of a small p
    leading_fs = (RANDOMNESS_BITS - accepted.bit_length()) // 4
    digits = min(_TH_DIGITS + leading_fs, RANDOMNESS_BITS // 4)
    unit = 1 << (RANDOMNESS_BITS - 4 * digits)
    return (RANDOMNESS_RANGE - accepted + unit // 2) // unit * unit


def format_threshold(threshold: int) -> str:
    """The `th` value of `ot=th:…`: hex digits of the 56 bits without trailing zeros, `0` for keep-all.

    Raises ValueError for 2**56 (never), which has no such form; a dropped trace has no `th`.
    """
    if not 0 <= threshold < RANDOMNESS_RANGE:
        msg = f"`th` holds a threshold in [0, 2**56), got {threshold!r}"
        raise ValueError(msg)
    return f"{threshold:014x}".rstrip("0") or "0"


def parse_threshold(text: str) -> int | None:
    """The threshold of a `th` value; None if it is not 1 to 14 lower-case hex digits."""
    return int(text.ljust(14, "0"), 16) if _TH_FORM.fullmatch(text) else None


@lru_cache(maxsize=1_024)
def weight_of(threshold: int) -> float:
    """Number of traces that one above this threshold represents: 2**56 / (2**56 - T); 0 for never."""
    return RANDOMNESS_RANGE / (RANDOMNESS_RANGE - threshold) if threshold < RANDOMNESS_RANGE else 0.0


@lru_cache(maxsize=1_024)
def probability_of(threshold: int) -> float:
    """The share of traces at or above this threshold."""
    return (RANDOMNESS_RANGE - threshold) / RANDOMNESS_RANGE
