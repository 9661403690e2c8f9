"""Counts the work of a partition between two steps, in items and spans: how long it takes depends on the machine."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from prela_stream.assembly import buffer, completeness, decoding
from prela_stream.assembly.native_core import NativeCore
from prela_stream.codec import item_reader, spans
from prela_stream.sampling.attribute import Attribute
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.worker import late, outputs
from prela_stream.worker.partition import PartitionState


class Work:
    """Counts from now on.

    Args:
        patch: Patches what does the work, so that it counts.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._counted = 0
        self.most = 0
        """The most work between two steps so far."""
        self.all = 0
        """All work so far."""
        for place in (spans, item_reader):
            self._count(place, "joined", len)
        self._count(spans, "_decode_one_by_one", lambda _, items, *__: len(items))
        self._count(buffer.TraceBuffer, "add", lambda _, batch, __: len(batch.heads))
        self._count(completeness.OpenTrace, "fold", lambda trace: len(trace.new))
        self._count(decoding, "are_plain", len)
        self._count(decoding.TraceDecoder, "read", lambda _, due: len(due.raws))
        self._count(late, "body_problem", lambda _: 1)
        self._count(outputs._Fragment, "add", lambda _, raws, __: len(raws))
        self._count(outputs.Outputs, "keep_late", lambda *_: 1)
        self._count(Evaluator, "decide", lambda *_: 1)
        self._count(Attribute, "_first", lambda _, __, among: len(among))

    def _count(self, place: Any, name: str, work: Callable[..., int]) -> None:
        original = getattr(place, name)

        def counted(*args: Any, **more: Any) -> Any:
            self._counted += work(*args)
            return original(*args, **more)

        self._patch.setattr(place, name, counted)

    def take(self, state: PartitionState, steps: Iterator[int]) -> None:
        """Take all steps of this state, and note the work of each."""
        core = state._core
        before = core._partition.work if isinstance(core, NativeCore) else 0
        self._counted = 0
        more: Sequence[int | None] = ()
        while None not in more:
            more = [next(steps, None)]
            now = core._partition.work if isinstance(core, NativeCore) else 0
            done = self._counted + now - before
            self.most, self.all = max(self.most, done), self.all + done
            self._counted, before = 0, now
