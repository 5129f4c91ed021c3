"""The modem itself: power, time, and the socket that is its end of the UART."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from host_sim.modem.commands import Commands
from host_sim.modem.faults import Fault
from host_sim.modem.line import Line

logger = logging.getLogger("modem")

# The node's side of this is host_sim/node/inside/late/_uart.py, which has the same numbers.
_OPEN, _POLL, _WRITE, _PIN = range(4)
_HEAD, _ANSWER = struct.Struct("<BIHH"), struct.Struct("<IH")
#: Messages of a broker come in real time: the node asks at least so often, in ms of its own.
_NEWS_MS = 200
#: What a boot of the node takes at least, before its code begins.
_BOOT_MS = 1000
#: A power key is pressed for at least this long.
_PRESS_MS = 500


class Modem:
    """A context manager; a node's UART connects to `port` on 127.0.0.1.

    `ca`: the certificates that verify servers; None: any server is trusted, as the field's
    firmware has it. `registration_s` after power-up it is in the network, and AT+CGATT=1 takes
    `attach_s` more. The network passes `bytes_per_s` and answers after `rtt_ms`; the UART has its
    baud rate, unless `uart_bytes_per_s` says otherwise. `power_key`: the pin whose press switches
    it on after AT+QPOWD; without one it is on again at the node's next boot. `settle_s` of real
    time it waits after a subscription for what is retained. `store_bytes`: room for files.

    All times of the modem are the node's, which are virtual; `now` is in ms since it was made.
    """

    def __init__(
        self,
        *,
        ca: Path | None = None,
        registration_s: float = 0,
        attach_s: float = 0,
        bytes_per_s: float = 30_000,
        uart_bytes_per_s: float | None = None,
        rtt_ms: float = 100,
        boot_s: float = 2,
        power_key: int | None = None,
        is_on: bool = True,
        settle_s: float = 0.3,
        store_bytes: int = 1_500_000,
    ) -> None:
        self.ca = ca
        self.registration_s, self.attach_s = registration_s, attach_s
        self.bytes_per_s, self.uart_bytes_per_s = bytes_per_s, uart_bytes_per_s
        self.rtt_ms, self.boot_s, self.settle_s = rtt_ms, boot_s, settle_s
        self.power_key, self.store_bytes = power_key, store_bytes
        self.files: dict[str, bytes] = {}
        """What is in its store; survives everything."""
        self.faults: list[Fault] = []
        self.heard: list[str] = []
        """All commands so far. They hold the device key."""
        self.slow: dict[str, float] = {}
        """Commands, by their beginning, that take so many seconds."""
        self.on_ms = 0.0
        """For how long it has been on before the last time it was switched on."""
        self.now = 0.0
        self.line = Line()
        self.arrivals: queue.SimpleQueue = queue.SimpleQueue()
        self.port = 0
        self.is_on = False
        self.on_since = 0.0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._pressed_at: float | None = None
        self._began = time.time()
        self._is_on_at_first = is_on
        self.commands = Commands(self)

    def __enter__(self) -> Modem:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._connection: socket.socket | None = None
        self._ends = False
        if self._is_on_at_first:
            self.is_on = True
            self.commands.start()
        self._thread = threading.Thread(target=self._run, name="modem", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends = True
        for one in (self._listener, self._connection):
            if one is not None:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
        self._thread.join()
        self.commands.drop()

    def fail(
        self, command: str, what: str | int, *, times: int | None = 1, first: int = 1
    ) -> Fault:
        """Let something go wrong; see :class:`Fault`."""
        fault = Fault(command, what, times, first)
        self.faults.append(fault)
        return fault

    def clock(self) -> float:
        """The network's time, in seconds since 1970."""
        return self._began + self.now / 1000

    @property
    def powered_ms(self) -> float:
        """For how long it has been on so far."""
        return self.on_ms + (self.now - self.on_since if self.is_on else 0)

    # -- for its parts --------------------------------------------------------------------------

    def later(self, after_ms: float, call: Callable[[], None]) -> None:
        """Do something at a time to come."""
        heapq.heappush(self._agenda, (self.now + after_ms, next(self._count), call))

    def power(self, on: bool) -> None:
        """Switch it on or off."""
        if on == self.is_on:
            return
        self._agenda.clear()
        self.line.cut(self.now)
        self.commands.drop()
        self.is_on = on
        if on:
            self.on_since = self.now
            self.commands.start(booting=True)
        else:
            self.on_ms += self.now - self.on_since

    # -- the node's end -------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ends:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connection = connection
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                self._serve(connection)
            except OSError:
                pass  # the node was reset
            except Exception:
                logger.exception("fault in the modem")
            finally:
                connection.close()

    def _serve(self, connection: socket.socket) -> None:
        """One boot of the node: answer each of its frames."""
        self._go_on(self.now + _BOOT_MS)
        self.line.skip(self.now)
        begin = self.now
        self._pressed_at = None
        if not self.is_on and self.power_key is None:
            self.power(True)
        while True:
            head = _receive(connection, _HEAD.size)
            if not head:
                return
            kind, ms, room, size = _HEAD.unpack(head)
            data = _receive(connection, size)
            self._go_on(begin + ms)
            if kind == _OPEN:
                baud = struct.unpack("<I", data)[0]
                self.line.bytes_per_s = self.uart_bytes_per_s or baud / 10
            elif kind == _WRITE:
                self.commands.feed(data)
            elif kind == _PIN:
                self._pin(*data)
            arrived = self.line.take(self.now, room)
            connection.sendall(_ANSWER.pack(self._quiet_ms(), len(arrived)) + arrived)

    def _go_on(self, until: float) -> None:
        """Do what is due until then, in its turn."""
        while self._agenda and self._agenda[0][0] <= until:
            due, _, call = heapq.heappop(self._agenda)
            self.now = max(self.now, due)
            call()
        self.now = max(self.now, until)
        self.commands.hear_news()

    def _quiet_ms(self) -> int:
        dues = [due for due in (self.line.due(), *(at for at, *_ in self._agenda[:1])) if due]
        next_due = min(dues, default=self.now + _NEWS_MS)
        return max(0, min(_NEWS_MS, int(next_due - self.now)))

    def _pin(self, number: int, level: int) -> None:
        if number != self.power_key:
            return
        if level:
            self._pressed_at = self.now
        elif self._pressed_at is not None and self.now - self._pressed_at >= _PRESS_MS:
            self.power(not self.is_on)


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            return b""
        data += piece
    return data
