"""What a pipeline needs besides its transport, in one value: both ways to run a pipeline take it."""

from collections.abc import Awaitable, Callable

import msgspec

from prela_stream.delivery.options import PipelineOptions
from prela_stream.model.span import Resource
from prela_stream.tracing.open_spans import OpenSpans
from prela_stream.transport.base import Transport
from prela_stream.transport.options import TopicOptions


class PipelineSetup(msgspec.Struct, frozen=True, kw_only=True):
    """Where items go, in which bounds, and what the process reports about itself."""

    topics: TopicOptions
    """Name and sizes of the `spans` topic."""
    options: PipelineOptions
    """Bounds, batching, deadlines."""
    resource: Callable[[], Resource]
    """Makes what all spans of a process share. Called when a pipeline starts, because a forked child has another pid."""
    prepare: Callable[[Transport], Awaitable[object]] | None = None
    """Awaited with the transport before the first producer is opened, and again if it raised TransportError. It may create
    local topics."""
    open_spans: OpenSpans | None = None
    """Spans that need heartbeats, every `heartbeat_ms`, and that end when the pipeline closes; None: neither is done."""
