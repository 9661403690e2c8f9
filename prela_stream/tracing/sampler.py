"""Head samplers: they decide once per trace, at its root, whether it is recorded.

Every sampler here keeps a trace iff its randomness reaches a rejection threshold, with the same arithmetic as the worker's
decision (`model.decision`). The spans carry the threshold, so a worker can weight what it keeps without bias.
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
from prela_stream.model.plain import plain, safe_text
from prela_stream.tracing.forking import Step, at_fork
from prela_stream.tracing.ids import id_of


class HeadDecision(msgspec.Struct, frozen=True):
    """Whether a trace is recorded, and the threshold of the test; None: it was not sampled by chance."""

    sampled: bool
    threshold: int | None = None


KEEP: Final = HeadDecision(sampled=True)
DROP: Final = HeadDecision(sampled=False)


def checked(decision: object) -> HeadDecision:
    """The result of a sampler, if it can be encoded; a bool is converted. Raises TypeError otherwise."""
    if isinstance(decision, bool):
        return KEEP if decision else DROP
    if isinstance(decision, HeadDecision):
        threshold: object = decision.threshold
        if threshold is None or (type(threshold) is int and 0 <= threshold < RANDOMNESS_RANGE):
            return decision
        if not decision.sampled:
            return DROP  # no threshold travels with a trace that is not recorded
    msg = (
        "a sampler returns a bool or a HeadDecision with a threshold of None or in [0, 2**56), got "
        f"{safe_text(decision)}; the trace is kept"
    )
    raise TypeError(msg)


class BaseSampler(ABC):
    """Decides at the root of a trace whether the trace is recorded.

    A subclass needs only `should_sample`. Its probability is then unknown, so the worker counts its traces with weight 1.
    Override `decide` to add a threshold.
    """

    @abstractmethod
    def should_sample(self, trace_id: str) -> bool:
        """Whether the trace of this id (32 hex digits) is recorded. May be called from any thread."""

    def decide(self, trace_id: bytes) -> HeadDecision:
        """The decision for a trace id of 16 raw bytes; called once a trace, under `errors.guard()`."""
        chosen: object = self.should_sample(trace_id.hex())
        if chosen is None:  # a method without its `return` would drop every trace
            return checked(chosen)
        return KEEP if chosen else DROP


class AlwaysOnSampler(BaseSampler):
    """Records every trace. The default: tail sampling decides later, with the whole trace."""

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
    """A sampler with a threshold that does not depend on the trace: `decide` compares the trace's randomness with it."""

    @abstractmethod
    def next_threshold(self) -> int:
        """The rejection threshold for the next trace, in [0, 2**56]; 2**56 means never."""

    def decide(self, trace_id: bytes) -> HeadDecision:
        """Keep iff randomness >= threshold."""
        threshold = self.next_threshold()
        return HeadDecision(trace_randomness(trace_id) >= threshold, threshold)

    def should_sample(self, trace_id: str) -> bool:
        """As `decide`, for an id in hex; False for any other value."""
        with guard("sampler.should_sample"):
            return self.decide(id_of(trace_id, TRACE_ID_BYTES)).sampled
        return False


class ProbabilitySampler(ThresholdSampler):
    """Records a fixed share of the traces; all processes with the same rate record the same traces.

    Args:
        rate: In [0, 1]; otherwise ConfigurationError is raised. It is rounded to the four hex digits of `ot=th`.
    """

    def __init__(self, rate: float) -> None:
        self.rate: float = _number(rate, "the sampling rate", 1.0)
        self._threshold = threshold_of(self.rate)

    def next_threshold(self) -> int:
        """The threshold of the rate."""
        return self._threshold


_lock = threading.Lock()
"""One for all samplers, so that each of them can be copied and pickled."""


def _renew_lock() -> None:
    """After a fork: another thread of the parent process may have held it."""
    global _lock  # noqa: PLW0603 - one lock per process
    _lock = threading.Lock()


at_fork(Step.LOCKS, in_child=_renew_lock)


class RateLimitingSampler(ThresholdSampler):
    """Records about this many traces per second, each with a known probability.

    A token bucket would record the first n traces of each second and drop the rest, which no weight can correct. Here the
    probability of a trace depends on the earlier traces alone: limit / max(traces of the last whole second, traces so far in
    this second). A trace is kept iff its randomness reaches that threshold, so weighted counts are unbiased. The cost: in the
    first second of a burst of k times the limit, about limit * (1 + ln k) traces are kept. From the next second on the mean
    is the limit, or less while traffic falls.

    Args:
        traces_per_second: At least 0, fractions allowed; otherwise ConfigurationError is raised.
        clock: Monotonic seconds.
    """

    def __init__(self, traces_per_second: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.traces_per_second: float = _number(traces_per_second, "traces_per_second", math.inf)
        self._clock = clock
        self._second = 0
        self._count = 0
        self._last = 0

    def next_threshold(self) -> int:
        """The threshold of limit / expected traces of this second."""
        if self.traces_per_second == 0:
            return RANDOMNESS_RANGE
        second = int(self._clock())
        with _lock:
            if second != self._second:
                self._last = self._count if second == self._second + 1 else 0
                self._second, self._count = second, 0
            self._count += 1
            expected = max(self._count, self._last)
        return 0 if expected <= self.traces_per_second else threshold_of(self.traces_per_second / expected)


OWN_SAMPLERS: Final = frozenset({AlwaysOnSampler, AlwaysOffSampler, ProbabilitySampler, RateLimitingSampler})
"""Classes that run no code of the application, and whose decisions are valid."""


def _number(given: object, what: str, highest: float) -> float:
    value = plain(given)  # the comparisons of a subclass may raise
    good = (
        isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= highest and value != math.inf
    )
    if not good:
        above = "" if highest == math.inf else f" and at most {highest:g}"
        msg = f"{what} must be a number of at least 0{above}, got {safe_text(given)}"
        raise ConfigurationError(msg)
    return float(value)
