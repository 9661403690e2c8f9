"""A model API over real HTTP that replays recorded bodies, and the frames of Amazon's event stream."""

import binascii
import json
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Reply:
    """What the server sends for each request from now on.

    Args:
        body: Sent in one piece, unless `pieces` has it in parts.
        content_type: None: the header is absent.
        is_cut: The connection ends before the announced length was sent.
        gate: The server waits for it before the last piece.
    """

    def __init__(
        self,
        body: bytes = b"",
        *,
        status: int = 200,
        content_type: str | None = "application/json",
        pieces: list[bytes] | None = None,
        is_cut: bool = False,
        gate: threading.Event | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.pieces = [body] if pieces is None else pieces
        self.status = status
        self.content_type = content_type
        self.is_cut = is_cut
        self.gate = gate
        self.headers = {"request-id": "req_1", "x-request-id": "req_1", **(headers or {})}


class ModelApi:
    """Where the server is, what it sends next, and what it received."""

    def __init__(self) -> None:
        self.url = ""
        self.reply = Reply()
        self.replies: Iterator[Reply] = iter(())
        """Sent before `reply`, one for each request."""
        self.requests: list[tuple[str, Any]] = []


@contextmanager
def serving_replies() -> Iterator[ModelApi]:
    """A server in a thread of this process for the length of the block."""
    api = ModelApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:  # the name that http.server calls
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            reply = next(api.replies, api.reply)
            is_form = self.headers.get("content-type", "").startswith("multipart/")
            api.requests.append((self.path, None if is_form else json.loads(body or b"{}")))
            self.send_response(reply.status)
            length = sum(len(piece) for piece in reply.pieces) + (10 if reply.is_cut else 0)
            for name, value in {**reply.headers, "content-length": str(length), "connection": "close"}.items():
                self.send_header(name, value)
            if reply.content_type is not None:
                self.send_header("content-type", reply.content_type)
            self.end_headers()
            for number, piece in enumerate(reply.pieces):
                if reply.gate is not None and number == len(reply.pieces) - 1:
                    reply.gate.wait(30)
                try:
                    self.wfile.write(piece)
                    self.wfile.flush()
                except OSError:  # the client has left
                    break
            self.close_connection = True

        do_GET = do_DELETE = do_POST  # noqa: N815 - the names that http.server calls

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def sse(*events: dict[str, Any]) -> bytes:
    """Server-sent events as the Anthropic API sends them: named after their `type`."""
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


def aws_message(headers: Mapping[str, str], payload: bytes, *, more_headers: bytes = b"") -> bytes:
    """One message of `application/vnd.amazon.eventstream`."""
    encoded = more_headers + b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(encoded) + len(payload), len(encoded))
    message = prelude + struct.pack(">I", binascii.crc32(prelude)) + encoded + payload
    return message + struct.pack(">I", binascii.crc32(message))
