"""Finds out what listens at an address: Kafka, Kafka behind TLS, a web server, or nothing. All protocols are tried at once.

A broker closes a connection of the wrong protocol without an answer, so only the right one finds it. The only request to a
broker is ApiVersions, which it answers before any login.
"""

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final, Literal

import anyio
import anyio.lowlevel
import msgspec
from anyio.abc import ByteStream
from anyio.streams.buffered import BufferedByteReceiveStream

Protocol = Literal["Kafka", "Kafka behind TLS", "TLS", "HTTP", "an unknown protocol"]
Versions = dict[int, tuple[int, int]]
"""The first and last version of each request that a broker knows, by the request's number."""

_CORRELATION: Final = 4711
_API_VERSIONS: Final = struct.pack(">ihhih", 15, 18, 0, _CORRELATION, 5) + b"prela"
"""Length, ApiVersions in version 0, correlation id, client id."""
_LARGEST: Final = 1 << 16
_NOTHING: Final = "an unknown protocol"
_HTTP: Final = b"GET / HTTP/1.0\r\n\r\n"


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """What listens at an address."""

    protocol: Protocol
    versions: Versions = {}


class OtherProtocolError(Exception):
    """The answer, if any, is not of the expected protocol."""


async def detect(host: str, port: int, within_s: float) -> Listener:
    """The protocol at an address that accepts connections, and the requests that a broker there knows."""
    found: dict[Protocol, Versions] = {}

    async def kafka() -> None:
        async with _connected(host, port, None) as stream:
            found["Kafka"] = await ask_versions(stream)

    async def tls() -> None:
        async with _connected(host, port, _unchecked()) as stream:
            found["TLS"] = {}
            found["Kafka behind TLS"] = await ask_versions(stream)

    async def web() -> None:
        async with _connected(host, port, None) as stream:
            await stream.send(_HTTP)
            if not (await stream.receive(5)).startswith(b"HTTP"):
                raise OtherProtocolError
            found["HTTP"] = {}

    async def attempt(probe: Callable[[], Awaitable[None]]) -> None:
        try:
            await probe()
        except (OSError, OtherProtocolError, anyio.EndOfStream, anyio.BrokenResourceError):
            return  # another protocol; that something listens is certain
        scope.cancel()  # found: there is only one

    with anyio.move_on_after(within_s) as scope:
        async with anyio.create_task_group() as tasks:
            for probe in (kafka, tls, web):
                tasks.start_soon(attempt, probe)
    known: tuple[Protocol, ...] = ("Kafka", "Kafka behind TLS", "HTTP", "TLS")
    protocol: Protocol = next((one for one in known if one in found), _NOTHING)
    return Listener(protocol=protocol, versions=found.get(protocol, {}))


async def ask_versions(stream: ByteStream) -> Versions:
    """The requests that a broker knows. Raises OtherProtocolError, and what the stream raises."""
    await stream.send(_API_VERSIONS)
    buffered = BufferedByteReceiveStream(stream)
    try:
        size, correlation, code = struct.unpack(">iih", await buffered.receive_exactly(10))
        if correlation != _CORRELATION or not 6 <= size <= _LARGEST or code:
            raise OtherProtocolError
        body = await buffered.receive_exactly(size - 6)
        (count,) = struct.unpack_from(">i", body)
        rows = [struct.unpack_from(">hhh", body, 4 + 6 * row) for row in range(count)]
    except (anyio.IncompleteRead, struct.error) as error:
        raise OtherProtocolError from error
    return {number: (first, last) for number, first, last in rows}


async def reach(host: str, port: int) -> None:
    """Connect and disconnect. Raises OSError."""
    async with _connected(host, port, None):
        return


async def shake_hands(host: str, port: int, context: ssl.SSLContext) -> Versions:
    """Connect to a broker behind TLS; each side checks the other's certificate. Raises OSError (ssl.SSLError) with the reason."""
    async with _connected(host, port, context) as stream:
        try:
            return await ask_versions(
                stream
            )  # TLS 1.3: a broker refuses a missing certificate only after the handshake
        except (anyio.EndOfStream, anyio.BrokenResourceError, OtherProtocolError) as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            msg = "the connection was closed after the handshake"
            raise ssl.SSLError(msg) from None


def reason(error: OSError) -> str:
    """Why a connection failed."""
    if isinstance(error, socket.gaierror):
        return "no such host"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: nothing listens there"
    if isinstance(error, TimeoutError):
        return "no answer"
    return error.strerror or str(error) or type(error).__name__


@asynccontextmanager
async def _connected(host: str, port: int, context: ssl.SSLContext | None) -> AsyncIterator[ByteStream]:
    try:
        if context is None:
            stream: ByteStream = await anyio.connect_tcp(host, port)
        else:
            stream = await anyio.connect_tcp(host, port, ssl_context=context, tls_standard_compatible=False)
    except OSError as error:
        # anyio tries every address of a name; the error of the first one is reported
        raise next(_leaves(error)) from None
    try:
        yield stream
    finally:
        await anyio.aclose_forcefully(stream)
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()  # the event loop closes the socket in its next turn, and may end before


def _leaves(error: BaseException) -> Iterator[OSError]:
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        yield from (one for one in cause.exceptions if isinstance(one, OSError))
    elif isinstance(cause, OSError):
        yield cause
    if isinstance(error, OSError):
        yield error


def _unchecked() -> ssl.SSLContext:
    """Detects TLS only: nothing secret is sent over this connection."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
