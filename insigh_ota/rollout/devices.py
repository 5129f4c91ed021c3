"""Who the fleet is: a CSV with each device's id, key, channel and board."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from host_sim.errors import SimError

#: The columns of a file that has no line of names.
COLUMNS = ("id", "key", "channel", "board", "report")
REPORTS = ("installed", "confirmed")
_SHOWN = 20
#: MQTT's own limit for a topic, a user name and a password is 65,535 bytes.
_LONGEST = 1024
# Separators and wildcards of MQTT topics.
_FORBIDDEN = frozenset("/+#")


@dataclass(frozen=True)
class Device:
    """One node. `report`: what its `e:1` means, None: what `--report` says."""

    id: str
    key: str = field(repr=False)
    channel: str
    board: str = ""
    report: str | None = None

    def topic(self, leaf: str) -> str:
        """One of its topics."""
        return f"channels/{self.channel}/messages/{self.id}/{leaf}"


def read(path: Path, *, credentials: bool = True) -> list[Device]:
    """The devices of a CSV. Without `credentials` only `id` has to be there.

    The first line may name the columns, in any order, and has to where there are not the first
    three. Raises SimError that names every bad line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except OSError as error:
        raise SimError(f"{path} can not be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SimError(f"{path} is not UTF-8: save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise SimError(f"{path}, line {reader.line_num}: {error}") from error
    if not lines:
        raise SimError(f"{path} has no devices")
    columns: tuple[str, ...] = COLUMNS
    names = tuple(name.strip().lower() for name in lines[0][1])
    needed = COLUMNS[:3] if credentials else COLUMNS[:1]
    # A line of names has to be known for one wherever `id` stands in it: a column of keys that is
    # taken for another is shown.
    if {"id", "device_id"}.intersection(names) or len(set(COLUMNS).intersection(names)) > 1:
        columns = tuple("id" if name == "device_id" else name for name in names)
        del lines[0]
    elif not credentials and any(len(row) == 2 for _, row in lines):
        raise SimError(f"{path}: name its columns in the first line, such as id,board")
    if not lines:
        raise SimError(f"{path} has no devices")
    missing = [name for name in needed if name not in columns]
    if missing:
        raise SimError(f"{path}: no column {', '.join(missing)} in its first line")
    if columns.count("id") > 1:
        raise SimError(f"{path}: both id and device_id name a column: keep one")
    found: dict[str, tuple[int, Device]] = {}
    wrong = []
    for number, row in lines:
        cells = dict(zip(columns, (cell.strip() for cell in row), strict=False))
        fault = _fault(cells, needed)
        if not fault and cells["id"] in found:
            fault = f"the id {cells['id']!r} stands in line {found[cells['id']][0]} as well"
        if fault:
            wrong.append(f"line {number}: {fault}")
            continue
        *values, report = (cells.get(name, "") for name in COLUMNS)
        found[cells["id"]] = number, Device(*values, report or None)
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise SimError(f"{path}, nothing was sent: {'; '.join(wrong[:_SHOWN])}{more}")
    return [device for _, device in found.values()]


def _fault(cells: dict[str, str], needed: Iterable[str]) -> str:
    """What is wrong with a line; never with the key in it."""
    empty = [name for name in needed if not cells.get(name)]
    if empty:
        return f"no {' and no '.join(empty)}"
    for name in ("id", "key", "channel"):
        if len(cells.get(name, "").encode()) > _LONGEST:
            return f"the {name} is longer than {_LONGEST} bytes"
    for name in ("id", "channel"):
        value = cells.get(name, "")
        if not value.isprintable() or " " in value or _FORBIDDEN.intersection(value):
            return f"{name} {value!r}: printable text without spaces, '/', '+' and '#'"
    if not cells.get("key", "").isprintable():
        return "the key has characters that can not be printed"
    if not cells.get("board", "").isprintable():
        return "the board has characters that can not be printed"
    if cells.get("report", "") not in ("", *REPORTS):
        return f"report {cells['report']!r}: installed or confirmed"
    return ""


def digest(devices: Iterable[Device]) -> str:
    """A fingerprint of ids, channels and boards, whatever their order; of no key."""
    lines = sorted(f"{d.id}\t{d.channel}\t{d.board}" for d in devices)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def in_order(devices: Iterable[Device], seed: str) -> dict[str, list[str]]:
    """Of each board its ids in the order in which they are asked: random, and fixed by the seed.

    The same for any order of the file and any version of Python.
    """
    boards: dict[str, list[str]] = {}
    for device in devices:
        boards.setdefault(device.board, []).append(device.id)
    return {
        board: sorted(ids, key=lambda one: hashlib.sha256(f"{seed}:{one}".encode()).digest())
        for board, ids in sorted(boards.items())
    }
