"""paho-mqtt with calls that return when the broker has answered."""

from __future__ import annotations

import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterable

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

# RabbitMQ, just started, on a machine that does much else.
TIMEOUT = 15.0
# Of many, so many go out before the first is acknowledged: a broker may be far away.
_IN_FLIGHT = 500


class Refused(ConnectionError):
    """The broker answered the CONNECT with anything but yes."""


class MqttClient:
    """One connection with its network thread; a context manager.

    With `context` it speaks TLS; `patience_s`: for the answer to CONNECT. After a lost connection
    it comes back by itself and subscribes again.
    """

    def __init__(
        self,
        host: str,
        port: int,
        user: str | None,
        password: str | None,
        on_message: Callable[[paho.MQTTMessage], None] | None = None,
        *,
        context: ssl.SSLContext | None = None,
        patience_s: float | None = None,
    ) -> None:
        self._answer: str | None = None
        self._subscriptions: dict[str, int] = {}
        self._subscribed: dict[int, bool] = {}
        self._condition = threading.Condition()
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id="console-" + secrets.token_hex(6)
        )
        if user is not None:
            client.username_pw_set(user, password)
        if context is not None:
            client.tls_set_context(context)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        if on_message is not None:
            client.on_message = lambda _client, _userdata, message: on_message(message)
        # After a refusal it would sit out a second before it notices that we close.
        client.reconnect_delay_set(0.05, 5)
        client.on_socket_open = _no_delay
        client.max_inflight_messages_set(_IN_FLIGHT)
        client.connect(host, port, keepalive=60)
        client.loop_start()
        with self._condition:
            self._condition.wait_for(lambda: self._answer is not None, patience_s or TIMEOUT)
        if self._answer != "":
            self.close()
            raise Refused(self._answer or "no answer from the broker")

    def __enter__(self) -> MqttClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def subscribe(self, topic_filter: str, qos: int) -> bool:
        """Subscribe and wait for the answer: whether the broker granted it."""
        self._subscriptions[topic_filter] = qos
        _, mid = self._client.subscribe(topic_filter, qos)
        with self._condition:
            if not self._condition.wait_for(lambda: mid in self._subscribed, TIMEOUT):
                raise TimeoutError("no SUBACK from the broker")
            return self._subscribed[mid]

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish and wait for the acknowledgement."""
        self.publish_many([topic], payload, qos=qos, retain=retain)

    def publish_many(
        self, topics: Iterable[str], payload: bytes, *, qos: int = 1, retain: bool = False
    ) -> None:
        """Publish the same on many topics, and wait for all acknowledgements."""
        sent = [self._client.publish(topic, payload, qos, retain) for topic in topics]
        for info in sent:
            info.wait_for_publish(TIMEOUT)
            if not info.is_published():
                raise TimeoutError("no PUBACK from the broker")

    def close(self) -> None:
        """Disconnect and end the network thread."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self, client: paho.Client, _userdata: object, _flags: object, reason: object, _p: object
    ) -> None:
        with self._condition:
            again = self._answer is not None
            self._answer = str(reason) if reason.is_failure else ""  # type: ignore[attr-defined]
            self._condition.notify_all()
        if again and not self._answer and self._subscriptions:
            client.subscribe(list(self._subscriptions.items()))

    def _on_subscribe(
        self, _client: paho.Client, _userdata: object, mid: int, reasons: list, _p: object
    ) -> None:
        with self._condition:
            self._subscribed[mid] = not any(reason.is_failure for reason in reasons)
            self._condition.notify_all()


def _no_delay(_client: paho.Client, _userdata: object, connection: socket.socket) -> None:
    # Acknowledgements are small: without this each waits some 40 ms for company.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
