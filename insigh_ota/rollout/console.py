"""Visits by way of the simulated console, which keeps what the nodes said as long as it runs."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from host_sim.console.control import call
from host_sim.console.state import PENDING
from host_sim.errors import SimError
from insigh_ota.rollout import devices as fleet
from insigh_ota.rollout.devices import Device
from insigh_ota.rollout.records import Phase, Sign
from insigh_ota.rollout.state import Package, State
from insigh_ota.rollout.visits import Away, Book, Heard, Task

_SIGNS = {
    "requested": Sign.SENT,
    "overdue": Sign.SENT,
    "downloading": Sign.BEGUN,
    "installed on trial": Sign.APPLIED,
    "confirmed": Sign.CONFIRMED,
    "rolled back": Sign.FAILED,
    "failed": Sign.FAILED,
}
_LOOKS = (Task.LOOK, Task.LOOK_WELL)


def devices(directory: Path, path: Path | None) -> list[Device]:
    """The console's devices, or those of a CSV of `id[,board]`. Raises SimError."""
    known = {
        one["id"]: Device(one["id"], "", one["channel"], one.get("board") or "")
        for one in call(directory, "device_list")
    }
    if path is None:
        if not known:
            raise SimError(f"the console in {directory} has no devices: add some first")
        return list(known.values())
    wanted = fleet.read(path, credentials=False)
    missing = [device.id for device in wanted if device.id not in known]
    if missing:
        raise SimError(f"{path}: the console does not know {', '.join(missing[:20])}")
    return [
        Device(one.id, "", known[one.id].channel, one.board or known[one.id].board, one.report)
        for one in wanted
    ]


def package(
    directory: Path, fuid: str | None, file: Path | None, known: Package | None
) -> Package:
    """The console's package of that file id; without one the file is added. Raises SimError."""
    if fuid is None and known is not None:
        fuid = known.fuid
    if fuid is None:
        if file is None:
            raise SimError("say --fuid of a package of the console, or --file PACKAGE to add it")
        fuid = call(directory, "package_add", str(file.resolve()))["fuid"]
    for one in call(directory, "package_list"):
        if one["fuid"] == fuid:
            return Package(fuid, one["type"], one["size"])
    raise SimError(f"the console in {directory} has no package {fuid!r}")


class ConsoleTransport:
    """All visits that are due are one call; one batch at a time."""

    def __init__(self, directory: Path, fuid: str, state: State) -> None:
        self._directory, self._fuid, self._state = directory, fuid, state
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="console")

    def start(self, tasks: Mapping[str, Task], book: Book) -> None:
        """Begin with these."""
        self._pool.submit(self._run, dict(tasks), book)

    def close(self) -> None:
        """Wait for what was begun."""
        self._pool.shutdown(cancel_futures=True)

    def _run(self, tasks: dict[str, Task], book: Book) -> None:
        error: Exception | None = None
        try:
            self._visit(tasks, book)
        except Exception as caught:
            error = caught
        for device_id in tasks:
            book.done(device_id, error)

    def _visit(self, tasks: dict[str, Task], book: Book) -> None:
        views = {view["id"]: view for view in self._call("views")["views"]}
        asked = []
        for one, task in tasks.items():
            if task is Task.FORGET:
                book.forgotten(one)
                continue
            if one not in views:
                raise SimError(f"the console does not know {one!r} any more")
            view = views[one]
            book.heard(one, self._signs(one, view))
            if task in _LOOKS:
                book.looked(one, task, self._is_ours(view))
            elif task is Task.ASK:
                asked.append(one)
        asked = book.may_send(asked, True)
        if asked:
            self._call("request_many", asked, self._fuid)
            for one in asked:
                book.heard(one, [(Sign.SENT, "")])
        withdraw = [one for one, task in tasks.items() if task is Task.WITHDRAW]
        ours = [one for one in withdraw if self._is_ours(views[one])]
        if ours:
            self._call("cancel", ours)
        for one in withdraw:
            book.looked(one, Task.WITHDRAW, one in ours)
        book.commit()
        for one in tasks:
            if book.is_over(one):
                book.forgotten(one)

    def _is_ours(self, view: dict[str, Any]) -> bool:
        return view["state"] in PENDING and view["fuid"] == self._fuid

    def _signs(self, device_id: str, view: dict[str, Any]) -> Heard:
        record = self._state.records[device_id]
        state = view["state"]
        if view["fuid"] != self._fuid:
            return [(Sign.OTHER, f"it was asked for {view['fuid']}")] if state in PENDING else []
        # What is older belongs to an earlier request of the same package.
        if view["since"] < record.asked or record.phase is Phase.DUE:
            return []
        sign = _SIGNS.get(state, Sign.GONE)
        return [(sign, view["message"] or "no reason was given")]

    def _call(self, operation: str, *arguments: Any) -> Any:
        try:
            return call(self._directory, operation, *arguments)
        except SimError as error:
            # It may come back, unless it has answered.
            if "no console is running" in str(error) or "broke off" in str(error):
                raise Away(str(error)) from error
            raise
