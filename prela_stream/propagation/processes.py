"""An executor whose processes go on with the trace of whoever submitted the work."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, ParamSpec, TypeVar

from prela_stream.propagation.w3c import extract, headers
from prela_stream.tracing.coerce import text_of
from prela_stream.tracing.tracer import get_tracer

P = ParamSpec("P")
R = TypeVar("R")


class ContextProcessPoolExecutor(ProcessPoolExecutor):
    """A ProcessPoolExecutor whose calls are spans, named as the function, below the span that is current at `submit()`.

    With `map()` it is one span a chunk. A process that is spawned starts with nothing, so switch tracing on there, too:
    `ContextProcessPoolExecutor(initializer=prela.init)`. A process that is forked inherits it.
    """

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """As `ProcessPoolExecutor.submit`."""
        return super().submit(_go_on, headers(), fn, args, kwargs)


def _go_on(carrier: Mapping[str, str], function: Callable[..., R], args: Any, kwargs: Any) -> R:
    # A span in any case: the one that submitted this counts it, and the worker would wait for it.
    shown = function.func if hasattr(function, "func") and callable(function.func) else function
    name = text_of(getattr(shown, "__name__", type(shown).__name__))
    with get_tracer().span(name, parent=extract(carrier)):
        return function(*args, **kwargs)
