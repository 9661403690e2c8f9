"""What speaks at an address: Kafka, Kafka behind TLS, a web server, or nothing. Each way of speaking is tried at the same time.

A broker that is spoken to in the wrong way closes the connection without a word, so it is tried the right way. All that is said
to a broker is the question which requests it knows, which it answers before any login.
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

Language = Literal["Kafka", "Kafka behind TLS", "TLS", "HTTP", "nothing that can be understood"]
Versions = dict[int, tuple[int, int]]
"""The versions of each request that a broker knows, by the request's number: from, to."""

_CORRELATION: Final = 4711
_API_VERSIONS: Final = struct.pack(">ihhih", 15, 18, 0, _CORRELATION, 5) + b"prela"
"""A length, the request ApiVersions in version 0, a correlation id, a client's name."""
_LARGEST: Final = 1 << 16
_NOTHING: Final = "nothing that can be understood"
_HTTP: Final = b"GET / HTTP/1.0\r\n\r\n"


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """What answered."""

    speaks: Language
    versions: Versions = {}


class NotUnderstoodError(Exception):
    """What answered, if anything, is not what was looked for."""


async def look(host: str, port: int, within_s: float) -> Listener:
    """Find out what speaks at an address that can be connected to, and which requests it knows."""
    found: dict[Language, Versions] = {}

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
                raise NotUnderstoodError
            found["HTTP"] = {}

    async def attempt(way: Callable[[], Awaitable[None]]) -> None:
        try:
            await way()
        except (OSError, NotUnderstoodError, anyio.EndOfStream, anyio.BrokenResourceError):
            return  # it does not speak so; whether anything listens is no question here
        scope.cancel()  # it does, and so it speaks in no other way

    with anyio.move_on_after(within_s) as scope:
        async with anyio.create_task_group() as tasks:
            for way in (kafka, tls, web):
                tasks.start_soon(attempt, way)
    known: tuple[Language, ...] = ("Kafka", "Kafka behind TLS", "HTTP", "TLS")
    speaks: Language = next((one for one in known if one in found), _NOTHING)
    return Listener(speaks=speaks, versions=found.get(speaks, {}))


async def ask_versions(stream: ByteStream) -> Versions:
    """Which requests a broker knows. Raises NotUnderstoodError, and what the stream raises."""
    await stream.send(_API_VERSIONS)
    buffered = BufferedByteReceiveStream(stream)
    try:
        size, correlation, code = struct.unpack(">iih", await buffered.receive_exactly(10))
        if correlation != _CORRELATION or not 6 <= size <= _LARGEST or code:
            raise NotUnderstoodError
        body = await buffered.receive_exactly(size - 6)
        (count,) = struct.unpack_from(">i", body)
        rows = [struct.unpack_from(">hhh", body, 4 + 6 * row) for row in range(count)]
    except (anyio.IncompleteRead, struct.error) as error:
        raise NotUnderstoodError from error
    return {number: (first, last) for number, first, last in rows}


async def reach(host: str, port: int) -> None:
    """Connect and let go. Raises OSError."""
    async with _connected(host, port, None):
        return


async def shake_hands(host: str, port: int, context: ssl.SSLContext) -> Versions:
    """Talk to a broker behind TLS, each side showing its certificate. Raises OSError (ssl.SSLError) with the reason."""
    async with _connected(host, port, context) as stream:
        try:
            return await ask_versions(stream)  # a broker that wants a certificate of ours says so to the first question
        except (anyio.EndOfStream, anyio.BrokenResourceError, NotUnderstoodError) as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            msg = "the connection was closed behind the handshake"
            raise ssl.SSLError(msg) from None


def why(error: OSError) -> str:
    """What keeps from connecting, in words."""
    if isinstance(error, socket.gaierror):
        return "no such host"
    if isinstance(error, ConnectionRefusedError):
        return "nothing that listens there (connection refused)"
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
        # anyio tries every address of a name; what the first of them said stands for all
        raise next(_leaves(error)) from None
    try:
        yield stream
    finally:
        await anyio.aclose_forcefully(stream)
        with anyio.CancelScope(shield=True):
            await (
                anyio.lowlevel.checkpoint()
            )  # the event loop closes the socket in its next turn, and may be about to end


def _leaves(error: BaseException) -> Iterator[OSError]:
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        yield from (one for one in cause.exceptions if isinstance(one, OSError))
    elif isinstance(cause, OSError):
        yield cause
    if isinstance(error, OSError):
        yield error


def _unchecked() -> ssl.SSLContext:
    """For finding out whether TLS is spoken at all: nothing is told to who answers."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
