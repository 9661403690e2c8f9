"""The registry of instrumentors, and `auto_instrument()`, which turns them on for the libraries that a program uses."""

import functools
import importlib
import sys
from collections.abc import Sequence
from typing import Any, Final

from prela_stream.errors import ConfigurationError, guard, logger
from prela_stream.instrumentation.base import Instrumentor
from prela_stream.instrumentation.import_hook import forget, when_imported
from prela_stream.instrumentation.libraries import LIBRARIES
from prela_stream.instrumentation.options import InstrumentationOptions
from prela_stream.instrumentation.otel_scopes import heed_scopes, ignore_scopes
from prela_stream.model.plain import safe_text
from prela_stream.tracing.coerce import text_of
from prela_stream.tracing.tracer import Tracer, get_tracer

__all__ = ["INSTRUMENTORS", "InstrumentationOptions", "Instrumentor", "auto_instrument", "instrumentor", "uninstrument"]

INSTRUMENTORS: Final[dict[str, str]] = {
    "anthropic": "prela_stream.instrumentation.anthropic.client:AnthropicInstrumentor",
    "openai": "prela_stream.instrumentation.openai.client:OpenAIInstrumentor",
}
"""Name → import path of the class. It is imported when it is first used."""
OTEL_SCOPES: Final[dict[str, tuple[str, ...]]] = {
    "anthropic": ("com.anthropic.sdk.python", "*.instrumentation.anthropic", "*.genai.anthropic"),
    "openai": (
        "*.instrumentation.openai",
        "*.instrumentation.openai.v*",
        "*.instrumentation.openai_v2",
        "*.genai.openai",
    ),
}
"""Name → scopes of OpenTelemetry whose spans are those of the same calls. The bridge passes them over while it is active."""


@functools.cache
def instrumentor(name: str) -> Instrumentor:
    """The one instance of the instrumentor with this name."""
    module, _, attribute = INSTRUMENTORS[name].partition(":")
    made: Instrumentor = getattr(importlib.import_module(module), attribute)()
    return made


def auto_instrument(
    tracer: Tracer | None = None,
    *,
    names: Sequence[str] | None = None,
    capture_content: bool = True,
    opentelemetry: bool = True,
) -> list[str]:
    """Trace the calls of the libraries that this program uses, with no change to its code.

    The `anthropic` and `openai` clients have instrumentors of this SDK. Other libraries are traced by the instrumentors of
    OpenTelemetry that are installed, through the bridge; one log line names the packages that are missing. A library that is
    imported already is patched now. One that is installed but not imported is patched when the program imports it; this call
    imports none. Another call changes tracer and options.

    Args:
        tracer: Destination of the spans; None: the current tracer of `init()`.
        names: Names of libraries, as in docs/instrumentation.md; None: all of them.
        capture_content: Record prompts and answers. Without it tokens, latency, stop reasons and errors stay.
        opentelemetry: Activate instrumentors of OpenTelemetry. If off, only the instrumentors of this SDK are used.

    Returns:
        The names of the libraries whose calls are traced now, or will be once they are imported.

    Raises:
        ConfigurationError: for a name that is no library of the table.
    """
    chosen = (*INSTRUMENTORS, *LIBRARIES) if names is None else checked_names(names)
    target: Any = get_tracer() if tracer is None else tracer
    if not isinstance(target, Tracer):
        msg = f"auto_instrument(tracer=…) takes a Tracer, got {safe_text(target)}"
        raise ConfigurationError(msg)
    options = InstrumentationOptions(capture_content=capture_content is True)
    switched_on = []
    for name in [name for name in chosen if name in INSTRUMENTORS]:
        with guard(f"auto_instrument({name})"):
            if _switch_on(instrumentor(name), target, options):
                switched_on.append(name)
    libraries = [name for name in chosen if name in LIBRARIES]
    if libraries and opentelemetry:
        with guard("auto_instrument(opentelemetry)"):
            from prela_stream.instrumentation import otel_libraries

            switched_on += otel_libraries.switch_on(libraries, target, options)
    return switched_on


def checked_names(names: object) -> tuple[str, ...]:
    """Names of instrumentors, as a list or the like; raises ConfigurationError for anything else."""
    if not isinstance(names, list | tuple | set | frozenset):
        msg = f"instrumentors are named in a list, such as ['anthropic'], got {safe_text(names)}"
        raise ConfigurationError(msg)
    known = {*INSTRUMENTORS, *LIBRARIES}
    if unknown := [text_of(name) for name in names if not (type(name) is str and name in known)]:
        msg = f"there is no instrumentor {', '.join(unknown)}; there are {', '.join(sorted(known))}"
        raise ConfigurationError(msg)
    return tuple(names)


def _switch_on(one: Instrumentor, tracer: Tracer, options: InstrumentationOptions) -> bool:
    """Patch the library now or after its import; returns False if it is not installed or cannot be patched."""
    if not one.is_available():
        return False
    failed: list[str] = []

    def instrument() -> None:
        try:
            one.instrument(tracer, options)
            ignore_scopes(one.name, OTEL_SCOPES.get(one.name, ()))
        except ImportError as error:
            failed.append(one.name)
            logger.warning("prela_stream does not trace %s: %s", one.name, error)

    when_imported(one.module, instrument)
    return not failed


def uninstrument(names: Sequence[str] | None = None) -> None:
    """Restore what was patched, and cancel what waits for an import. None: all of it."""
    chosen = (*INSTRUMENTORS, *LIBRARIES) if names is None else names
    module = sys.modules.get("prela_stream.instrumentation.otel_libraries")
    if module is not None:
        module.switch_off([name for name in chosen if name in LIBRARIES])
    for name in [name for name in chosen if name in INSTRUMENTORS]:
        one = instrumentor(name)
        forget(one.module)
        heed_scopes(name)
        one.uninstrument()
