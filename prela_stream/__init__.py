"""Asyncio-native streaming telemetry for AI agents, with tail-based sampling that loses no trace.

    import prela_stream as prela

    prela.init(service_name="my-agent")

Names are loaded when they are first used: importing this package loads no library that the program does not need.
"""

import importlib
from typing import TYPE_CHECKING, Any

from prela_stream._version import __version__

if TYPE_CHECKING:
    from prela_stream.app.consume import decisions, kept_traces
    from prela_stream.app.init import aflush, flush, init, ledger, pipeline, shutdown
    from prela_stream.errors import (
        CodecError,
        ConfigurationError,
        FencedError,
        OutcomeUnknownError,
        PrelaError,
        SpanEndedError,
        TransportError,
        UnknownTopicError,
    )
    from prela_stream.instrumentation.registry import auto_instrument
    from prela_stream.model.decision import Decision
    from prela_stream.model.span import SpanData, SpanEvent, SpanStatus, SpanType
    from prela_stream.privacy.rules import Redactable, capture_content
    from prela_stream.propagation.processes import ContextProcessPoolExecutor
    from prela_stream.propagation.w3c import extract, inject, inject_asgi, inject_kafka
    from prela_stream.sinks.kept_trace import KeptTrace
    from prela_stream.tracing.context import ContextThreadPoolExecutor, TraceContext, attach, new_trace_context, wrap
    from prela_stream.tracing.decorator import trace
    from prela_stream.tracing.exporters import BaseExporter, ExportResult
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
    from prela_stream.tracing.tracer import Tracer, defer, get_current_span, get_tracer, set_global_tracer

_HOMES = {
    "app.consume": ("decisions", "kept_traces"),
    "app.init": ("aflush", "flush", "init", "ledger", "pipeline", "shutdown"),
    "errors": (
        "CodecError",
        "ConfigurationError",
        "FencedError",
        "OutcomeUnknownError",
        "PrelaError",
        "SpanEndedError",
        "TransportError",
        "UnknownTopicError",
    ),
    "instrumentation.registry": ("auto_instrument",),
    "model.decision": ("Decision",),
    "model.span": ("SpanData", "SpanEvent", "SpanStatus", "SpanType"),
    "tracing.context": ("ContextThreadPoolExecutor", "TraceContext", "attach", "new_trace_context", "wrap"),
    "tracing.decorator": ("trace",),
    "tracing.exporters": ("BaseExporter", "ExportResult"),
    "privacy.rules": ("Redactable", "capture_content"),
    "propagation.processes": ("ContextProcessPoolExecutor",),
    "propagation.w3c": ("extract", "inject", "inject_asgi", "inject_kafka"),
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
    "tracing.tracer": ("Tracer", "defer", "get_current_span", "get_tracer", "set_global_tracer"),
    "sinks.kept_trace": ("KeptTrace",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    # switching on and off
    "init",
    "shutdown",
    "flush",
    "aflush",
    "ledger",
    "pipeline",
    "auto_instrument",
    # spans
    "get_tracer",
    "get_current_span",
    "set_global_tracer",
    "trace",
    "span",
    "agent",
    "llm",
    "tool",
    "retrieval",
    "embedding",
    "session",
    "defer",
    "wrap",
    "Tracer",
    "Span",
    "SpanData",
    "SpanEvent",
    "SpanStatus",
    "SpanType",
    "ContextProcessPoolExecutor",
    "ContextThreadPoolExecutor",
    # privacy
    "capture_content",
    "Redactable",
    # propagation
    "TraceContext",
    "new_trace_context",
    "attach",
    "inject",
    "inject_asgi",
    "inject_kafka",
    "extract",
    # head sampling
    "BaseSampler",
    "HeadDecision",
    "AlwaysOffSampler",
    "AlwaysOnSampler",
    "ProbabilitySampler",
    "RateLimitingSampler",
    # exporters of the application's own
    "BaseExporter",
    "ExportResult",
    # what the workers decided
    "kept_traces",
    "decisions",
    "KeptTrace",
    "Decision",
    # errors
    "CodecError",
    "ConfigurationError",
    "FencedError",
    "OutcomeUnknownError",
    "PrelaError",
    "SpanEndedError",
    "TransportError",
    "UnknownTopicError",
    "__version__",
]


if not TYPE_CHECKING:  # or type checkers would take every misspelt name for one that exists

    def __getattr__(name: str) -> Any:
        home = _HOME.get(name)
        if home is None:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
