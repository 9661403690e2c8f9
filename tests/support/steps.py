"""Makes the steps of a partition small, so that they happen with few items."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest

from prela_stream.assembly import buffer, deadlines, decoding, lazy_heap, native_core, native_trace
from prela_stream.codec import rescue, spans
from prela_stream.model import large_trace
from prela_stream.sampling import conditions
from prela_stream.worker import deciding, late

SIZES = (
    (native_core, "STEP"),
    (native_trace, "STEP"),
    (spans, "PIECE_ITEMS"),
    (rescue, "PIECE_STEPS"),
    (buffer, "STEP"),
    (buffer, "MOST_COLLECTED"),
    (deadlines, "STEP"),
    (deadlines, "FEW"),
    (lazy_heap, "SLACK"),
    (decoding, "RUN_ITEMS"),
    (decoding, "LARGE"),
    (large_trace, "STEP"),
    (deciding, "SPANS_TOGETHER"),
    (deciding, "LARGE"),
    (conditions, "STEP"),
    (late, "SPANS"),
    (late, "TRACES"),
)


@contextmanager
def step_size(size: int | None, without: tuple[ModuleType, str] | None = None) -> Iterator[None]:
    """Each step does so much work; None: as much as in a worker. A core has the size with which it was made.

    Args:
        size: How much.
        without: One of `SIZES` that does not limit any step.
    """
    with pytest.MonkeyPatch.context() as patch:
        for place in SIZES if size else ():
            patch.setattr(*place, 1 << 40 if place == without else size)
        yield
