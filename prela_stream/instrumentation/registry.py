"""Instrumentors by name, and `auto_instrument()`, which switches them on for what the program really uses."""

from collections.abc import Sequence
from typing import Any, Final

from prela_stream.errors import ConfigurationError, guard
from prela_stream.instrumentation.anthropic.client import AnthropicInstrumentor
from prela_stream.instrumentation.base import Instrumentor
from prela_stream.instrumentation.import_hook import forget, when_imported
from prela_stream.instrumentation.options import InstrumentationOptions
from prela_stream.model.plain import safe_text
from prela_stream.tracing.coerce import text_of
from prela_stream.tracing.tracer import Tracer, get_tracer

__all__ = ["INSTRUMENTORS", "InstrumentationOptions", "Instrumentor", "auto_instrument", "uninstrument"]

INSTRUMENTORS: Final[dict[str, Instrumentor]] = {one.name: one for one in (AnthropicInstrumentor(),)}
"""Every instrumentor, one line each."""


def auto_instrument(
    tracer: Tracer | None = None,
    *,
    names: Sequence[str] | None = None,
    capture_content: bool = True,
) -> list[str]:
    """Trace the calls of the libraries that this program uses, with no change to its code.

    A library that is imported already is patched now, one that is installed but not imported when the program imports it; none is
    imported by this. Calling it again changes tracer and options.

    Args:
        tracer: Where spans go; None: the current one of `init()`.
        names: Keys of INSTRUMENTORS; None: all of them.
        capture_content: Record prompts and answers; without it tokens, latency, stop reasons and errors stay.

    Returns:
        The names of those that are installed, and so are or will be traced.

    Raises:
        ConfigurationError: for a name that is no instrumentor.
    """
    chosen = tuple(INSTRUMENTORS) if names is None else checked_names(names)
    target: Any = get_tracer() if tracer is None else tracer
    if not isinstance(target, Tracer):
        msg = f"auto_instrument(tracer=…) takes a Tracer, got {safe_text(target)}"
        raise ConfigurationError(msg)
    options = InstrumentationOptions(names=chosen, capture_content=capture_content is True)
    switched_on = []
    for name in chosen:
        with guard(f"auto_instrument({name})"):
            if _switch_on(INSTRUMENTORS[name], target, options):
                switched_on.append(name)
    return switched_on


def checked_names(names: object) -> tuple[str, ...]:
    """Names of instrumentors, as a list or the like; raises ConfigurationError for anything else."""
    if not isinstance(names, list | tuple | set | frozenset):
        msg = f"instrumentors are named in a list, such as ['anthropic'], got {safe_text(names)}"
        raise ConfigurationError(msg)
    if unknown := [text_of(name) for name in names if not (type(name) is str and name in INSTRUMENTORS)]:
        msg = f"there is no instrumentor {', '.join(unknown)}; there are {', '.join(sorted(INSTRUMENTORS))}"
        raise ConfigurationError(msg)
    return tuple(names)


def _switch_on(instrumentor: Instrumentor, tracer: Tracer, options: InstrumentationOptions) -> bool:
    if not instrumentor.is_available():
        return False
    when_imported(instrumentor.module, lambda: instrumentor.instrument(tracer, options))
    return True


def uninstrument(names: Sequence[str] | None = None) -> None:
    """Put back what was patched, and call off what waits for an import. None: all of it."""
    for name in INSTRUMENTORS if names is None else names:
        forget(INSTRUMENTORS[name].module)
        INSTRUMENTORS[name].uninstrument()
