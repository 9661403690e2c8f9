"""Activates the OpenTelemetry instrumentors of the libraries that a program uses, on the provider of the bridge.

Nothing is imported before the program imports the library: the instrumentor, OpenTelemetry's SDK and the bridge come with it.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

from prela_stream.errors import ConfigurationError, guard, logger
from prela_stream.instrumentation.callers import claim, release
from prela_stream.instrumentation.import_hook import forget, when_imported
from prela_stream.instrumentation.libraries import LIBRARIES, Library
from prela_stream.instrumentation.options import InstrumentationOptions
from prela_stream.instrumentation.otel_bridge import follow_opentelemetry, global_provider, unfollow_opentelemetry
from prela_stream.tracing.tracer import Tracer

SDK: Final = "opentelemetry-sdk"
_CONTENT_SWITCHES: Final = {
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
    "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
}
"""Variables with which OpenTelemetry's own instrumentors record content in spans."""
_active: Final[dict[str, Any]] = {}
"""What was activated, by name: the instrumentor; None for a library that traces itself or was instrumented by the program."""
_reported: Final[set[str]] = set()
"""Names of libraries whose missing instrumentor was logged."""


class PydanticAI:
    """Switches the tracing of Pydantic AI on and off, with the methods of an instrumentor of OpenTelemetry."""

    is_instrumented_by_opentelemetry = False

    def instrument(self, *, tracer_provider: Any, include_content: bool = True) -> None:
        """Trace all agents, also those that exist already."""
        settings = importlib.import_module("pydantic_ai.models.instrumented").InstrumentationSettings
        agent = importlib.import_module("pydantic_ai").Agent
        agent.instrument_all(settings(tracer_provider=tracer_provider, include_content=include_content))
        self.is_instrumented_by_opentelemetry = True

    def uninstrument(self) -> None:
        """Undo `instrument`."""
        importlib.import_module("pydantic_ai").Agent.instrument_all(False)
        self.is_instrumented_by_opentelemetry = False


def switch_on(names: Sequence[str], tracer: Tracer, options: InstrumentationOptions) -> list[str]:
    """Activate what traces these libraries, now or when the program imports them.

    One log line names the packages to install for the libraries that are installed without.

    Returns:
        The names of the libraries that are traced, or will be once they are imported.
    """
    traced: list[str] = []
    lacking: dict[str, str] = {}
    for name in names:
        library = LIBRARIES[name]
        if not is_installed(library):
            continue
        if missing := missing_packages(library):
            if not library.is_optional:
                lacking[name] = " ".join(missing)
            continue
        failed: list[str] = []

        def instrument(name: str = name, failed: list[str] = failed) -> None:
            if not _instrument(name, tracer, options):
                failed.append(name)

        when_imported(library.module, instrument)
        if not failed:
            traced.append(name)
    if new := {name: packages for name, packages in lacking.items() if name not in _reported}:
        _reported.update(new)
        logger.warning(
            "prela_stream does not trace %s. To trace %s: pip install %s",
            ", ".join(new), "it" if len(new) == 1 else "them", " ".join(dict.fromkeys(" ".join(new.values()).split())),
        )  # fmt: skip
    return traced


def switch_off(names: Sequence[str]) -> None:
    """Undo `switch_on`. An instrumentor that the program activated is left as it is."""
    was_active = any(name in _active for name in names)
    for name in names:
        forget(LIBRARIES[name].module)
        release(name)
        one = _active.pop(name, None)
        if one is not None:
            with guard(f"uninstrument({name})"):
                one.uninstrument()
    if was_active and not _active:
        unfollow_opentelemetry()


def is_installed(library: Library) -> bool:
    """Whether the library is installed; it is not imported."""
    if library.module in sys.modules:
        return bool(version_of(library.distribution))
    top = library.module.partition(".")[0]
    if importlib.util.find_spec(top) is None:
        return False
    return bool(version_of(library.distribution))  # another distribution may have a module of this name


def missing_packages(library: Library) -> list[str]:
    """The packages that have to be installed before this library can be traced."""
    needed = [SDK, *([library.package] if library.package else [])]
    missing = [package for package in needed if not version_of(package)]
    if library.since and _numbers(version_of(library.distribution)) < _numbers(library.since):
        missing.append(f"'{library.distribution}>={library.since}'")
    return missing


def version_of(distribution: str) -> str:
    """The installed version; empty if it is not installed."""
    from importlib import metadata  # takes 15 ms, and is not needed by a program without such a library

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def libraries_installed() -> Iterator[tuple[str, Library, list[str]]]:
    """Each library of the table that is installed, and the packages that it lacks to be traced."""
    for name, library in LIBRARIES.items():
        if is_installed(library):
            yield name, library, missing_packages(library)


def _instrument(name: str, tracer: Tracer, options: InstrumentationOptions) -> bool:
    """The library is imported: activate its instrumentor. Returns False if it cannot be traced, which is logged."""
    if name in _active:
        follow_opentelemetry(tracer)
        return True
    library = LIBRARIES[name]
    try:
        _record_content_if_nothing_else_does(options)
        provider = global_provider()
        follow_opentelemetry(tracer)
        one = _activated(library, provider, options)
    except (ImportError, AttributeError, ConfigurationError) as error:
        logger.warning("prela_stream does not trace %s: %s", name, error)
        return False
    _active[name] = one
    claim(name, library.callers)
    return True


def _activated(library: Library, provider: Any, options: InstrumentationOptions) -> Any:
    """The instrumentor, active; None if there is none or the program has activated it. Raises ImportError if it refuses."""
    if not library.path:
        return None
    module, _, attribute = library.path.partition(":")
    one = getattr(importlib.import_module(module), attribute)()
    if getattr(one, "is_instrumented_by_opentelemetry", False):
        return None
    one.instrument(tracer_provider=provider, **_content_options(library, options))
    if not getattr(one, "is_instrumented_by_opentelemetry", True):
        msg = (
            f"{library.package} {version_of(library.package)} refuses {library.distribution} "
            f"{version_of(library.distribution)}; tested are {library.tested or 'no versions'}"
        )
        raise ImportError(msg)
    return one


def _content_options(library: Library, options: InstrumentationOptions) -> dict[str, Any]:
    if options.capture_content:
        return {}
    if library.path.startswith("openinference."):
        config = importlib.import_module("openinference.instrumentation").TraceConfig
        return {"config": config(hide_inputs=True, hide_outputs=True)}
    return {"include_content": False} if library.path.endswith(":PydanticAI") else {}


def _record_content_if_nothing_else_does(options: InstrumentationOptions) -> None:
    """Let OpenTelemetry's instrumentors record content if their spans go to this SDK alone.

    If the program has a provider with exporters, its own variables decide, because the content would reach these exporters too.
    """
    api: Any = sys.modules.get("opentelemetry.trace")
    if options.capture_content and getattr(api, "_TRACER_PROVIDER", None) is None:
        for name, value in _CONTENT_SWITCHES.items():
            os.environ.setdefault(name, value)


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:3]
    return tuple(int(part) for part in parts if part.isdigit())
