"""Records the spans of OpenTelemetry in this process, next to those of this SDK: one tree, with exact child counts.

The bridge is one SpanProcessor on the TracerProvider of the program. It replaces no provider, and the program's exporters get the
same spans as before. It includes `join_opentelemetry()`, so that spans of both libraries are parents of each other. Nothing here
imports OpenTelemetry unless the program asks for the bridge or has set up a provider.
"""

import sys
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from prela_stream.errors import ConfigurationError, guard, logger
from prela_stream.instrumentation.import_hook import forget, when_imported
from prela_stream.instrumentation.otel import is_joined, join_opentelemetry, leave_opentelemetry
from prela_stream.model.plain import safe_text
from prela_stream.tracing.tracer import Tracer, get_tracer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_API: Final = "opentelemetry.trace"
_SETTER: Final = "_set_tracer_provider"
"""Called by `set_tracer_provider`, also where a program has imported that function by name."""
_guard: Final = guard("instrumentation.otel_bridge")


class _Bridge:
    """The state of the bridge in this process."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.processors: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        """The processor of each provider: it cannot be removed, and must not be added twice."""
        self.tracer: Tracer | None = None
        self.was_asked_for = False
        """`bridge_opentelemetry()` was called, so `init()` and `shutdown()` do not end the bridge."""
        self.has_joined = False
        self.original: Callable[..., Any] | None = None
        """The setter that is wrapped while the bridge waits for a provider."""


_bridge: Final = _Bridge()


def bridge_opentelemetry(provider: "TracerProvider | None" = None) -> "TracerProvider":
    """Record the spans of OpenTelemetry, by any of its instrumentors, with the exact number of children of each.

    `init()` calls it if the program has set up OpenTelemetry. Call it before `init()` or after it, any number of times.

    Args:
        provider: The TracerProvider of the SDK whose spans are recorded; None: the global one. If there is none, one is created
            and made global.

    Returns:
        The provider. Instrumentors take it as `tracer_provider=`, or find it as the global one.

    Raises:
        ConfigurationError: OpenTelemetry's SDK is not installed, or the provider is one of another implementation.
    """
    found = _checked(global_provider() if provider is None else provider)
    with _bridge.lock:
        _bridge.was_asked_for = True
        _add(found, get_tracer())
    return found  # type: ignore[no-any-return]  # it was checked


def global_provider() -> Any:
    """The global TracerProvider. It is created if there is none. Raises ConfigurationError without OpenTelemetry's SDK."""
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
    except ImportError as error:
        msg = f"the bridge to OpenTelemetry needs its SDK: pip install 'prela-stream[otel]' ({error})"
        raise ConfigurationError(msg) from error
    found: Any = trace.get_tracer_provider()
    if isinstance(found, trace.ProxyTracerProvider):
        trace.set_tracer_provider(TracerProvider())
        found = trace.get_tracer_provider()  # another thread may have been first
    return _checked(found)


def follow_opentelemetry(tracer: Tracer) -> None:
    """Record the spans of OpenTelemetry once the program has set up a global provider: now, or later.

    Nothing is imported and no provider is created. `unfollow_opentelemetry` undoes it.
    """
    with _bridge.lock:
        _bridge.tracer = tracer
    when_imported(_API, _watch)


def unfollow_opentelemetry() -> None:
    """Undo `follow_opentelemetry`. The bridge stays if the program has called `bridge_opentelemetry()`."""
    with _bridge.lock:
        _bridge.tracer = None
        forget(_API)
        module: Any = sys.modules.get(_API)
        if _bridge.original is not None and getattr(getattr(module, _SETTER, None), "_is_wrapper", False):
            setattr(module, _SETTER, _bridge.original)
        _bridge.original = None
        if not _bridge.was_asked_for:
            _stop()


def unbridge_opentelemetry() -> None:
    """Undo `bridge_opentelemetry` and what `init()` did. Spans of OpenTelemetry that are open are recorded when they end."""
    with _bridge.lock:
        _bridge.was_asked_for = False
        unfollow_opentelemetry()


def _stop() -> None:
    for processor in list(_bridge.processors.values()):
        processor.tracer = None
    if _bridge.has_joined:
        _bridge.has_joined = False
        leave_opentelemetry()


def _watch() -> None:
    """`opentelemetry.trace` is imported: use its provider, or wait until it gets one."""
    module: Any = sys.modules[_API]
    with _bridge.lock:
        original = getattr(module, _SETTER, None)
        if _bridge.tracer is not None and callable(original) and not getattr(original, "_is_wrapper", False):

            def wrapper(*arguments: Any, **named: Any) -> Any:
                result = original(*arguments, **named)
                with _guard:
                    _use_global()
                return result

            wrapper._is_wrapper = True  # type: ignore[attr-defined]  # functions have a dict
            _bridge.original = original
            setattr(module, _SETTER, wrapper)
    _use_global()


def _use_global() -> None:
    """Add the processor to the global provider if there is one."""
    module: Any = sys.modules[_API]
    # `get_tracer_provider()` would load the provider that a variable names, which is the program's decision
    provider = getattr(module, "_TRACER_PROVIDER", None)
    with _bridge.lock:
        if provider is None or _bridge.tracer is None:
            return
        try:
            _checked(provider)
        except ConfigurationError as error:
            logger.warning("prela_stream does not record the spans of OpenTelemetry: %s", error)
            return
        _add(provider, _bridge.tracer)


def _checked(provider: Any) -> Any:
    """The provider; raises ConfigurationError unless its spans can be recorded."""
    if not callable(getattr(provider, "add_span_processor", None)):
        msg = (
            "the TracerProvider has to be one of opentelemetry-sdk, which has add_span_processor(); got "
            f"{safe_text(provider)}. Pass another one to bridge_opentelemetry(provider)"
        )
        raise ConfigurationError(msg)
    return provider


def _add(provider: Any, tracer: Tracer) -> None:
    from prela_stream.instrumentation.otel_processor import BridgeProcessor

    processor = _bridge.processors.get(provider)
    if processor is None:
        processor = _bridge.processors[provider] = BridgeProcessor()
        provider.add_span_processor(processor)
    processor.tracer = tracer
    if not is_joined():
        _bridge.has_joined = True
        join_opentelemetry()
