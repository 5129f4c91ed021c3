"""Waiting for the end of requests, from a process that is not the console."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host_sim.console.control import call
from host_sim.console.state import DONE, PENDING

#: Many devices that change at once are asked for together.
_PAUSE_S = 0.1
_PATIENCE_S = 5.0


@dataclass(frozen=True)
class End:
    """How the waiting ended. `open`: devices that had not, when the time was over."""

    succeeded: int
    failed: int
    open: int

    @property
    def code(self) -> int:
        """Exit code: 0 all succeeded, 1 not all, 3 the time is over."""
        return 3 if self.open else 1 if self.failed else 0

    @property
    def words(self) -> str:
        """One line."""
        late = f", {self.open} have not ended" if self.open else ""
        return f"{self.succeeded} succeeded, {self.failed} failed{late}"


def wait_for_end(
    directory: Path,
    device_ids: Iterable[str],
    fuid: str,
    after: int,
    timeout: float | None,
    tell: Callable[[dict[str, Any]], object],
) -> End:
    """Wait until each device has ended the request of a package; `tell` is given each change.

    `after` is the number of the last event before the request, `timeout` in seconds, None: none.
    Who is cancelled, removed, or asked for another package meanwhile has failed. Raises SimError
    when the console ends.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    waiting = set(device_ids)
    shown: dict[str, tuple[str, str | None]] = {}
    succeeded = failed = 0
    while waiting:
        left = _PATIENCE_S if deadline is None else deadline - time.monotonic()
        answer = call(directory, "views", after, max(0.0, min(left, _PATIENCE_S)))
        after = answer["last"]
        views = [view for view in answer["views"] if view["id"] in waiting]
        if not views:
            known = {device["id"] for device in call(directory, "device_list")}
            views = [_removed(device_id) for device_id in sorted(waiting - known)]
        for view in views:
            if view["fuid"] not in (fuid, None):
                view = view | {"message": f"asked for {view['fuid']} meanwhile"}
            if shown.get(view["id"]) != (view["state"], view["message"]):
                shown[view["id"]] = view["state"], view["message"]
                tell(view)
            if view["fuid"] == fuid and view["state"] in PENDING:
                continue
            waiting.discard(view["id"])
            if view["fuid"] == fuid and view["state"] in DONE:
                succeeded += 1
            else:
                failed += 1
        if deadline is not None and time.monotonic() >= deadline:
            break
        time.sleep(_PAUSE_S)
    return End(succeeded, failed, len(waiting))


def _removed(device_id: str) -> dict[str, Any]:
    return {"id": device_id, "state": "failed", "fuid": None, "message": "removed"}
