"""A console of which a test says what it has seen: as many devices as one likes."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from host_sim.console.registry import Package, Registry
from host_sim.console.state import DeviceView, Event
from host_sim.errors import SimError


class FakeConsole:
    """What the page uses of a Console; `orders` is what it was told to do."""

    def __init__(self, directory: Path) -> None:
        self._registry = Registry(directory)
        self._views: dict[str, DeviceView] = {}
        self._events: list[Event] = []
        self._changed: dict[str, int] = {}
        self._condition = threading.Condition()
        self.orders: list[tuple[str, list[str], str | None]] = []
        #: Devices that are removed as an order for them comes: the page still shows them.
        self.removed: set[str] = set()

    def set(self, device_id: str, **fields: object) -> None:
        """A device, or something new about one."""
        with self._condition:
            view = self._views.get(device_id) or DeviceView(
                device_id, "idle", None, None, None, None, 0, time.time(), None
            )
            self._views[device_id] = dataclasses.replace(view, **fields)
            self._changed[device_id] = len(self._events) + 1
            text = str(fields.get("message") or fields.get("state", "idle"))
            self._tell(device_id, "message", text)

    def _tell(self, device_id: str | None, kind: str, text: str) -> None:
        self._events.append(Event(len(self._events) + 1, time.time(), device_id, kind, text))
        self._condition.notify_all()

    def views(self, after: int = 0) -> list[DeviceView]:
        """As Console's."""
        with self._condition:
            ids = sorted(i for i in self._views if not after or self._changed[i] > after)
            return [self._views[i] for i in ids]

    def events(self, after: int = 0, limit: int = 500) -> list[Event]:
        """As Console's."""
        with self._condition:
            return self._events[after : after + limit]

    def wait_for_event(self, after: int, timeout: float) -> bool:
        """As Console's."""
        with self._condition:
            return self._condition.wait_for(lambda: len(self._events) > after, timeout)

    def packages(self) -> list[Package]:
        """As Console's."""
        return self._registry.packages()

    def add_package(self, source: bytes, name: str) -> Package:
        """As Console's."""
        return self._registry.add_package(source, name, None)

    def request_many(self, ids: Iterable[str], fuid: str) -> None:
        """As Console's."""
        self._order("request", ids, fuid)

    def cancel(self, ids: Iterable[str]) -> None:
        """As Console's."""
        self._order("cancel", ids, None)

    def _order(self, what: str, ids: Iterable[str], fuid: str | None) -> None:
        ids = list(ids)
        for device_id in ids:
            if device_id not in self._views or device_id in self.removed:
                raise SimError(f"device {device_id!r} is not known: add it first")
        if fuid is not None:
            self._registry.package(fuid)
        self.orders.append((what, ids, fuid))
        for device_id in ids:
            self.set(device_id, state="requested" if fuid else "idle", fuid=fuid)
