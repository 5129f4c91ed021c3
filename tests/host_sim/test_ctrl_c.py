"""Ctrl-C ends every command in one line, with exit code 130, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from host_sim.node import flash
from tests.brokers import need

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120
MEMORY = Path("/dev/shm")
#: From Ctrl-C to the end of the process, on a busy machine.
END_S = 60  # a busy machine; ctrl_c.py has the limits that count

#: Each long-running command, as small as it gets; IMG is a node's flash, DIR a folder.
COMMANDS = {
    "demo": "host_sim demo",
    "console": "host_sim console --dir DIR",
    "console mosquitto": "host_sim console --dir DIR --broker mosquitto",
    "node": "host_sim node IMG --wakes 100000 --max-boots 100000",
    "board": "host_sim board IMG",
    "powercut": "host_sim powercut --jobs 2",
    "powercut sample": "host_sim powercut --jobs 2 --depth 2 --sample 500",
    "obstacles": "host_sim powercut --jobs 2 --obstacles --sample 500",
    "mix": "host_sim powercut --jobs 2 --mix 500",
    "storm": "host_sim powercut --jobs 2 --storm",
    "keys": "host_sim powercut --jobs 2 --keys",
    "badlink": "host_sim badlink",
    "badlink part": "host_sim badlink --part everywhere",
    "fuzz": "host_sim fuzz --jobs 2",
    "bench": "host_sim bench",
    "scripts": "host_sim scripts --jobs 2",
    "orders": "host_sim orders --jobs 2",
    "lives": "host_sim lives --jobs 2",
    "wakes": "host_sim wakes --jobs 2",
    "fleet": "host_sim fleet --nodes 6",
    "brokers": "host_sim brokers --cell mosquitto",
    "archives": "tests.package.archives --jobs 2",
    "deploy": "insigh_ota.deploy deploy --port PORT --provision FILE",
    "status": "insigh_ota.deploy status --port PORT",
    "provision": "insigh_ota.deploy provision --file FILE",
    "package": "insigh_ota.package build ROOT --out OUT.tar.gz --try IMG",
    "keygen": "insigh_ota.package keygen DIR/key",
}
#: Those that are over before anybody presses a key: only their imports can be interrupted.
SHORT = ("deploy", "status", "provision", "package", "keygen")
#: These have more to tell on stderr.
TALKERS = ("console", "console mosquitto", "board", "node")
#: These also run in the default set of tests.
QUICK = ("demo", "console", "powercut", "scripts")

NEW_NODE = 'print("up")\nimport machine, time\ntime.sleep(0.05)\nmachine.deepsleep(1)\n'


# A command whose threads do not hear of its end.
THREADS = """
import subprocess, sys, tempfile, threading, time
from pathlib import Path
from host_sim import ctrl_c

def make_folders():
    while True:
        folder = Path(tempfile.gettempdir(), "a", "b")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "c").touch()
        except OSError:
            pass

def start_processes():
    while True:
        subprocess.run(["sleep", "30"])

def main():
    for work in (make_folders, make_folders, start_processes):
        threading.Thread(target=work, daemon=True).start()
    print("ready", flush=True)
    time.sleep(300)

sys.exit(ctrl_c.run(main))
"""


class Command:
    """A command in a session of its own, as a terminal starts it."""

    def __init__(self, name: str, folder: Path, *options: str) -> None:
        places = {"IMG": folder / "node.img", "DIR": folder / "dir", "FILE": folder / "who.json"}
        places |= {"PORT": folder / "port", "ROOT": folder / "root", "OUT": folder / "out"}
        (folder / "root").mkdir()
        (folder / "root/main.py").write_text(NEW_NODE)
        flash.build(folder / "root", folder / "node.img", mpy=True)
        self.scratch = folder / "tmp"
        self.scratch.mkdir()
        words = COMMANDS[name].split()
        for place, path in places.items():
            words = [word.replace(place, str(path)) for word in words]
        # What killed commands have left there; the number of one may come again.
        self._left = set(MEMORY.glob("host_sim-*"))
        self.stderr = folder / "stderr"
        with self.stderr.open("wb") as err, (folder / "stdout").open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, *options, "-m", *words],
                cwd=ROOT,
                env=os.environ | {"TMPDIR": str(self.scratch)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def processes(self) -> list[int]:
        """It, and all that it has started: they have its TMPDIR, or a folder in it."""
        mark = f"TMPDIR={self.scratch}".encode()
        found = []
        for file in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in file.read_bytes():
                    found.append(int(file.parent.name))
        return found

    def folders(self) -> list[Path]:
        """Its temporary folders."""
        in_memory = set(MEMORY.glob(f"host_sim-{self.process.pid}-*")) - self._left
        return [*self.scratch.iterdir(), *in_memory]

    def wait_for(self, seen: Callable[[], object]) -> None:
        give_up = time.monotonic() + PATIENCE_S
        while not seen():
            assert self.process.poll() is None, self.stderr.read_text()
            assert time.monotonic() < give_up, self.stderr.read_text()
            time.sleep(0.01)

    def press(self, group: bool) -> None:
        """Ctrl-C: a terminal sends it to the whole group; `kill -INT` to one process."""
        (os.killpg if group else os.kill)(self.process.pid, signal.SIGINT)

    def judge(self) -> str:
        """Wait for its end, look at what is left, and return what stands on stderr."""
        code = self.process.wait(END_S)
        text = self.stderr.read_text()
        assert code == 130, text
        deadline = time.monotonic() + 20  # who was killed goes in its own time
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        names = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left]
        assert not left, names
        assert not self.folders()
        return text


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Start a command of COMMANDS."""
    started: list[Command] = []

    def begin(name: str, *options: str) -> Command:
        if name in ("console mosquitto", "fleet", "brokers", "scripts", "badlink"):
            need("mosquitto")
        started.append(Command(name, tmp_path, *options))
        return started[-1]

    yield begin
    for command in started:
        for pid in command.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        command.process.wait()


def some(names: list[str]) -> list:
    """All of them, most of them slow."""
    return [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names
    ]


@pytest.mark.parametrize(
    "module", ["host_sim", "insigh_ota.deploy", "insigh_ota.package", "tests.package.archives"]
)
def test_while_it_imports(start: Callable[..., Command], module: str):
    name = next(name for name, words in COMMANDS.items() if words.startswith(module))
    command = start(name, "-X", "importtime")
    command.wait_for(
        lambda: (
            "host_sim.errors" in command.stderr.read_text()
            or "click" in command.stderr.read_text()
            or "argparse" in command.stderr.read_text()
        )
    )
    command.press(group=True)
    said = [line for line in command.judge().splitlines() if "import time:" not in line]
    assert said == ["stopped"]


# A command in which Ctrl-C comes as soon as its first own module is there.
EARLY = """
import os, runpy, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if "host_sim.ctrl_c" in sys.modules:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), 2)

for name in ("enum", "signal"):
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Finder())
sys.argv = ["x", "--help"]
runpy.run_module(%r, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    "module", ["host_sim", "insigh_ota", "insigh_ota.deploy", "insigh_ota.package"]
)
def test_before_the_first_import(module: str):
    done = subprocess.run(
        [sys.executable, "-c", EARLY % module],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


@pytest.mark.parametrize(
    "group", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["group", "process"]
)
@pytest.mark.parametrize("after_s", [0.5, pytest.param(6, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", some([name for name in COMMANDS if name not in SHORT]))
def test_while_it_works(start: Callable[..., Command], name: str, after_s: float, group: bool):
    command = start(name)
    command.wait_for(command.folders)  # made behind the imports
    time.sleep(after_s)
    command.press(group)
    said = command.judge().splitlines()
    assert said[-1].startswith("stopped")
    assert "Traceback" not in "".join(said)
    assert len(said) == 1 or name in TALKERS, said


@pytest.mark.parametrize("name", some(["powercut", "fuzz", "badlink", "brokers", "fleet"]))
def test_twice(start: Callable[..., Command], name: str):
    command = start(name)
    command.wait_for(lambda: len(command.processes()) > 2)
    for _ in range(3):
        command.press(group=True)
        time.sleep(0.05)
    assert command.judge().startswith("stopped")


def test_threads_that_go_on(start: Callable[..., Command], tmp_path: Path):
    """What they make behind the Ctrl-C goes as well."""
    command = start("demo", "-c", THREADS)  # in the place of demo
    command.wait_for(lambda: "ready" in (tmp_path / "stdout").read_text())
    command.press(group=False)
    assert command.judge() == "stopped\n"
