"""Runs the HTTP application inside of a task group: it ends when it is cancelled, once requests in progress are answered."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import anyio
import uvicorn
from starlette.types import ASGIApp

from prela_stream.errors import ConfigurationError

_STOP_S: Final = 5
"""How long requests in progress may take after a stop."""
_KEEP_ALIVE_S: Final = 75
"""Exporters send every 5 s by default. A shorter time than theirs would close connections that they are about to use."""
_HEAD_BYTES: Final = 16 << 10


class ListenError(ConfigurationError):
    """An address cannot be listened on.

    Args:
        setting: Its name, such as `otlp.listen`.
        message: The text.
    """

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(message)
        self.setting = setting


class _Server(uvicorn.Server):
    """A server that leaves signals to the program."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = anyio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


def listening_socket(host: str, port: int, setting: str) -> socket.socket:
    """A socket that accepts connections from now on. Raises ListenError if the address cannot be used."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(found[0], found[1])
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # asyncio sets it only for a socket with a protocol number.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.bind(found[4])
            listener.listen(2_048)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        msg = f"{setting}: cannot listen on {host}:{port}: {error.strerror or error}. Set another address or stop its user"
        raise ListenError(setting, msg) from error
    return listener


async def serve(app: ASGIApp, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until cancelled."""
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_STOP_S,
            h11_max_incomplete_event_size=_HEAD_BYTES,
        )
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_run, server, listener)
        try:
            await server.ready.wait()
            on_ready()
            await anyio.sleep_forever()
        finally:
            server.should_exit = True


async def _run(server: _Server, listener: socket.socket) -> None:
    with anyio.CancelScope(shield=True):
        await server.serve(sockets=[listener])
