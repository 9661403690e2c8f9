"""Reads the response objects of httpx and httpx2, and imports neither."""

from typing import Any


def http_response(value: object) -> Any:
    """The HTTP response inside a stream or a response wrapper; None if `value` has none, as a parsed answer."""
    for name in ("http_response", "response"):
        response = getattr(value, name, None)
        if hasattr(response, "status_code") and hasattr(response, "headers"):
            return response
    return None


def content_decoder(response: Any) -> Any:
    """A second decoder of the response's content encoding, beside the one that serves the reader; None if it has none."""
    encoding = response.headers.get("content-encoding")
    if encoding is None:
        return None
    return type(response)(200, headers={"content-encoding": encoding})._get_content_decoder()
