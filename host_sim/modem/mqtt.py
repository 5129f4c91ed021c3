"""The modem's MQTT commands."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from host_sim.modem.session import Session

if TYPE_CHECKING:
    from host_sim.modem.commands import Commands

_OCCUPIED, _NO_CONTEXT = 2, 3
_LOST = 1  # +QMTSTAT: the peer has ended the connection
_AGAIN_MS = 15_000  # pkt_timeout of AT+QMTCFG="timeout", as it is without that
_SETTLED_S = 0.02  # after a message, for the one behind it


class Mqtt:
    """AT+QMTCFG, QMTOPEN, QMTCONN, QMTSUB, QMTUNS, QMTPUB, QMTDISC and QMTCLOSE."""

    def __init__(self, commands: Commands) -> None:
        self._at = commands
        self._sessions: dict[int, Session] = {}
        self._keepalive: dict[int, int] = {}

    def commands(self) -> dict[str, Callable[[list[str]], None]]:
        """What it understands."""
        return {
            "AT+QMTCFG=": self._config,
            "AT+QMTOPEN=": self._open,
            "AT+QMTOPEN?": lambda _: self._at.ok(
                *(f'+QMTOPEN: {n},"{s.host}",{s.port}' for n, s in self._sessions.items())
            ),
            "AT+QMTCONN=": self._connect,
            "AT+QMTCONN?": lambda _: self._at.ok(
                *(f"+QMTCONN: {n},{3 if s.connected else 1}" for n, s in self._sessions.items())
            ),
            "AT+QMTSUB=": self._subscribe,
            "AT+QMTUNS=": self._unsubscribe,
            "AT+QMTPUB=": self._publish,
            "AT+QMTDISC=": self._disconnect,
            "AT+QMTCLOSE=": self._close,
        }

    def drop(self) -> None:
        """End all connections without a word, to the broker or to the node."""
        for session in self._sessions.values():
            session.close(politely=False)
        self._sessions.clear()
        self._keepalive.clear()

    def lose(self) -> None:
        """The same, and tell the node."""
        for number in list(self._sessions):
            self._sessions.pop(number).close(politely=False)
            self._at.say(f"+QMTSTAT: {number},{_LOST}")

    def hear_news(self) -> None:
        """Tell the node what has come."""
        while True:
            try:
                number, message = self._at.modem.arrivals.get_nowait()
            except queue.Empty:
                return
            if number not in self._sessions:
                continue
            if message is None:
                del self._sessions[number]
                self._at.say(f"+QMTSTAT: {number},{_LOST}")
                continue
            payload = message.payload.decode("utf-8", "replace")
            # A network is as quick as it is.
            after = self._at.modem.rtt_ms + 1000 * len(payload) / self._at.modem.bytes_per_s
            self._at.say(f'+QMTRECV: {number},{message.mid},"{message.topic}","{payload}"', after)

    @property
    def _rtt(self) -> float:
        return self._at.modem.rtt_ms

    def _session(self, given: list[str]) -> Session | None:
        session = self._sessions.get(int(given[0]))
        if session is None or not session.connected:
            self._at.error()
            return None
        return session

    def _config(self, given: list[str]) -> None:
        if given[0] == "keepalive" and len(given) > 2:
            self._keepalive[int(given[1])] = int(given[2])
        self._at.ok()

    def _open(self, given: list[str]) -> None:
        number = int(given[0])
        if number in self._sessions:
            result = _OCCUPIED
        elif not self._at.active:
            result = _NO_CONTEXT
        else:
            # Tests have their servers at ports of their own, and say so in one name for all.
            host = given[1].partition(":")[0] if given[1].count(":") == 1 else given[1]
            session = Session(number, host, int(given[2]), self._at.modem.arrivals)
            result = session.reach()
            if not result:
                self._sessions[number] = session
        self._at.ok()
        self._at.say(f"+QMTOPEN: {number},{result}", 2 * self._rtt)

    def _connect(self, given: list[str]) -> None:
        number = int(given[0])
        session = self._sessions.get(number)
        if session is None or session.connected:
            self._at.error()
            return
        name, user, password = (*given[1:4], "", "")[:3]
        code = session.connect(name, user, password, self._keepalive.get(number, 120))
        self._at.ok()
        if code == 0:
            self._at.say(f"+QMTCONN: {number},0,0", self._rtt)
            return
        self._sessions.pop(number).close()
        self._at.say(f"+QMTCONN: {number}," + ("2" if code is None else f"0,{code}"), self._rtt)
        self._at.say(f"+QMTSTAT: {number},{_LOST}", self._rtt)

    def _subscribe(self, given: list[str]) -> None:
        session = self._session(given)
        if not session:
            return
        number, message_id, topic, qos = given[:4]
        self._at.ok()
        if self._at.fault == "again":
            again = f"+QMTSUB: {number},{message_id},1"
            self._at.say(again, _AGAIN_MS)
            self._at.say(again, 2 * _AGAIN_MS)
            # Its line is in order: what follows waits for these.
        granted = session.subscribe(topic, int(qos))
        if granted is None:
            self._at.say(f"+QMTSUB: {number},{message_id},2", self._rtt)
            return
        self._at.say(f"+QMTSUB: {number},{message_id},0,{granted}", self._rtt)
        # What is retained comes in real time, and the node's may jump.
        busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # then it comes later
        until = time.monotonic() + self._at.modem.settle_s * busy
        while self._at.modem.arrivals.empty() and time.monotonic() < until:
            time.sleep(0.005)
        if not self._at.modem.arrivals.empty():
            time.sleep(_SETTLED_S)
        self.hear_news()

    def _unsubscribe(self, given: list[str]) -> None:
        session = self._session(given)
        if session:
            done = session.unsubscribe(given[2])
            self._at.ok()
            self._at.say(f"+QMTUNS: {given[0]},{given[1]},{0 if done else 2}", self._rtt)

    def _publish(self, given: list[str]) -> None:
        session = self._session(given)
        if not session:
            return
        number, message_id, qos, retain, topic = given[:5]

        def send(payload: bytes) -> None:
            done = session.publish(topic, payload, int(qos), retain == "1")
            self._at.ok()
            after = (2 if int(qos) else 1) * self._rtt
            after += 1000 * len(payload) / self._at.modem.bytes_per_s
            self._at.say(f"+QMTPUB: {number},{message_id},{0 if done else 2}", after)

        self._at.want(int(given[5]) if len(given) > 5 else b"\x1a", send)
        self._at.send(b"\r\n> ")

    def _disconnect(self, given: list[str]) -> None:
        session = self._sessions.pop(int(given[0]), None)
        if session is None:
            self._at.error()
            return
        session.close()
        self._at.ok()
        self._at.say(f"+QMTDISC: {given[0]},0", self._rtt)

    def _close(self, given: list[str]) -> None:
        session = self._sessions.pop(int(given[0]), None)
        if session is None:
            self._at.error()
            return
        session.close(politely=False)
        self._at.ok()
        self._at.say(f"+QMTCLOSE: {given[0]},0")
