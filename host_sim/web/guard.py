"""Who may talk to the page: checked before anything else sees a request."""

from __future__ import annotations

import hmac
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: A program that calls the API sends this header as well: no other site's page can, without
#: asking first, and that is never answered.
HEADER = "x-insigh-ota"
#: What may be fetched without the token: nothing that tells of the console.
_OPEN = ("/login", "/static/")
#: Before the answer to a wrong token.
_WRONG_S = 0.5

_HEADERS = {
    # Only the page's own files, nothing in line, and no HTML made from text.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
    # Not no-referrer: a browser would then send forms with `Origin: null`.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """Around an application: Host, Origin and token of each request, safe headers on each answer.

    hosts: what a request's Host may be. None: anything, which is safe with a token only: another
    site's name for this address has no cookie. token: None where none is needed.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: frozenset[str] | None, token: str | None, port: int
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._token = token
        # Browsers do not keep the cookies of two ports apart: their names have to.
        self._cookie = f"insigh-ota-{port}"
        # What the cookie holds: worth nothing after the console's end, and not the token.
        self._session = secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        answer = await self._refusal(scope, receive) or self._app
        await answer(scope, receive, send_with_headers)

    async def _refusal(self, scope: Scope, receive: Receive) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if self._hosts is not None and host not in self._hosts:
            return _refuse(421, "this is not an address of the console")
        origin = headers.get("origin")
        # Not its scheme: something in front of the console may speak https.
        foreign = origin is not None and origin.partition("://")[2] != host
        navigation = headers.get("sec-fetch-mode") == "navigate" and scope["method"] == "GET"
        site = headers.get("sec-fetch-site", "none")
        if foreign or (site not in ("none", "same-origin") and not navigation):
            return _refuse(403, "the console does not answer to other sites")
        path = scope["path"]
        writes = scope["method"] not in ("GET", "HEAD")
        if writes and path != "/login" and HEADER not in headers:
            return _refuse(403, f"the header {HEADER} is missing")
        if self._token is None:
            return None
        request = Request(scope, receive)
        if scope["method"] == "POST" and path == "/login":
            return await self._exchange(await _token_of_form(request))
        if path == "/" and "token" in request.query_params:
            return await self._exchange(request.query_params["token"])
        if path.startswith(_OPEN) or self._knows(headers):
            return None
        if path == "/":
            return RedirectResponse("/login", 303)
        return _refuse(401, "log in first: open the page and give the token")

    async def _exchange(self, token: str) -> Response:
        """The cookie for the right token."""
        assert self._token is not None
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self._token.encode()):
            await anyio.sleep(_WRONG_S)
            return RedirectResponse("/login?wrong", 303)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self._cookie, self._session, httponly=True, samesite="strict")
        return answer

    def _knows(self, headers: Headers) -> bool:
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return False
        given = morsel.value if morsel else ""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._session.encode())


async def _token_of_form(request: Request) -> str:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > 4096:
            return ""
    fields = parse_qs(body.decode("utf-8", "replace"))
    return fields.get("token", [""])[0].strip()


def _refuse(status: int, line: str) -> Response:
    return JSONResponse({"error": line}, status)
