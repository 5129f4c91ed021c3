"""The package server: HTTPS, with the checks of the platform and the faults of a `Faults`."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from host_sim.console.faults import Faults
from host_sim.console.journal import Download, Journal, PlainRequest
from host_sim.console.registry import Package, Registry
from host_sim.errors import SimError

PATH = "/mf-rproxy/packages/download"
_PARAMETERS = ("fuid", "did", "dk", "cid")
_CHUNK = 16 * 1024
_IDLE_TIMEOUT = 60
_TLS_HANDSHAKE_RECORD = 0x16
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")

logger = logging.getLogger("console")


class DownloadServer(ThreadingHTTPServer):
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
            super().__init__(("127.0.0.1", port), _Handler)
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
        request.settimeout(_IDLE_TIMEOUT)
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


def plain_request(method: str, target: str) -> PlainRequest:
    """The record of a request without TLS, without what it gave away."""
    parts = urlsplit(target)
    return PlainRequest(method, parts.path, "dk=" in parts.query)


class _Handler(BaseHTTPRequestHandler):
    """One connection, for as many requests as the peer makes on it."""

    protocol_version = "HTTP/1.1"
    server_version = "simulated-console"
    sys_version = ""
    timeout = _IDLE_TIMEOUT
    disable_nagle_algorithm = True
    server: DownloadServer
    cut_off = False
    """The connection ends in the middle of something: no goodbye."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the standard library would log the request line, and with it the key."""

    def do_GET(self) -> None:
        """Answer a request for a package, or 404."""
        server = self.server
        if not isinstance(self.connection, ssl.SSLSocket):
            server.journal.add(plain_request(self.command, self.path))
        target = urlsplit(self.path)
        if target.path != PATH:
            logger.info("https: %s %r -> 404", self.command, target.path)
            self._answer(404)
            return
        query = {name: values[0] for name, values in parse_qs(target.query).items()}
        download = Download(query.get("did"), query.get("fuid"), self.headers.get("Range"))
        faults = server.faults().take()
        try:
            self._download(download, query, target.query, faults)
        except OSError:
            self.cut_off = self.close_connection = True
        finally:
            download.finished = True
            server.journal.changed()
            logger.info(
                "https: download of %r by %r, range %r -> %d, %d bytes",
                download.fuid,
                download.device_id,
                download.range,
                download.status,
                download.bytes_sent,
            )

    def _download(
        self, download: Download, query: dict[str, str], raw_query: str, faults: Faults
    ) -> None:
        package = None
        headers = {}
        if faults.redirect_to is not None:
            status = 302
            headers["Location"] = faults.redirect_to.replace("{query}", raw_query)
        elif faults.status is not None:
            status = faults.status
        else:
            status, package = self._check(query)
        if package is None:
            download.status = status
            self.server.journal.add(download)
            self._answer(status, headers)
            return
        start, end = 0, package.size
        wanted = self._range(package.size) if self._range_counts(package) else None
        if wanted is not None:
            start, end = wanted
            status = 206 if start < end else 416
        download.status = status
        self.server.journal.add(download)
        if status == 416:
            self._answer(416, {"Content-Range": f"bytes */{package.size}"})
            return
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{package.size}"
        self._send_package(package, start, end, headers, download, faults)

    def _check(self, query: dict[str, str]) -> tuple[int, Package | None]:
        """The platform's checks, in its order."""
        if any(not query.get(name) for name in _PARAMETERS):
            return 400, None
        device = self.server.registry.identify(query["did"], query["dk"])
        if device is None:
            return 401, None
        if device.channel != query["cid"]:
            return 403, None
        package = self.server.registry.find_package(query["fuid"])
        return (404, None) if package is None else (200, package)

    def _range_counts(self, package: Package) -> bool:
        """A range is for the package the peer has the beginning of, or not at all."""
        return self.headers.get("If-Range", package.etag) == package.etag

    def _range(self, size: int) -> tuple[int, int] | None:
        """First byte and the one after the last; None when the header is to be ignored."""
        match = _RANGE.fullmatch(self.headers.get("Range", "").replace(" ", ""))
        if match is None or match.groups() == ("", ""):
            return None
        first, last = match.groups()
        if not first:
            return max(0, size - int(last)), size
        if last and int(last) < int(first):
            return None
        return int(first), min(int(last) + 1, size) if last else size

    def _answer(self, status: int, headers: dict[str, str] | None = None) -> None:
        """A status with a short text."""
        self.send_response(status)
        text = f"{status}\n".encode()
        if status < 200 or status in (204, 304):  # these have no body
            text = b""
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _send_package(
        self,
        package: Package,
        start: int,
        end: int,
        headers: dict[str, str],
        download: Download,
        faults: Faults,
    ) -> None:
        length = end - start + len(faults.extra)
        if faults.wrong_length is not None:
            length = faults.wrong_length
        self.send_response(download.status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", package.etag)
        for name, value in headers.items():
            self.send_header(name, value)
        if faults.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif not faults.no_length:
            self.send_header("Content-Length", str(length))
        if faults.no_length or faults.wrong_length is not None or faults.extra_beyond_length:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()

        for piece in _body(package.path, start, end, faults):
            self._send_piece(piece, download, faults)
        whole = end - start + len(faults.extra) + len(faults.extra_beyond_length)
        if faults.stall_at is not None and faults.stall_at < whole:
            self._stall()
        elif faults.truncate_at is not None and faults.truncate_at < whole:
            self.cut_off = self.close_connection = True
        elif faults.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _send_piece(self, piece: bytes, download: Download, faults: Faults) -> None:
        if faults.drip and self.server.stopping.wait(len(piece) / faults.drip):
            raise ConnectionAbortedError("the console stops")
        # Counted first: a peer that has the bytes must find them counted.
        download.bytes_sent += len(piece)
        try:
            if faults.chunked:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            else:
                self.wfile.write(piece)
        except OSError:
            download.bytes_sent -= len(piece)
            raise

    def _stall(self) -> None:
        """Keep the connection and say nothing, until the peer or the console ends it."""
        self.cut_off = self.close_connection = True
        self.connection.settimeout(0.1)
        while not self.server.stopping.is_set():
            with contextlib.suppress(TimeoutError):
                if not self.connection.recv(1):
                    return


def _body(path: Path, start: int, end: int, faults: Faults) -> Iterator[bytes]:
    """What is sent as the body, in pieces, faults included."""
    limits = [n for n in (faults.truncate_at, faults.stall_at) if n is not None]
    left = min(limits) if limits else None
    size = _CHUNK if not faults.drip else max(1, min(_CHUNK, int(faults.drip / 20)))
    position = 0
    for piece in _whole_body(path, start, end, size, faults):
        if faults.flip_at is not None and position <= faults.flip_at < position + len(piece):
            damaged = bytearray(piece)
            damaged[faults.flip_at - position] ^= 0x10
            piece = bytes(damaged)
        position += len(piece)
        if left is not None:
            piece = piece[:left]
            left -= len(piece)
            if not piece:
                return
        yield piece


def _whole_body(path: Path, start: int, end: int, size: int, faults: Faults) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (piece := file.read(min(size, end - start))):
            start += len(piece)
            yield piece
    for extra in (faults.extra, faults.extra_beyond_length):
        if extra:
            yield extra
