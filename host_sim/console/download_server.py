"""The package server: its port, its TLS and its connections."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator

from host_sim.console.download_handler import (
    IDLE_TIMEOUT,
    DownloadHandler,
    PlatformServer,
    plain_request,
)
from host_sim.console.faults import Faults
from host_sim.console.journal import Journal
from host_sim.console.registry import Registry
from host_sim.errors import SimError

_TLS_HANDSHAKE_RECORD = 0x16
# What is sent is shown as what the node has: not megabytes that wait in a buffer of this machine.
_SEND_BUFFER = 16 * 1024

logger = logging.getLogger("console")


class DownloadServer(PlatformServer):
    """A thread for each connection; TLS is set up there, so a slow peer delays nobody else."""

    daemon_threads = False
    request_queue_size = 64

    def __init__(
        self,
        port: int,
        tls: ssl.SSLContext | None,
        registry: Registry,
        journal: Journal,
        faults: Callable[[], Faults],
    ) -> None:
        self.registry = registry
        self.journal = journal
        self.faults = faults
        self.stopping = threading.Event()
        self._tls = tls
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        try:
            super().__init__(("127.0.0.1", port), DownloadHandler)
        except OSError as error:
            raise SimError(f"HTTPS port {port}: {error.strerror}") from error
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.02}, name="console-https"
        )

    def server_bind(self) -> None:
        """Bind, without the name look-up of the standard library: it may ask the network."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Close every connection and end every thread."""
        self.stopping.set()
        self.shutdown()
        self._thread.join()
        with self._open_lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    # Not on the TLS layer, which other threads are using.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
        self.server_close()

    def finish_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:
        """Serve one connection, in its own thread."""
        request.settimeout(IDLE_TIMEOUT)
        request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        with self._tracked(request):
            if self._tls is None:
                self.RequestHandlerClass(request, client_address, self)
                return
            # Look before the handshake, so that plain HTTP is recorded on the TLS port as well.
            first = request.recv(1, socket.MSG_PEEK)
            if not first:
                return
            if first[0] != _TLS_HANDSHAKE_RECORD:
                self._record_plain(request)
                return
        secure = self._tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        with secure, self._tracked(secure):
            try:
                secure.do_handshake()
            except OSError as error:
                # Going away without a word is a way to say no, too.
                reason = getattr(error, "reason", None) or type(error).__name__
                self.journal.add_tls_failure(str(reason))
                logger.info("https: no TLS: %s", reason)
                return
            handler = self.RequestHandlerClass(secure, client_address, self)
            if not getattr(handler, "cut_off", False):
                with contextlib.suppress(OSError, ValueError):
                    # Non-blocking: say goodbye without waiting for the answer.
                    secure.setblocking(False)
                    secure.unwrap()

    def handle_error(self, request: object, client_address: object) -> None:
        """A peer that goes away is nobody's error; anything else is ours."""
        if not isinstance(sys.exc_info()[1], OSError):
            logger.exception("https: fault in the server")

    @contextlib.contextmanager
    def _tracked(self, connection: socket.socket) -> Iterator[None]:
        with self._open_lock:
            self._open.add(connection)
        try:
            if self.stopping.is_set():
                raise ConnectionAbortedError("the console stops")
            yield
        finally:
            with self._open_lock:
                self._open.discard(connection)

    def _record_plain(self, connection: socket.socket) -> None:
        line = connection.makefile("rb").readline(8192).decode("latin-1")
        words = line.split()
        if len(words) >= 2:
            self.journal.add(plain_request(words[0], words[1]))
