"""Settings of the OTLP receiver. It imports nothing heavy."""

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from prela_stream.validation import HOUR, bounded


class OtlpOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The OTLP receiver of `otlp` and `dev`. It needs the extra `otlp`, and for gRPC the extra `grpc`."""

    listen: str = "127.0.0.1:4318"
    """HOST:PORT for OTLP/HTTP (`POST /v1/traces`); off: no HTTP."""
    grpc_listen: str = "127.0.0.1:4317"
    """HOST:PORT for OTLP/gRPC, if the extra `grpc` is installed; off: no gRPC."""
    token: str = ""
    """Bearer token that each request needs. Required if an address is no loopback address."""
    token_file: str | None = None
    """A file with the token, read at the start; one trailing line break is removed."""
    hosts: tuple[str, ...] = ()
    """Further names that the Host header may have. Addresses, `localhost` and the host of `listen` are accepted."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages whose scripts may send spans, such as https://app.example.com; empty: none."""
    max_body_bytes: Annotated[int, bounded(1_024, 1 << 30)] = 20 << 20
    """Largest request, after decompression."""
    max_queue_bytes: Annotated[int, bounded(1 << 20, 1 << 36)] = 64 << 20
    """Bytes of requests and records that may wait in memory. Beyond that, requests get 503 with Retry-After."""
    answer_timeout_ms: Annotated[int, bounded(10, HOUR)] = 8_000
    """How long a request waits for the acknowledgement of its records. Exporters give up after 10,000 by default."""
    group: str = "otlp"
    """Consumer group of `--from-topic`, after the prefix of the topics."""

    def address(self, name: Literal["listen", "grpc_listen"]) -> str:
        """One of the addresses; empty if it is off."""
        found: str = getattr(self, name)
        return "" if found.lower() == "off" else found

    def problems(self) -> Iterator[tuple[str, str]]:
        """Pairs of a setting and of what is wrong with it beyond its type."""
        if self.token and self.token_file is not None:
            yield "token_file", "expected otlp.token or otlp.token_file, got both"

    def __repr__(self) -> str:
        shown = (
            f"{name}={'<hidden>' if name == 'token' else repr(value)}"
            for name, default in zip(self.__struct_fields__, self.__struct_defaults__, strict=True)
            if (value := getattr(self, name)) != default
        )
        return f"OtlpOptions({', '.join(shown)})"
