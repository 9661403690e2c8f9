"""The `latency` policy: how long a trace took."""

from collections.abc import Iterator
from typing import Annotated

from prela_stream.model.trace import Trace
from prela_stream.sampling.conditions import Match, duration
from prela_stream.validation import HOUR, bounded

Milliseconds = Annotated[float, bounded(0, 36_500 * 24 * HOUR)]


class Latency(Match, frozen=True, kw_only=True, tag="latency"):
    """Matches traces that took at least `min_ms` and, if `max_ms` is set, less than that.

    The duration is that of the root, waits for a person included. Without an ended root it lasts from the first start to the last
    end.
    """

    min_ms: Milliseconds
    max_ms: Milliseconds | None = None

    def match(self, trace: Trace) -> str | None:
        """The duration and the limits."""
        took = trace.duration_ns / 1e6
        if took < self.min_ms:
            return None
        if self.max_ms is None:
            return f"latency: {duration(took)} >= {duration(self.min_ms)}"
        if took >= self.max_ms:
            return None
        return f"latency: {duration(took)} >= {duration(self.min_ms)} and < {duration(self.max_ms)}"

    def problems(self) -> Iterator[tuple[str, str]]:
        """An empty range."""
        if self.max_ms is not None and self.max_ms <= self.min_ms:
            yield "max_ms", f"expected more than min_ms ({self.min_ms:g}), got {self.max_ms:g}"
