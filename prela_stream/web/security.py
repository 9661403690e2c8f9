"""What protects the pages: the Host header, the token, and the headers of every answer.

Prompts are hostile input, so no page may run or load anything that is not a file of this package: the content security policy
has no exception for inline scripts or styles. Another site cannot read a page by DNS rebinding, because its name is not known
here, nor embed one, because it may neither frame nor fetch it.
"""

import hashlib
import hmac
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prela_stream.addresses import host_of, is_ip_address
from prela_stream.web.rendering import page
from prela_stream.web.state import Pages

COOKIE: Final = "prela_session"
_LOGIN: Final = "/login"
_FORM_BYTES: Final = 4096
_CSP: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final = {
    "content-security-policy": _CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "x-frame-options": "DENY",
}


class Protection:
    """ASGI middleware: checks every request before a handler sees it, and sets the headers of every answer.

    Args:
        app: The pages.
        pages: Their shared state.
        token: What a browser or program must present; empty: nothing.
        host: The host of the listening address.
        names: Further names that the Host header may have.
    """

    def __init__(self, app: ASGIApp, *, pages: Pages, token: str, host: str, names: Iterable[str]) -> None:
        self._app = app
        self.pages = pages
        self._token = token
        self._names = {"localhost", host.lower(), *(name.lower() for name in names)}
        # The cookie does not contain the token, so that a stolen browser profile does not have it.
        self._session = hmac.new(token.encode(), b"prela web session", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = await self._refusal(Request(scope, receive))
        await (self._app if refusal is None else refusal)(scope, receive, send_protected)

    async def _refusal(self, request: Request) -> Response | None:
        """The answer to a request that no handler may see; None if one may."""
        name = host_of(request.headers.get("host", ""))
        if name not in self._names and not is_ip_address(name):
            return PlainTextResponse("unknown host: add its name to web.hosts\n", 421)
        if _is_foreign(request.headers):
            return PlainTextResponse("pages of other sites may not read this one\n", 403)
        path = request.url.path
        if request.method == "POST" and path == _LOGIN and self._token:
            return await self._login(request)
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("expected GET\n", 405, headers={"allow": "GET, HEAD"})
        if not self._token or path.startswith("/static/") or self._is_allowed(request):
            return None
        if "text/html" in request.headers.get("accept", ""):
            return page(request, "login.html", status=401, refused=False)
        text = "expected the header Authorization: Bearer with the token of web.token\n"
        return PlainTextResponse(text, 401, headers={"www-authenticate": "Bearer"})

    def _is_allowed(self, request: Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return _same(token.strip(), self._token)
        return _same(request.cookies.get(COOKIE, ""), self._session)

    async def _login(self, request: Request) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > _FORM_BYTES:
                return PlainTextResponse("the form is too large\n", 413)
        if not _same(_field(body, "token"), self._token):
            return page(request, "login.html", status=401, refused=True)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            COOKIE, self._session, httponly=True, samesite="strict", secure=request.url.scheme == "https", path="/"
        )
        return answer


def _is_foreign(headers: Headers) -> bool:
    """Whether a page of another site made the request, and not a person who follows a link."""
    site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode", "navigate")
    if site in ("none", "same-origin"):
        return False
    return mode != "navigate" or headers.get("sec-fetch-dest", "document") != "document"


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode("utf-8", "surrogateescape"))


def _field(body: bytes, name: str) -> str:
    return parse_qs(body.decode("utf-8", "replace")).get(name, [""])[0]
