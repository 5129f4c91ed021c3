"""What is new at the console, for any number of browsers, however slow one of them is.

A thread looks at the console and numbers each row's last change. A browser that is told everything
up to a number is later told of the rows with a higher one: nothing waits in a queue for it, and
whoever is slow gets the newest state of a row only.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from sse_starlette import ServerSentEvent

from host_sim.console import Console

#: Rows in one message.
_SLICE = 500
#: So many of the newest events are kept, and told to a browser that is new.
_EVENTS = 300
#: Between two looks at all devices, or so many times what the last one took: percents go up, and
#: devices become overdue, without an event.
_LOOK_S, _LOOK_REST = 0.5, 20
#: At least this between two, and so many times what the last look took.
_PAUSE_S, _REST = 0.15, 3
#: Longer texts from nodes are cut.
_LONGEST = 400

logger = logging.getLogger("console.web")


class Feed:
    """A context manager: looks at the console inside the `with`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._name = secrets.token_hex(4)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._views: dict[str, Any] = {}
        # By device, in the order of their last change: its number, and the row as JSON.
        self._rows: dict[str, tuple[int, str]] = {}
        self._revision = 0
        self._whole_at = 0.0
        self._events: deque[tuple[int, str]] = deque(maxlen=_EVENTS)
        self._last_event = 0
        self._packages: list[dict[str, Any]] | None = None
        self._packages_revision = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: set[asyncio.Event] = set()
        self._thread = threading.Thread(target=self._watch, name="console-feed")

    def __enter__(self) -> Feed:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._wake()
        self._thread.join()

    # -- the thread that looks ---------------------------------------------------------------

    def _watch(self) -> None:
        took = 0.0
        while not self._ended.wait(max(_PAUSE_S, _REST * took)):
            self._console.wait_for_event(self._last_event, _LOOK_S)
            began = time.monotonic()
            try:
                if self._look():
                    self._wake()
            except Exception:  # the page stays as it is, the console goes on
                logger.exception("the page could not be brought up to date")
            took = time.monotonic() - began

    def _look(self) -> bool:
        """Take over what has changed; whether anything has."""
        began = time.monotonic()
        # Before the rows: what happens in between is told once too early, and not too late.
        events, last = [], self._last_event
        while more := self._console.events(last, _SLICE):
            last = more[-1].number
            events += more
        whole = began >= self._whole_at
        views = self._console.views() if whole else self._console.views(self._last_event)
        changed = [view for view in views if self._views.get(view.id) != view]
        gone = self._views.keys() - {view.id for view in views} if whole else set()
        if whole:
            now = time.monotonic()
            self._whole_at = now + max(_LOOK_S, _LOOK_REST * (now - began))
        packages = [_package(each) for each in self._console.packages()]
        with self._lock:
            self._revision += 1
            self._last_event = last
            for view in changed:
                self._views[view.id] = view
                self._set_row(view.id, asdict(view))
            for device_id in gone:
                del self._views[device_id]
                self._set_row(device_id, {"id": device_id, "gone": True})
            self._events.extend((event.number, _json(asdict(event))) for event in events)
            if packages != self._packages:
                self._packages, self._packages_revision = packages, self._revision
                return True
        return bool(changed or gone or events)

    def _set_row(self, device_id: str, row: dict[str, Any]) -> None:
        self._rows.pop(device_id, None)  # to the end, even where it was there
        self._rows[device_id] = self._revision, _json(row)

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(lambda: [each.set() for each in self._listeners])

    # -- one browser -------------------------------------------------------------------------

    async def stream(self, after: str, more: dict[str, Any]) -> AsyncIterator[ServerSentEvent]:
        """All that a browser is told, until the feed ends.

        after: the id of the last message that it got, "" for a new one; more: what the first
        message tells as well.
        """
        self._loop = asyncio.get_running_loop()
        news = asyncio.Event()
        self._listeners.add(news)
        try:
            revision, event = self._place(after)
            fresh = revision == event == 0
            hello = _message("hello", {"fresh": fresh} | more)
            hello.retry = 1000
            yield hello
            while not self._ended.is_set():
                news.clear()
                messages, revision, event = self._news(revision, event)
                for message in messages:
                    yield message
                await news.wait()
        finally:
            self._listeners.discard(news)

    def _place(self, after: str) -> tuple[int, int]:
        """Row and event up to which a browser knows all; 0, 0 for one of another console."""
        name, _, rest = after.partition(".")
        revision, _, event = rest.partition(".")
        if name == self._name and revision.isdecimal() and event.isdecimal():
            return int(revision), int(event)
        return 0, 0

    def _news(self, revision: int, event: int) -> tuple[list[ServerSentEvent], int, int]:
        """What is newer than these numbers, and the numbers up to which it is."""
        messages = []
        with self._lock:
            if self._packages_revision > revision or not revision:
                messages.append(_message("packages", {"packages": self._packages}))
            rows = []
            for changed, row in reversed(self._rows.values()):
                if changed <= revision:
                    break
                rows.append(row)
            events = [text for number, text in self._events if number > event]
            missed = max(0, self._last_event - event - len(events)) if event else 0
            revision, event = self._revision, self._last_event
        rows.reverse()
        for at in range(0, len(rows), _SLICE):
            part = ",".join(rows[at : at + _SLICE])
            messages.append(_raw("rows", f'"rows":[{part}]'))
        if events:
            messages.append(_raw("events", f'"missed":{missed},"events":[{",".join(events)}]'))
        if messages:
            messages[-1].id = f"{self._name}.{revision}.{event}"
        return messages, revision, event


def beat() -> ServerSentEvent:
    """Says that the connection lives; a comment would not reach the page's code."""
    return _message("beat", {})


def _message(name: str, fields: dict[str, Any]) -> ServerSentEvent:
    return ServerSentEvent(_json({"now": time.time()} | fields), event=name)


def _raw(name: str, fields: str) -> ServerSentEvent:
    return ServerSentEvent(f'{{"now":{time.time()},{fields}}}', event=name)


def _json(fields: dict[str, Any]) -> str:
    # As ASCII: a text from a node may hold half a surrogate pair, which is no UTF-8.
    short = {
        name: value[:_LONGEST] + "…" if isinstance(value, str) and len(value) > _LONGEST else value
        for name, value in fields.items()
    }
    return json.dumps(short, separators=(",", ":"))


def _package(package: Any) -> dict[str, Any]:
    fields = ("fuid", "name", "type", "size", "added")
    return {name: getattr(package, name, None) for name in fields}
