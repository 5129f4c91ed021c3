"""Answers of the package server: the checks of the platform, and the faults of a `Faults`."""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from host_sim.console.faults import Faults
from host_sim.console.journal import Download, Journal, PlainRequest
from host_sim.console.registry import Package, Registry

PATH = "/mf-rproxy/packages/download"
IDLE_TIMEOUT = 60
_PARAMETERS = ("fuid", "did", "dk", "cid")
_CHUNK = 16 * 1024
_CONNECTIONS = itertools.count(1)
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")

logger = logging.getLogger("console")


def plain_request(method: str, target: str) -> PlainRequest:
    """The record of a request without TLS, without what it gave away."""
    parts = urlsplit(target)
    return PlainRequest(method, parts.path, "dk=" in parts.query)


class PlatformServer(ThreadingHTTPServer):
    """What the handler asks of its server."""

    registry: Registry
    journal: Journal
    faults: Callable[[], Faults]
    stopping: threading.Event


class DownloadHandler(BaseHTTPRequestHandler):
    """One connection, for as many requests as the peer makes on it."""

    protocol_version = "HTTP/1.1"
    server_version = "simulated-console"
    sys_version = ""
    timeout = IDLE_TIMEOUT
    disable_nagle_algorithm = True
    server: PlatformServer
    cut_off = False
    """The connection ends in the middle of something: no goodbye."""

    def setup(self) -> None:
        """A new connection."""
        super().setup()
        self.connection_number = next(_CONNECTIONS)

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
            self._answer(404, Faults())
            return
        query = {name: values[0] for name, values in parse_qs(target.query).items()}
        download = Download(query.get("did"), query.get("fuid"), self.headers.get("Range"))
        download.connection = self.connection_number
        faults = server.faults().take()
        try:
            self._download(download, query, target.query, faults)
        except OSError:
            self.cut_off = self.close_connection = True
        finally:
            download.finished = True
            server.journal.progress(download)
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
            self._answer(status, faults, headers)
            return
        headers["Accept-Ranges"] = "bytes"
        if etag := package.etag if faults.etag is None else faults.etag:
            headers["ETag"] = etag
        start, end = 0, package.size
        wanted = self._wanted_range(package, faults)
        if wanted is not None:
            start, end = wanted
            status = 206 if start < end else 416
        download.status = status
        download.start, download.length, download.size = start, end - start, package.size
        self.server.journal.add(download)
        if status == 416:
            headers["Content-Range"] = f"bytes */{package.size}"
            self._answer(416, faults, headers)
            return
        if status == 206:
            start = min(max(0, start + faults.range_shift), end - 1)
            if content_range := _content_range(start, end, package.size, faults):
                headers["Content-Range"] = content_range
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

    def _wanted_range(self, package: Package, faults: Faults) -> tuple[int, int] | None:
        """First byte and the one after the last; None for the whole package."""
        # A range is for the package the peer has the beginning of, or not at all.
        same = self.headers.get("If-Range", package.etag) == package.etag
        if not same and not faults.if_range_ignored:
            return None
        asked = faults.range_taken_as
        if asked is None:
            asked = self.headers.get("Range", "")
        return _parse_range(asked, package.size)

    def _answer(self, status: int, faults: Faults, headers: dict[str, str] | None = None) -> None:
        """A status with a short text."""
        text = f"{status}\n".encode()
        if status < 200 or status in (204, 304):  # these have no body
            text = b""
        about = {"Content-Type": "text/plain", "Content-Length": str(len(text))}
        self._send_head(status, (headers or {}) | about, faults)
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
        headers["Content-Type"] = "application/octet-stream"
        if faults.chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif not faults.no_length:
            headers["Content-Length"] = str(length)
        if faults.no_length or faults.wrong_length is not None or faults.extra_beyond_length:
            headers["Connection"] = "close"
            self.close_connection = True
        self._send_head(download.status, headers, faults)

        whole = end - start + len(faults.extra) + len(faults.extra_beyond_length)
        stop = faults.stop_at(start, whole)
        for piece in _body(package.path, start, end, stop, faults):
            self._send_piece(piece, download, faults)
        if stop is None:
            if faults.chunked:
                self.wfile.write(b"0\r\n\r\n")
            return
        self.cut_off = self.close_connection = True
        faults.spend_cut(start + stop)
        if stop == faults.stall_at:
            self._stall()

    def _send_head(self, status: int, headers: dict[str, str], faults: Faults) -> None:
        phrase = self.responses.get(status, ("",))[0]
        headers = {"Server": self.server_version, "Date": self.date_time_string()} | headers
        if faults.close:
            headers["Connection"] = "close"
        if faults.close or faults.hang_up or faults.protocol == "HTTP/1.0":
            self.close_connection = True
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"{faults.protocol or self.protocol_version} {status} {phrase}\r\n".encode()
        head += faults.extra_head + lines.encode("latin-1") + b"\r\n"
        if not faults.head_drip_ms:
            self.wfile.write(head)
            return
        for byte in head:
            self.wfile.write(bytes([byte]))
            self._pause(faults.head_drip_ms / 1000)

    def _send_piece(self, piece: bytes, download: Download, faults: Faults) -> None:
        if faults.drip:
            self._pause(len(piece) / faults.drip)
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
        self.server.journal.progress(download)
        if faults.pause_every:
            self._pause(faults.pause_ms / 1000)

    def _pause(self, seconds: float) -> None:
        if self.server.stopping.wait(seconds):
            raise ConnectionAbortedError("the console stops")

    def _stall(self) -> None:
        """Keep the connection and say nothing, until the peer or the console ends it."""
        self.connection.settimeout(0.1)
        while not self.server.stopping.is_set():
            with contextlib.suppress(TimeoutError):
                if not self.connection.recv(1):
                    return


def _parse_range(text: str, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last; None when the header is to be ignored."""
    match = _RANGE.fullmatch(text.replace(" ", ""))
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size) if last else size


class _Shiftable(int):
    """A number that `{name:+7}` in a format makes seven more."""

    def __format__(self, shift: str) -> str:
        return str(self + int(shift or 0))


def _content_range(start: int, end: int, size: int, faults: Faults) -> str:
    form = faults.content_range
    if form is None:
        form = "bytes {first}-{last}/{size}"
    return form.format(first=_Shiftable(start), last=_Shiftable(end - 1), size=_Shiftable(size))


def _body(path: Path, start: int, end: int, stop: int | None, faults: Faults) -> Iterator[bytes]:
    """What is sent as the body, in pieces, faults included; `stop` bytes of it at most."""
    size = faults.pause_every or _CHUNK
    if faults.drip:
        size = max(1, min(size, int(faults.drip / 20)))
    position = 0
    for piece in _whole_body(path, start, end, size, faults):
        if faults.flip_at is not None and position <= faults.flip_at < position + len(piece):
            damaged = bytearray(piece)
            damaged[faults.flip_at - position] ^= 0x10
            piece = bytes(damaged)
        if stop is not None:
            piece = piece[: stop - position]
            if not piece:
                return
        position += len(piece)
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
