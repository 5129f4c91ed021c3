"""Serves the page beside a console that runs, from a thread of its own."""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import socket
import threading

import uvicorn

from host_sim.console import Console
from host_sim.errors import SimError
from host_sim.web.app import UPLOAD_LIMIT, Page
from host_sim.web.feed import Feed
from host_sim.web.guard import Guard
from host_sim.web.linger import Linger, Protocol

_SHORTEST_TOKEN = 16
#: Connections that do not end by themselves are cut then.
_GRACE_S = 1


class WebServer:
    """A context manager around a running console's serving time.

    port: 0 for any free one. host: an address of this machine. token: what a browser has to give;
    None: nothing on loopback, elsewhere one is made. Raises SimError.
    """

    url: str
    """Where the page is, with `/` at its end and without the token."""
    token: str | None
    """None where none is needed."""

    def __init__(
        self,
        console: Console,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        token: str | None = None,
        upload_limit: int = UPLOAD_LIMIT,
    ) -> None:
        if token is not None and (len(token) < _SHORTEST_TOKEN or not token.isprintable()):
            raise SimError(
                f"--web-token: at least {_SHORTEST_TOKEN} printable characters; without the "
                "option a good one is made"
            )
        self._console = console
        self._upload_limit = upload_limit
        self._family, self._address, loopback = _resolve(host)
        self.token = token if token or loopback else secrets.token_urlsafe(24)
        self._port = port
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> WebServer:
        with contextlib.ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, stack: contextlib.ExitStack) -> None:
        try:
            listener = socket.create_server((self._address, self._port), family=self._family)
        except OSError as error:
            where = f"{self._address}, port {self._port}"
            raise SimError(f"no page on {where}: {error.strerror or error}") from error
        stack.callback(listener.close)
        port = listener.getsockname()[1]
        # 0.0.0.0 is every address, and none to type into a browser.
        everywhere = ipaddress.ip_address(self._address).is_unspecified
        named = socket.gethostname() if everywhere else self._address
        self.url = f"http://{f'[{named}]' if ':' in named else named}:{port}/"

        feed = Feed(self._console)
        names = ("127.0.0.1", "localhost", "[::1]", self._address)
        known = frozenset(f"{name}:{port}" for name in names) | (
            frozenset(names) if port == 80 else frozenset()
        )
        app = Guard(
            Page(self._console, feed, upload_limit=self._upload_limit).app,
            hosts=known if self.token is None else None,
            token=self.token,
            port=port,
        )
        config = uvicorn.Config(
            Linger(app),
            http=Protocol,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,  # it would show ?token=
            log_level="critical",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}, name="console-web"
        )
        thread.start()

        def stop() -> None:
            server.should_exit = True
            thread.join()

        stack.callback(stop)
        stack.enter_context(feed)  # ends first: the streams close, and then the server can


def _resolve(host: str) -> tuple[socket.AddressFamily, str, bool]:
    """Family and address of a host, and whether only this machine reaches it."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise SimError(f"--web-host {host!r} is no address of this machine") from error
    family, _, _, _, address = found[0]
    text = str(address[0]).partition("%")[0]
    return socket.AddressFamily(family), text, ipaddress.ip_address(text).is_loopback
