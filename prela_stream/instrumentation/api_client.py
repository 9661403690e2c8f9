"""Instruments client libraries that Stainless generates: `anthropic`, `openai` and others have the same base clients.

Every method, of every client class and platform, beta or not, raw or not, ends in `request` of the two base clients. So `request`
is replaced on these classes, which covers clients that exist already. `create`, `stream=True`, stream helpers, `parse`,
`with_raw_response`, `with_streaming_response` and tool runners need no code.

Retries happen inside `request`, so what sends an attempt is patched too, to count attempts, to read the request as it is sent
and to get the response. Messages that are one-shot iterators are plain lists there, so nothing of the application's is consumed.
Newer generators give a client `_attempt_request`; older ones, and `openai`, have `_build_request`, `_should_retry` and
`_process_response`.
"""

import functools
import importlib
import importlib.util
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from prela_stream.errors import guard, logger
from prela_stream.instrumentation.callers import is_claimed
from prela_stream.instrumentation.import_hook import forget, when_imported
from prela_stream.instrumentation.llm_call import ModelCall, call_in_progress
from prela_stream.instrumentation.options import InstrumentationOptions
from prela_stream.instrumentation.patching import Patch
from prela_stream.instrumentation.prices import PRICES
from prela_stream.instrumentation.provider import Provider
from prela_stream.instrumentation.tool_runner import RunnerPatches, Step
from prela_stream.model import semconv
from prela_stream.model.span import SpanType
from prela_stream.privacy.rules import captures_content
from prela_stream.tracing.tracer import Tracer

_guard: Final = guard("instrumentation.llm_call")
_BASE_CLIENTS: Final = ("SyncAPIClient", "AsyncAPIClient")


class ApiClientInstrumentor:
    """Instruments one such library.

    Args:
        name: Key in the registry.
        provider: The field mapping of its API.
        oldest: The oldest version of the library whose calls can be traced.
        complete_from: The version from which on every patched name of the client exists.
        runners: The methods of its tool runners, by module.
        runners_from: The version from which on these exist.
    """

    def __init__(
        self,
        name: str,
        provider: Provider,
        *,
        oldest: str,
        complete_from: str,
        runners: Mapping[str, Sequence[Step]] | None = None,
        runners_from: str = "",
    ) -> None:
        self.name = name
        self.module = provider.module
        self._provider = provider
        self._oldest = oldest
        self._complete_from = complete_from
        self._tracer: Tracer | None = None
        self._options = InstrumentationOptions()
        self._patches: list[Patch] = []
        self._lock = threading.Lock()
        newest, attributes = f"{name}>={runners_from}", provider.client_attributes
        self._runners = [
            RunnerPatches(module, steps, newest=newest, current=self._traced_with, client_attributes=attributes)
            for module, steps in (runners or {}).items()
        ]

    def is_available(self) -> bool:
        """As `Instrumentor.is_available`."""
        if self.module in sys.modules:
            return True  # `instrument` finds out what it has
        if importlib.util.find_spec(self.module) is None:
            return False
        version = self._version()
        if not version or _numbers(version) >= _numbers(self._oldest):
            return True
        logger.warning(
            "prela_stream does not trace %s %s, which is too old. Install %s>=%s to trace its calls.",
            self.module, version, self.module, self._oldest,
        )  # fmt: skip
        return False

    def instrument(self, tracer: Tracer, options: InstrumentationOptions) -> None:
        """As `Instrumentor.instrument`."""
        self._tracer, self._options = tracer, options
        self._patch_clients()
        for one in self._runners:
            when_imported(one.module, functools.partial(_patch_runner, one))

    def _patch_clients(self) -> None:
        base = importlib.import_module(f"{self.module}._base_client")  # before the lock: it waits for the import lock
        PRICES.load()
        missing: list[str] = []
        with self._lock:
            if self._patches:
                return
            for class_name in _BASE_CLIENTS:
                self._patch_client(getattr(base, class_name, None), class_name, missing)
        if not self._patches:
            msg = (
                f"version {self._version() or '(unknown)'} has no name to patch; expected {self.module}>={self._oldest}"
            )
            raise ImportError(msg)
        if missing:
            logger.warning(
                "prela_stream traces %s %s in part. Not traced: %s. Install %s>=%s to trace all of it.",
                self.module, self._version(), "; ".join(missing), self.module, self._complete_from,
            )  # fmt: skip

    def uninstrument(self) -> None:
        """As `Instrumentor.uninstrument`."""
        self._tracer = None  # a replacement that other code has patched over calls the original from now on
        for one in self._runners:
            forget(one.module)
            one.restore()
        with self._lock:
            self._patches = [patch for patch in self._patches if not patch.restore()]

    def _traced_with(self) -> tuple[Tracer | None, bool]:
        return self._tracer, captures_content(self._options.capture_content)

    def _patch_client(self, client: Any, class_name: str, missing: list[str]) -> None:
        is_async = class_name == "AsyncAPIClient"
        kind = "async" if is_async else "sync"
        methods = vars(client) if isinstance(client, type) else {}
        if "request" not in methods:
            missing.append(f"any call of {kind} clients ({class_name}.request is missing)")
            return
        self._patch(client, "request", self._async_request if is_async else self._sync_request)
        if "_attempt_request" in methods:
            self._patch(client, "_attempt_request", _async_attempt if is_async else _sync_attempt)
            return
        if "_process_response" in methods:
            self._patch(client, "_process_response", _async_process if is_async else _sync_process)
        else:
            missing.append(f"status and request id of {kind} calls ({class_name}._process_response is missing)")
        for name, make, what in _OF_AN_ATTEMPT:
            owner = next((base for base in client.__mro__ if name in vars(base)), None)
            if owner is None:
                missing.append(f"{what} of {kind} calls ({class_name}.{name} is missing)")
            elif not any(patch.replaces(owner, name) for patch in self._patches):
                self._patch(owner, name, make)

    def _patch(self, owner: type, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self._patches.append(Patch(owner, name, make(vars(owner)[name])))

    def _sync_request(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def request(client: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
            call = self._begin(client, options, kwargs.get("stream"))
            if call is None:
                return original(client, cast_to, options, *args, **kwargs)
            with call:
                value = original(client, cast_to, options, *args, **kwargs)
                call.returned(value)
            return value

        return request

    def _async_request(self, original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(original)
        async def request(client: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
            call = self._begin(client, options, kwargs.get("stream"))
            if call is None:
                return await original(client, cast_to, options, *args, **kwargs)
            with call:
                value = await original(client, cast_to, options, *args, **kwargs)
                call.returned(value)
            return value

        return request

    def _begin(self, client: Any, options: Any, streams: object) -> ModelCall | None:
        """Open the span of a request; None for a request that is not traced or that another layer records."""
        tracer = self._tracer
        if tracer is None:
            return None
        with _guard:
            operation = self._provider.operation(options.method, options.url.partition("?")[0])
            enclosing = call_in_progress()
            if operation is None or (enclosing is not None and enclosing.covers(options)) or is_claimed():
                return None
            body = getattr(options, "json_data", None)
            is_stream = (
                bool(streams) or _asks_for_stream(body) or _asks_for_stream(getattr(options, "extra_json", None))
            )
            attributes = operation.request_attributes(body)
            with _guard:
                attributes |= self._provider.client_attributes(client)
            with _guard:
                attributes |= _server_attributes(client)
            is_generation = operation.span_type is SpanType.LLM
            if is_stream and is_generation:
                attributes[semconv.REQUEST_STREAM] = True
            model = attributes.get(semconv.REQUEST_MODEL, "")
            span = tracer.start_span(
                f"{operation.name} {model}".rstrip(), span_type=operation.span_type, attributes=attributes
            )
            if not span.sampled:
                span.end()
                return None
            return ModelCall(
                span,
                self._provider,
                operation,
                request=options,
                streaming=is_stream and (is_generation or bool(streams)),
                content=captures_content(self._options.capture_content),
            )
        return None

    def _version(self) -> str:
        """The installed version; empty if it has no metadata."""
        from importlib import metadata  # takes 15 ms, and is not needed by a program without such a library

        try:
            return metadata.version(self.name)
        except metadata.PackageNotFoundError:
            return ""


def _patch_runner(runner: RunnerPatches) -> None:
    runner.patch(sys.modules[runner.module])


def _asks_for_stream(body: object) -> bool:
    return isinstance(body, Mapping) and body.get("stream") is True


def _server_attributes(client: Any) -> dict[str, Any]:
    url = client.base_url
    return {"server.address": url.host, "server.port": url.port or (80 if url.scheme == "http" else 443)}


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, to compare releases."""
    parts: list[int] = []
    for part in version.split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


def _sync_attempt(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def attempt(client: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
        call = _attempted(options)
        result = original(client, options, *args, **kwargs)
        with _guard:
            _responded(call, result[0])
        return result

    return attempt


def _async_attempt(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def attempt(client: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
        call = _attempted(options)
        result = await original(client, options, *args, **kwargs)
        with _guard:
            _responded(call, result[0])
        return result

    return attempt


def _build(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def build_request(client: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
        _attempted(options)
        return original(client, options, *args, **kwargs)

    return build_request


def _decide(original: Callable[..., bool]) -> Callable[..., bool]:
    """An attempt that failed: the only place where these libraries show its response, if another attempt follows."""

    @functools.wraps(original)
    def should_retry(client: Any, response: Any, *args: Any, **kwargs: Any) -> bool:
        _responded(call_in_progress(), response)
        return original(client, response, *args, **kwargs)

    return should_retry


_OF_AN_ATTEMPT: Final = (("_build_request", _build, "retries"), ("_should_retry", _decide, "status of retries"))
"""Methods of a base class of both clients: name, replacement, and what is lost without it."""


def _sync_process(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def process_response(*args: Any, **kwargs: Any) -> Any:
        _responded(call_in_progress(), kwargs.get("response"))
        return original(*args, **kwargs)

    return process_response


def _async_process(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def process_response(*args: Any, **kwargs: Any) -> Any:
        _responded(call_in_progress(), kwargs.get("response"))
        return await original(*args, **kwargs)

    return process_response


def _attempted(options: Any) -> ModelCall | None:
    """The call that sends this attempt, which has noted it; None if the attempt belongs to no recorded call."""
    with _guard:
        call = call_in_progress()
        if call is not None and call.sends(options):
            call.attempt(options)
            return call
    return None


def _responded(call: ModelCall | None, response: Any) -> None:
    if call is not None and response is not None:
        call.responded(response)
