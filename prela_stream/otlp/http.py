"""OTLP/HTTP: `POST /v1/traces`. A request is answered once its records are acknowledged.

Status codes follow the specification of OTLP. Exporters send a request again after 429, 502, 503 and 504, and drop it after any
other error. A full queue is answered with 503 and not with 429, because Python's exporters before mid-2026 drop a request after
429 (opentelemetry-python#5460).
"""

from collections.abc import AsyncIterator
from typing import Final

import anyio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from prela_stream import telemetry
from prela_stream.errors import CodecError, TransportError
from prela_stream.otel.otlp.requests import Encoding
from prela_stream.otlp.access import Access
from prela_stream.otlp.answers import CONTENT_TYPES, failure, success
from prela_stream.otlp.body import CODINGS, BodyError, BodyTooLargeError, read_body
from prela_stream.otlp.options import OtlpOptions
from prela_stream.otlp.receiver import DefectError, Receiver
from prela_stream.otlp.sender import QueueFullError

PATH: Final = "/v1/traces"
_BODY_S: Final = 30.0
"""How long a client may take to send a body."""
_ENCODINGS: Final[dict[str, Encoding]] = {kind: encoding for encoding, kind in CONTENT_TYPES.items()}
_RETRY_AFTER_S: Final = 1


class _Refused(Exception):  # noqa: N818 - the answer to a request, no error of this program
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def make_app(receiver: Receiver, access: Access, options: OtlpOptions) -> ASGIApp:
    """The ASGI application.

    Args:
        receiver: Takes the requests.
        access: Checks them.
        options: Limits and origins.
    """
    endpoint = _Endpoint(receiver, access, options)
    middleware = []
    if options.cors_origins:
        middleware.append(
            Middleware(
                CORSMiddleware, allow_origins=list(options.cors_origins), allow_methods=["POST"], allow_headers=["*"]
            )
        )
    app = Starlette(middleware=middleware)
    app.router.default = endpoint
    return app


class _Endpoint:
    def __init__(self, receiver: Receiver, access: Access, options: OtlpOptions) -> None:
        self._receiver = receiver
        self._access = access
        self._limit = options.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            telemetry.OTLP_REQUESTS.add(1, "http", "disconnected")
            return
        telemetry.OTLP_REQUESTS.add(1, "http", str(response.status_code))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        encoding: Encoding = _ENCODINGS.get(kind, "json")
        try:
            return await self._taken(request, kind)
        except _Refused as refused:
            status, message = refused.status, str(refused)
        except (CodecError, BodyError) as error:
            status, message = 400, str(error)
        except BodyTooLargeError as error:
            status, message = 413, str(error)
        except (QueueFullError, TransportError) as error:
            status, message = 503, str(error)
        except DefectError as error:
            status, message = 500, str(error)
        headers = {}
        if status == 503:
            headers["retry-after"] = str(_RETRY_AFTER_S)
        elif status == 401:
            headers["www-authenticate"] = "Bearer"
        elif status == 405:
            headers["allow"] = "POST"
        return Response(failure(status, message, encoding), status, headers=headers, media_type=CONTENT_TYPES[encoding])

    async def _taken(self, request: Request, kind: str) -> Response:
        coding = self._check(request, kind)
        encoding = _ENCODINGS[kind]
        reserved = 0

        def reserve(size: int) -> None:
            nonlocal reserved
            self._receiver.sender.reserve(size)
            reserved += size

        try:
            with anyio.fail_after(_BODY_S):
                body = await read_body(_chunks(request), coding, self._limit, reserve)
            taken = await self._receiver.take(body, encoding, "http")
            return Response(success(taken, encoding), media_type=CONTENT_TYPES[encoding])
        except TimeoutError as error:
            raise _Refused(408, f"the body did not arrive within {_BODY_S:g} s") from error
        finally:
            self._receiver.sender.release(reserved)

    def _check(self, request: Request, kind: str) -> str:
        """The coding of the body. Raises _Refused for a request that is not accepted, whatever its body."""
        path = request.url.path
        if not self._access.knows(request.headers.get("host", "")):
            raise _Refused(421, "unknown host: add its name to otlp.hosts")
        if path.rstrip("/") != PATH:
            raise _Refused(404, f"expected {PATH}: this service takes traces only")
        if request.method != "POST":
            raise _Refused(405, f"expected POST, got {request.method}")
        if not self._access.allows(request.headers.get("authorization", "")):
            raise _Refused(401, "expected the header Authorization: Bearer with the token of otlp.token")
        if kind not in _ENCODINGS:
            raise _Refused(415, f"expected the Content-Type {' or '.join(_ENCODINGS)}, got {kind[:100]!r}")
        coding = request.headers.get("content-encoding", "").strip().lower()
        if coding not in CODINGS:
            raise _Refused(415, f"expected the Content-Encoding gzip, or none, got {coding[:100]!r}")
        length = request.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) > self._limit:
            raise BodyTooLargeError(
                f"the body is larger than {self._limit:,} bytes (otlp.max_body_bytes): send fewer spans in a request"
            )
        return coding


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        yield chunk
