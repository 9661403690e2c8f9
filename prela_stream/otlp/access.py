"""Who may send spans: the token, the Host header, and the addresses that need a token."""

import hmac
import ipaddress
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from prela_stream.errors import ConfigurationError
from prela_stream.otlp.options import OtlpOptions
from prela_stream.validation import absolute, read_text

_UNPROTECTED: Final = (
    "otlp.{name}: other machines can reach {address}, and no token is set. Set otlp.token (PRELA_OTLP_TOKEN) or otlp.token_file, "
    "or listen on 127.0.0.1"
)


class Access:
    """Checks requests. Reads the token file; raises ConfigurationError if that fails or a token is missing.

    Args:
        options: The addresses, the token and the names.
    """

    def __init__(self, options: OtlpOptions) -> None:
        self._token = _token_of(options)
        self._names = {"localhost", *(name.lower() for name in options.hosts)}
        names: tuple[Literal["listen", "grpc_listen"], ...] = ("listen", "grpc_listen")
        for name in names:
            if address := options.address(name):
                host, _ = address_of(address, name)
                self._names.add(host.lower())
                if not self._token and not _is_loopback(host):
                    raise ConfigurationError(_UNPROTECTED.format(name=name, address=address))

    def allows(self, authorization: str) -> bool:
        """Whether an Authorization header has the token."""
        if not self._token:
            return True
        scheme, _, token = authorization.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._token.encode())

    def knows(self, host: str) -> bool:
        """Whether a Host header is an address or a known name: by DNS rebinding a page of another site cannot send one."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._names or _is_address(name)


def address_of(text: str, name: str) -> tuple[str, int]:
    """Host and port of the setting `otlp.{name}`. Raises ConfigurationError."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None or parts.path or parts.username is not None:
        msg = (
            f"otlp.{name}: expected HOST:PORT, for example 127.0.0.1:{4318 if name == 'listen' else 4317}, got {text!r}"
        )
        raise ConfigurationError(msg)
    return host, port


def _token_of(options: OtlpOptions) -> str:
    if options.token_file is None:
        return options.token
    path = Path(options.token_file)
    text = read_text(path, "file of otlp.token_file", "Name a file that exists and can be read")
    token = text.removesuffix("\n").removesuffix("\r")
    if not token:
        msg = f"otlp.token_file: expected a token in {absolute(path)}, found an empty file"
        raise ConfigurationError(msg)
    return token


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback if _is_address(host) else host == "localhost"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
