"""Exporters of the application get whole traces, decoded from the bytes that go to the log; their errors do no harm."""

import os
import threading
from typing import Any

import pytest

from prela_stream import telemetry
from prela_stream.model.span import SpanData
from prela_stream.testing import CapturedSpans
from prela_stream.tracing import exporters as exporting
from prela_stream.tracing.context import TraceContext
from prela_stream.tracing.exporters import BaseExporter, ExporterRecorder, ExportResult, Tee
from prela_stream.tracing.tracer import Tracer


class Kept(BaseExporter):
    def __init__(self) -> None:
        self.traces: list[list[str]] = []
        self.ended = 0

    def export(self, spans: list[SpanData]) -> ExportResult:
        self.traces.append([span.name for span in spans])
        return ExportResult.SUCCESS

    def shutdown(self) -> None:
        self.ended += 1


def test_a_trace_is_exported_whole_when_its_root_ends() -> None:
    kept = Kept()
    tracer = Tracer(service_name="mine", exporter=kept)
    with tracer.span("root"):
        with tracer.span("child"):
            pass
        assert kept.traces == []
    with tracer.span("second"):
        pass
    assert kept.traces == [["child", "root"], ["second"]]


def test_a_span_that_ends_after_the_root_is_exported_alone_and_shutdown_exports_the_rest() -> None:
    kept = Kept()
    tracer = Tracer(exporter=kept)
    root = tracer.start_span("root")
    late = tracer.start_span("late", parent=root)
    root.end()
    late.end()
    open_root = tracer.start_span("open")
    tracer.start_span("ended", parent=open_root).end()
    assert kept.traces == [["root"], ["late"]]
    tracer.shutdown()
    assert kept.traces == [["root"], ["late"], ["ended"]]
    assert kept.ended == 1
    open_root.end()


def test_a_local_root_of_a_remote_trace_is_a_root() -> None:
    kept = Kept()
    tracer = Tracer(exporter=kept)
    remote = TraceContext("1" * 32, span_id="2" * 16)
    with tracer.span("server", parent=remote), tracer.span("inside"):
        pass
    assert kept.traces == [["inside", "server"]]


def test_what_an_exporter_raises_is_counted_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)

    class Broken(Kept):
        def export(self, spans: list[SpanData]) -> ExportResult:
            raise OSError("no route")

        def shutdown(self) -> None:
            raise OSError("no route")

    before = telemetry.SWALLOWED.value("exporter.export", "OSError")
    tracer = Tracer(exporter=Broken())
    with tracer.span("root"):
        pass
    tracer.shutdown()
    assert telemetry.SWALLOWED.value("exporter.export", "OSError") == before + 1


def test_the_number_of_open_traces_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_MAX_OPEN", 3)
    monkeypatch.setattr(exporting, "_MAX_ENDED", 2)
    kept = Kept()
    tracer = Tracer(exporter=kept)
    roots = [tracer.start_span(f"root {number}") for number in range(5)]
    for number, root in enumerate(roots):
        tracer.start_span(f"child {number}", parent=root).end()
    assert kept.traces == [["child 0"], ["child 1"]]
    for root in roots:
        root.end()
    recorder = tracer.recorder
    assert isinstance(recorder, ExporterRecorder)
    assert (len(recorder._open), len(recorder._ended)) == (0, 2)


def test_threads_neither_lose_nor_duplicate_spans() -> None:
    kept = Kept()
    tracer = Tracer(exporter=kept)

    def work(number: int) -> None:
        for step in range(50):
            with tracer.span(f"{number}.{step}"), tracer.span("child"):
                pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(trace[1] for trace in kept.traces) == sorted(f"{n}.{step}" for n in range(8) for step in range(50))
    assert all(trace[0] == "child" for trace in kept.traces)


def test_a_tee_passes_every_item_to_both() -> None:
    first, second = CapturedSpans(), CapturedSpans()
    tracer = Tracer(exporter=Tee(first, second))
    with tracer.span("root"), tracer.span("child"):
        pass
    assert first.items == second.items
    assert len(first.spans) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_exports_no_span_of_its_parent() -> None:
    exporter = Kept()
    made = Tracer(exporter=exporter)
    root = made.start_span("root")
    made.start_span("child", parent=root).end()
    recorder: Any = made.recorder
    read, write = os.pipe()
    with recorder._lock:  # as another thread of the parent may do at this moment
        pid = os.fork()
        if pid == 0:
            with made.span("span of the child process"):
                pass
            made.shutdown()
            os.write(write, repr(exporter.traces).encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "[['span of the child process']]"
    os.waitpid(pid, 0)
    root.end()
    assert exporter.traces == [["child", "root"]]
