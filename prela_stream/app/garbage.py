"""Rarer garbage collections for services that handle many small objects."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

GC_THRESHOLDS: Final = (2_000, 5, 5_000)
"""Open traces are many small objects that live for a while. With the thresholds of CPython, a worker spends a sixth of its
time on full collections that find nothing (bench/worker.py). The others are small, because nothing else runs during them."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Use `GC_THRESHOLDS` for the block. Collections no longer visit what is there at its start, which is mostly code."""
    before = gc.get_threshold()
    gc.freeze()
    gc.enable()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
