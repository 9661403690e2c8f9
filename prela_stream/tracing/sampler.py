"""Head samplers: whether a trace is recorded at all, decided once, at its root, before anything else is known of it.

Every sampler here keeps a trace iff its randomness reaches a rejection threshold, by the same arithmetic as the worker's
decision (`model.decision`), and the threshold travels with the spans: a worker can weigh what it keeps without bias.
"""

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

import msgspec

from prela_stream.errors import ConfigurationError, guard
from prela_stream.model.decision import threshold_of
from prela_stream.model.ids import RANDOMNESS_RANGE, TRACE_ID_BYTES, trace_randomness
from prela_stream.model.plain import safe_text
from prela_stream.tracing.ids import id_of


class HeadDecision(msgspec.Struct, frozen=True):
    """Whether a trace is recorded, and the threshold it was tested against; no threshold: it was not sampled by chance."""

    sampled: bool
    threshold: int | None = None


KEEP: Final = HeadDecision(sampled=True)
DROP: Final = HeadDecision(sampled=False)


def checked(decision: object) -> HeadDecision:
    """What a sampler of the application's answered, if it can go on the wire; a bare yes or no will do. Raises TypeError."""
    if isinstance(decision, bool):
        return KEEP if decision else DROP
    if isinstance(decision, HeadDecision):
        threshold: object = decision.threshold
        if threshold is None or (type(threshold) is int and 0 <= threshold < RANDOMNESS_RANGE):
            return decision
        if not decision.sampled:
            return DROP  # no threshold travels with a trace that is not recorded
    msg = f"a sampler decides with a HeadDecision, its threshold None or in [0, 2**56), got {decision!r}; the trace is kept"
    raise TypeError(msg)


class BaseSampler(ABC):
    """What decides at a trace's root whether it is recorded.

    A sampler of your own needs only `should_sample`. It then says nothing about its probability, so the worker counts what
    it let through as if nothing had been left out; override `decide` to carry a threshold.
    """

    @abstractmethod
    def should_sample(self, trace_id: str) -> bool:
        """Whether the trace of this id (32 hex digits) is recorded. May be called from any thread."""

    def decide(self, trace_id: bytes) -> HeadDecision:
        """The decision for a trace id of 16 raw bytes; called once a trace, under `errors.guard()`."""
        return KEEP if self.should_sample(trace_id.hex()) else DROP


class AlwaysOnSampler(BaseSampler):
    """Records every trace. The default: tail sampling decides later, with the whole trace before it."""

    def should_sample(self, trace_id: str) -> bool:  # noqa: ARG002 - the interface
        """True."""
        return True

    def decide(self, trace_id: bytes) -> HeadDecision:  # noqa: ARG002 - the interface
        """Keep, without a threshold: no sampling happened."""
        return KEEP


class AlwaysOffSampler(BaseSampler):
    """Records no trace; contexts are still propagated, marked as not sampled."""

    def should_sample(self, trace_id: str) -> bool:  # noqa: ARG002 - the interface
        """False."""
        return False

    def decide(self, trace_id: bytes) -> HeadDecision:  # noqa: ARG002 - the interface
        """Drop."""
        return DROP


class ThresholdSampler(BaseSampler):
    """A sampler that says a threshold before it sees which trace comes: `decide` tests the trace's randomness against it."""

    @abstractmethod
    def next_threshold(self) -> int:
        """The rejection threshold for the next trace, in [0, 2**56]; 2**56 means never."""

    def decide(self, trace_id: bytes) -> HeadDecision:
        """Keep iff randomness >= threshold."""
        threshold = self.next_threshold()
        return HeadDecision(trace_randomness(trace_id) >= threshold, threshold)

    def should_sample(self, trace_id: str) -> bool:
        """As `decide`, for an id in hex; anything else is never kept."""
        with guard("sampler.should_sample"):
            return self.decide(id_of(trace_id, TRACE_ID_BYTES)).sampled
        return False


class ProbabilitySampler(ThresholdSampler):
    """Records a fixed share of the traces; every process with the same rate picks the same ones.

    Args:
        rate: In [0, 1]; raises ConfigurationError outside. Rounded to what `ot=th` can write (four hex digits).
    """

    def __init__(self, rate: float) -> None:
        self.rate: float = _number(rate, "a sampling rate", 1.0)
        self._threshold = threshold_of(self.rate)

    def next_threshold(self) -> int:
        """Always the threshold of the rate."""
        return self._threshold


class RateLimitingSampler(ThresholdSampler):
    """Records about this many traces a second, with an honest probability for each.

    A token bucket would take the first n of each second and drop the rest: those stand for nothing, and no weight repairs
    that. Instead each trace gets a probability from what came before it alone, limit / max(traces in the last whole second,
    traces so far in this one), and is kept iff its randomness reaches that threshold, so weighted counts are unbiased. The
    price: a burst out of silence of k times the limit within a second keeps about limit * (1 + ln k) of that second's traces
    instead of the limit; from the next second on the mean is at the limit, or below it while traffic falls.

    Args:
        traces_per_second: At least 0, fractions allowed; raises ConfigurationError for anything else.
        clock: Monotonic seconds.
    """

    def __init__(self, traces_per_second: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.traces_per_second: float = _number(traces_per_second, "a number of traces a second", math.inf)
        self._clock = clock
        self._lock = threading.Lock()
        self._second = 0
        self._count = 0
        self._last = 0

    def next_threshold(self) -> int:
        """The threshold of limit / expected traces of this second."""
        if self.traces_per_second == 0:
            return RANDOMNESS_RANGE
        second = int(self._clock())
        with self._lock:
            if second != self._second:
                self._last = self._count if second == self._second + 1 else 0
                self._second, self._count = second, 0
            self._count += 1
            expected = max(self._count, self._last)
        return 0 if expected <= self.traces_per_second else threshold_of(self.traces_per_second / expected)


def _number(value: object, what: str, highest: float) -> float:
    good = (
        isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= highest and value != math.inf
    )
    if not good:
        above = "" if highest == math.inf else f" and at most {highest:g}"
        msg = f"{what} is a number of at least 0{above}, got {safe_text(value)}"
        raise ConfigurationError(msg)
    return float(value)  # type: ignore[arg-type]  # `good` says it is a number
