"""Metrics: what is declared, what is counted, and how it is read."""

import gc
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from prela_stream import measures, telemetry
from prela_stream.measures import Collected, Counter, Gauge, Histogram, Metric

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def declarations(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test declares is gone after it."""
    monkeypatch.setattr(measures, "_DECLARED", list(measures._DECLARED))


def test_names_follow_the_rules_of_prometheus_and_are_unique() -> None:
    found = telemetry.declared()
    assert len({metric.name for metric in found}) == len(found) > 30
    for metric in found:
        assert re.fullmatch(r"prela_[a-z]+(_[a-z]+)+", metric.name), metric.name
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        if metric.unit in ("seconds", "bytes"):
            assert metric.name.removesuffix("_total").endswith(f"_{metric.unit}"), metric.name
        assert metric.meaning.endswith("."), metric.name
        assert not {"le", "quantile"} & set(metric.labels), metric.name


def test_every_metric_of_a_service_begins_with_its_name() -> None:
    shared = [metric.name for metric in telemetry.declared("any")]
    assert set(shared) == {
        "prela_swallowed_errors_total",
        "prela_local_logs_replaced_total",
        "prela_kafka_topics_recreated_total",
        "prela_kafka_unread_batches_total",
    }
    assert all(metric.name.startswith("prela_worker_") for metric in telemetry.declared("worker"))


def test_every_metric_that_code_or_a_page_names_is_declared() -> None:
    names = {metric.name for metric in telemetry.declared()}
    exposed = {f"{name}{suffix}" for name in names for suffix in ("", "_bucket", "_sum", "_count")}
    unknown = []
    for path in [*(ROOT / "prela_stream").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        named = re.findall(
            r"\bprela_(?:agent|worker|sink|swallowed|local|sdk)_\w+|\bprela_\w+_total\b", path.read_text()
        )
        unknown += [f"{path.relative_to(ROOT)}: {name}" for name in named if name not in exposed]
    assert unknown == []


def test_every_declared_metric_is_fed() -> None:
    constants = {name: one for name, one in vars(telemetry).items() if isinstance(one, Metric)}
    code = "".join(path.read_text() for path in (ROOT / "prela_stream").rglob("*.py") if path.name != "telemetry.py")
    unused = [one.name for name, one in constants.items() if not re.search(rf"\btelemetry\.{name}\b", code)]
    assert unused == []


def test_a_counter_counts_by_label_and_from_many_threads() -> None:
    counter = Counter("prela_test_total", "calls", "For this test.", ("kind",))
    fast = Counter("prela_fast_total", "calls", "For this test.")

    def count() -> None:
        for _ in range(2_000):
            counter.add(1, "a")
            counter.add(2, "b")
            fast.inc()
        fast.add(5)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (counter.value("a"), counter.value("b"), fast.value()) == (8_000, 16_000, 8_020)
    read = telemetry.snapshot()
    assert read.value("prela_test_total") == 24_000
    assert read.value("prela_test_total", kind="b") == 16_000
    assert [telemetry.snapshot().value("prela_fast_total") for _ in range(3)] == [8_020] * 3, "reading changes nothing"


def test_the_number_of_label_values_is_checked_and_their_combinations_are_bounded() -> None:
    counter = Counter("prela_test_total", "calls", "For this test.", ("kind",))
    with pytest.raises(TypeError, match="prela_test_total has the labels"):
        counter.add(1)
    for number in range(measures.MAX_SERIES + 50):
        counter.add(1, str(number))
    samples = telemetry.snapshot()["prela_test_total"].samples
    assert len(samples) == measures.MAX_SERIES + 1
    assert counter.value("other") == 50


def test_a_histogram_counts_each_value_in_its_bucket_and_all_above() -> None:
    histogram = Histogram("prela_test_seconds", "seconds", "For this test.", ("kind",), bounds=(1.0, 5.0))
    histogram.observe_all(((0.75, 2), (2.0, 1), (9.0, 1)), "a")
    histogram.observe(5.0, "a")
    (found,) = telemetry.snapshot()["prela_test_seconds"].distributions
    assert found.buckets == ((1.0, 2), (5.0, 4), (float("inf"), 5))
    assert (found.count, found.sum, found.labels) == (5, 17.5, {"kind": "a"})
    assert telemetry.snapshot().value("prela_test_seconds", kind="a") == 5


def test_sources_are_asked_when_metrics_are_read_and_only_while_they_exist() -> None:
    gauge = Gauge("prela_test_items", "items", "For this test.", ("queue",))

    class Queue:
        def __init__(self, fill: int) -> None:
            self.fill = fill
            telemetry.register(self)

        def collect(self) -> Iterator[Collected]:
            yield gauge, self.fill, ("a",)

    first, second = Queue(3), Queue(4)
    assert telemetry.snapshot().value("prela_test_items", queue="a") == 7
    first.fill = 10
    del second
    gc.collect()
    assert telemetry.snapshot().value("prela_test_items", queue="a") == 10
    gauge.set(1, "b")
    assert {sample.labels["queue"]: sample.value for sample in telemetry.snapshot()["prela_test_items"].samples} == {
        "a": 10,
        "b": 1,
    }
    gauge.remove("b")
    assert telemetry.snapshot().value("prela_test_items", queue="b") == 0


def test_a_metric_that_counted_nothing_is_read_as_zero_and_an_unknown_one_is_an_error() -> None:
    Counter("prela_test_total", "calls", "For this test.")
    Gauge("prela_test_items", "items", "For this test.")
    read = telemetry.snapshot()
    assert read.value("prela_test_total") == read.value("prela_test_items") == 0
    with pytest.raises(KeyError):
        read.value("prela_no_such_total")


def test_a_finaliser_that_counts_in_the_middle_of_a_count_neither_blocks_nor_loses() -> None:
    counter = Counter("prela_test_total", "calls", "For this test.", ("kind",))

    class Label(str):
        __slots__ = ("seen",)

        def __hash__(self) -> int:  # runs inside `add`, as a finaliser may
            if not getattr(self, "seen", False):
                self.seen = True
                counter.add(1, "inner")
            return hash(str(self))

    counter.add(1, Label("outer"))
    assert (counter.value("inner"), counter.value("outer")) == (1, 1)
