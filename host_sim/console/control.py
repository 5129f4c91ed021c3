"""How another process drives a running console: one line of JSON each way, on loopback.

The address and a random token are in `control.json` of the console's directory, which only its
owner can read.
"""

from __future__ import annotations

import hmac
import json
import logging
import secrets
import socket
import socketserver
import sys
import threading
from pathlib import Path
from typing import Any

from host_sim.console.core import Console
from host_sim.console.registry import write_private
from host_sim.console.state import PENDING
from host_sim.errors import SimError

logger = logging.getLogger("console")

_FILE = "control.json"
_LONGEST_LINE = 64 << 20
_TIMEOUT = 30
# Ten thousand devices, on a machine that does much else.
_PATIENCE = {"request_many": 600, "cancel": 600, "devices_add": 600, "device_remove": 600}
# Of who asks to be told what comes: well below the time limit of the connection.
_LONGEST_WAIT = 10


class ControlServer:
    """A context manager around a running console's serving time."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._file = console.directory / _FILE
        self._token = secrets.token_hex(16)

    def __enter__(self) -> ControlServer:
        control = self

        class Handler(socketserver.StreamRequestHandler):
            timeout = _TIMEOUT

            def handle(self) -> None:
                line = self.rfile.readline(_LONGEST_LINE)
                self.wfile.write(json.dumps(control.answer(line)).encode() + b"\n")

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:
                """Whoever goes away before the answer, by Ctrl-C say, is nobody's error."""
                if not isinstance(sys.exc_info()[1], OSError):
                    logger.exception("control: fault in the server")

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.02},
            name="console-control",
        )
        address = {"port": self._server.server_address[1], "token": self._token}
        try:
            write_private(self._file, json.dumps(address) + "\n")
        except BaseException:
            self._server.server_close()
            raise
        self._thread.start()  # not before: nobody would end it
        return self

    def __exit__(self, *_: object) -> None:
        self._file.unlink(missing_ok=True)
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, line: bytes) -> dict[str, Any]:
        """Carry out one call."""
        try:
            call = json.loads(line)
            token, operation, arguments = call["token"], call["operation"], call["arguments"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return {"error": "not a call"}
        if not hmac.compare_digest(str(token).encode(errors="replace"), self._token.encode()):
            return {"error": "wrong token"}
        try:
            return {"result": getattr(self, f"_do_{operation}")(*arguments)}
        except SimError as error:
            return {"error": str(error)}
        except (AttributeError, TypeError):
            return {"error": f"the running console does not know {operation!r} in this form"}

    def _do_device_add(self, device_id: str, key: str, channel: str, replace: bool) -> None:
        self._console.add_device(device_id, key, channel, replace=replace)

    def _do_devices_add(self, devices: list[list[str | None]], replace: bool) -> int:
        return len(self._console.add_devices(devices, replace=replace))

    def _do_device_remove(self, device_ids: list[str]) -> None:
        self._console.remove_devices(device_ids)

    def _do_device_list(self) -> list[dict[str, Any]]:
        """Everything but the keys."""
        return [
            {"id": d.device_id, "channel": d.channel, "board": d.board}
            for d in self._console.devices()
        ]

    def _do_package_add(self, path: str) -> dict[str, Any]:
        package = self._console.add_package(Path(path))
        return {"fuid": package.fuid, "size": package.size}

    def _do_package_remove(self, fuid: str) -> None:
        self._console.remove_package(fuid)

    def _do_package_list(self) -> list[dict[str, Any]]:
        return [
            {"fuid": p.fuid, "name": p.name, "type": p.type, "size": p.size, "added": p.added}
            for p in self._console.packages()
        ]

    def _do_request(self, device_id: str, fuid: str) -> str:
        return self._console.request(device_id, fuid)

    def _do_request_many(self, device_ids: list[str] | None, fuid: str) -> dict[str, Any]:
        """None: all devices. `after` is for `views`."""
        after = self._console.last_event
        if device_ids is None:
            device_ids = [device.device_id for device in self._console.devices()]
        message = self._console.request_many(device_ids, fuid)
        return {"message": message, "ids": device_ids, "after": after}

    def _do_cancel(self, device_ids: list[str] | None) -> dict[str, Any]:
        """None: whoever is asked something."""
        asked = {view.id: view.state in PENDING for view in self._console.views()}
        if device_ids is None:
            device_ids = [device_id for device_id, pending in asked.items() if pending]
        self._console.cancel(device_ids)
        return {
            "cancelled": [i for i in device_ids if asked.get(i)],
            "not_asked": [i for i in device_ids if not asked.get(i)],
        }

    def _do_status(self, device_id: str) -> dict[str, Any]:
        """`times` are those of the reports, in seconds since 1970."""
        retained = self._console.retained(device_id)
        reports = self._console.reports(device_id)
        return {
            "retained": None if retained is None else retained.decode("utf-8", "replace"),
            "reports": [report.as_json() for report in reports],
            "times": [round(report.at, 3) for report in reports],
        } | self._console.view(device_id).as_json()

    def _do_views(self, after: int = 0, patience_s: float = 0.0) -> dict[str, Any]:
        """What has changed behind event `after`, waiting for it; `last` is for the next call."""
        if patience_s:
            self._console.wait_for_event(after, min(patience_s, _LONGEST_WAIT))
        last = self._console.last_event
        return {"last": last, "views": [view.as_json() for view in self._console.views(after)]}

    def _do_events(
        self, after: int = 0, limit: int = 500, patience_s: float = 0.0
    ) -> list[dict[str, Any]]:
        if patience_s:
            self._console.wait_for_event(after, min(patience_s, _LONGEST_WAIT))
        return [event.as_json() for event in self._console.events(after, limit)]


def call(directory: Path, operation: str, *arguments: Any) -> Any:
    """Have the console that runs in this directory do something."""
    nobody = f"no console is running in {directory}: start one with `console --dir {directory}`"
    try:
        address = json.loads((directory / _FILE).read_text(encoding="utf-8"))
        port, token = address["port"], address["token"]
        connection = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise SimError(nobody) from error
    try:
        connection.settimeout(_PATIENCE.get(operation, _TIMEOUT))
        with connection, connection.makefile("rwb") as stream:
            message = {
                "token": token,
                "operation": operation,
                "arguments": list(arguments),
            }
            stream.write(json.dumps(message).encode() + b"\n")
            stream.flush()
            line = stream.readline(_LONGEST_LINE)
    except OSError as error:
        raise SimError(f"the console in {directory} broke off: {error}") from error
    if line[:1] in (b"", b"{") and not line.endswith(b"\n"):
        raise SimError(f"the console in {directory} broke off: no whole answer")
    # A killed console leaves its file, and the port may belong to somebody else by now: whoever
    # does not know the token, or answers something else, is not ours.
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        raise SimError(nobody) from None
    match answer:
        case {"error": "wrong token" | "not a call"}:
            raise SimError(nobody)
        case {"error": str(error)}:
            raise SimError(error)
        case {"result": result} if len(answer) == 1:
            return result
    raise SimError(nobody)
