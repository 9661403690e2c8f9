"""The HTTP endpoint of a service, in this process."""

import importlib.util
import logging
import socket
from contextlib import AsyncExitStack

import anyio
import h11
import pytest

from prela_stream import telemetry
from prela_stream.app import health
from prela_stream.app.health import Health, exposed
from prela_stream.config import HttpOptions
from prela_stream.errors import ConfigurationError


class Part:
    """A part of a service with given problems."""

    def __init__(self, *problems: str) -> None:
        self.found = list(problems)
        self.refreshed = 0

    async def refresh(self) -> None:
        self.refreshed += 1

    def problems(self, max_lag_s: float) -> list[str]:
        return [*self.found, *([] if max_lag_s == 60 else [f"{max_lag_s}"])]


@pytest.fixture
def listen() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


async def get(listen: str, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and body of one request."""
    host, _, port = listen.rpartition(":")
    connection = h11.Connection(h11.CLIENT)
    sent = {"host": listen, **headers}
    with anyio.fail_after(30):
        async with await anyio.connect_tcp(host, int(port)) as stream:
            request = h11.Request(method=method, target=path, headers=list(sent.items()))
            await stream.send((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
            body, status, found = b"", 0, {}
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    try:
                        connection.receive_data(await stream.receive())
                    except anyio.EndOfStream:
                        connection.receive_data(b"")
                elif isinstance(event, h11.Response):
                    status = event.status_code
                    found = {name.decode(): value.decode() for name, value in event.headers}
                elif isinstance(event, h11.Data):
                    body += event.data
    return status, found, body.decode()


async def test_alive_is_answered_and_readiness_is_that_of_all_parts(listen: str) -> None:
    service = Health(("worker",), ("worker", "sink a"))
    async with exposed(HttpOptions(listen=listen), service):
        assert (await get(listen, "/healthz"))[0] == 200
        assert await get(listen, "/readyz") == (
            503,
            {"content-type": "text/plain; charset=utf-8", "content-length": "48", "connection": "close"},
            "not ready\nworker is starting\nsink a is starting\n",
        )
        worker, sink = Part("spans-0 is being restored"), Part()
        service.add("worker", worker)
        service.add("sink a", sink)
        assert (await get(listen, "/readyz"))[2] == "not ready\nspans-0 is being restored\n"
        worker.found.clear()
        assert (await get(listen, "/readyz"))[::2] == (200, "ready\n")
        assert worker.refreshed == sink.refreshed == 2, "readiness is that of the moment of the request"


async def test_metrics_are_those_of_the_components_of_the_service_and_of_every_process(listen: str) -> None:
    async with exposed(HttpOptions(listen=listen), Health(("sink",), ())):
        status, headers, body = await get(listen, "/metrics")
        assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        shown = {line.split()[2] for line in body.splitlines() if line.startswith("# HELP prela_")}
        assert shown == {metric.name for metric in telemetry.declared("sink", "any")}
        assert (await get(listen, "/metrics", accept="application/openmetrics-text"))[2].endswith("# EOF\n")
        head = await get(listen, "/metrics", "HEAD")
        assert head[0] == 200
        assert int(head[1]["content-length"]) > 1_000
        assert head[2] == ""


async def test_what_is_no_request_for_it_is_refused_and_changes_nothing(listen: str) -> None:
    async with exposed(HttpOptions(listen=listen), Health((), ())):
        assert (await get(listen, "/nothing"))[0] == 404
        assert (await get(listen, "/metrics", "POST", **{"content-length": "0"}))[0] == 405
        host, _, port = listen.rpartition(":")
        for sent in (
            b"\x16\x03\x01\x02",
            b"GET /\x00 HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000,
            b"",
        ):
            async with await anyio.connect_tcp(host, int(port)) as stream:
                await stream.send(sent or b"\r\n")
                await stream.send_eof()
                with anyio.fail_after(30):
                    try:
                        answer = await stream.receive()
                    except (anyio.EndOfStream, anyio.BrokenResourceError):
                        continue
                assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
        assert (await get(listen, "/healthz"))[0] == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9464", 200),
        ("[::1]:9464", 200),
        ("LOCALHOST", 200),
        ("10.1.2.3", 200),
        ("metrics.internal:80", 200),
        ("attacker.example", 421),
        ("127.0.0.1.attacker.example:9464", 421),
        ("[", 421),
        ("", 421),
    ],
)
async def test_a_host_name_that_is_not_ours_is_refused(listen: str, host: str, status: int) -> None:
    """A page of another site can make a browser send requests here by DNS rebinding, and such a request has its name."""
    async with exposed(HttpOptions(listen=listen, hosts=("metrics.internal",)), Health((), ())):
        assert (await get(listen, "/healthz", host=host))[0] == status


async def test_with_a_token_metrics_and_reasons_need_it(listen: str) -> None:
    options = HttpOptions(listen=listen, token="s3cret")
    assert "s3cret" not in repr(options)
    async with exposed(options, Health((), ("worker",))):
        assert (await get(listen, "/healthz"))[0] == 200
        status, headers, _ = await get(listen, "/metrics")
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        for wrong in ("Bearer s3cre", "Basic s3cret", "s3cret", "Bearer", "Bearer s3cret s3cret"):
            assert (await get(listen, "/metrics", authorization=wrong))[0] == 401
        assert (await get(listen, "/metrics", authorization="bearer s3cret"))[0] == 200
        assert (await get(listen, "/readyz"))[2] == "not ready\n"
        assert (await get(listen, "/readyz", authorization="Bearer s3cret"))[2] == "not ready\nworker is starting\n"


async def test_an_error_in_an_answer_does_not_end_the_service(listen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)

    class Broken(Part):
        async def refresh(self) -> None:
            raise ZeroDivisionError

    service = Health((), ("worker",))
    service.add("worker", Broken())
    async with exposed(HttpOptions(listen=listen), service):
        before = telemetry.snapshot().value("prela_swallowed_errors_total", where="health.http")
        with pytest.raises(h11.RemoteProtocolError):
            await get(listen, "/readyz")
        assert telemetry.snapshot().value("prela_swallowed_errors_total", where="health.http") == before + 1
        assert (await get(listen, "/healthz"))[0] == 200


async def test_an_error_of_the_service_passes_as_it_is_and_the_port_is_free_again(listen: str) -> None:
    for _ in range(2):
        with pytest.raises(KeyError, match="of the service"):
            async with exposed(HttpOptions(listen=listen), Health((), ())):
                raise KeyError("of the service")


async def test_off_opens_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anyio, "create_tcp_listener", None)
    monkeypatch.setattr(health, "_Endpoint", None)
    async with exposed(HttpOptions(), Health((), ())):
        pass


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"listen": "9464"}, "expected HOST:PORT, for example 127.0.0.1:9464, got '9464'"),
        ({"listen": "127.0.0.1:x"}, "expected HOST:PORT"),
        ({"listen": "127.0.0.1:9464/metrics"}, "expected HOST:PORT"),
        ({"listen": "0.0.0.0:9464"}, "other machines can reach 0.0.0.0:9464, and no token is set"),
        ({"listen": "[::]:9464"}, "no token is set"),
        ({"listen": "prela.example:9464"}, "no token is set"),
        ({"listen": "prela.invalid:9464", "token": "x"}, "cannot listen on prela.invalid:9464"),
    ],
)
async def test_an_address_that_cannot_be_served_is_reported(options: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigurationError) as found:
        async with exposed(HttpOptions(**options), Health((), ())):  # type: ignore[arg-type]
            pytest.fail("it was served")
    assert text in str(found.value)


async def test_a_port_in_use_is_reported(listen: str) -> None:
    async with exposed(HttpOptions(listen=listen), Health((), ())):
        with pytest.raises(ConfigurationError, match=rf"cannot listen on {listen}: .*in use"):
            async with exposed(HttpOptions(listen=listen), Health((), ())):
                pytest.fail("it was served")


async def test_without_the_extra_the_error_names_it(listen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "prometheus_client" else name)
    with pytest.raises(ConfigurationError, match=r"needs prometheus_client.*pip install 'prela-stream\[metrics\]'"):
        async with exposed(HttpOptions(listen=listen), Health((), ())):
            pytest.fail("it was served")


async def test_the_address_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="prela_stream"):
        async with exposed(HttpOptions(listen="127.0.0.1:0"), Health((), ())):
            address = caplog.messages[-1].rpartition("//")[2]
            assert (await get(address, "/healthz"))[0] == 200


async def test_clients_that_send_nothing_neither_block_others_nor_the_stop(listen: str) -> None:
    host, _, port = listen.rpartition(":")
    async with AsyncExitStack() as clients:
        with anyio.fail_after(10):
            async with exposed(HttpOptions(listen=listen), Health((), ())):
                for _ in range(3):
                    stream = await clients.enter_async_context(await anyio.connect_tcp(host, int(port)))
                    await stream.send(b"GET /metr")
                assert (await get(listen, "/healthz"))[0] == 200
