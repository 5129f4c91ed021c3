"""The state file: whole or as it was, and what is done only behind a write."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from host_sim import files
from host_sim.errors import SimError
from insigh_ota.rollout.records import Phase, Record
from insigh_ota.rollout.state import Package, State, Store, load, locked


def state() -> State:
    fresh = State(Package("f1", ".tar", 5), "seed", "digest", 2, "host:1")
    fresh.records["a"] = Record(Phase.FAILED, 1.0, 2.0, "said \ud83d ü \x1b")
    return fresh


def test_what_is_written_is_read(tmp_path: Path):
    store = Store(tmp_path / "s.json", state())
    store.commit()
    assert load(store.path) == store.state
    assert load(tmp_path / "none.json") is None


def test_a_cut_file_is_refused_at_every_place(tmp_path: Path):
    path = tmp_path / "s.json"
    Store(path, state()).commit()
    whole = path.read_text()
    for end in range(len(whole) - 2):
        path.write_text(whole[:end])
        with pytest.raises(SimError, match="is damaged"):
            load(path)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("stage", "weird"),
        ("stage", None),
        ("size", "x"),
        ("size", -1),
        ("steps", 1.5),
        ("away", "x"),
        ("away", float("nan")),
        ("report", "perhaps"),
        ("seed", 7),
        ("package.size", "5"),
        ("package.fuid", None),
        ("rules.waves", []),
        ("rules.waves", [5, 50]),
        ("rules.waves", [50, 5, 100]),
        ("rules.waves", [float("inf"), 25, 50, 100]),
        ("package.type", "x"),
        ("package.fuid", ""),
        ("times.silence", float("inf")),
        ("records", {"a": [10**400]}),
        ("rules.guard", "1"),
        ("times.silence", None),
        ("records", []),
    ],
)
def test_what_no_rollout_writes_is_damage(tmp_path: Path, place: str, value: object):
    path = tmp_path / "s.json"
    Store(path, state()).commit()
    whole = json.loads(path.read_text())
    inside = whole
    *above, name = place.split(".")
    for each in above:
        inside = inside[each]
    assert name in inside
    inside[name] = value
    path.write_text(json.dumps(whole))
    with pytest.raises(SimError, match="is damaged"):
        load(path)


def test_nested_beyond_all_limits(tmp_path: Path):
    path = tmp_path / "s.json"
    path.write_text("[" * 100_000)
    with pytest.raises(SimError, match="is damaged"):
        load(path)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = Store(tmp_path / "s.json", state())
    store.commit()
    before = store.path.read_bytes()

    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    store.state.records["b"] = Record(Phase.DUE, 1.0, 1.0)
    store.changed("b")
    with pytest.raises(SimError, match="No space left"):
        store.commit()
    assert store.path.read_bytes() == before
    monkeypatch.undo()
    store.commit()
    written = load(store.path)
    assert written is not None and "b" in written.records


def test_many_at_once_share_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store, writes = Store(tmp_path / "s.json", state()), []
    write = files.write
    monkeypatch.setattr(files, "write", lambda *a, **k: (writes.append(1), write(*a, **k)))

    def change(number: int) -> None:
        with store.lock:
            store.state.records[f"n{number}"] = Record(Phase.DUE, 1.0, 1.0)
            store.changed(f"n{number}")
        store.commit()
        found = load(store.path)
        assert found is not None and f"n{number}" in found.records
        seen.append(number)

    seen: list[int] = []
    threads = [threading.Thread(target=change, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 40 and len(writes) <= 40


def test_one_process_at_a_time(tmp_path: Path):
    path = tmp_path / "s.json"
    with locked(path), pytest.raises(SimError, match="another rollout"), locked(path):
        pass
    with locked(path):
        pass
