"""Random programs of OpenTelemetry spans, mixed with spans of this SDK: no trace is complete without a span that was counted.

To run more programs: `PRELA_OTEL_PROGRAMS=10000 pytest tests/properties/test_otel_programs.py -s`.
"""

import os
import random
import sys
from collections.abc import Iterable, Iterator
from typing import Final

import pytest
from opentelemetry.sdk.trace import TracerProvider

from prela_stream.assembly.base import ReadyTrace
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.selection import CoreKind
from prela_stream.codec.spans import decode_head, decode_span, encode_batch, encode_resource
from prela_stream.instrumentation.otel_bridge import bridge_opentelemetry, unbridge_opentelemetry
from prela_stream.model.decision import Basis, Trigger
from prela_stream.model.span import COUNTED, ItemKind, Resource
from prela_stream.testing import capture_spans
from tests.support.cores import MAX_ITEM_BYTES, trace_of
from tests.support.otel_programs import Interpreter, OffByName, Program, Truth, generate

PROGRAMS: Final = int(os.environ.get("PRELA_OTEL_PROGRAMS", "400"))
RESOURCE: Final = encode_resource(Resource(service_name="programs"))
provider = TracerProvider(shutdown_on_exit=False, sampler=OffByName())


@pytest.fixture(autouse=True)
def bridged() -> Iterator[None]:
    bridge_opentelemetry(provider)
    yield
    unbridge_opentelemetry()


def items_of(program: Program) -> list[bytes]:
    """Run a program; the items that it recorded."""
    with capture_spans() as captured:
        Interpreter(provider.get_tracer("programs")).run(program)
    return captured.items


def check_spans(program: Program, items: Iterable[bytes]) -> None:
    """Every span that has to be recorded is, once, with the right parent and flag."""
    spans = [decode_span(item) for item in items if decode_head(item).kind == ItemKind.SPAN]
    names = {span.span_id: span.name for span in spans}
    found = {
        span.name: Truth(parent=names.get(span.parent_span_id or ""), counted=bool(span.flags & COUNTED))
        for span in spans
    }
    assert found == program.truth
    assert len(spans) == len(found)
    assert len({span.trace_id for span in spans}) <= 1


def decide(core: CoreKind, items: Iterable[bytes]) -> tuple[ReadyTrace, list[bytes]]:
    """Give a worker the items one after the other; the decision, which comes as soon as it can, and the items before it."""
    partition = core.new(AssemblyOptions(settle_ms=1), (), MAX_ITEM_BYTES)
    now = 1_000
    given: list[bytes] = []
    for offset, item in enumerate(items):
        now += 2
        for ready in partition.due(now):
            if ready is not None:  # None only lets other tasks run
                return ready, given
        partition.add(encode_batch(RESOURCE, [item]), offset)
        given.append(item)
    (last,) = [ready for ready in partition.due(now + 100_000_000) if ready is not None]
    return last, given


def is_closed(names: set[str], truth: dict[str, Truth]) -> bool:
    """Whether the parent of each span and every child that it counted are among these spans."""
    return all(
        (truth[name].parent is None or truth[name].parent in names)
        and all(child in names for child, of in truth.items() if of.counted and of.parent == name)
        for name in names
    )


def names_of(items: Iterable[bytes]) -> set[str]:
    return {decode_span(item).name for item in items if decode_head(item).kind == ItemKind.SPAN}


def test_no_trace_is_complete_without_a_counted_span_and_each_whole_one_is(core: CoreKind) -> None:
    whole = lacking = early = 0
    for seed in range(PROGRAMS):
        program, rng = generate(seed), random.Random(seed)
        items = items_of(program)
        check_spans(program, items)
        if not items:
            continue
        rng.shuffle(items)
        ready, given = decide(core, items)
        trace = trace_of(ready)
        assert (trace.complete, trace.trigger, ready.basis) == (True, Trigger.COMPLETE, Basis.COUNTS), seed
        assert is_closed(names_of(given), program.truth), seed
        whole += len(given) == len(items)
        early += len(given) != len(items)
        spans = [
            item for item in items if decode_head(item).kind == ItemKind.SPAN
        ]  # a START would say that one is missing
        for _ in range(3):
            left = [item for item in spans if rng.random() < 0.8]
            if left and len(left) < len(spans):
                ready, given = decide(core, left)
                assert ready.basis == Basis.COUNTS
                complete = trace_of(ready).complete
                assert not complete or is_closed(names_of(given), program.truth), seed
                lacking += not complete
    sys.stdout.write(
        f"{PROGRAMS:,} programs: {whole + early:,} complete ({early:,} before a late span), {lacking:,} lacking ones not\n"
    )
    assert min(whole, lacking) > PROGRAMS / 4
