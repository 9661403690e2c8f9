"""The HTTP endpoint of a service: `/metrics` in the formats of Prometheus, `/healthz` (alive) and `/readyz` (ready).

It runs on the event loop of the service, because the numbers are read from objects that belong to this loop. If the loop is
blocked, `/healthz` does not answer. The endpoint is off by default, and then no socket is opened.
"""

from __future__ import annotations

import hmac
import importlib.util
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio
import anyio.abc

from prela_stream import telemetry
from prela_stream.addresses import host_of, is_ip_address, is_loopback, parse_address, url_of
from prela_stream.errors import ConfigurationError, guard
from prela_stream.measures import Component, Reading

if TYPE_CHECKING:
    import h11

    from prela_stream.config import HttpOptions

logger = logging.getLogger("prela_stream")

_REQUEST_S: Final = 10.0
"""Most seconds that one request may take, from the connection to the end of the answer."""
_HEAD_BYTES: Final = 16 << 10
_CONNECTIONS: Final = 16
_TEXT: Final = "text/plain; charset=utf-8"


class Observer(Protocol):
    """One part of a service, as the endpoint sees it."""

    async def refresh(self) -> None:
        """Bring numbers up to date that are not counted as things happen. Must be short and must not raise."""

    def problems(self, max_lag_s: float) -> list[str]:
        """Why this part is not ready, one sentence each; empty if it is."""


class Health:
    """The parts of one service and the metrics that it exposes.

    Args:
        components: The components whose metrics are exposed, beside those of every process.
        parts: Names of the parts. The service is not ready until each of them has an observer and no problem.
    """

    def __init__(self, components: Iterable[Component], parts: Iterable[str]) -> None:
        self.components: tuple[Component, ...] = (*components, "any")
        self._parts: dict[str, Observer | None] = dict.fromkeys(parts)

    def add(self, part: str, observer: Observer) -> None:
        """Ask this observer about the part from now on."""
        self._parts[part] = observer

    def remove(self, part: str) -> None:
        """Ask no more about a part that does not run here."""
        self._parts.pop(part, None)

    async def refresh(self) -> None:
        """Bring every part up to date."""
        async with anyio.create_task_group() as tasks:
            for observer in self._parts.values():
                if observer is not None:
                    tasks.start_soon(observer.refresh)

    def problems(self, max_lag_s: float) -> list[str]:
        """Why the service is not ready; empty if it is."""
        found: list[str] = []
        for part, observer in self._parts.items():
            found += [f"{part} is starting"] if observer is None else observer.problems(max_lag_s)
        return found


@asynccontextmanager
async def exposed(options: HttpOptions, health: Health) -> AsyncIterator[None]:
    """Serve the endpoint for the length of the block, if `options.listen` is set.

    Raises:
        ConfigurationError: the address is none or cannot be used, a token is missing, or the extra `metrics` is not installed.
    """
    if not options.listen:
        yield
        return
    host, port = _address(options)
    if missing := [name for name in ("prometheus_client", "h11") if importlib.util.find_spec(name) is None]:
        msg = f"http.listen needs {' and '.join(missing)}, not installed here: pip install 'prela-stream[metrics]'"
        raise ConfigurationError(msg)
    try:
        listener = await anyio.create_tcp_listener(local_host=host, local_port=port)
    except OSError as error:
        msg = f"http.listen: cannot listen on {options.listen}: {error.strerror or error}. Set another address or stop its user"
        raise ConfigurationError(msg) from error
    bound = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - of anyio, not of Django
    logger.info("/metrics, /healthz and /readyz are served on %s", url_of(host, bound))
    tasks = await anyio.create_task_group().__aenter__()
    tasks.start_soon(_serve, listener, _Endpoint(options, host, health))
    try:
        yield
    finally:
        tasks.cancel_scope.cancel()
        # No error of the endpoint ends its task group, so an error of the block passes as it is, not in a group.
        await tasks.__aexit__(None, None, None)
        with anyio.CancelScope(shield=True):
            await listener.aclose()


def _address(options: HttpOptions) -> tuple[str, int]:
    """Host and port of `http.listen`. Raises ConfigurationError."""
    found = parse_address(options.listen)
    if found is None:
        msg = f"http.listen: expected HOST:PORT, for example 127.0.0.1:9464, got {options.listen!r}"
        raise ConfigurationError(msg)
    host, port = found
    if not options.token and not is_loopback(host):
        msg = (
            f"http.listen: other machines can reach {options.listen}, and no token is set. Set http.token "
            "(PRELA_HTTP_TOKEN), or listen on 127.0.0.1"
        )
        raise ConfigurationError(msg)
    return host, port


async def _serve(listener: anyio.abc.Listener[anyio.abc.SocketStream], endpoint: _Endpoint) -> None:
    while True:
        with guard("health.listener"):  # no file descriptor left, for example
            await listener.serve(endpoint.answer)
        await anyio.sleep(1.0)


class _Endpoint:
    def __init__(self, options: HttpOptions, host: str, health: Health) -> None:
        from prometheus_client import CollectorRegistry, ProcessCollector

        self._options = options
        self._names = {"localhost", host.lower(), *(name.lower() for name in options.hosts)}
        self._health = health
        self._limit = anyio.CapacityLimiter(_CONNECTIONS)
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(health.components))
        ProcessCollector(registry=self._registry)

    async def answer(self, stream: anyio.abc.ByteStream) -> None:
        """Answer one request and close the connection. Whatever happens in it, the service goes on."""
        with guard("health.http"), anyio.move_on_after(_REQUEST_S):
            async with self._limit, stream:
                with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):  # of the client
                    await self._answer(stream)

    async def _answer(self, stream: anyio.abc.ByteStream) -> None:
        import h11

        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
        try:
            while (event := connection.next_event()) is h11.NEED_DATA:
                connection.receive_data(await stream.receive())
            if not isinstance(event, h11.Request):
                return
            status, kind, body = await self._respond(event)
        except h11.RemoteProtocolError as error:
            event, status, kind, body = None, error.error_status_hint, _TEXT, b"not an HTTP request\n"
        headers = [("content-type", kind), ("content-length", str(len(body))), ("connection", "close")]
        if status == 401:
            headers.append(("www-authenticate", "Bearer"))
        sent = connection.send(h11.Response(status_code=status, headers=headers)) or b""
        if event is None or event.method != b"HEAD":
            sent += connection.send(h11.Data(data=body)) or b""
        await stream.send(sent)

    async def _respond(self, request: h11.Request) -> tuple[int, str, bytes]:
        headers = {name: value.decode("latin-1") for name, value in request.headers}
        if not self._knows_host(headers.get(b"host", "")):
            return 421, _TEXT, b"unknown host: add its name to http.hosts\n"
        if request.method not in (b"GET", b"HEAD"):
            return 405, _TEXT, b"expected GET\n"
        path = request.target.decode("latin-1").partition("?")[0]
        if path == "/healthz":
            return 200, _TEXT, b"alive\n"
        if path == "/readyz":
            return await self._readiness(detailed=self._is_allowed(headers))
        if path != "/metrics":
            return 404, _TEXT, b"expected /metrics, /healthz or /readyz\n"
        if not self._is_allowed(headers):
            return 401, _TEXT, b"expected the header Authorization: Bearer with the token of http.token\n"
        await self._health.refresh()
        return self._metrics(headers.get(b"accept", ""))

    async def _readiness(self, *, detailed: bool) -> tuple[int, str, bytes]:
        await self._health.refresh()
        problems = self._health.problems(self._options.ready_lag_s)
        if not problems:
            return 200, _TEXT, b"ready\n"
        return 503, _TEXT, "\n".join(["not ready", *(problems if detailed else ())]).encode() + b"\n"

    def _metrics(self, accept: str) -> tuple[int, str, bytes]:
        from prometheus_client.exposition import choose_encoder

        encode, kind = choose_encoder(accept)
        return 200, kind, encode(self._registry)

    def _knows_host(self, header: str) -> bool:
        """Whether the Host header is an address or a known name: a page of another site cannot send one, by DNS rebinding."""
        name = host_of(header)
        return name in self._names or is_ip_address(name)

    def _is_allowed(self, headers: Mapping[bytes, str]) -> bool:
        if not self._options.token:
            return True
        scheme, _, token = headers.get(b"authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._options.token.encode())


class _Collector:
    """The declared metrics, as prometheus_client wants them."""

    def __init__(self, components: tuple[Component, ...]) -> None:
        self._components = components

    def collect(self) -> Iterator[Any]:
        return map(_family, telemetry.snapshot(*self._components))


def _family(reading: Reading) -> Any:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    names = reading.labels
    if reading.kind == "histogram":
        histogram = HistogramMetricFamily(reading.name, reading.meaning, labels=names)
        for one in reading.distributions:
            buckets = [("+Inf" if bound == float("inf") else str(bound), count) for bound, count in one.buckets]
            histogram.add_metric(list(one.labels.values()), buckets, one.sum)
        return histogram
    kind = CounterMetricFamily if reading.kind == "counter" else GaugeMetricFamily
    family = kind(reading.name, reading.meaning, labels=names)
    for sample in reading.samples:
        family.add_metric(list(sample.labels.values()), sample.value)
    return family
