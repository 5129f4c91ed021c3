"""One MQTT connection of the modem, with paho-mqtt behind it."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

#: How long a broker on this machine may take, in seconds.
PATIENCE_S = 10.0


class Session:
    """From AT+QMTOPEN to AT+QMTCLOSE.

    What comes without being asked goes into `arrivals`: the number of the session, and a message,
    or None when the connection is lost.
    """

    def __init__(
        self,
        number: int,
        host: str,
        port: int,
        arrivals: queue.SimpleQueue[tuple[int, paho.MQTTMessage | None]],
    ) -> None:
        self.number, self.host, self.port = number, host, port
        self.connected = False
        self._arrivals = arrivals
        self._client: paho.Client | None = None
        self._changed = threading.Condition()
        self._answer: int | None = None
        self._granted: dict[int, list[int]] = {}
        self._ends = False

    def reach(self) -> int:
        """Try whether the broker can be reached; the result of +QMTOPEN."""
        try:
            socket.create_connection((self.host, self.port), PATIENCE_S).close()
        except socket.gaierror:
            return 4
        except OSError:
            return 5
        return 0

    def connect(self, client_id: str, user: str, password: str, keepalive: int) -> int | None:
        """CONNECT; the broker's return code, None without an answer."""
        client = self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
        )
        client.username_pw_set(user, password)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = lambda _c, _u, message: self._arrivals.put((self.number, message))
        client.on_socket_open = _no_delay
        try:
            client.connect(self.host, self.port, keepalive=max(keepalive, 1))
        except OSError:
            return None
        client.loop_start()
        self._wait(lambda: self._answer is not None)
        self.connected = self._answer == 0
        return self._answer

    def subscribe(self, topic: str, qos: int) -> int | None:
        """SUBSCRIBE; the granted QoS, 128 when it is refused, None without an answer."""
        if not self._client or not self.connected:
            return None
        _, mid = self._client.subscribe(topic, qos)
        self._wait(lambda: mid in self._granted or not self.connected)
        return self._granted.get(mid, [None])[0]

    def unsubscribe(self, topic: str) -> bool:
        """UNSUBSCRIBE; its acknowledgement is not waited for."""
        return bool(self.connected and self._client and not self._client.unsubscribe(topic)[0])

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> bool:
        """PUBLISH; whether the broker has it (QoS 0: whether it was sent)."""
        if not self._client or not self.connected:
            return False
        info = self._client.publish(topic, payload, qos, retain)
        with contextlib.suppress(RuntimeError, ValueError):
            info.wait_for_publish(PATIENCE_S)
            return info.is_published()
        return False

    def close(self, *, politely: bool = True) -> None:
        """End the connection; without a DISCONNECT, as a modem that is reset, unless politely."""
        self._ends = True
        self.connected = False
        if self._client:
            if politely:
                self._client.disconnect()
            elif self._client.socket():
                with contextlib.suppress(OSError):
                    self._client.socket().shutdown(socket.SHUT_RDWR)
            self._client.loop_stop()
            self._client = None

    def _wait(self, predicate) -> None:
        with self._changed:
            self._changed.wait_for(predicate, PATIENCE_S)

    def _on_connect(self, _client, _userdata, _flags, reason, _properties) -> None:
        codes = {"Unsupported protocol version": 1, "Client identifier not valid": 2}
        codes |= {"Server unavailable": 3, "Bad user name or password": 4, "Not authorized": 5}
        with self._changed:
            self._answer = codes.get(str(reason), 5) if reason.is_failure else 0
            self._changed.notify_all()

    def _on_disconnect(self, _client, _userdata, _flags, _reason, _properties) -> None:
        with self._changed:
            was, self.connected = self.connected, False
            self._answer = 5 if self._answer is None else self._answer
            self._changed.notify_all()
        if was and not self._ends:
            self._arrivals.put((self.number, None))

    def _on_subscribe(self, _client, _userdata, mid, reasons, _properties) -> None:
        with self._changed:
            self._granted[mid] = [reason.value for reason in reasons]
            self._changed.notify_all()


def _no_delay(_client, _userdata, connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
