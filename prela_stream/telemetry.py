"""Every metric of the project, declared once: name, unit, meaning, labels.

This module is the bottom of the house: it imports nothing of ours. It holds numbers and knows nothing about how they leave
the process; services render `snapshot()` as they need. Hot paths keep integers of their own and add them here in bulk.
"""

import threading
from collections.abc import Iterator

import msgspec


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of one metric: its name, its labels and its value in the metric's unit."""

    name: str
    labels: dict[str, str]
    value: float


class Counter:
    """A number that only grows, split by label values.

    Args:
        name: Prometheus name without the `prela_` prefix and the `_total` suffix.
        unit: What one means: `spans`, `records`, `bytes`, ….
        meaning: One sentence for the person who reads the dashboard.
        labels: Label names, in the order in which `add` takes their values.
    """

    __slots__ = ("_lock", "_values", "labels", "meaning", "name", "unit")

    def __init__(self, name: str, unit: str, meaning: str, labels: tuple[str, ...] = ()) -> None:
        self.name = name
        self.unit = unit
        self.meaning = meaning
        self.labels = labels
        self._values: dict[tuple[str, ...], int] = {}
        self._lock = threading.Lock()
        _REGISTRY.append(self)

    def add(self, amount: int = 1, *values: str) -> None:
        """Add `amount` under these label values; raises TypeError if their number is not that of the labels."""
        if len(values) != len(self.labels):
            msg = f"metric {self.name} takes the labels {self.labels}, got the values {values}"
            raise TypeError(msg)
        with self._lock:
            self._values[values] = self._values.get(values, 0) + amount

    def value(self, *values: str) -> int:
        """The count under these label values, 0 if there is none."""
        return self._values.get(values, 0)

    def samples(self) -> Iterator[Sample]:
        """Each label combination that was counted so far."""
        with self._lock:
            items = list(self._values.items())
        for values, count in items:
            labels = dict(zip(self.labels, values, strict=True))
            yield Sample(name=f"prela_{self.name}_total", labels=labels, value=count)


_REGISTRY: list[Counter] = []


def metrics() -> list[Counter]:
    """Every declared metric, in the order of declaration."""
    return list(_REGISTRY)


def snapshot() -> list[Sample]:
    """Every sample of every metric at this moment."""
    return [sample for counter in _REGISTRY for sample in counter.samples()]


SWALLOWED = Counter(
    "sdk_swallowed_errors",
    "errors",
    "Errors of the SDK that were kept away from the application; each kind is logged once.",
    ("where", "error"),
)
ENDED_SPAN_CHANGES = Counter(
    "sdk_ended_span_changes", "calls", "Changes to a span after its end; they have no effect.", ("method",)
)
UNSAMPLED_SPANS = Counter("sdk_unsampled_spans", "spans", "Spans of traces that head sampling left out.")
WITHHELD_VALUES = Counter(
    "sdk_withheld_values",
    "values",
    "Attributes that were not sent: content whose capture is off, names that are withheld, spans whose redaction failed.",
    ("reason",),
)
WORKER_ITEMS = Counter("worker_items", "items", "Items of the spans topic that workers consumed.")
WORKER_DECISIONS = Counter(
    "worker_decisions",
    "traces",
    "Traces decided, by verdict and by why they were decided then.",
    ("verdict", "trigger"),
)
WORKER_COMMITS = Counter("worker_commits", "commits", "Commits of partitions by outcome.", ("outcome",))
WORKER_POISON = Counter("worker_poison", "items", "Items that could not be read and went to the dlq topic.")
SINK_BATCHES = Counter("sink_batches", "batches", "Batches that a sink has made durable.", ("topic",))
SINK_RECORDS = Counter("sink_records", "records", "Records that a sink has made durable.", ("topic",))
SINK_BAD_RECORDS = Counter(
    "sink_bad_records", "records", "Records that a sink could not read and skipped; the first is logged.", ("topic",)
)
SINK_BAD_ITEMS = Counter(
    "sink_bad_items", "spans", "Spans within readable Records that a sink could not read and skipped."
)
