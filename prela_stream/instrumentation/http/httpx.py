"""Makes clients of httpx and httpx2 send the trace in headers. Opt-in for each client, and imports neither.

`propagate(client)` is for calls between your services. The headers go to every server that the client calls, so do not use it on
a client that calls servers of others. The Anthropic client is never changed.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeVar

from prela_stream.errors import guard
from prela_stream.propagation.carriers import BAGGAGE, TRACEPARENT, TRACESTATE, write_mapping
from prela_stream.propagation.w3c import headers

C = TypeVar("C")

_MARK: Final = "prela_stream.injected"
_guard: Final = guard("instrumentation.httpx")


class _Hook:
    """A request hook: the current span becomes the parent of the server's span."""

    def __init__(self, hosts: frozenset[str] | None) -> None:
        self._hosts = hosts

    def __call__(self, request: Any) -> None:
        with _guard:
            if self._hosts is None or request.url.host in self._hosts:
                write_mapping(request.headers, headers())
                request.extensions = {**request.extensions, _MARK: True}
            elif _MARK in request.extensions:  # a redirect to another host, which keeps all headers
                for name in (TRACEPARENT, TRACESTATE, BAGGAGE):
                    request.headers.pop(name, None)


class _AsyncHook(_Hook):
    """As `_Hook`, for an AsyncClient."""

    def __call__(self, request: Any) -> Awaitable[None]:  # type: ignore[override]  # what an AsyncClient awaits
        super().__call__(request)
        return _nothing()


async def _nothing() -> None:
    pass


def propagate(client: C, *, hosts: Iterable[str] | None = None) -> C:
    """Make a client send the current trace with each of its requests, redirects and retries included.

    Args:
        client: A Client or AsyncClient of httpx or httpx2. Calling this again on one replaces its `hosts`.
        hosts: Send it to these hosts only, in lower case and without a port; None: to every host.

    Returns:
        The client.

    Raises:
        TypeError: `client` is no such client.
    """
    hooks = getattr(client, "event_hooks", None)
    if not isinstance(hooks, dict) or not callable(getattr(client, "send", None)):
        msg = f"propagate() takes a Client or AsyncClient of httpx or httpx2, got {client!r}"
        raise TypeError(msg)
    hook: Callable[[Any], Any] = (_AsyncHook if inspect.iscoroutinefunction(client.send) else _Hook)(  # type: ignore[attr-defined]  # checked above
        None if hosts is None else frozenset(hosts)
    )
    others = [one for one in hooks.get("request", ()) if not isinstance(one, _Hook)]
    # After the existing hooks: a span that one of them starts becomes the parent.
    client.event_hooks = {**hooks, "request": [*others, hook]}  # type: ignore[attr-defined]  # as above
    return client


def stop_propagating(client: C) -> C:
    """Undo `propagate`; without effect if it was not called."""
    hooks = getattr(client, "event_hooks", {})
    client.event_hooks = {  # type: ignore[attr-defined]  # of the same client
        **hooks,
        "request": [one for one in hooks.get("request", ()) if not isinstance(one, _Hook)],
    }
    return client
