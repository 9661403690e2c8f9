"""An executor whose processes continue the trace in which the work was submitted."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, ParamSpec, TypeVar

from prela_stream.propagation.w3c import extract, headers
from prela_stream.tracing.coerce import text_of
from prela_stream.tracing.tracer import get_tracer

P = ParamSpec("P")
R = TypeVar("R")


class ContextProcessPoolExecutor(ProcessPoolExecutor):
    """A ProcessPoolExecutor whose calls are spans, named after the function, below the span that is current at `submit()`.

    `map()` gives one span for each chunk. A spawned process does not inherit tracing, so switch it on there:
    `ContextProcessPoolExecutor(initializer=prela.init)`. A forked process inherits it.
    """

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """As `ProcessPoolExecutor.submit`."""
        return super().submit(_run_below, headers(), fn, args, kwargs)


def _run_below(carrier: Mapping[str, str], function: Callable[..., R], args: Any, kwargs: Any) -> R:
    # Always a span: the submitting span counted it, so the worker waits for it.
    shown = function.func if hasattr(function, "func") and callable(function.func) else function
    name = text_of(getattr(shown, "__name__", type(shown).__name__))
    with get_tracer().span(name, parent=extract(carrier)):
        return function(*args, **kwargs)
