"""The Python core holds young items as views of their records, and must not hold a whole record for a trace that waits on."""

import sys

import pytest

from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.python_core import PythonCore
from prela_stream.codec.spans import encode_batch, encode_item, encode_resource
from prela_stream.model.span import COUNTED, ItemKind, Resource
from tests.support.cores import MAX_ITEM_BYTES, expire

RESOURCE = encode_resource(Resource(pid=1))
TRACE, PARENT = b"t" * 16, b"p" * 8


def record(number: int, *, other: int = 0) -> bytes:
    """A record with a child of a root that never arrives; 0 if it is alone in it, or with one of another trace."""
    traces = [TRACE, other.to_bytes(16, "big")] if other else [TRACE]
    head = (PARENT, COUNTED, 1, 0, 0, 0, None, 1, 10**18, 10**9, "chat", None, None)
    items = [encode_item(ItemKind.SPAN, trace, number.to_bytes(8, "big"), *head, {"k": "x" * 500}) for trace in traces]
    return encode_batch(RESOURCE, items)


def apply(core: PythonCore, now_ms: int, value: bytes, offset: int) -> None:
    assert [ready for ready in core.due(now_ms) if ready] == []
    expire(core)
    assert core.add(value, offset) is not None
    assert not list(core.over_limits())


def test_a_trace_that_waits_holds_bytes_and_not_its_record() -> None:
    core = PythonCore(AssemblyOptions(), (), MAX_ITEM_BYTES)
    value = record(1)
    before = sys.getrefcount(value)
    apply(core, 1_000, value, 0)
    assert sys.getrefcount(value) > before, "a young item is a view"
    apply(core, 5_000, record(2, other=7), 1)
    assert sys.getrefcount(value) == before
    assert core.open_bytes == sum(map(len, (value, record(2, other=7)))) - 2 * len(encode_batch(RESOURCE, []))


def test_a_trace_that_receives_items_all_the_time_holds_the_old_ones_as_bytes() -> None:
    core = PythonCore(AssemblyOptions(), (), MAX_ITEM_BYTES)
    value = record(1)
    before = sys.getrefcount(value)
    apply(core, 1_000, value, 0)
    for number in range(2, 60):
        apply(core, 1_000 + 200 * number, record(number), number - 1)
    assert core.open_spans == 59
    assert sys.getrefcount(value) == before


@pytest.mark.parametrize("most_bytes", [0, 10**9])
def test_under_memory_pressure_no_trace_holds_a_record(most_bytes: int) -> None:
    core = PythonCore(AssemblyOptions(), (), MAX_ITEM_BYTES)
    value = record(1, other=9)
    before = sys.getrefcount(value)
    apply(core, 1_000, value, 0)
    found = list(filter(None, core.heaviest(most_bytes)))
    assert len(found) == (0 if most_bytes else 2)
    assert sys.getrefcount(value) == before
    assert all(type(raw) is bytes for ready in found for raw in ready.raws)
