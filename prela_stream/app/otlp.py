"""The OTLP receiver as a service, alone or inside of `dev`."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import anyio
import msgspec

from prela_stream.app.adapters import group_of, ready_transport
from prela_stream.app.garbage import rare_collections
from prela_stream.app.health import Health, exposed
from prela_stream.errors import ConfigurationError, ungrouped
from prela_stream.privacy.rules import Privacy

if TYPE_CHECKING:
    from prela_stream.config import Settings
    from prela_stream.otlp.access import Access
    from prela_stream.otlp.grpc_server import GrpcServer
    from prela_stream.otlp.options import OtlpOptions
    from prela_stream.otlp.receiver import Receiver
    from prela_stream.transport.base import Transport

logger = logging.getLogger("prela_stream.otlp")

PART: Final = "otlp"
_HTTP: Final = ("starlette", "uvicorn", "google.protobuf", "opentelemetry.proto")


def missing_modules() -> list[str]:
    """Modules of the extra `otlp` that are not installed."""
    return [name for name in _HTTP if not _is_installed(name)]


def _require_extra() -> None:
    if missing := missing_modules():
        msg = f"OTLP needs {', '.join(missing)}, not installed here: pip install 'prela-stream[otlp]'"
        raise ConfigurationError(msg)


def has_grpc() -> bool:
    """Whether the extra `grpc` is installed."""
    return _is_installed("grpc")


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of a package above it
        return False


async def run_otlp(settings: Settings, *, on_ready: Callable[[], None] | None = None) -> None:
    """Receive spans and append them to the log until cancelled; requests in progress are then answered.

    Args:
        settings: Everything.
        on_ready: Called once, when every address accepts requests.

    Raises:
        ConfigurationError: An address cannot be used, a token is missing, or the extra `otlp` is not installed.
        UnknownTopicError: The topics do not exist.
        TopicMismatchError: They do not match the settings.
    """
    health = Health(("otlp",), (PART,))
    async with exposed(settings.http, health), ready_transport(settings) as transport:
        with rare_collections():
            await receive(settings, transport, health, on_ready)


async def run_otlp_import(settings: Settings, topic: str, *, on_ready: Callable[[], None] | None = None) -> None:
    """Append the spans of a topic with OTLP requests to the log until cancelled, each once.

    Args:
        settings: Everything.
        topic: The topic, on the cluster of the settings.
        on_ready: Called once, when the first partitions are assigned.

    Raises:
        ConfigurationError: The extra `otlp` is not installed.
        UnknownTopicError: A topic does not exist.
        TopicMismatchError: The topics do not match the settings.
    """
    _require_extra()
    from prela_stream.otlp.topic import TopicImport

    health = Health(("otlp",), (PART,))
    async with exposed(settings.http, health), ready_transport(settings) as transport:
        service = TopicImport(
            transport,
            settings.topics,
            privacy_of(settings),
            source=topic,
            group=group_of(settings, settings.otlp.group),
        )
        health.add(PART, service.observer)
        with rare_collections():
            await service.run(on_ready)


async def receive(
    settings: Settings, transport: Transport, health: Health, on_ready: Callable[[], None] | None = None
) -> None:
    """As `run_otlp`, on a transport that is open and with the health of the service around it."""
    _require_extra()
    from prela_stream.otlp.receiver import Receiver
    from prela_stream.otlp.sender import Sender

    options = settings.otlp
    sender = Sender(
        transport, settings.topics, max_bytes=options.max_queue_bytes, answer_s=options.answer_timeout_ms / 1000
    )
    async with sender:
        health.add(PART, sender)
        await _serve(settings, Receiver(sender, settings.topics, privacy_of(settings)), on_ready)


async def receive_beside(settings: Settings, transport: Transport, health: Health) -> None:
    """As `receive`, for a process that has other work. What is missing by default ends nothing: it is logged.

    Raises:
        ConfigurationError: An address that the user has set cannot be used.
    """
    if not (settings.otlp.address("listen") or settings.otlp.address("grpc_listen")):
        return
    if missing := missing_modules():
        logger.info(
            "OTLP is not received: %s not installed. pip install 'prela-stream[otlp]'",
            f"{missing[0]} is" if len(missing) == 1 else f"{', '.join(missing)} are",
        )
        return
    from prela_stream.otlp.server import ListenError

    # A log that cannot be used is reported alone, before any address is open.
    await transport.topics([settings.topics.spans])
    defaults = type(settings.otlp)()
    while True:
        try:
            with ungrouped(ConfigurationError):
                await receive(settings, transport, health)
        except ListenError as error:
            health.remove(PART)
            name = error.setting.removeprefix("otlp.")
            if getattr(settings.otlp, name) != getattr(defaults, name):
                raise
            logger.warning("%s. OTLP is not received there; %s = off receives nothing there", error, error.setting)
            settings = msgspec.structs.replace(settings, otlp=msgspec.structs.replace(settings.otlp, **{name: "off"}))
            if not settings.otlp.address("listen") and not (settings.otlp.address("grpc_listen") and has_grpc()):
                return
        else:
            return


def privacy_of(settings: Settings) -> Privacy:
    """What is removed from spans that other tracers recorded."""
    return Privacy(
        capture_content=settings.capture_content,
        content_attributes=settings.privacy.content_attributes,
        withhold=settings.privacy.withhold,
    )


async def _serve(settings: Settings, receiver: Receiver, on_ready: Callable[[], None] | None) -> None:
    from prela_stream.otlp.access import Access, address_of
    from prela_stream.otlp.http import PATH, make_app
    from prela_stream.otlp.server import listening_socket, serve

    options = settings.otlp
    http, by_grpc = options.address("listen"), bool(options.address("grpc_listen")) and has_grpc()
    if not http and not by_grpc:
        msg = "otlp.listen and otlp.grpc_listen name no address that can be served: set otlp.listen to 127.0.0.1:4318"
        raise ConfigurationError(msg)
    access = Access(options)
    waiting = {"http"} if http else set()

    def ready(name: str) -> None:
        waiting.discard(name)
        if not waiting and on_ready is not None:
            on_ready()

    listener = listening_socket(*address_of(http, "listen"), "otlp.listen") if http else None
    try:
        grpc = await _grpc_server(receiver, access, options) if by_grpc else None
    except BaseException:
        if listener is not None:
            listener.close()
        raise
    async with anyio.create_task_group() as tasks:
        if grpc is not None:
            waiting.add("grpc")
            tasks.start_soon(grpc.run, lambda: ready("grpc"))
        if listener is not None:
            logger.info("OTLP/HTTP is received on http://%s%s", _shown(*listener.getsockname()[:2]), PATH)
            tasks.start_soon(serve, make_app(receiver, access, options), listener, lambda: ready("http"))


async def _grpc_server(receiver: Receiver, access: Access, options: OtlpOptions) -> GrpcServer:
    from prela_stream.otlp.access import address_of
    from prela_stream.otlp.grpc_server import GrpcServer

    host, _ = address_of(options.grpc_listen, "grpc_listen")
    server = GrpcServer(receiver, access, options)
    port = await server.start()
    logger.info("OTLP/gRPC is received on %s", _shown(host, port))
    return server


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
