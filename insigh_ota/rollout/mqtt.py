"""Visits over MQTT, as the devices themselves: short connections with sessions that stay.

No connection is kept open. The broker keeps a session for each device that was asked (not clean,
QoS 1), and in it every report, until the next visit. A message is acknowledged only when what it
said is in the state file: until then the broker gives it to whoever comes next.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from host_sim.errors import SimError
from insigh_ota.rollout.devices import Device
from insigh_ota.rollout.records import Sign, signs
from insigh_ota.rollout.visits import Away, Book, Heard, Refused, Task

#: select() knows no file descriptor above 1023, and a connection takes three.
MOST_CONNECTIONS = 300
_LEAVES = ("ota", "stat")
_PATIENCE_S = 15.0
_STEP_S = 0.5
#: So long a broker may send what is retained behind its answer to a subscription: docs/brokers.md.
_LINGER_S = 0.1
_LINGER_WELL_S = 3.0
#: What a visit keeps of one device, whatever that sends. No report of a node is as long.
_LONGEST_PAYLOAD, _MOST_MESSAGES = 4096, 500


@dataclass(frozen=True)
class Broker:
    """Where it is. `tls`: None is plain MQTT."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None


class Connection:
    """One connection as one device; a context manager. Raises Away, Refused."""

    def __init__(self, broker: Broker, device: Device, name: str, *, clean: bool = False) -> None:
        self._broker = broker
        self._device = device
        self._messages: list[paho.MQTTMessage] = []
        self._granted: dict[int, bool] = {}
        self._published: set[int] = set()
        self._reason: object = None
        self.present = False
        """Whether the broker still had the session."""
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=name,
            clean_session=clean,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        client.connect_timeout = _PATIENCE_S
        client.username_pw_set(device.id, device.key)
        if broker.tls is not None:
            client.tls_set_context(broker.tls)
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_publish = lambda _client, _data, mid, *_: self._published.add(mid)
        client.on_socket_open = _no_delay

    def __enter__(self) -> Connection:
        try:
            self._client.connect(self._broker.host, self._broker.port, keepalive=60)
        except (OSError, ValueError) as error:
            raise Away(_words(error)) from error
        try:
            self._until(lambda: self._reason is not None, "does not answer")
            if self._reason.is_failure:  # type: ignore[attr-defined]
                text = str(self._reason)
                kind = Away if "navailable" in text else Refused
                raise kind(f"the broker answers: {text}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._client.disconnect()
            self._client.loop(0.01)

    def subscribe(self) -> None:
        """To all that the device says and hears of updates."""
        for leaf in _LEAVES:
            # One after the other: when the second is answered, most brokers have sent what is
            # retained for the first.
            _, mid = self._client.subscribe(self._device.topic(leaf), 1)
            assert mid is not None
            self._until(lambda mid=mid: mid in self._granted, "does not answer a SUBSCRIBE")
            if leaf == "ota" and not self._granted[mid]:
                raise Refused("the broker does not let it subscribe to its own topic")

    def listen(self, fuid: str, linger_s: float) -> Heard:
        """What has come by now, and in so many further seconds; at once behind what is retained.

        Not acknowledged so far.
        """
        quiet = time.monotonic() + linger_s
        while time.monotonic() < quiet and not any(m.retain for m in self._messages):
            self._loop(min(_STEP_S, max(0.0, quiet - time.monotonic())))
        self._loop(0)
        heard: list[tuple[Sign, str]] = []
        # What is retained is how it stands now, however early the broker sends it.
        for message in sorted(self._messages, key=lambda m: m.retain):
            leaf = message.topic.rpartition("/")[2]
            heard += signs(leaf, message.payload, fuid, retained=bool(message.retain))
        return heard

    def acknowledge(self) -> None:
        """All that was listened to is written down."""
        for message in self._messages:
            if message.qos:
                self._client.ack(message.mid, message.qos)
        self._messages.clear()
        while self._client.want_write():
            self._loop(_STEP_S)

    def retain(self, payload: bytes) -> None:
        """Put a request on the topic, or take it off with an empty one; returns acknowledged."""
        info = self._client.publish(self._device.topic("ota"), payload, 1, retain=True)
        self._until(lambda: info.mid in self._published, "does not acknowledge")

    def _until(self, there: Callable[[], bool], fault: str) -> None:
        give_up = time.monotonic() + _PATIENCE_S
        while not there():
            if time.monotonic() > give_up:
                raise Away(fault)
            self._loop(_STEP_S)

    def _loop(self, seconds: float) -> None:
        code = self._client.loop(seconds)
        if code is not MQTTErrorCode.MQTT_ERR_SUCCESS and self._reason is None:
            raise Away("the connection broke off")
        if code is not MQTTErrorCode.MQTT_ERR_SUCCESS and not _failed(self._reason):
            raise Away("the connection broke off")

    def _on_connect(
        self, _client: object, _data: object, flags: paho.ConnectFlags, reason: object, _p: object
    ) -> None:
        self._reason, self.present = reason, bool(flags.session_present)

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        if len(message.payload) > _LONGEST_PAYLOAD:
            message.payload = b"too long"
        # Of the others the broker sends those again that are to be acknowledged.
        if len(self._messages) < _MOST_MESSAGES or message.retain:
            self._messages.append(message)

    def _on_subscribe(
        self, _client: object, _data: object, mid: int, reasons: list, _p: object
    ) -> None:
        self._granted[mid] = not any(reason.is_failure for reason in reasons)


def probe(broker: Broker, device: Device) -> None:
    """Whether anything answers there as a broker does, at once and in words. Raises SimError."""
    try:
        with Connection(broker, device, "ro" + secrets.token_hex(8), clean=True):
            pass
    except Refused:
        pass  # it answers; this device is another matter
    except Away as error:
        raise SimError(
            f"no broker at {broker.host}:{broker.port}: {error}; nothing was sent"
        ) from error


class MqttTransport:
    """Visits in so many threads, one connection each."""

    def __init__(
        self,
        broker: Broker,
        devices: Mapping[str, Device],
        rollout: str,
        fuid: str,
        request: bytes,
        connections: int,
    ) -> None:
        self._broker, self._devices = broker, devices
        self._fuid, self._request = fuid, request
        # At most 23 letters and digits: more is not for every broker.
        self._names = {one: f"ro{rollout}n{n}" for n, one in enumerate(sorted(devices))}
        self._pool = ThreadPoolExecutor(connections, thread_name_prefix="visit")

    def start(self, tasks: Mapping[str, Task], book: Book) -> None:
        """Begin with these."""
        for device_id, task in tasks.items():
            self._pool.submit(self._run, device_id, task, book)

    def close(self) -> None:
        """Wait for what was begun."""
        self._pool.shutdown(cancel_futures=True)

    def _run(self, device_id: str, task: Task, book: Book) -> None:
        error: Exception | None = None
        try:
            self._visit(self._devices[device_id], task, book)
        except Exception as caught:
            error = caught
        book.done(device_id, error)

    def _visit(self, device: Device, task: Task, book: Book) -> None:
        if task is not Task.FORGET:
            with self._connect(device) as connection:
                self._talk(connection, device, task, book)
        if book.is_over(device.id):
            with self._connect(device, clean=True):
                pass
            book.forgotten(device.id)

    def _talk(self, connection: Connection, device: Device, task: Task, book: Book) -> None:
        connection.subscribe()
        sure = task in (Task.LOOK_WELL, Task.WITHDRAW)
        heard = connection.listen(self._fuid, _LINGER_WELL_S if sure else _LINGER_S)
        retained = any(sign is Sign.RETAINED for sign, _ in heard)
        book.heard(device.id, heard)
        if task is Task.ASK:
            if book.may_send([device.id], connection.present):
                connection.acknowledge()
                connection.retain(self._request)
                book.heard(device.id, [(Sign.SENT, "")])
        elif task is Task.WITHDRAW:
            if retained:
                connection.retain(b"")
            book.looked(device.id, task, retained)
        else:
            book.looked(device.id, task, retained)
        book.commit()
        connection.acknowledge()

    @contextlib.contextmanager
    def _connect(self, device: Device, *, clean: bool = False) -> Iterator[Connection]:
        try:
            with Connection(
                self._broker, device, self._names[device.id], clean=clean
            ) as connection:
                yield connection
        except OSError as error:
            raise Away(_words(error)) from error


def _failed(reason: object) -> bool:
    return bool(getattr(reason, "is_failure", False))


def _no_delay(_client: object, _data: object, connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not verify: {error.verify_message}"
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
