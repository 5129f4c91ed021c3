"""The console itself: everything wired together, started and stopped in order."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as paho

from host_sim.console import brokers, certificates
from host_sim.console.download_server import DownloadServer
from host_sim.console.faults import Faults
from host_sim.console.journal import Download, Journal, Message, PlainRequest, Report, parse_senml
from host_sim.console.mqtt_client import TIMEOUT, MqttClient, Refused
from host_sim.console.process_broker import reserved
from host_sim.console.registry import Device, Package, Registry
from host_sim.console.state import OVERDUE_S, DeviceView, Event, Fleet, plain
from host_sim.errors import SimError

#: Brokers keep a limited number of messages for a client that can not take them so fast: the
#: console hears its own requests as well. mosquitto keeps 1,000.
_BATCH = 500

logger = logging.getLogger("console")


@dataclass(frozen=True)
class Ports:
    """Where the console listens. `mqtts` is None with somebody else's broker.

    nats-server has one MQTT port: with "nats" `mqtts` is None, with "nats-tls" `mqtt`.
    """

    mqtt: int | None
    mqtts: int | None
    https: int


class Console:
    """A context manager: the platform runs inside the `with`.

    `broker` is "amqtt" (in this process), another of `brokers.KINDS` (a child process) or
    HOST:PORT (somebody's, `broker_user` and `broker_password` being the console's account there).
    A port of 0 means any free one. `certificate` and `mqtt_certificate` (as `certificate` when not
    given) are one of `certificates.KINDS`. With `https_plain` the HTTPS port speaks plain HTTP.
    A device that was asked and is not heard of for `overdue_s` is overdue. `reports` is when the
    fleet's nodes send their `e:1`, as in their configuration: "installed" or "confirmed".
    """

    faults: Faults
    """What the package server does wrong: change its fields, or put another in its place."""

    def __init__(
        self,
        directory: Path | str,
        *,
        broker: str = "amqtt",
        mqtt_port: int = 0,
        mqtts_port: int = 0,
        https_port: int = 0,
        certificate: str = "good",
        mqtt_certificate: str | None = None,
        https_plain: bool = False,
        broker_user: str | None = None,
        broker_password: str | None = None,
        overdue_s: float = OVERDUE_S,
        reports: str = "installed",
    ) -> None:
        self.directory = Path(directory).resolve()
        self.faults = Faults()
        self._kind = broker
        self._wanted_ports = (mqtt_port, mqtts_port, https_port)
        self._certificate = certificate
        self._mqtt_certificate = mqtt_certificate or certificate
        self._https_plain = https_plain
        self._foreign_account = (broker_user, broker_password)
        self._overdue_s = overdue_s
        self._reports = reports
        self._fence_topic = f"channels/{secrets.token_hex(4)}/messages/fence/ota"
        self._fences: set[bytes] = set()
        self._running = contextlib.ExitStack()

    def __enter__(self) -> Console:
        with contextlib.ExitStack() as stack:
            self._start(stack)
            self._running = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def _start(self, stack: contextlib.ExitStack) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SimError(f"{self.directory}: {error.strerror}") from error
        self._registry = registry = Registry(self.directory)
        self._fleet = Fleet(registry, overdue_s=self._overdue_s, reports=self._reports)
        self._journal = Journal(self._fleet)
        authority = certificates.create(self.directory, self._certificate, self._mqtt_certificate)
        self.ca_pem, self.ca_der = authority.pem, authority.der
        mqtt_port, mqtts_port, https_port = self._wanted_ports

        self._broker = broker = brokers.choose(
            self._kind, registry, self.directory, authority.mqtt, (mqtt_port, mqtts_port)
        )
        stack.callback(broker.stop)
        broker.start()
        if isinstance(broker, brokers.ForeignBroker):
            self._account = self._foreign_account
        else:
            self._account = (registry.admin_user, registry.admin_password)

        tls = None if self._https_plain else certificates.server_context(authority.https)
        self._tls = tls
        server = DownloadServer(https_port, tls, registry, self._journal, lambda: self.faults)
        server.start()
        stack.callback(server.stop)

        self._listen(stack)
        self.mqtt_host = broker.host
        self.ports = Ports(broker.mqtt_port, broker.mqtts_port, server.server_port)

    # -- what the platform is told -----------------------------------------------------------

    def add_device(
        self, device_id: str, key: str, channel: str, *, replace: bool = True
    ) -> Device:
        """Register a device, or replace it; the broker knows it when this returns."""
        (device,) = self.add_devices([(device_id, key, channel)], replace=replace)
        return device

    def add_devices(
        self, devices: Iterable[Sequence[str | None]], *, replace: bool = True
    ) -> list[Device]:
        """`add_device` for many, each an id, a key, a channel and perhaps a board: all or none."""
        added = [Device(*device) for device in devices]  # type: ignore[arg-type]
        ids = [device.device_id for device in added]
        before = {i: self._registry.device(i).channel for i in ids if self._registry.knows(i)}
        self._registry.add_devices(added, replace=replace)
        self._broker.refresh()
        moved = [d.device_id for d in added if before.get(d.device_id, d.channel) != d.channel]
        with self._journal.locked():
            self._fleet.devices_added(ids, moved)
        return added

    def remove_devices(self, device_ids: Sequence[str]) -> None:
        """Forget devices, and withdraw what they are asked: all of them, or none."""
        for device_id in device_ids:
            self._registry.device(device_id)
        with self._journal.locked():
            pending = [i for i in device_ids if self._fleet.pending(i)]
        self.cancel(pending)
        self._registry.remove_devices(device_ids)
        self._broker.refresh()
        with self._journal.locked():
            self._fleet.devices_removed(list(device_ids))

    def devices(self) -> list[Device]:
        """All devices, by id."""
        return sorted(self._registry.devices(), key=lambda device: device.device_id)

    def add_package(
        self, source: Path | str | bytes, name: str | None = None, *, fuid: str | None = None
    ) -> Package:
        """Store a copy of a package; its name (default: the file's) decides the type."""
        package = self._registry.add_package(source, name, fuid)
        with self._journal.locked():
            text = f"{package.fuid} added: {package.name}, {package.size} bytes"
            self._fleet.package_changed(text)
        return package

    def remove_package(self, fuid: str) -> None:
        """Forget a package. Raises SimError when a device is still asked to take it."""
        self._registry.package(fuid)
        with self._journal.locked():
            wanted = self._fleet.wanted(fuid)
        if wanted:
            others = f" and {len(wanted) - 1} more" if len(wanted) > 1 else ""
            raise SimError(
                f"package {fuid} is requested of {wanted[0]}{others}: cancel that first"
            )
        self._registry.remove_package(fuid)
        with self._journal.locked():
            self._fleet.package_changed(f"{fuid} removed")

    def packages(self) -> list[Package]:
        """All packages, the oldest first."""
        return self._registry.packages()

    def request_payload(self, fuid: str) -> str:
        """The request message for a package, exactly as the platform writes it."""
        package = self._registry.package(fuid)
        pack = [
            {"n": "e", "v": 0},
            {"n": "i", "vs": package.fuid},
            {"n": "t", "vs": package.type},
            {"n": "s", "v": package.size},
        ]
        return json.dumps(pack, separators=(",", ":"))

    def request(self, device_id: str, fuid: str) -> str:
        """Ask a device to take a package: publishes the retained message and returns it."""
        payload = self.request_payload(fuid)
        self.request_raw(device_id, payload.encode())
        logger.info("request of %s for %s", fuid, device_id)
        return payload

    def request_raw(
        self,
        device_id: str,
        payload: bytes | str,
        *,
        retain: bool = True,
        topic: str | None = None,
    ) -> None:
        """Publish anything at QoS 1, on the device's ota topic unless another is given.

        When this returns the message is retained and has been passed on to who is subscribed.
        """
        topic = topic or self._registry.device(device_id).topic()
        payload = payload.encode() if isinstance(payload, str) else payload
        self._publish([topic], payload, retain=retain)

    def request_many(self, device_ids: Sequence[str], fuid: str) -> str:
        """`request` for many devices at once. Nobody is asked when one of them is not known."""
        payload = self.request_payload(fuid)
        self._publish([self.topic(i) for i in device_ids], payload.encode(), retain=True)
        logger.info("request of %s for %d devices", fuid, len(device_ids))
        return payload

    def clear(self, device_id: str) -> None:
        """Withdraw the device's retained request."""
        self.cancel([device_id])

    def cancel(self, device_ids: Sequence[str]) -> None:
        """Withdraw the retained requests of devices: a node that has committed still installs."""
        topics = [self.topic(i) for i in device_ids]
        with self._journal.locked():
            self._fleet.cancelling(device_ids)
        self._publish(topics, b"", retain=True)

    def next_authority(self) -> certificates.Authority:
        """Another root, with certificates that nobody uses yet."""
        folder = self.directory / "next"
        folder.mkdir(exist_ok=True)
        return certificates.create(folder, "good", "good")

    def change_certificates(self, authority: certificates.Authority) -> None:
        """Server and broker show those of another root, to whoever connects from now on."""
        if self._kind != "amqtt" or self._tls is None:
            raise SimError("certificates change with the broker amqtt and HTTPS only")
        self._tls.load_cert_chain(authority.https)
        self._broker.tls.load_cert_chain(authority.mqtt)

    @contextlib.contextmanager
    def broker_down(self) -> Iterator[None]:
        """Mosquitto is away inside the `with`, and comes back on its ports, all forgotten.

        It ends with the thread that this is done in, as the one of the beginning did with its own.
        """
        if self._kind != "mosquitto":
            raise SimError("only mosquitto can be stopped and started again: use that broker")
        self._client.close()
        self._broker.stop()
        with contextlib.ExitStack() as ports:
            # Else another program may be given one of them meanwhile.
            for port in (self._broker.mqtt_port, self._broker.mqtts_port):
                ports.enter_context(reserved(port))
            try:
                yield
            finally:
                self._broker.start()
                self._listen(self._running)

    # -- what the platform has seen ----------------------------------------------------------

    def topic(self, device_id: str, leaf: str = "ota") -> str:
        """A topic of a device."""
        return self._registry.device(device_id).topic(leaf)

    def retained(self, device_id: str) -> bytes | None:
        """What a fresh subscriber to the device's ota topic is told is retained."""
        found: list[bytes] = []

        def heard(message: paho.MQTTMessage) -> None:
            if message.retain and message.topic == topic:
                found.append(message.payload)

        topic = self.topic(device_id)
        with self._connect(heard) as client:
            client.subscribe(topic, 0)
            # Most brokers answer in order: after a second answer the first one's message is here.
            client.subscribe(self._fence_topic, 0)
            time.sleep(self._broker.late_s)
        return found[-1] if found else None

    def messages(self, device_id: str) -> list[Message]:
        """Everything seen on the device's ota topic, in order: ours and the node's.

        All that the broker has acknowledged to anybody is in it.
        """
        self._fence()
        return self._journal.messages(device_id)

    def reports(self, device_id: str) -> list[Report]:
        """The device's reports over the console's life, oldest first, as `messages`."""
        self._fence()
        return self._journal.reports(device_id)

    @property
    def downloads(self) -> list[Download]:
        """Every HTTPS request for a package."""
        return self._journal.downloads()

    @property
    def plain_requests(self) -> list[PlainRequest]:
        """Every request that came to the HTTPS port without TLS."""
        return self._journal.plain_requests()

    @property
    def tls_failures(self) -> list[str]:
        """Why TLS handshakes with the HTTPS port failed, in OpenSSL's words."""
        return self._journal.tls_failures()

    def views(self, after: int = 0) -> list[DeviceView]:
        """How every device stands, by id.

        With `after` only those about which an event with a greater number tells, or whose state
        has changed because time went by.
        """
        with self._journal.locked(quiet=True):
            return self._fleet.views(after)

    def view(self, device_id: str) -> DeviceView:
        """How a device stands."""
        with self._journal.locked(quiet=True):
            return self._fleet.view(device_id)

    def events(self, after: int = 0, limit: int = 500) -> list[Event]:
        """What has happened, oldest first: events with a greater number than `after`.

        Only the newest `state.EVENTS_KEPT` are kept: a gap in the numbers tells of more.
        """
        with self._journal.locked(quiet=True):
            return self._fleet.events(after, limit)

    @property
    def last_event(self) -> int:
        """The number of the newest event, 0 before the first."""
        return self._fleet.last_event

    def wait_for_event(self, after: int, timeout: float) -> bool:
        """Wait until there is an event with a greater number than `after`. False: none came."""
        return self.wait_for(lambda: self._fleet.last_event > after, timeout)

    def wait_for(self, predicate: Callable[[], bool], timeout: float = 10.0) -> bool:
        """Wait until the predicate holds: asked after every message and download. False: never."""
        return self._journal.wait_for(predicate, timeout)

    def wait_for_report(
        self, device_id: str, count: int = 1, timeout: float = 10.0
    ) -> list[Report]:
        """Wait until the device has sent so many reports in all, and return them.

        Raises TimeoutError when they do not come.
        """
        if not self.wait_for(lambda: len(self._journal.reports(device_id)) >= count, timeout):
            seen = len(self._journal.reports(device_id))
            raise TimeoutError(f"{seen} of {count} reports of {device_id} after {timeout} s")
        return self.reports(device_id)

    # -- inside ------------------------------------------------------------------------------

    def _listen(self, stack: contextlib.ExitStack) -> None:
        self._client = stack.enter_context(self._connect(self._heard))
        self._client.subscribe("channels/+/messages/+/ota", 1)
        self._client.subscribe("channels/+/messages/+/stat", 1)

    def _connect(self, on_message: Callable[[paho.MQTTMessage], None]) -> MqttClient:
        broker = self._broker
        port, context = broker.mqtt_port, None
        if port is None:
            port = broker.mqtts_port
            context = ssl.create_default_context(cafile=self.ca_pem)
        try:
            assert port is not None
            return MqttClient(broker.host, port, *self._account, on_message, context=context)
        except Refused as error:
            raise SimError(f"the broker refuses the console: {error}") from error
        except OSError as error:
            where = f"{broker.host}:{port}"
            raise SimError(f"no broker at {where}: {error.strerror or error}") from error

    def _heard(self, message: paho.MQTTMessage) -> None:
        if message.topic == self._fence_topic:
            self._fences.add(message.payload)
            self._journal.changed()
            return
        seen = Message(message.topic, message.payload, message.qos, bool(message.retain))
        if message.topic.endswith("/stat"):
            with self._journal.locked():
                self._fleet.stat(seen)
            return
        self._journal.add(seen)
        event = (parse_senml(seen.payload) or {}).get("e")
        # What a node sends may be nested too deep for repr(), and longer than a log should be.
        told = plain(str(event), 20) if isinstance(event, (str, int, float)) else None
        logger.info("message of %d bytes, e=%s, on %s", len(seen.payload), told, seen.topic)

    def _publish(self, topics: Sequence[str], payload: bytes, *, retain: bool) -> None:
        """Publish the same on many topics; the broker has dealt with all of it then."""
        try:
            for begin in range(0, len(topics), _BATCH):
                self._client.publish_many(topics[begin : begin + _BATCH], payload, retain=retain)
                self._fence()
        except (TimeoutError, RuntimeError) as error:  # RuntimeError: paho has no connection
            raise SimError(f"the broker did not take the message: {error}") from error

    def _fence(self) -> None:
        """Wait until the broker has dealt with everything published before.

        An acknowledgement is not enough: amqtt gives it before it retains the message.
        """
        mark = f"{time.monotonic_ns()}-{secrets.token_hex(4)}".encode()
        self._client.publish(self._fence_topic, mark)
        if not self.wait_for(lambda: mark in self._fences, TIMEOUT):
            raise TimeoutError("no echo from the broker")
        self._fences.discard(mark)
