"""The state file: all that a rollout has to know after it was stopped at any moment.

It is written beside, synced and renamed before anything that it tells of is done. No key is in it.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from host_sim import files
from host_sim.errors import SimError
from insigh_ota.rollout.gates import Rules
from insigh_ota.rollout.records import Record

_FORMAT = 1


@dataclass(frozen=True)
class Package:
    """What the request says of it."""

    fuid: str
    type: str
    size: int

    def request(self) -> bytes:
        """The message, as docs/protocol.md has it."""
        pack = [
            {"n": "e", "v": 0},
            {"n": "i", "vs": self.fuid},
            {"n": "t", "vs": self.type},
            {"n": "s", "v": self.size},
        ]
        return json.dumps(pack, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Times:
    """In seconds."""

    silence: float = 2 * 86400
    """Without an end for so long a device counts as silent."""
    settle: float = 3600
    """So long after an `e:1` that says installed, an `e:2` may follow."""


@dataclass
class State:
    """What the file has."""

    package: Package
    seed: str
    devices: str
    """The fleet's fingerprint."""
    size: int
    """How many devices the fleet has."""
    where: str
    rules: Rules = field(default_factory=Rules)
    times: Times = field(default_factory=Times)
    report: str = "installed"
    number: str = field(default_factory=lambda: secrets.token_hex(4))
    """Names the rollout: in the names of its sessions at the broker."""
    stage: str = "running"
    """running, stopped, done or cancelled."""
    why: str = ""
    """Why it stopped."""
    away: float = 0.0
    """For how many seconds the broker was away: the rollout's clock stood still."""
    steps: int = 0
    records: dict[str, Record] = field(default_factory=dict)

    def head(self) -> dict[str, Any]:
        """All but the records."""
        return {
            name: asdict(value) if hasattr(value, "__dataclass_fields__") else value
            for name, value in vars(self).items()
            if name != "records"
        }


def load(path: Path) -> State | None:
    """What an earlier run has written; None: there is no file. Raises SimError."""
    damaged = f"{path} is no state file of a rollout, or is damaged: "
    advice = "take it from a backup, or move it away and begin with a new one"
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if value.pop("rollout") != _FORMAT:
            raise SimError(f"{path} was written by another version of this command")
        state = State(
            package=Package(**value.pop("package")),
            rules=Rules(**(rules := value.pop("rules")) | {"waves": tuple(rules["waves"])}),
            times=Times(**value.pop("times")),
            records={one: Record.from_json(r) for one, r in value.pop("records").items()},
            **value,
        )
        _check(state)
        return state
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SimError(f"{path} can not be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise SimError(damaged + advice) from error
    except RecursionError as error:
        raise SimError(damaged + advice) from error


def _check(state: State) -> None:
    """Raise ValueError for what no rollout writes: it would show in the middle of one."""
    texts = (state.seed, state.devices, state.where, state.report, state.number, state.why)
    texts += (state.package.fuid, state.package.type)
    rules, times = state.rules, state.times
    numbers = (state.away, rules.max_failed, rules.max_silent, rules.guard)
    numbers += (times.silence, times.settle, *rules.waves)
    counts = (state.size, state.steps, state.package.size)
    if not (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(number, (int, float)) and 0 <= number < 1e12 for number in numbers)
        and all(isinstance(count, int) and count >= 0 for count in counts)
        and state.stage in ("running", "stopped", "done", "cancelled")
        and state.report in ("installed", "confirmed")
        and state.package.type in (".tar", ".tar.gz")
        and state.package.fuid
        and all(a < b for a, b in pairwise((0, *rules.waves, 100.1)))
        and 100 in rules.waves
    ):
        raise ValueError


class Store:
    """Writes the state; thread-safe. Many that want it written at once share one writing.

    Whoever changes the state holds `lock`, and says what has `changed()`.
    """

    def __init__(self, path: Path, state: State) -> None:
        self.path, self.state = path, state
        self.lock = threading.RLock()
        self._writing = threading.Lock()
        self.version, self._written = 1, 0
        # Each record as it is in the file, so that a write costs what has changed.
        self._lines: dict[str, str] = {}
        self._stale = set(state.records)

    def changed(self, *device_ids: str) -> None:
        """There is something to write: of these records, or of what stands before them."""
        self.version += 1
        self._stale.update(device_ids)

    def commit(self) -> None:
        """Return when all that was changed so far is on disk. Raises SimError."""
        with self.lock:
            wanted = self.version
        with self._writing:
            if self._written >= wanted:
                return
            with self.lock:
                version, text = self.version, self._text()
            self._write(text)
            self._written = version

    def _text(self) -> str:
        for one in self._stale:
            # ASCII: what a node says may be no Unicode at all, such as half a character.
            record = self.state.records[one].as_json()
            self._lines[one] = f"{json.dumps(one)}: {json.dumps(record)}"
        self._stale.clear()
        head = json.dumps({"rollout": _FORMAT, **self.state.head()}).removesuffix("}")
        return head + ', "records": {\n' + ",\n".join(self._lines.values()) + "\n}}"

    def _write(self, text: str) -> None:
        files.write(self.path, text + "\n", mode=0o600, sync=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time works with a state file. Raises SimError."""
    with files.locked(path, f"another rollout is at work with {path}: wait for it"):
        yield
