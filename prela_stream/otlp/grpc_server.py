"""OTLP/gRPC: `TraceService/Export`, with the bytes of the request as for HTTP. Needs the extra `grpc`.

For a method with one request, gRPC reads the request before it calls the handler. Some large requests at once would then need
any amount of memory. So the method is served as one with a stream of requests, which is the same on the wire, and few are read
at once.
"""

from collections.abc import Callable
from typing import Any, Final

import anyio
import grpc
import grpc.aio

from prela_stream import telemetry
from prela_stream.errors import CodecError, TransportError
from prela_stream.otlp.access import Access
from prela_stream.otlp.answers import success
from prela_stream.otlp.options import OtlpOptions
from prela_stream.otlp.receiver import DefectError, Receiver
from prela_stream.otlp.sender import QueueFullError
from prela_stream.otlp.server import ListenError

_SERVICE: Final = "opentelemetry.proto.collector.trace.v1.TraceService"
_STOP_S: Final = 5.0
_STREAMS: Final = 16
"""Requests of one connection at a time."""
_REQUESTS: Final = 256
_AHEAD: Final = 256 << 10
_READING: Final = 2
"""Requests that are read at a time."""
_READ_S: Final = 5.0
"""How long a client may take to send a request once it is read."""


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
        self._reading = anyio.Semaphore(_READING)
        self._server: Any = grpc.aio.server(
            options=(
                (
                    "grpc.so_reuseport",
                    0,
                ),  # else two processes may share the address, and each gets some of the requests
                ("grpc.max_receive_message_length", options.max_body_bytes),
                ("grpc.max_concurrent_streams", _STREAMS),
                # what is buffered before a request is read; the probe would let it grow to 16 MiB for each connection
                ("grpc.http2.lookahead_bytes", _AHEAD),
                ("grpc.http2.bdp_probe", 0),
            ),
            maximum_concurrent_rpcs=_REQUESTS,
        )
        export = grpc.stream_unary_rpc_method_handler(self._export)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Export": export}),))

    async def start(self) -> int:
        """Listen; returns the port. Raises ListenError if the address cannot be used."""
        try:
            port = int(self._server.add_insecure_port(self._address))
        except RuntimeError:  # its text adds nothing but an advice on debugging
            port = 0
        if not port:
            msg = (
                f"otlp.grpc_listen: cannot listen on {self._address}: it is in use, or no address of this machine. "
                "Set another address or stop its user"
            )
            raise ListenError("otlp.grpc_listen", msg)
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

    async def _export(self, _requests: object, context: Any) -> bytes:
        code, message = grpc.StatusCode.OK, ""
        sender = self._receiver.sender
        reserved = 0
        request = b""
        try:
            if not self._allowed(context):
                code, message = (
                    grpc.StatusCode.UNAUTHENTICATED,
                    "expected the metadata authorization: Bearer with the token",
                )
            else:
                async with self._reading:
                    with anyio.fail_after(_READ_S):
                        # the iterator of requests would keep the one that it gave
                        request = await context.read()
                    if request is grpc.aio.EOF:
                        request = b""
                        msg = "expected one request, found none"
                        raise CodecError(msg)
                    sender.reserve(len(request))
                reserved = len(request)
                return success(await self._receiver.take(request, "protobuf", "grpc"), "protobuf")
        except CodecError as error:
            code, message = grpc.StatusCode.INVALID_ARGUMENT, str(error)
        except (QueueFullError, TransportError) as error:
            code, message = grpc.StatusCode.UNAVAILABLE, str(error)  # exporters send again
        except DefectError as error:
            code, message = grpc.StatusCode.INTERNAL, str(error)
        except TimeoutError:
            code, message = grpc.StatusCode.UNAVAILABLE, f"the request did not arrive within {_READ_S:g} s"
        finally:
            del request  # the answer may take a while, and the next request takes the place
            sender.release(reserved)
            telemetry.OTLP_REQUESTS.add(1, "grpc", code.name)
        await context.abort(code, message)
        raise AssertionError  # abort() raises

    def _allowed(self, context: Any) -> bool:
        found = {key: value for key, value in context.invocation_metadata() or () if key == "authorization"}
        value = found.get("authorization", "")
        return self._access.allows(value if isinstance(value, str) else "")
