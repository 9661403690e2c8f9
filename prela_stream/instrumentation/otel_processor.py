"""The SpanProcessor of the bridge. Import this module only where OpenTelemetry's SDK is imported."""

from typing import Any, Final

from opentelemetry.sdk.trace import SpanProcessor

from prela_stream.errors import guard
from prela_stream.instrumentation.otel_spans import shadow_of, start
from prela_stream.tracing.tracer import Tracer

_start_guard: Final = guard("otel.on_start")
_end_guard: Final = guard("otel.on_end")
_MOST_SECONDS: Final = 5.0


class BridgeProcessor(SpanProcessor):
    """Records the spans of a TracerProvider with a tracer of this SDK. It changes no span."""

    def __init__(self) -> None:
        self.tracer: Tracer | None = None
        """None: spans that start now are not recorded."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:  # noqa: ARG002 - the span has the same parent
        """Count the span as a child."""
        tracer = self.tracer
        if tracer is not None:
            with _start_guard:
                start(tracer, span)

    def on_end(self, span: Any) -> None:
        """Record the span."""
        with _end_guard:
            shadow = shadow_of(span)
            if shadow is not None:
                shadow.complete(span)

    def shutdown(self) -> None:
        """Record no further spans, and deliver what was recorded for up to 5 s. Spans that are open are recorded at their end."""
        self._flush(_MOST_SECONDS)
        self.tracer = None

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until everything recorded has a result; False if the time is not sufficient."""
        return self._flush(timeout_millis / 1_000)

    def _flush(self, seconds: float) -> bool:
        tracer = self.tracer
        flush = None if tracer is None else getattr(tracer.recorder, "flush", None)
        if callable(flush):
            with _end_guard:
                result = flush(seconds)
                return result is None or bool(result.complete)
            return False
        return True
