"""The modem's HTTP commands, with the standard library behind them."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from host_sim.modem.commands import Commands

# What +QHTTPGET says when there is no status.
_FAILED, _NO_REQUEST, _NO_CONTEXT, _BAD_URL, _DNS = 701, 705, 709, 711, 714
_NOT_CONNECTED, _CLOSED, _NO_MEMORY = 716, 719, 729
_PATIENCE_S = 20
_PAGE = b"<html><body>%d</body></html>\n"


@dataclass
class Get:
    """One request that the modem has made."""

    url: str
    status: int
    size: int


class Http:
    """AT+QHTTPCFG, QHTTPURL, QHTTPGET, QHTTPGETEX, QHTTPPOST, QHTTPREAD and QHTTPREADFILE.

    As the real one it follows no redirect.
    """

    def __init__(self, commands: Commands) -> None:
        self._at = commands
        self.done: list[Get] = []
        self.drop()

    def commands(self) -> dict[str, Callable[[list[str]], None]]:
        """What it understands."""
        return {
            "AT+QHTTPCFG=": self._config,
            "AT+QHTTPURL=": self._set_url,
            "AT+QHTTPGET=": self._get,
            "AT+QHTTPGETEX=": self._get_range,
            "AT+QHTTPPOST=": self._post,
            "AT+QHTTPREAD=": self._read,
            "AT+QHTTPREADFILE=": self._read_file,
        }

    def drop(self) -> None:
        """Forget all settings, and the answer that was not read."""
        self._settings: dict[str, str] = {}
        self._url = ""
        self._body: bytes | None = None

    def _config(self, given: list[str]) -> None:
        self._settings[given[0].lower()] = given[1] if len(given) > 1 else ""
        self._at.ok()

    def _set_url(self, given: list[str]) -> None:
        def take(data: bytes) -> None:
            self._url = data.decode("utf-8", "replace")
            if urlsplit(self._url).scheme in ("http", "https"):
                self._at.ok()
            else:
                self._at.error(_BAD_URL)

        self._at.want(int(given[0]), take)
        self._at.say("CONNECT")

    def _get(self, given: list[str]) -> None:
        if len(given) < 2:
            self._request("+QHTTPGET", "GET", {}, b"")
            return
        # With a request header of its own, which comes as data.
        self._at.want(int(given[1]), lambda data: self._raw("+QHTTPGET", data))
        self._at.say("CONNECT")

    def _get_range(self, given: list[str]) -> None:
        first, size = int(given[1]), int(given[2])
        span = {"Range": f"bytes={first}-{first + size - 1}"}
        self._request("+QHTTPGET", "GET", span, b"")

    def _post(self, given: list[str]) -> None:
        call = self._raw if self._settings.get("requestheader") == "1" else self._post_body
        self._at.want(int(given[0]), lambda data: call("+QHTTPPOST", data))
        self._at.say("CONNECT")

    def _post_body(self, name: str, data: bytes) -> None:
        self._request(name, "POST", {}, data)

    def _raw(self, name: str, data: bytes) -> None:
        """A whole request as the node has written it."""
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ", 2)
        headers = dict(line.split(": ", 1) for line in lines[1:])
        host = urlsplit(self._url)
        self._url = f"{host.scheme}://{host.netloc}{path}"
        self._request(name, method, headers, body)

    def _request(self, name: str, method: str, headers: dict[str, str], body: bytes) -> None:
        at, modem = self._at, self._at.modem
        self._body = None
        if not self._url:
            at.error(_NO_REQUEST)
            return
        at.ok()
        if not at.active:
            at.say(f"{name}: {_NO_CONTEXT}", modem.rtt_ms)
            return
        status, length = self._ask(method, headers, body)
        size = len(self._body or b"")
        after = 5 * modem.rtt_ms + 1000 * size / modem.bytes_per_s
        if not status:
            at.say(f"{name}: {length}", after)
            return
        self.done.append(Get(self._url, status, size))
        at.say(f"{name}: 0,{status}" + ("" if length is None else f",{length}"), after)

    def _ask(self, method: str, headers: dict, body: bytes) -> tuple[int, int | None]:
        """Status and announced length; 0 and the error's number when there is none."""
        if isinstance(self._at.fault, int):
            self._body = _PAGE % self._at.fault
            return self._at.fault, len(self._body)
        parts = urlsplit(self._url)
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=self._at.modem.ca)
            if self._at.modem.ca is None:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.hostname or "", parts.port, timeout=_PATIENCE_S, context=context
            )
        else:
            connection = http.client.HTTPConnection(
                parts.hostname or "", parts.port, timeout=_PATIENCE_S
            )
        try:
            path = self._url.split("/", 3)[3] if self._url.count("/") > 2 else ""
            connection.request(method, "/" + path, body or None, headers)
            answer = connection.getresponse()
            length = answer.length
            self._body = answer.read()
            return answer.status, length
        except socket.gaierror:
            return 0, _DNS
        except http.client.IncompleteRead as error:
            self._body = error.partial
            return 0, _CLOSED
        except (ConnectionRefusedError, ssl.SSLError):
            return 0, _NOT_CONNECTED
        except (OSError, http.client.HTTPException):
            return 0, _FAILED
        finally:
            connection.close()

    def _read(self, _given: list[str]) -> None:
        if self._body is None:
            self._at.error(_NO_REQUEST)
            return
        self._at.say("CONNECT")
        self._at.send(self._body)
        self._at.ok()
        self._at.say("+QHTTPREAD: 0")
        self._body = None

    def _read_file(self, given: list[str]) -> None:
        at, body = self._at, self._body
        if body is None:
            at.error(_NO_REQUEST)
            return
        name, self._body = given[0].removeprefix("UFS:"), None
        result = 0
        if at.fault == "pdpdeact":
            body, result = body[: len(body) // 2], _CLOSED
            at.lose_network()
        if at.store.room() + len(at.modem.files.get(name, b"")) < len(body):
            body, result = b"", _NO_MEMORY
        at.modem.files[name] = body
        at.ok()
        at.say(f"+QHTTPREADFILE: {result}", at.modem.rtt_ms)
