"""The state file: all that a rollout has to know after it was stopped at any moment.

It is written beside, synced and renamed before anything that it tells of is done. No key is in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import secrets
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
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

    def dump(self) -> str:
        """The file's text."""
        head = {
            name: asdict(value) if hasattr(value, "__dataclass_fields__") else value
            for name, value in vars(self).items()
            if name != "records"
        }
        lines = {one: record.as_json() for one, record in self.records.items()}
        # ASCII: what a node says may be no Unicode at all, such as half a character.
        return json.dumps({"rollout": _FORMAT, **head, "records": lines})


def load(path: Path) -> State | None:
    """What an earlier run has written; None: there is no file. Raises SimError."""
    damaged = f"{path} is no state file of a rollout, or is damaged: "
    advice = "take it from a backup, or move it away and begin with a new one"
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if value.pop("rollout") != _FORMAT:
            raise SimError(f"{path} was written by another version of this command")
        return State(
            package=Package(**value.pop("package")),
            rules=Rules(**(rules := value.pop("rules")) | {"waves": tuple(rules["waves"])}),
            times=Times(**value.pop("times")),
            records={one: Record.from_json(r) for one, r in value.pop("records").items()},
            **value,
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SimError(f"{path} can not be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SimError(damaged + advice) from error


class Store:
    """Writes the state; thread-safe. Many that want it written at once share one writing.

    Whoever changes the state holds `lock`, and says `changed()`.
    """

    def __init__(self, path: Path, state: State) -> None:
        self.path, self.state = path, state
        self.lock = threading.RLock()
        self._writing = threading.Lock()
        self._version, self._written = 1, 0

    def changed(self) -> None:
        """There is something to write."""
        self._version += 1

    def commit(self) -> None:
        """Return when all that was changed so far is on disk. Raises SimError."""
        with self.lock:
            wanted = self._version
        with self._writing:
            if self._written >= wanted:
                return
            with self.lock:
                version, text = self._version, self.state.dump()
            self._write(text)
            self._written = version

    def _write(self, text: str) -> None:
        files.write(self.path, text + "\n", mode=0o600, sync=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time works with a state file. Raises SimError."""
    beside = path.with_name(path.name + ".lock")
    try:
        file = beside.open("w")
    except OSError as error:
        raise SimError(f"{beside} can not be written: {files.why(beside, error)}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SimError(f"another rollout is at work with {path}: wait for it") from error
        yield
