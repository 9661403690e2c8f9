"""The counting processors of docs/opentelemetry.md, and what their counts have to be."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.selection import choose_core
from prela_stream.codec.spans import decode_head, encode_batch, encode_resource
from prela_stream.model.decision import Basis, Trigger
from prela_stream.model.span import AFTER_END, BY_PROCESSOR, COUNTED, REMOTE_PARENT, Resource
from prela_stream.otel.items import encode_foreign
from prela_stream.otel.spans import ForeignSpan
from tests.support.cores import add

PAGE: Final = Path(__file__).parents[2] / "docs" / "opentelemetry.md"
RESOURCE: Final = encode_resource(Resource(service_name="counting"))
EXPECTED: Final = {
    "root": (BY_PROCESSOR, 4),
    "tool": (BY_PROCESSOR | COUNTED, 0),
    "late": (BY_PROCESSOR | AFTER_END, 0),
    "server": (BY_PROCESSOR | REMOTE_PARENT, 1),
    "server inner": (BY_PROCESSOR | COUNTED, 0),
    **dict.fromkeys(("a", "b", "c"), (BY_PROCESSOR | COUNTED, 1)),
    **{f"{name} inner": (BY_PROCESSOR | COUNTED, 0) for name in ("a", "b", "c")},
}
"""Flags and child counts of the programs in tests/integration/counting."""


def block(language: str) -> str:
    """The code in a language under the heading of the counting processor."""
    section = PAGE.read_text(encoding="utf-8").partition("\n## The counting processor\n")[2]
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    return str(found)


def check(spans: Iterable[ForeignSpan]) -> None:
    """The spans of a program have the right counts, and their traces are complete by them."""
    traces: dict[bytes, list[ForeignSpan]] = {}
    found: dict[str, tuple[int, int | None]] = {}
    for span in spans:
        head = decode_head(encode_foreign(span))
        if span.name not in ("raced", "child"):
            found[span.name] = head.flags, head.child_count
        traces.setdefault(span.trace_id, []).append(span)
    assert found == EXPECTED
    for trace in traces.values():
        late = [span for span in trace if span.name == "late"]
        decided = decide([span for span in trace if span not in late])
        assert decided == (True, Trigger.COMPLETE, Basis.COUNTING_PROCESSOR)
        counted = [span for span in trace if span.name in ("tool", "server inner", "child") and is_counted(span)]
        if counted:
            complete, trigger, basis = decide([span for span in trace if span is not counted[0]])
            assert (complete, trigger, basis) == (False, Trigger.ROOT_WAIT, Basis.COUNTING_PROCESSOR)


def is_counted(span: ForeignSpan) -> bool:
    """Whether the count of the parent includes it."""
    return bool(decode_head(encode_foreign(span)).flags & COUNTED)


def decide(spans: Iterable[ForeignSpan]) -> tuple[bool, Trigger, Basis]:
    """What a worker decides about spans of one trace."""
    core = choose_core("python").new(AssemblyOptions(), (), 1_000_000)
    list(core.due(1_000))
    add(core, encode_batch(RESOURCE, [encode_foreign(span) for span in spans]), 1)
    (ready,) = [one for one in core.due(100_000) if one is not None]
    assert ready.trace is not None
    return ready.trace.complete, ready.trace.trigger, ready.basis
