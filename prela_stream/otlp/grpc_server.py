"""OTLP/gRPC: `TraceService/Export`, with the bytes of the request as for HTTP. Needs the extra `grpc`."""

from collections.abc import Callable
from typing import Any, Final

import anyio
import grpc
import grpc.aio

from prela_stream import telemetry
from prela_stream.errors import CodecError, ConfigurationError, TransportError
from prela_stream.otlp.access import Access
from prela_stream.otlp.answers import success
from prela_stream.otlp.options import OtlpOptions
from prela_stream.otlp.receiver import DefectError, Receiver
from prela_stream.otlp.sender import QueueFullError

_SERVICE: Final = "opentelemetry.proto.collector.trace.v1.TraceService"
_STOP_S: Final = 5.0
_STREAMS: Final = 16
"""Requests of one connection at a time. gRPC reads each of them into memory before it is counted here."""
_REQUESTS: Final = 64


class GrpcServer:
    """The server. Its address accepts requests from `start` on.

    Args:
        receiver: Takes the requests.
        access: Checks their token.
        options: The limit of a request.
    """

    def __init__(self, receiver: Receiver, access: Access, options: OtlpOptions) -> None:
        self._receiver = receiver
        self._access = access
        self._address = options.grpc_listen
        self._server: Any = grpc.aio.server(
            options=(
                (
                    "grpc.so_reuseport",
                    0,
                ),  # else two processes may share the address, and each gets some of the requests
                ("grpc.max_receive_message_length", options.max_body_bytes),
                ("grpc.max_concurrent_streams", _STREAMS),
            ),
            maximum_concurrent_rpcs=_REQUESTS,
        )
        export = grpc.unary_unary_rpc_method_handler(self._export)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Export": export}),))

    async def start(self) -> int:
        """Listen; returns the port. Raises ConfigurationError if the address cannot be used."""
        try:
            port = int(self._server.add_insecure_port(self._address))
        except RuntimeError as error:
            port, reason = 0, str(error)
        else:
            reason = "in use"
        if not port:
            msg = f"otlp.grpc_listen: cannot listen on {self._address}: {reason}. Set another address or stop its user"
            raise ConfigurationError(msg)
        await self._server.start()
        return port

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Serve until cancelled; requests in progress are then answered."""
        on_ready()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await self._server.stop(_STOP_S)

    async def _export(self, request: bytes, context: Any) -> bytes:
        code, message = grpc.StatusCode.OK, ""
        size = len(request)
        sender = self._receiver.sender
        reserved = 0
        try:
            if not self._allowed(context):
                code, message = (
                    grpc.StatusCode.UNAUTHENTICATED,
                    "expected the metadata authorization: Bearer with the token",
                )
            else:
                sender.reserve(size)
                reserved = size
                return success(await self._receiver.take(request, "protobuf", "grpc"), "protobuf")
        except CodecError as error:
            code, message = grpc.StatusCode.INVALID_ARGUMENT, str(error)
        except (QueueFullError, TransportError) as error:
            code, message = grpc.StatusCode.UNAVAILABLE, str(error)  # exporters send again
        except DefectError as error:
            code, message = grpc.StatusCode.INTERNAL, str(error)
        finally:
            sender.release(reserved)
            telemetry.OTLP_REQUESTS.add(1, "grpc", code.name)
        await context.abort(code, message)
        raise AssertionError  # abort() raises

    def _allowed(self, context: Any) -> bool:
        found = {key: value for key, value in context.invocation_metadata() or () if key == "authorization"}
        value = found.get("authorization", "")
        return self._access.allows(value if isinstance(value, str) else "")
