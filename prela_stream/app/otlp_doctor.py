"""What `doctor` reports about the OTLP receiver: whether it can run here, and whether one runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from prela_stream.app.otlp import has_grpc, missing_modules
from prela_stream.errors import ConfigurationError
from prela_stream.transport.findings import Finding, mistake, ok, skipped

if TYPE_CHECKING:
    from prela_stream.otlp.options import OtlpOptions

_CONNECT_S: Final = 2.0


async def otlp_finding(options: OtlpOptions) -> Finding:
    """The finding `otlp`. Opens a connection to the address, and sends nothing."""
    from prela_stream.otlp.access import Access, address_of

    if not (options.address("listen") or options.address("grpc_listen")):
        return skipped("otlp", "otlp.listen and otlp.grpc_listen are off")
    try:
        Access(options)
    except ConfigurationError as error:
        return mistake("otlp", str(error))
    if missing_modules():
        return skipped("otlp", "OTLP is not received: pip install 'prela-stream[otlp]'")
    parts = []
    if address := options.address("listen"):
        parts.append(f"HTTP: {await _state(*address_of(address, 'listen'))} {address}")
    if address := options.address("grpc_listen"):
        state = await _state(*address_of(address, "grpc_listen")) if has_grpc() else "grpcio is not installed, for"
        parts.append(f"gRPC: {state} {address}")
    return ok("otlp", "; ".join(parts))


async def _state(host: str, port: int) -> str:
    with anyio.move_on_after(_CONNECT_S):
        try:
            async with await anyio.connect_tcp(host, port):
                return "a process accepts connections on"
        except OSError:
            return "no process listens on"
    return "no answer from"
