"""The application: the page's files, the stream of news, and what a person may do."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from host_sim.console import Console
from host_sim.errors import SimError
from host_sim.web import contents
from host_sim.web.feed import Feed, beat
from insigh_ota.package.errors import PackageError

#: Of a package that is added here, in bytes.
UPLOAD_LIMIT = 32 << 20
#: Of a request for devices: 100,000 ids.
_ORDER_LIMIT = 8 << 20
_NAME_LIMIT = 120
_READ_S = 120.0
_BEAT_S = 5.0
#: A browser that takes nothing for so long is given up.
_SEND_S = 20.0

_STATIC = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_WRONG = '<p class="error" role="alert">That is not the token.</p>'


class Refused(Exception):
    """A request that can not be carried out: its line is for the person who asked."""

    def __init__(self, line: str, status: int = 400) -> None:
        super().__init__(line)
        self.status = status


class Page:
    """The handlers; `app` is the application."""

    def __init__(self, console: Console, feed: Feed, *, upload_limit: int = UPLOAD_LIMIT) -> None:
        self._console = console
        self._feed = feed
        self._limit = upload_limit
        # One package at a time: unpacked it may take a lot of memory.
        self._reading = anyio.CapacityLimiter(1)
        self._contents = lru_cache(32)(self._look)
        self._files = {path.name: path.read_bytes() for path in _STATIC.iterdir()}
        routes = [
            Route("/", self.page),
            Route("/login", self.login),
            Route("/static/{name}", self.static),
            Route("/api/stream", self.stream),
            Route("/api/packages", self.add_package, methods=["POST"]),
            Route("/api/packages/{fuid}", self.inspect),
            Route("/api/request", self.request, methods=["POST"]),
            Route("/api/cancel", self.cancel, methods=["POST"]),
        ]
        handlers = {Refused: _refused, SimError: _failed, PackageError: _failed}
        self.app = Starlette(routes=routes, exception_handlers=handlers)

    # -- files -------------------------------------------------------------------------------

    async def page(self, _: Request) -> Response:
        """The page itself."""
        return self._file("index.html")

    async def login(self, request: Request) -> Response:
        """Where the token is given."""
        said = _WRONG if "wrong" in request.query_params else ""
        content = self._files["login.html"].replace(b"<!-- said -->", said.encode())
        return Response(content, media_type=_TYPES[".html"])

    async def static(self, request: Request) -> Response:
        """A file that a page loads."""
        return self._file(request.path_params["name"])

    def _file(self, name: str) -> Response:
        if name not in self._files:
            raise Refused("there is no such file", 404)
        return Response(self._files[name], media_type=_TYPES[Path(name).suffix])

    # -- news --------------------------------------------------------------------------------

    async def stream(self, request: Request) -> Response:
        """Server-sent events: hello, packages, rows, events, beat; all but the last as needed."""
        after = request.headers.get("last-event-id") or request.query_params.get("after", "")
        return EventSourceResponse(
            self._feed.stream(after, {"limit": self._limit}),
            ping=_BEAT_S,
            ping_message_factory=beat,
            send_timeout=_SEND_S,
        )

    # -- orders ------------------------------------------------------------------------------

    async def add_package(self, request: Request) -> Response:
        """Store the body as a package, when it is one."""
        name = clean_name(request.query_params.get("name", ""))
        raw = await self._body(request, self._limit, "a package")
        await to_thread.run_sync(contents.look, raw, limiter=self._reading)
        package = await to_thread.run_sync(self._console.add_package, raw, name)
        return JSONResponse({"fuid": package.fuid, "name": package.name, "size": package.size})

    async def inspect(self, request: Request) -> Response:
        """What is in a package."""
        fuid = request.path_params["fuid"]
        package = next((each for each in self._console.packages() if each.fuid == fuid), None)
        if package is None:
            raise Refused(f"package {fuid!r} is not known", 404)
        told = await to_thread.run_sync(self._contents, package.path, limiter=self._reading)
        return JSONResponse({"fuid": fuid, "name": package.name} | told)

    async def request(self, request: Request) -> Response:
        """Ask devices to take a package."""
        order = await self._order(request)
        fuid = order.get("fuid")
        if not isinstance(fuid, str):
            raise Refused("no package is named")
        await to_thread.run_sync(self._console.request_many, order["ids"], fuid)
        return JSONResponse({"devices": len(order["ids"])})

    async def cancel(self, request: Request) -> Response:
        """Withdraw what devices were asked for."""
        ids = (await self._order(request))["ids"]
        await to_thread.run_sync(self._console.cancel, ids)
        return JSONResponse({"devices": len(ids)})

    # -- inside ------------------------------------------------------------------------------

    @staticmethod
    def _look(path: Path) -> dict[str, Any]:
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise PackageError(f"it can not be read: {error.strerror}") from error
        return contents.look(raw)

    async def _order(self, request: Request) -> dict[str, Any]:
        try:
            order = json.loads(await self._body(request, _ORDER_LIMIT, "an order"))
        except (ValueError, RecursionError):
            raise Refused("that is not JSON") from None
        ids = order.get("ids") if isinstance(order, dict) else None
        if not isinstance(ids, list) or not ids or not all(isinstance(i, str) for i in ids):
            raise Refused("no device is named")
        order["ids"] = list(dict.fromkeys(ids))
        return order

    @staticmethod
    async def _body(request: Request, limit: int, what: str) -> bytes:
        """The body; an error as soon as it is longer than it may be, nothing is kept then."""
        large = Refused(f"too large: {what} may have {limit >> 10} KB at most", 413)
        told = request.headers.get("content-length", "0")
        if told.isdecimal() and int(told) > limit:
            raise large
        body = bytearray()
        try:
            with anyio.fail_after(_READ_S):
                async for part in request.stream():
                    body += part
                    if len(body) > limit:
                        raise large
        except TimeoutError:
            raise Refused("the rest did not come", 408) from None
        else:
            return bytes(body)
        finally:
            body.clear()  # the error that is under way holds on to it


def clean_name(given: str) -> str:
    """A package's name from a browser: without folders, and with nothing unprintable."""
    name = given.replace("\\", "/").rsplit("/", 1)[-1].strip()
    name = "".join(c if c.isprintable() else "_" for c in name)
    if not name or name.startswith("."):
        raise Refused("the file has no name: name it *.tar.gz, *.tgz or *.tar")
    if len(name) > _NAME_LIMIT:
        raise Refused(f"its name is too long: {_NAME_LIMIT} characters at most")
    return name


async def _refused(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, getattr(error, "status", 400))


async def _failed(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)
