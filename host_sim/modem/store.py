"""The modem's files (UFS), which survive its resets and the node's."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from host_sim.modem.commands import Commands

# What +CME ERROR says of files.
_READ_ZERO, _NO_SPACE, _NOT_FOUND, _TOO_MANY, _BAD_HANDLE, _IN_USE = 402, 403, 405, 413, 416, 426
#: Files that may be open at once.
MOST_OPEN = 10


class Store:
    """AT+QFLST, QFOPEN, QFSEEK, QFPOSITION, QFREAD, QFCLOSE, QFDEL and QFLDS."""

    def __init__(self, commands: Commands) -> None:
        self._at = commands
        self._open: dict[int, tuple[str, int]] = {}
        self._last = 0

    def commands(self) -> dict[str, Callable[[list[str]], None]]:
        """What it understands."""
        return {
            "AT+QFLST": lambda _: self._list(["*"]),
            "AT+QFLST=": self._list,
            "AT+QFLDS=": self._room,
            "AT+QFOPEN?": self._list_open,
            "AT+QFOPEN=": self._open_file,
            "AT+QFSEEK=": self._seek,
            "AT+QFPOSITION=": self._position,
            "AT+QFREAD=": self._read,
            "AT+QFCLOSE=": self._close,
            "AT+QFDEL=": self._delete,
        }

    def drop(self) -> None:
        """Close what is open."""
        self._open.clear()

    def room(self) -> int:
        """Bytes that are free."""
        return self._at.modem.store_bytes - sum(map(len, self._at.modem.files.values()))

    def _list(self, given: list[str]) -> None:
        files = self._at.modem.files
        found = [name for name in sorted(files) if fnmatch.fnmatchcase(name, _plain(given[0]))]
        if not found and given[0] != "*":
            self._at.error(_NOT_FOUND)
            return
        self._at.ok(*(f'+QFLST: "{name}",{len(files[name])}' for name in found))

    def _room(self, _given: list[str]) -> None:
        self._at.ok(f"+QFLDS: {self.room()},{self._at.modem.store_bytes}")

    def _list_open(self, _given: list[str]) -> None:
        self._at.ok(*(f'+QFOPEN: "{name}",{n},2' for n, (name, _) in self._open.items()))

    def _open_file(self, given: list[str]) -> None:
        name, mode = _plain(given[0]), given[1] if len(given) > 1 else "0"
        files = self._at.modem.files
        if mode == "2" and name not in files:
            self._at.error(_NOT_FOUND)
        elif any(name == other for other, _ in self._open.values()):
            self._at.error(_IN_USE)
        elif len(self._open) == MOST_OPEN:
            self._at.error(_TOO_MANY)
        else:
            if mode == "1":
                files[name] = b""
            files.setdefault(name, b"")
            self._last += 1
            self._open[self._last] = (name, 0)
            self._at.ok(f"+QFOPEN: {self._last}")

    def _handle(self, given: list[str]) -> tuple[int, str, int] | None:
        handle = int(given[0])
        if handle not in self._open or self._open[handle][0] not in self._at.modem.files:
            self._at.error(_BAD_HANDLE)
            return None
        return handle, *self._open[handle]

    def _seek(self, given: list[str]) -> None:
        found = self._handle(given)
        if found:
            handle, name, place = found
            size = len(self._at.modem.files[name])
            begin = {"0": 0, "1": place, "2": size}[given[2] if len(given) > 2 else "0"]
            self._open[handle] = (name, max(0, min(size, begin + int(given[1]))))
            self._at.ok()

    def _position(self, given: list[str]) -> None:
        found = self._handle(given)
        if found:
            self._at.ok(f"+QFPOSITION: {found[2]}")

    def _read(self, given: list[str]) -> None:
        found = self._handle(given)
        if not found:
            return
        handle, name, place = found
        content = self._at.modem.files[name]
        size = int(given[1]) if len(given) > 1 else len(content)
        data = content[place : place + size]
        if not data:
            self._at.error(_READ_ZERO)
            return
        self._open[handle] = (name, place + len(data))
        self._at.say(f"CONNECT {len(data)}")
        if self._at.fault == "truncate":
            self._at.send(data[: len(data) // 2])
            return
        self._at.send(data)
        self._at.say("OK")

    def _close(self, given: list[str]) -> None:
        if int(given[0]) not in self._open:
            self._at.error(_BAD_HANDLE)
            return
        del self._open[int(given[0])]
        self._at.ok()

    def _delete(self, given: list[str]) -> None:
        name, files = _plain(given[0]), self._at.modem.files
        if name == "*":
            files.clear()
            self._at.ok()
        elif name not in files:
            self._at.error(_NOT_FOUND)
        else:
            del files[name]
            self._at.ok()


def _plain(name: str) -> str:
    return name.removeprefix("UFS:")
