"""A newcomer's first ten minutes, with every command read from docs/getting-started.md.

In a copy of the checkout, so that nothing of a developer's own is in the way or touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_sim.console.process_broker import reserved
from host_sim.sample import DEVICE_KEY
from tests.docs.readme import ROOT, commands, section
from tests.secrecy import holds_key

NEEDED = (
    "Makefile",
    "requirements.txt",
    "firmware",
    "host_sim",
    "insigh_ota",
    "tools",
    "examples",
)
PATIENCE_S = 120  # a busy machine


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The project, ready as after the first `make`."""
    folder = tmp_path / "insigh-ota"
    folder.mkdir()
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    # What `pip install -e .` would make.
    script = folder / "bin/insigh-ota"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} -m insigh_ota "$@"\n')
    script.chmod(0o755)
    # Older than the virtual environment: make has nothing to set up.
    for name in ("requirements.txt", "host_sim/node/stock.py"):
        os.utime(folder / name, (0, 0))
    return folder


class Person:
    """Types commands in the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # As with the environment of the page active.
        path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.env = os.environ | {"PATH": path}

    def type(self, command: str) -> str:
        """Run a command to its end; returns what it shows."""
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.folder,
            env=self.env,
            input=f"{DEVICE_KEY}\n",  # what it asks for, if it asks
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        shown = done.stdout + done.stderr
        assert done.returncode == 0, f"{command}\n{shown}"
        assert not holds_key(shown)
        return shown

    @contextlib.contextmanager
    def leave_running(self, command: str) -> Iterator[Path]:
        """Run a command in a terminal of its own, up to Ctrl-C; gives a file of what it shows."""
        screen = self.folder.parent / f"{command.split()[1]}.log"
        with screen.open("wb") as out:
            running = subprocess.Popen(
                ["sh", "-c", command],
                cwd=self.folder,
                env=self.env,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_for(lambda: '"ready"' in screen.read_text(), screen.read_text)
            yield screen
        finally:
            os.killpg(running.pid, signal.SIGINT)
            try:
                running.wait(60)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(running.pid, signal.SIGKILL)


def wait_for(seen, shown) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not seen():
        assert time.monotonic() < give_up, shown()
        time.sleep(0.1)


def quick_start(mqtt: int, https: int) -> list[str]:
    """The commands, in their order, with these two ports."""
    page = (ROOT / "docs/getting-started.md").read_text()
    text = section(page, "## A virtual board")
    assert "18883" in text
    assert "18443" in text
    return commands(text.replace("18883", str(mqtt)).replace("18443", str(https)))


@pytest.fixture
def ports() -> Iterator[list[int]]:
    """Two that no other program is given."""
    with reserved() as mqtt, reserved() as https:
        yield [mqtt, https]


@pytest.mark.slow
def test_from_nothing_to_a_node_that_updated_itself(checkout: Path, ports: list[int]) -> None:
    person = Person(checkout)
    board, console, *rest = quick_start(*ports)
    words = iter(rest)

    def type_next(expected: str, **put: str) -> str:
        """The next command, which has these words in it."""
        command = next(words)
        assert expected in command
        for word, value in put.items():
            assert word in command
            command = command.replace(word, value)
        return person.type(command)

    with person.leave_running(board) as events, person.leave_running(console):
        type_next("device add")
        type_next("insigh-ota provision")
        shown = type_next("insigh-ota deploy --port board.port")
        assert "verified by SHA-256 on the board" in shown
        assert "written to /ca.der" in type_next("insigh-ota ca")
        type_next("cp examples/quick_start/main.py")
        wait_for(lambda: asleep(events), events.read_text)
        shown = type_next("insigh-ota status")
        assert "that of this checkout" in shown
        assert "boot.py  ours\n" in shown
        type_next("sed")
        type_next("tar")
        fuid = json.loads(type_next("package add"))["fuid"]
        wait_for(lambda: asleep(events), events.read_text)
        assert fuid in type_next("request", FUID=fuid)
        type_next("mpremote connect board.port reset")
        command = next(words)
        assert "console --dir build/console status" in command
        told: list[dict] = []

        def reported() -> bool:
            told.append(json.loads(person.type(command)))
            return told[-1]["reports"] != []

        wait_for(reported, lambda: (told, events.read_text()))
        assert told[-1]["retained"] is None
        assert told[-1]["reports"] == [{"e": 1, "i": fuid, "m": None}]
        wait_for(lambda: asleep(events), events.read_text)
        shown = type_next("insigh-ota status")
        assert "update   none open" in shown
        assert "report   none waits" in shown
        assert "VERSION = 2" in type_next("cat :main.py")
    assert not list(words)


def asleep(events: Path) -> bool:
    """Whether the board has gone to sleep after its last boot."""
    # Up to the last line that is whole: it may just be written.
    whole = events.read_text().rpartition("\n")[0]
    lines = [line for line in whole.splitlines() if line.startswith("{")]
    return json.loads(lines[-1])["event"] == "sleep"
