"""Instrumentation of the `anthropic` client: one patch for everything that it can ask of the Messages API.

Every method, of every client class and platform, beta or not, raw or not, ends in `request` of the two base clients, so that is
what is replaced, on the class: clients that exist already are covered. `create`, `stream=True`, `messages.stream()`, `parse`,
`with_raw_response`, `with_streaming_response` and `tool_runner` need no code of their own. Retries happen inside `request`;
`_attempt_request`, which sends each of them, is watched to count them and to see the request as it is sent: messages that are
one-shot iterators are plain lists there, so nothing of the application's is consumed.

The client can trace itself with OpenTelemetry; that is left alone, and nothing here uses OpenTelemetry.
"""

import functools
import importlib.util
from collections.abc import Awaitable, Callable
from typing import Any, Final

from prela_stream.errors import guard
from prela_stream.instrumentation.anthropic.call import COUNT_PATH, MESSAGES_PATH, Call, current_call
from prela_stream.instrumentation.anthropic.messages import request_attributes
from prela_stream.instrumentation.base import Patch
from prela_stream.instrumentation.options import InstrumentationOptions
from prela_stream.model import semconv
from prela_stream.model.span import SpanType
from prela_stream.privacy.rules import captures_content
from prela_stream.tracing.tracer import Tracer

_guard: Final = guard("instrumentation.anthropic")
_PROVIDERS: Final = {"Bedrock": "aws.bedrock", "Vertex": "gcp.vertex_ai", "Foundry": "azure.ai.inference"}
"""Part of a client's class name → `gen_ai.provider.name`; all others are `anthropic`."""


class AnthropicInstrumentor:
    """Makes a span of each call of the Messages API.

    Each request is an LLM span `chat {model}`; `count_tokens`, which
    generates nothing, is a CUSTOM one, so that sums over LLM spans stay right.
    """

    name = "anthropic"
    module = "anthropic"

    def __init__(self) -> None:
        self._tracer: Tracer | None = None
        self._options = InstrumentationOptions()
        self._patches: list[Patch] = []

    def is_available(self) -> bool:
        """Whether anthropic 2 or later is installed; does not import it."""
        return importlib.util.find_spec(self.module) is not None

    def instrument(self, tracer: Tracer, options: InstrumentationOptions) -> None:
        """As `Instrumentor.instrument`."""
        from anthropic._base_client import AsyncAPIClient, SyncAPIClient

        for client in (SyncAPIClient, AsyncAPIClient):
            for method in ("request", "_attempt_request"):
                if method not in client.__dict__:
                    msg = f"anthropic: {client.__name__}.{method} is needed and not there; install anthropic>=2.0"
                    raise ImportError(msg)
        self._tracer, self._options = tracer, options
        if self._patches:
            return
        for client, request, attempt in (
            (SyncAPIClient, self._sync_request, _sync_attempt),
            (AsyncAPIClient, self._async_request, _async_attempt),
        ):
            self._patches.append(Patch(client, "request", request(client.__dict__["request"])))
            self._patches.append(Patch(client, "_attempt_request", attempt(client.__dict__["_attempt_request"])))

    def uninstrument(self) -> None:
        """As `Instrumentor.uninstrument`."""
        self._tracer = (
            None  # whoever still reaches a replacement, because it was patched over, gets the original from it
        )
        self._patches = [patch for patch in self._patches if not patch.restore()]

    def _sync_request(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def request(client: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
            call = self._begin(client, options, streaming=kwargs.get("stream", False))
            if call is None:
                return original(client, cast_to, options, *args, **kwargs)
            with call:
                value = original(client, cast_to, options, *args, **kwargs)
                call.returned(value, _response_of(value))
            return value

        return request

    def _async_request(self, original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(original)
        async def request(client: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
            call = self._begin(client, options, streaming=kwargs.get("stream", False))
            if call is None:
                return await original(client, cast_to, options, *args, **kwargs)
            with call:
                value = await original(client, cast_to, options, *args, **kwargs)
                call.returned(value, _response_of(value))
            return value

        return request

    def _begin(self, client: Any, options: Any, *, streaming: bool) -> Call | None:
        """Open the span of a request, or None for one that is not traced."""
        tracer = self._tracer
        if tracer is None:
            return None
        with _guard:
            path = options.url.partition("?")[0]
            if options.method.lower() != "post" or not path.endswith((MESSAGES_PATH, COUNT_PATH)):
                return None
            counting = path.endswith(COUNT_PATH)
            attributes = request_attributes(options.json_data)
            attributes[semconv.PROVIDER_NAME] = _provider(type(client).__name__)
            attributes["server.address"] = client.base_url.host
            attributes["server.port"] = client.base_url.port or (80 if client.base_url.scheme == "http" else 443)
            if not counting:
                attributes[semconv.OPERATION_NAME] = "chat"
            if streaming:
                attributes[semconv.REQUEST_STREAM] = True
            model = attributes.get(semconv.REQUEST_MODEL, "")
            span = tracer.start_span(
                f"{'count_tokens' if counting else 'chat'} {model}".rstrip(),
                span_type=SpanType.CUSTOM if counting else SpanType.LLM,
                attributes=attributes,
            )
            if not span.sampled:
                span.end()
                return None
            return Call(
                span, url=options.url, counting=counting, content=captures_content(self._options.capture_content)
            )
        return None


def _sync_attempt(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def attempt(client: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
        call = next(iter(current_call.get()), None)
        if call is None or call.url != options.url:
            return original(client, options, *args, **kwargs)
        call.attempt(options.json_data)
        result = original(client, options, *args, **kwargs)
        call.responded(result[0])
        return result

    return attempt


def _async_attempt(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def attempt(client: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
        call = next(iter(current_call.get()), None)
        if call is None or call.url != options.url:
            return await original(client, options, *args, **kwargs)
        call.attempt(options.json_data)
        result = await original(client, options, *args, **kwargs)
        call.responded(result[0])
        return result

    return attempt


def _response_of(value: object) -> object:
    """The HTTP response inside a stream or a response wrapper; None for a parsed message, which does not show it."""
    from anthropic import AsyncStream, Stream
    from anthropic._response import BaseAPIResponse

    if isinstance(value, BaseAPIResponse):
        return value.http_response
    return value.response if isinstance(value, Stream | AsyncStream) else None


def _provider(client_name: str) -> str:
    return next((provider for part, provider in _PROVIDERS.items() if part in client_name), "anthropic")
