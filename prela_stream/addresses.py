"""HOST:PORT and the Host header, as every HTTP endpoint of this project reads them. Pure."""

import ipaddress
from urllib.parse import urlsplit


def parse_address(text: str) -> tuple[str, int] | None:
    """Host and port of `HOST:PORT` or `[IPV6]:PORT`; None if the text is something else."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or port is None or parts.path or parts.username is not None:
        return None
    return host, port


def is_url(text: str) -> bool:
    """Whether the text is `http://HOST` or `https://HOST`, with or without a port and a path."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0


def url_of(host: str, port: int) -> str:
    """`http://HOST:PORT`, with brackets around an IPv6 address."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    return ipaddress.ip_address(host).is_loopback if is_ip_address(host) else host == "localhost"


def is_ip_address(host: str) -> bool:
    """Whether the text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def host_of(header: str) -> str:
    """The host of a Host header, in small letters; empty if there is none."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""
