"""Asyncio-native streaming telemetry for AI agents, with tail-based sampling that loses no trace.

    import prela_stream as prela

    prela.init(service_name="my-agent")

Names are loaded when they are first used: importing this package loads no library that the program does not need. What joins
other libraries is in `prela_stream.integrations`, the rest of the ancestor's API in `prela_stream.compat`, further errors in
`prela_stream.errors`, and help for tests in `prela_stream.testing`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from prela_stream._version import __version__

if TYPE_CHECKING:
    from prela_stream.app.consume import decisions, kept_traces
    from prela_stream.app.init import aflush, flush, init, ledger, pipeline, shutdown
    from prela_stream.config import Settings, load_settings
    from prela_stream.delivery.flush import FlushResult
    from prela_stream.delivery.ledger import LedgerSnapshot
    from prela_stream.delivery.pipeline import Pipeline
    from prela_stream.errors import ConfigurationError, PrelaError
    from prela_stream.instrumentation.otel_bridge import bridge_opentelemetry
    from prela_stream.instrumentation.registry import auto_instrument
    from prela_stream.model.decision import Decision
    from prela_stream.model.span import SpanData, SpanEvent, SpanStatus, SpanType
    from prela_stream.model.tree import SpanTree
    from prela_stream.privacy.rules import Redactable, capture_content
    from prela_stream.propagation.w3c import extract, inject
    from prela_stream.sinks.kept_trace import KeptTrace
    from prela_stream.telemetry import Metrics, metrics
    from prela_stream.tracing.carrying import ContextThreadPoolExecutor, wrap
    from prela_stream.tracing.context import TraceContext, attach, new_trace_context
    from prela_stream.tracing.decorator import trace
    from prela_stream.tracing.sampler import (
        AlwaysOffSampler,
        AlwaysOnSampler,
        BaseSampler,
        HeadDecision,
        ProbabilitySampler,
        RateLimitingSampler,
    )
    from prela_stream.tracing.session import session
    from prela_stream.tracing.shortcuts import agent, embedding, llm, retrieval, span, tool
    from prela_stream.tracing.span import Span
    from prela_stream.tracing.tracer import Tracer, defer, get_current_span, get_tracer

__all__ = [
    # Start and stop
    "init",
    "shutdown",
    "flush",
    "aflush",
    "pipeline",
    "auto_instrument",
    "bridge_opentelemetry",
    # Make spans
    "get_tracer",
    "get_current_span",
    "span",
    "agent",
    "llm",
    "tool",
    "retrieval",
    "embedding",
    "trace",
    "session",
    # Spans and their parts
    "Tracer",
    "Span",
    "SpanEvent",
    "SpanType",
    "SpanStatus",
    # Carry the context
    "TraceContext",
    "new_trace_context",
    "attach",
    "wrap",
    "defer",
    "inject",
    "extract",
    "ContextThreadPoolExecutor",
    # Sample in the program
    "BaseSampler",
    "HeadDecision",
    "AlwaysOnSampler",
    "AlwaysOffSampler",
    "ProbabilitySampler",
    "RateLimitingSampler",
    # Keep content private
    "capture_content",
    "Redactable",
    # Read what was decided
    "kept_traces",
    "decisions",
    "KeptTrace",
    "Decision",
    "SpanData",
    "SpanTree",
    # Settings
    "Settings",
    "load_settings",
    # Diagnose
    "ledger",
    "LedgerSnapshot",
    "metrics",
    "Metrics",
    "FlushResult",
    "Pipeline",
    # Errors
    "PrelaError",
    "ConfigurationError",
    "__version__",
]

_MODULES = {
    "app.consume": ("decisions", "kept_traces"),
    "app.init": ("aflush", "flush", "init", "ledger", "pipeline", "shutdown"),
    "config": ("Settings", "load_settings"),
    "delivery.flush": ("FlushResult",),
    "delivery.ledger": ("LedgerSnapshot",),
    "delivery.pipeline": ("Pipeline",),
    "errors": (
        "ConfigurationError",
        "PrelaError",
        "CodecError",
        "FencedError",
        "OutcomeUnknownError",
        "SpanEndedError",
        "TransportError",
        "UnknownTopicError",
    ),
    "instrumentation.otel_bridge": ("bridge_opentelemetry",),
    "instrumentation.registry": ("auto_instrument",),
    "model.decision": ("Decision",),
    "model.span": ("SpanData", "SpanEvent", "SpanStatus", "SpanType"),
    "model.tree": ("SpanTree",),
    "privacy.rules": ("Redactable", "capture_content"),
    "propagation.w3c": ("extract", "inject"),
    "sinks.kept_trace": ("KeptTrace",),
    "telemetry": ("Metrics", "metrics"),
    "tracing.carrying": ("ContextThreadPoolExecutor", "wrap"),
    "tracing.context": ("TraceContext", "attach", "new_trace_context"),
    "tracing.decorator": ("trace",),
    "tracing.sampler": (
        "AlwaysOffSampler",
        "AlwaysOnSampler",
        "BaseSampler",
        "HeadDecision",
        "ProbabilitySampler",
        "RateLimitingSampler",
    ),
    "tracing.session": ("session",),
    "tracing.shortcuts": ("agent", "embedding", "llm", "retrieval", "span", "tool"),
    "tracing.span": ("Span",),
    "tracing.tracer": ("Tracer", "defer", "get_current_span", "get_tracer"),
    # These, and the errors but two, are not in `__all__`: code of the ancestor finds them here, new code where they are.
    "compat": ("BaseExporter", "ExportResult", "set_global_tracer"),
    "integrations": ("ContextProcessPoolExecutor", "inject_asgi", "inject_kafka"),
}
_MODULE = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # type checkers would accept every misspelt name

    def __getattr__(name: str) -> Any:
        module = _MODULE.get(name)
        if module is None:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
