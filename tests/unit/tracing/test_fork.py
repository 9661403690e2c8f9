"""A forked child: other ids, and no records of the spans that the parent process has open."""

import json
import os
import sys
from collections.abc import Generator
from typing import Any

import pytest

from prela_stream import telemetry
from prela_stream.model.span import REMOTE_PARENT
from prela_stream.testing import CapturedSpans, capture_spans
from prela_stream.tracing.ids import new_span_id, new_trace_id
from prela_stream.tracing.open_spans import OpenSpans
from prela_stream.tracing.tracer import get_tracer

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]
tracer = get_tracer()


def in_child(captured: CapturedSpans) -> dict[str, Any]:
    """The child's next ids, the fields of a span that it starts, and what it records at the end of inherited ones."""
    captured.clear()
    with tracer.span("child's own"):
        pass
    own = captured.find("child's own")
    return {
        "ids": [new_trace_id().hex(), new_span_id().hex()],
        "parent": own.parent_span_id,
        "trace": own.trace_id,
        "flags": own.flags,
        "ordinal": own.inject_ordinal,
        "open": len(list(OpenSpans(tracer).heartbeats())),
    }


def test_child_draws_other_ids_and_leaves_inherited_spans_to_the_parent() -> None:
    new_span_id(), new_trace_id()  # both pools are filled, so the child inherits them
    read, write = os.pipe()
    with capture_spans() as captured, tracer.span("root") as root, tracer.span("inner") as inner:
        pid = os.fork()
        if pid == 0:
            try:
                answer = in_child(captured)
                captured.clear()
                inner.__exit__(None, None, None)
                root.__exit__(None, None, None)
                answer["ended in the child"] = [span.name for span in captured.spans]
                os.write(write, json.dumps(answer).encode())
            finally:
                sys.stdout.flush()
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            answer = json.loads(pipe.read() or b"{}")
        os.waitpid(pid, 0)
        mine = {new_trace_id().hex(), new_span_id().hex()}
    assert answer["ended in the child"] == []
    assert (answer["trace"], answer["parent"]) == (root.trace_id, inner.span_id)
    assert (answer["flags"], answer["ordinal"], answer["open"]) == (REMOTE_PARENT, None, 0)
    assert not mine & set(answer["ids"])
    assert captured.find("inner").child_count == 0
    assert captured.find("root").child_count == 1


def test_a_child_counts_from_zero() -> None:
    telemetry.SWALLOWED.add(1, "test", "Error")
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, str(telemetry.SWALLOWED.value("test", "Error")).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert int(pipe.read()) == 0
    os.waitpid(pid, 0)
    assert telemetry.SWALLOWED.value("test", "Error") >= 1


def test_a_fork_inside_a_generator_goes_on_below_the_generators_span() -> None:
    read, write = os.pipe()
    pid = -1

    def forks() -> Generator[int, None, None]:
        with tracer.span("generator"):
            yield os.fork()

    with capture_spans() as captured, tracer.span("root"):
        generator = forks()
        pid = next(generator)
        if pid == 0:
            try:
                captured.clear()
                generator.close()
                answer = in_child(captured)
                os.write(write, json.dumps([answer["parent"], [span.name for span in captured.spans]]).encode())
            finally:
                os._exit(0)
        generator.close()
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            parent, spans = json.loads(pipe.read() or b"[]")
        os.waitpid(pid, 0)
    assert parent == captured.find("generator").span_id
    assert spans == ["child's own"]
