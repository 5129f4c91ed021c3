"""Everything the console has seen, in order, and a way to wait for more of it."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Message:
    """One message on a device's ota topic, as the broker delivered it to the console.

    `qos` and `retain` are those of the delivery. A live message never carries `retain`, and amqtt
    delivers at the subscriber's QoS: how a node published shows on the wire (`link.wiretap`).
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    t: float = field(default_factory=time.monotonic)
    at: float = field(default_factory=time.time)
    """The same moment in seconds since 1970."""

    @property
    def device_id(self) -> str:
        """The device the topic belongs to."""
        return self.topic.split("/")[3]


@dataclass(frozen=True)
class Report:
    """What a node said about one request: e is 1 (applied) or 2 (failed)."""

    e: int
    i: str | None
    m: str | None
    t: float = field(default=0.0, compare=False)
    at: float = field(default=0.0, compare=False)

    def as_json(self) -> dict[str, Any]:
        """The shape that `console status` prints."""
        return {"e": self.e, "i": self.i, "m": self.m}


@dataclass
class Download:
    """One HTTPS request for a package. The key it came with is deliberately not here."""

    device_id: str | None
    fuid: str | None
    range: str | None
    status: int = 0
    bytes_sent: int = 0
    """Bytes of the body handed to the network, without HTTP's own framing."""
    finished: bool = False
    t: float = field(default_factory=time.monotonic)
    start: int = 0
    """Where in the package the body begins."""
    length: int = 0
    """How many bytes of the package the body is to have."""
    size: int = 0
    """Of the package."""
    connection: int = 0
    """Requests on one connection have the same number."""


@dataclass(frozen=True)
class PlainRequest:
    """A request that came to the HTTPS port without TLS: it must never happen."""

    method: str
    path: str
    """Without the query."""
    key_present: bool
    t: float = field(default_factory=time.monotonic)


class Watcher(Protocol):
    """Who follows what is recorded, in its order. It is called with the journal's lock held."""

    def message(self, message: Message) -> None:
        """A message on an ota topic."""

    def download(self, download: Download) -> None:
        """A download whose status is known."""

    def progress(self, download: Download) -> bool:
        """More of it was sent, or it has ended. Whether whoever waits is to look."""


class Journal:
    """Append-only lists under one condition."""

    def __init__(self, watcher: Watcher | None = None) -> None:
        self._watcher = watcher
        self._condition = threading.Condition()
        self._messages: list[Message] = []
        self._messages_of: dict[str, list[Message]] = {}
        self._downloads: list[Download] = []
        self._plain_requests: list[PlainRequest] = []
        self._tls_failures: list[str] = []

    def add(self, item: Message | Download | PlainRequest) -> None:
        """Append to the list of its kind and wake whoever waits."""
        with self._condition:
            if isinstance(item, Message):
                self._messages.append(item)
                self._messages_of.setdefault(item.device_id, []).append(item)
                if self._watcher:
                    self._watcher.message(item)
            elif isinstance(item, Download):
                self._downloads.append(item)
                if self._watcher:
                    self._watcher.download(item)
            else:
                self._plain_requests.append(item)
            self._condition.notify_all()

    def progress(self, download: Download) -> None:
        """More of a recorded download has been sent, or it has ended."""
        with self._condition:
            told = self._watcher is not None and self._watcher.progress(download)
            if told or download.finished:
                self._condition.notify_all()

    @contextlib.contextmanager
    def locked(self, *, quiet: bool = False) -> Iterator[None]:
        """Nothing is recorded meanwhile. Whoever waits looks afterwards, unless `quiet`."""
        with self._condition:
            yield
            if not quiet:
                self._condition.notify_all()

    def add_tls_failure(self, reason: str) -> None:
        """A handshake that did not come about."""
        with self._condition:
            self._tls_failures.append(reason)
            self._condition.notify_all()

    def changed(self) -> None:
        """Wake whoever waits: something inside a recorded item is new."""
        with self._condition:
            self._condition.notify_all()

    def messages(self, device_id: str | None = None) -> list[Message]:
        """All messages, or one device's."""
        with self._condition:
            if device_id is None:
                return list(self._messages)
            return list(self._messages_of.get(device_id, ()))

    def reports(self, device_id: str) -> list[Report]:
        """The device's reports: what a node published live with e = 1 or e = 2."""
        found = (parse_report(m) for m in self.messages(device_id) if not m.retain)
        return [report for report in found if report is not None]

    def downloads(self) -> list[Download]:
        """All requests to the package server."""
        with self._condition:
            return list(self._downloads)

    def plain_requests(self) -> list[PlainRequest]:
        """Requests without TLS."""
        with self._condition:
            return list(self._plain_requests)

    def tls_failures(self) -> list[str]:
        """Why handshakes failed, as OpenSSL names it."""
        with self._condition:
            return list(self._tls_failures)

    def wait_for(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Wait until the predicate holds; it is asked again after everything recorded."""
        with self._condition:
            return self._condition.wait_for(predicate, timeout)


def parse_senml(payload: bytes) -> dict[str, Any] | None:
    """The fields of a SenML pack by name, or None when it is not one."""
    try:
        pack = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(pack, list):
        return None
    fields: dict[str, Any] = {}
    for element in pack:
        if isinstance(element, dict) and isinstance(element.get("n"), str):
            values = (element[key] for key in ("v", "vs", "vb") if key in element)
            fields[element["n"]] = next(values, None)
    return fields


def parse_report(message: Message) -> Report | None:
    """The report in a message, or None when it holds something else."""
    fields = parse_senml(message.payload)
    if not fields:
        return None
    try:
        event = int(fields["e"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if event not in (1, 2):
        return None
    try:
        i, m = (None if fields.get(name) is None else str(fields[name]) for name in ("i", "m"))
    except RecursionError:  # nested as deep as a reader of JSON can just take
        return None
    return Report(event, i, m, message.t, message.at)
