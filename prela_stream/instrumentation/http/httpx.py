"""The calling end of HTTP: clients of httpx and httpx2 that send the trace along. Opt-in for each client, and imports neither.

`propagate(client)` is for services of your own. A header goes to whomever the client calls, so do not use it on a client that
calls strangers; in particular the Anthropic client is never touched.
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
    """What a client calls before each request: the current span is the parent of what the server does."""

    def __init__(self, hosts: frozenset[str] | None) -> None:
        self._hosts = hosts

    def __call__(self, request: Any) -> None:
        with _guard:
            if self._hosts is None or request.url.host in self._hosts:
                write_mapping(request.headers, headers())
                request.extensions = {**request.extensions, _MARK: True}
            elif _MARK in request.extensions:  # a redirect to elsewhere, which takes all headers along
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
    """Have a client send the current trace with each of its requests, redirects and retries included.

    Args:
        client: A Client or AsyncClient of httpx or httpx2. Calling this again on one replaces its `hosts`.
        hosts: Send it to these hosts alone, in lower case and without a port; None: to every one.

    Returns:
        The client.

    Raises:
        TypeError: it is no such client.
    """
    hooks = getattr(client, "event_hooks", None)
    if not isinstance(hooks, dict) or not callable(getattr(client, "send", None)):
        msg = f"propagate() takes a Client or AsyncClient of httpx or httpx2, got {client!r}"
        raise TypeError(msg)
    hook: Callable[[Any], Any] = (_AsyncHook if inspect.iscoroutinefunction(client.send) else _Hook)(  # type: ignore[attr-defined]  # checked above
        None if hosts is None else frozenset(hosts)
    )
    others = [one for one in hooks.get("request", ()) if not isinstance(one, _Hook)]
    # Behind the hooks that are there: what they open is the parent then.
    client.event_hooks = {**hooks, "request": [*others, hook]}  # type: ignore[attr-defined]  # as above
    return client


def stop_propagating(client: C) -> C:
    """Undo `propagate`; nothing if it was not called."""
    hooks = getattr(client, "event_hooks", {})
    client.event_hooks = {  # type: ignore[attr-defined]  # of the same client
        **hooks,
        "request": [one for one in hooks.get("request", ()) if not isinstance(one, _Hook)],
    }
    return client
