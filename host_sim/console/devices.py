"""A table of devices: `id,key,channel[,board]`, with a first line that names them or without."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from host_sim.console.registry import Device, check_device
from host_sim.errors import SimError

_NEEDED = ("id", "key", "channel")
_COLUMNS = (*_NEEDED, "board")


def read_devices(path: Path) -> list[Device]:
    """The devices of a CSV file. Where its first line names columns, others are ignored.

    Raises SimError, with the line, when it is not such a table.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SimError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise SimError(f"{path} is no text in UTF-8") from None
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: dict[str, int] | None = None
    found: dict[str, tuple[int, Device]] = {}
    try:
        for row in rows:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if columns is None:
                names = ["id" if cell.lower() == "device_id" else cell.lower() for cell in cells]
                # Known for names wherever `id` stands: else they would be a device.
                if "id" in names or len(set(_COLUMNS).intersection(names)) > 1:
                    missing = [name for name in _NEEDED if name not in names]
                    if missing:
                        raise SimError(f"no column {', '.join(missing)} in its first line")
                    if names.count("id") > 1:  # a platform's own number, and the node's
                        raise SimError("both id and device_id name a column: keep one")
                    columns = {name: names.index(name) for name in _COLUMNS if name in names}
                    continue
                columns = {name: i for i, name in enumerate(_COLUMNS)}
            device = _device(cells, columns)
            if device.device_id in found:
                line = found[device.device_id][0]
                raise SimError(f"device {device.device_id!r} stands in line {line} already")
            found[device.device_id] = rows.line_num, device
    except (csv.Error, SimError) as error:
        raise SimError(f"{path}, line {rows.line_num}: {error}") from error
    if not found:
        raise SimError(f"{path}: there is no device in it: write lines of id,key,channel")
    return [device for _, device in found.values()]


def _device(cells: list[str], columns: dict[str, int]) -> Device:
    def cell(name: str) -> str:
        place = columns.get(name, len(cells))
        return cells[place] if place < len(cells) else ""

    if len(cells) < len(_NEEDED):
        raise SimError("must be id,key,channel and perhaps board")
    device = Device(cell("id"), cell("key"), cell("channel"), cell("board") or None)
    check_device(device)
    return device
