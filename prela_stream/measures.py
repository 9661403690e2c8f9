"""Counters, gauges and histograms: how numbers are kept and read. The metrics themselves are declared in `telemetry.py`.

This is the lowest layer: it imports nothing of this package and nothing that is slow to import. It does not know how numbers
leave the process.

Code that runs once a span takes no lock here. It counts in integers of an object that is a `Source`: the numbers are
collected if they are read. `Counter.inc` is the exception for counters without labels.
"""

import itertools
import threading
import weakref
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias

import msgspec

Kind = Literal["counter", "gauge", "histogram"]
Component = Literal["agent", "worker", "sink", "otlp", "any"]
Labels: TypeAlias = tuple[str, ...]

MAX_SERIES: Final = 1_000
"""Most label combinations of one metric. Further ones are counted together, with every label set to `other`."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a counter or gauge for one combination of labels."""

    labels: dict[str, str]
    value: float


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a histogram for one combination of labels."""

    labels: dict[str, str]
    count: int
    """Number of observations."""
    sum: float
    """Sum of the observed values, in the unit of the metric."""
    buckets: tuple[tuple[float, int], ...]
    """Upper bound of each bucket, and how many observations were at most that. The last bound is infinite."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One metric with everything that it has counted."""

    name: str
    kind: Kind
    unit: str
    meaning: str
    labels: Labels = ()
    """Names of the labels."""
    samples: tuple[Sample, ...] = ()
    """Of a counter or gauge: one for each combination of labels that occurred."""
    distributions: tuple[Distribution, ...] = ()
    """Of a histogram: one for each combination of labels that occurred."""

    def matching(self, labels: dict[str, str]) -> float:
        """The sum of the values whose labels include `labels`; of a histogram, the number of observations."""
        wanted = labels.items()
        counts = sum(one.count for one in self.distributions if wanted <= one.labels.items())
        return counts + sum(one.value for one in self.samples if wanted <= one.labels.items())


class Metrics(msgspec.Struct, frozen=True):
    """Every metric of this process at one moment. Iterate over it, or read one by its name: `metrics["prela_…"]`."""

    readings: tuple[Reading, ...]

    def __iter__(self) -> Iterator[Reading]:
        return iter(self.readings)

    def __getitem__(self, name: str) -> Reading:
        """The metric of this name; raises KeyError if none is declared."""
        for reading in self.readings:
            if reading.name == name:
                return reading
        raise KeyError(name)

    def value(self, name: str, **labels: str) -> float:
        """The sum over all samples with these labels, 0 if there is none.

        Of a histogram it is the number of observations. Raises KeyError if no metric of this name is declared.
        """
        return self[name].matching(labels)


class Metric:
    """What counters, gauges and histograms share.

    Args:
        name: The name under which it is exposed, with the suffix of its unit: `prela_worker_commits_total`.
        unit: What 1 means: `spans`, `records`, `bytes`, `seconds`, ….
        meaning: What it counts, for the reader of a dashboard.
        labels: Names of the labels, in the order in which their values are passed.
    """

    kind: Kind

    def __init__(self, name: str, unit: str, meaning: str, labels: Labels = ()) -> None:
        self.name = name
        self.unit = unit
        self.meaning = meaning
        self.labels = labels
        self.component: Component = next((one for one in _COMPONENTS if name.startswith(f"prela_{one}_")), "any")
        self._values: dict[Labels, Any] = {}
        self._lock = threading.RLock()
        _DECLARED.append(self)

    def _series(self, values: Labels) -> Labels:
        """The key for these label values. Raises TypeError if their number is not that of the labels."""
        if len(values) != len(self.labels):
            msg = f"the metric {self.name} has the labels {self.labels}, got the values {values}"
            raise TypeError(msg)
        if values not in self._values and len(self._values) >= MAX_SERIES:
            return ("other",) * len(self.labels)
        return values

    def _named(self, values: Labels) -> dict[str, str]:
        return dict(zip(self.labels, values, strict=True))

    def _restart(self) -> None:
        self._values = {}
        self._lock = threading.RLock()

    def _read(self, collected: dict[Labels, float]) -> Reading:
        with self._lock:
            values = dict(self._values)
        for key, value in collected.items():
            values[key] = values.get(key, 0) + value
        samples = [Sample(labels=self._named(key), value=value) for key, value in values.items()]
        return self._reading(samples=tuple(samples))

    def _reading(self, **found: Any) -> Reading:
        return Reading(
            name=self.name, kind=self.kind, unit=self.unit, meaning=self.meaning, labels=self.labels, **found
        )


class Counter(Metric):
    """A number that only grows."""

    kind = "counter"

    def __init__(self, name: str, unit: str, meaning: str, labels: Labels = ()) -> None:
        super().__init__(name, unit, meaning, labels)
        self._fast = itertools.count()
        self._fast_reads = 0
        self.inc: Callable[[], object] = self._fast.__next__
        """Count 1, for a counter without labels: one call in C, which no other thread can interrupt, and no lock."""

    def add(self, amount: int = 1, *values: str) -> None:
        """Add `amount` for these label values."""
        with self._lock:
            key = self._series(values)
            try:  # a signal handler or a finalizer that counts runs between calls, hence not within these two steps
                self._values[key] += amount
            except KeyError:
                self._values[key] = amount

    def value(self, *values: str) -> int:
        """What was counted for these label values."""
        with self._lock:
            return int(self._values.get(values, 0)) + (0 if self.labels else self._fast_value())

    def _fast_value(self) -> int:
        value = next(self._fast) - self._fast_reads  # the only way to read one is to move it
        self._fast_reads += 1
        return value

    def _restart(self) -> None:
        super()._restart()
        value = self._fast_value()  # which changes `_fast_reads`
        self._fast_reads += value

    def _read(self, collected: dict[Labels, float]) -> Reading:
        if not self.labels:
            with self._lock:
                collected = {(): collected.get((), 0) + self._fast_value()}
        return super()._read(collected)


class Gauge(Metric):
    """A number that goes up and down. A `Source` reports it while it exists, or `set` stores it."""

    kind = "gauge"

    def set(self, value: float, *values: str) -> None:
        """Store the value for these label values."""
        with self._lock:
            self._values[self._series(values)] = value

    def remove(self, *values: str) -> None:
        """Forget these label values, if they were stored."""
        with self._lock:
            self._values.pop(values, None)


class Histogram(Metric):
    """How often a value fell into each of a fixed set of buckets.

    Args:
        bounds: Upper bounds of the buckets, growing. A last, infinite one is added.
    """

    kind = "histogram"

    def __init__(self, name: str, unit: str, meaning: str, labels: Labels = (), *, bounds: Sequence[float]) -> None:
        super().__init__(name, unit, meaning, labels)
        self.bounds = tuple(bounds)

    def observe(self, value: float, *values: str) -> None:
        """Count one value."""
        self.observe_all(((value, 1),), *values)

    def observe_all(self, observed: Iterable[tuple[float, int]], *values: str) -> None:
        """Count values, each so many times."""
        with self._lock:
            key = self._series(values)
            counts, total = self._values.get(key) or ([0] * (len(self.bounds) + 1), 0.0)
            for value, times in observed:
                counts[bisect_left(self.bounds, value)] += times
                total += value * times
            self._values[key] = (counts, total)

    def _read(self, collected: dict[Labels, float]) -> Reading:
        assert not collected  # sources report gauges and counters
        with self._lock:
            values = {key: (list(counts), total) for key, (counts, total) in self._values.items()}
        bounds = (*self.bounds, float("inf"))
        found = [
            Distribution(
                labels=self._named(key),
                count=sum(counts),
                sum=total,
                buckets=(*zip(bounds, itertools.accumulate(counts), strict=True),),
            )
            for key, (counts, total) in values.items()
        ]
        return self._reading(distributions=tuple(found))


Collected: TypeAlias = tuple[Counter | Gauge, float, Labels]
"""What a source reports: a metric, its value and its label values. Values of the same labels are added up."""


class Source(Protocol):
    """An object that counts for itself and is asked when the metrics are read. It must support weak references."""

    def collect(self) -> Iterable[Collected]:
        """Its gauges at this moment. It may also add to counters and histograms what it has counted since the last call.

        Called by any thread; must be short and must not raise.
        """


_COMPONENTS: Final[tuple[Component, ...]] = ("agent", "worker", "sink", "otlp")
_DECLARED: list[Metric] = []
_sources: list[weakref.ref[Source]] = []
_sources_lock = threading.RLock()


def register(source: Source) -> None:
    """Ask this source whenever the metrics are read, for as long as it exists."""
    global _sources  # noqa: PLW0603 - the list of the process
    with _sources_lock:
        _sources = [*(one for one in _sources if one() is not None), weakref.ref(source)]


def declared(*components: Component) -> list[Metric]:
    """The metrics of these components, by default all, in the order of their declaration."""
    return [metric for metric in _DECLARED if not components or metric.component in components]


def snapshot(*components: Component) -> Metrics:
    """The metrics of these components, by default all, at this moment. A metric that counted nothing has no samples."""
    collected: dict[Metric, dict[Labels, float]] = {}
    for reference in _sources:
        source = reference()
        if source is not None:
            for metric, value, labels in source.collect():
                found = collected.setdefault(metric, {})
                found[labels] = found.get(labels, 0) + value
    # Not tuple(generator): CPython raises SystemError there if another thread calls gc.get_objects() during it (gh-59313).
    return Metrics(tuple([metric._read(collected.get(metric, {})) for metric in declared(*components)]))


def restart() -> None:
    """Set every metric to zero, with new locks: for a forked child. Its parent reports what the parent counted."""
    global _sources_lock  # noqa: PLW0603 - another thread of the parent may have held it
    _sources_lock = threading.RLock()
    for metric in _DECLARED:
        metric._restart()
