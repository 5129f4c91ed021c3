"""What each device is doing, in plain words, from what came over the wire; and the events of it.

Requests, clears and reports are seen as messages on the device's topic, whoever sent them;
downloads by the console's own package server. All that a node has written is data: in the words
here it has no control characters and a limited length.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from host_sim.console.journal import Download, Message, Report, parse_report, parse_senml
from host_sim.console.registry import Registry

#: After so long without a word a device that was asked is overdue: nodes may wake once a day.
OVERDUE_S = 24 * 3600
#: So many events are kept, the newest.
EVENTS_KEPT = 10_000
#: A node reports right behind its clear. Where nothing follows, and it has not come for the
#: package either, somebody else has withdrawn the request.
_CLEARED_S = 30
_PERCENT_STEP = 10
_LONGEST_TEXT = 200

#: States in which a device still owes an answer.
PENDING = frozenset({"requested", "downloading", "overdue"})
#: States of a device that has taken what it was asked to take.
DONE = frozenset({"installed on trial", "confirmed"})
#: What `e` of a report stands for, by when the fleet's nodes send their `e:1`.
_APPLIED = {"installed": "installed on trial", "confirmed": "confirmed"}
#: What began an `m` of `e:2`; anything else has failed before it was installed.
_ROLLED_BACK = "rolled back"
#: Answers of the package server to somebody who has shown the device's key.
_KNOWN_DEVICE = frozenset({200, 206, 403, 404, 416})
#: `e` of a node's statistics, and what its other records are called: docs/protocol.md.
_STAT_EVENTS = {"0": "begins", "1": "applied", "2": "failed", "3": "withdrawn or replaced"}
_STAT_WORDS = {
    "i": "file",
    "s": "size",
    "c": "confirmed",
    "a": "attempt",
    "g": "staged",
    "b": "fetched",
    "d": "seconds",
    "h": "least heap",
    "r": "reset cause",
    "o": "version before",
    "q": "sequence",
    "p": "sequence before",
}


@dataclass(frozen=True)
class DeviceView:
    """One device as it stands now. Times are seconds since 1970."""

    id: str
    state: str
    """idle, requested, downloading, installed on trial, confirmed, rolled back, failed, overdue"""
    percent: int | None
    """How far into the package the node is, while it downloads."""
    fuid: str | None
    """The file id that was requested last."""
    version: str | None
    """What it last told to run: a file id, or a version."""
    last_contact: float | None
    attempts: int
    """Connections to the package server for this request, or what the node itself counts."""
    since: float
    """When this state began."""
    message: str | None
    """What there is to say about the state: a reason, mostly."""

    @property
    def words(self) -> str:
        """The state as a person reads it."""
        return self.state if self.percent is None else f"{self.state} {self.percent} %"

    def as_json(self) -> dict[str, Any]:
        """All fields, and the words."""
        return asdict(self) | {"words": self.words}


@dataclass(frozen=True)
class Event:
    """Something that happened. Numbers go up by one from 1; `time` is seconds since 1970."""

    number: int
    time: float
    device: str | None
    kind: str
    """request, cleared, report, stat, download, device, package, message"""
    text: str

    def as_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


@dataclass
class _Record:
    """What is known of a device."""

    since: float
    state: str = "idle"
    fuid: str | None = None
    size: int = 0
    requested: float = 0.0
    version: str | None = None
    version_before: str | None = None
    last_contact: float | None = None
    attempts: int = 0
    counted: bool = False
    """By the node itself."""
    staged: int = 0
    message: str | None = None
    retained: bool = False
    cancelling: bool = False
    cleared: float | None = None
    download: Download | None = None
    connection: int = 0
    told_percent: int = 0
    changed: int = 0


class Fleet:
    """Not thread-safe: the journal calls it with its lock held."""

    def __init__(
        self, registry: Registry, *, overdue_s: float = OVERDUE_S, reports: str = "installed"
    ) -> None:
        self._registry = registry
        self._overdue_s = overdue_s
        self._applied = _APPLIED[reports]
        self._begun = time.time()
        self._records: dict[str, _Record] = {}
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self.last_event = 0

    # -- what is asked -----------------------------------------------------------------------

    def views(self, after: int = 0) -> list[DeviceView]:
        """All devices, by id; or those about which an event with a greater number tells.

        With `after` also those that only time has changed: overdue, or cleared long ago.
        """
        now = time.time()
        found = []
        for device in self._registry.devices():
            record = self._records.get(device.device_id) or _Record(self._begun)
            view = self._view(device.device_id, record, now)
            if not after or record.changed > after or view.state != record.state:
                found.append(view)
        return sorted(found, key=lambda view: view.id)

    def view(self, device_id: str) -> DeviceView:
        """One device. Raises SimError when there is none of that id."""
        self._registry.device(device_id)
        record = self._records.get(device_id) or _Record(self._begun)
        return self._view(device_id, record, time.time())

    def events(self, after: int, limit: int) -> list[Event]:
        """The oldest `limit` events with a greater number than `after` that are kept."""
        first = self.last_event - len(self._events) + 1
        begin = max(0, after + 1 - first)
        return list(islice(self._events, begin, begin + max(0, limit)))

    def wanted(self, fuid: str) -> list[str]:
        """Ids of the devices that are asked for a package just now."""
        return [
            device_id
            for device_id, record in self._records.items()
            if record.retained and record.fuid == fuid
        ]

    def pending(self, device_id: str) -> bool:
        """Whether a request is retained for the device, as far as was heard."""
        record = self._records.get(device_id)
        return record is not None and record.retained

    def _view(self, device_id: str, record: _Record, now: float) -> DeviceView:
        state, since, message = record.state, record.since, record.message
        if state in PENDING:
            heard = max(record.requested, record.last_contact or 0.0)
            cleared = record.cleared if state == "requested" else None
            if cleared is not None and now - cleared > _CLEARED_S:
                state, since = "idle", cleared
                message = "the request was cleared, and no report followed"
            elif now - heard > self._overdue_s:
                state, since = "overdue", heard + self._overdue_s
                message = f"not heard of for {duration(now - heard)}"
        return DeviceView(
            device_id,
            state,
            _percent(record) if state == "downloading" else None,
            record.fuid,
            record.version,
            record.last_contact,
            record.attempts,
            since,
            message,
        )

    # -- what came over the wire -------------------------------------------------------------

    def message(self, message: Message) -> None:
        """A message on an ota topic."""
        record = self._record(message.topic, message.device_id)
        fields = parse_senml(message.payload)
        report = None if message.retain else parse_report(message)
        if not message.payload:
            self._on_clear(message.device_id, record)
        elif report is not None:
            self._on_report(message.device_id, record, report)
        elif fields and _is_zero(fields.get("e")):
            self._on_request(message.device_id, record, fields, message.retain)
        else:
            kept = "retained, " if message.retain else ""
            text = f"{kept}neither request nor report: {_bytes(message.payload)}"
            self._tell(message.device_id, record, "message", text)

    def stat(self, message: Message) -> None:
        """A message on a stat topic."""
        record = self._record(message.topic, message.device_id, "stat")
        fields = parse_senml(message.payload)
        if not fields:
            text = f"no statistics: {_bytes(message.payload)}"
            self._tell(message.device_id, record, "message", text)
            return
        if record:
            record.last_contact = time.time()
            self._on_stat(record, fields)
        begins = _STAT_EVENTS.get(_text(fields.get("e")))
        pairs = [
            f"{_STAT_WORDS.get(name, name)} {_text(value)}"
            for name, value in islice(fields.items(), 20)
            if name != "e" or begins is None
        ]
        text = f"{begins}: " if begins else ""
        self._tell(message.device_id, record, "stat", text + ", ".join(pairs))

    def download(self, download: Download) -> None:
        """A request to the package server; its status is known."""
        device_id, fuid = download.device_id or "", download.fuid
        record = None
        if download.status in _KNOWN_DEVICE and self._registry.knows(device_id):
            record = self._records.setdefault(device_id, _Record(self._begun))
            record.last_contact = time.time()
        if download.status not in (200, 206):
            text = f"download of {fuid} answered with {download.status}"
            self._tell(device_id, record, "download", text)
            return
        if record is None or not record.retained or fuid != record.fuid:
            self._tell(device_id, record, "download", f"downloads {fuid}, not requested")
            return
        record.download = download
        record.size = download.size or record.size
        self._become(record, "downloading")
        if record.connection != download.connection or not download.connection:
            record.connection = download.connection
            if not record.counted:
                record.attempts += 1
            record.told_percent = _percent(record)
            text = f"downloads {fuid}, from byte {download.start} of {record.size}"
            self._tell(device_id, record, "download", text)

    def progress(self, download: Download) -> bool:
        """More of a download has been sent, or it has ended. Whether there is an event of it."""
        record = self._records.get(download.device_id or "")
        if record is None or record.download is not download or record.state != "downloading":
            return False
        record.last_contact = time.time()
        percent = _percent(record)
        broken = download.finished and download.bytes_sent < download.length
        if broken:
            text = f"connection broke off at {percent} % of {record.fuid}"
        elif percent >= record.told_percent + _PERCENT_STEP:
            text = f"{percent} % of {record.fuid}"
        else:
            return False
        record.told_percent = percent
        self._tell(download.device_id or "", record, "download", text)
        return True

    # -- what the console does ---------------------------------------------------------------

    def cancelling(self, device_ids: Iterable[str]) -> None:
        """The next clear of these is the console's own."""
        for device_id in device_ids:
            if record := self._records.get(device_id):
                record.cancelling = record.retained

    def devices_added(self, device_ids: list[str], moved: Iterable[str] = ()) -> None:
        """These are new, or have another key; `moved`: another topic, which nobody has used."""
        for device_id in moved:
            self._records.pop(device_id, None)
        for device_id in device_ids:
            self._records.setdefault(device_id, _Record(time.time()))
        self._tell_of_devices(device_ids, "added")

    def devices_removed(self, device_ids: list[str]) -> None:
        """These are no more."""
        for device_id in device_ids:
            self._records.pop(device_id, None)
        self._tell_of_devices(device_ids, "removed")

    def package_changed(self, text: str) -> None:
        """A package came or went."""
        self._event(None, "package", text)

    # -- inside ------------------------------------------------------------------------------

    def _on_request(
        self, device_id: str, record: _Record | None, fields: dict[str, Any], again: bool
    ) -> None:
        fuid = plain(_text(fields.get("i")), 64)
        if record:
            if again and record.retained and record.fuid == fuid:
                return  # the console's own connection came back, and was told it once more
            record.fuid, record.retained, record.requested = fuid, True, time.time()
            record.cleared = record.download = None
            record.cancelling = False
            record.attempts = record.connection = record.told_percent = record.staged = 0
            record.counted = False
            record.size = _number(fields.get("s"))
            self._become(record, "requested")
        self._tell(device_id, record, "request", f"asked to take {fuid}")

    def _on_clear(self, device_id: str, record: _Record | None) -> None:
        text = "request cleared"
        if record:
            pending = record.state in PENDING and record.cleared is None
            if record.cancelling:
                text = "request cancelled"
            if pending and record.cancelling:
                self._become(record, "idle", "cancelled")
            elif pending:
                record.cleared = time.time()
                if record.state == "downloading":
                    record.message = "request cleared: a report is to come"
            record.retained = record.cancelling = False
        self._tell(device_id, record, "cleared", text)

    def _on_report(self, device_id: str, record: _Record | None, report: Report) -> None:
        fuid = None if report.i is None else plain(report.i, 64)
        reason = None if report.m is None else plain(report.m)
        if report.e == 1:
            state = self._applied
        else:
            state = "rolled back" if (reason or "").startswith(_ROLLED_BACK) else "failed"
        if record:
            record.last_contact = time.time()
            answered = record.state not in PENDING or fuid in (None, "", record.fuid)
            fuid = fuid or record.fuid
            if report.e == 1:
                if (record.state, record.version) == ("confirmed", fuid):
                    state = "confirmed"  # as its statistics have told already
                self._runs(record, fuid)
            elif state == "rolled back" and fuid == record.version:
                record.version = record.version_before
            if answered:
                record.fuid, record.cleared = fuid, None
                self._become(record, state, reason)
        told = "applied" if report.e == 1 else "failed"
        text = f"{told} {fuid or 'something'}" + (f": {reason}" if reason else "")
        self._tell(device_id, record, "report", text)

    def _on_stat(self, record: _Record, fields: dict[str, Any]) -> None:
        """What a node's statistics say that nothing else does. How it failed, its report says."""
        fuid = plain(_text(fields.get("i")), 64)
        asked = record.state in PENDING and fuid == record.fuid
        if asked and _number(fields.get("a")):
            record.attempts, record.counted = _number(fields["a"]), True
        event = _text(fields.get("e"))
        if event == "0":
            if fields.get("o") is not None:
                record.version = plain(_text(fields["o"]), 64)
            if asked:
                record.staged = _number(fields.get("g"))
                record.size = record.size or _number(fields.get("s"))
                self._become(record, "downloading")
        elif event == "1":
            self._runs(record, fuid)
            if asked or (record.state in DONE and fuid == record.fuid):
                confirmed = fields.get("c") is True
                record.fuid, record.cleared = fuid, None
                self._become(record, "confirmed" if confirmed else "installed on trial")

        elif event == "3" and asked and record.cleared is not None:
            self._become(record, "idle", "withdrawn")

    def _runs(self, record: _Record, fuid: str | None) -> None:
        if fuid != record.version:
            record.version_before, record.version = record.version, fuid

    def _record(self, topic: str, device_id: str, leaf: str = "ota") -> _Record | None:
        """The record, when this is the topic of a device that the registry knows."""
        if not self._registry.knows(device_id):
            return None
        if self._registry.device(device_id).topic(leaf) != topic:
            return None
        return self._records.setdefault(device_id, _Record(self._begun))

    def _become(self, record: _Record, state: str, message: str | None = None) -> None:
        if record.state != state or state != "downloading":
            record.since = time.time()
        record.state, record.message = state, message

    def _tell(self, device_id: str, record: _Record | None, kind: str, text: str) -> None:
        self._event(plain(device_id, 64) or None, kind, text)
        if record:
            record.changed = self.last_event

    def _tell_of_devices(self, device_ids: list[str], what: str) -> None:
        if len(device_ids) == 1:
            self._tell(device_ids[0], self._records.get(device_ids[0]), "device", what)
        elif device_ids:
            self._event(None, "device", f"{len(device_ids)} devices {what}")

    def _event(self, device: str | None, kind: str, text: str) -> None:
        self.last_event += 1
        self._events.append(Event(self.last_event, time.time(), device, kind, plain(text)))


def plain(text: str, longest: int = _LONGEST_TEXT) -> str:
    """A text of somebody else's, for one line: nothing in it moves a cursor or ends the line."""
    shown = text[: longest + 1]
    if not shown.isprintable():
        shown = "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown
        )
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def duration(seconds: float) -> str:
    """About how long: 40 s, 12 min, 5 h, 3 days."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _percent(record: _Record) -> int:
    """How far into the package the last byte sent lies: what a node skips, it has already."""
    if not record.size:
        return 0
    download = record.download
    place = download.start + download.bytes_sent if download else record.staged
    return min(100, 100 * place // record.size)


def _bytes(payload: bytes) -> str:
    shown = payload[:_LONGEST_TEXT].decode("utf-8", "backslashreplace")
    return f"{len(payload)} bytes, {shown}"


def _text(value: object) -> str:
    """A field of a pack: a text or a number, and nothing that is nested."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if value is None or isinstance(value, (str, int, float)) else "…"


def _number(value: object) -> int:
    """A count in a pack; 0 where there is none that makes sense."""
    whole = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 40
    return value if whole else 0  # type: ignore[return-value]


def _is_zero(value: object) -> bool:
    """Whether a field `e` is that of a request: a number, or a number as text."""
    try:
        return float(_text(value)[:8]) == 0
    except ValueError:
        return False
