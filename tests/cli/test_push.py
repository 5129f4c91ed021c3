"""`insigh-ota push`: a folder becomes what a node runs; what fails leaves a state that is told."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from host_sim.command import run
from host_sim.console import Console
from host_sim.console.control import ControlServer
from host_sim.node import flash
from host_sim.sample import DEVICE_ID, Tree, main_py, write_tree
from host_sim.site import Site
from insigh_ota import push as module
from insigh_ota.package.attempt import attempt, new_node
from insigh_ota.package.build import build
from insigh_ota.package.errors import PackageError
from insigh_ota.package.keys import from_pem
from insigh_ota.package.sources import Selection
from tests import signing

PROJECT = Path(__file__).parents[2]
TREE: Tree = {"main.py": main_py(2), "lib/größe <b>.txt": b"text"}


class Shell:
    """Somebody who types `push …` beside a console that runs."""

    def __init__(self, console: Console, folder: Path, capsys: pytest.CaptureFixture) -> None:
        self.console, self.folder, self._capsys = console, folder, capsys
        self.err = ""

    def tree(self, tree: Tree = TREE, name: str = "my node") -> Path:
        """A node's root."""
        (self.folder / name).mkdir()
        return write_tree(tree, self.folder / name)

    def words(self, *words: object) -> list[str]:
        return ["--dir", str(self.console.directory), *map(str, words)]

    def type(self, *words: object, code: int = 0) -> str:
        """What it prints."""
        self._capsys.readouterr()
        ended = run(module.push, self.words(*words), program="push")
        out, self.err = self._capsys.readouterr()
        assert ended == code, (out, self.err)
        return out

    def refused(self, *words: object, code: int = 2) -> str:
        """The one line of what goes wrong."""
        self.type(*words, code=code)
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("push: ")
        return self.err

    def wait_for_request(self, device: str) -> bool:
        """False when it does not come."""
        return self.console.wait_for(lambda: self.console.view(device).state == "requested", 60)

    def asked(self, device: str = "d1") -> bool:
        return self.console.retained(device) is not None


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture) -> Iterator[Shell]:
    with Console(tmp_path / "a console") as console, ControlServer(console):
        for device in ("d1", "<b>d2"):
            console.add_device(device, "key", "channel")
        yield Shell(console, tmp_path, capsys)


@pytest.fixture
def answer(shell: Shell) -> Iterator[Callable[[str, str], None]]:
    """Let a device report `e`, with a reason or none, once it is asked."""
    threads = []

    def begin(device: str, e: int, reason: str | None = None) -> None:
        def play() -> None:
            console = shell.console
            assert shell.wait_for_request(device)
            fuid = console.view(device).fuid
            console.request_raw(device, b"")
            pack = [{"n": "e", "v": e}, {"n": "i", "vs": fuid}]
            pack += [{"n": "m", "vs": reason}] if reason else []
            console.request_raw(device, json.dumps(pack), retain=False)

        threads.append(threading.Thread(target=play))
        threads[-1].start()

    yield begin
    for thread in threads:
        thread.join()


def steps(text: str) -> list[str]:
    """The first word of each line, each of which tells how long it took."""
    lines = text.splitlines()
    assert all(re.match(r"\w+ +\d+\.\d s  \S", line) for line in lines), text
    return [line.split()[0] for line in lines]


@pytest.mark.check
def test_a_folder_reaches_a_node(shell: Shell) -> None:
    with Site(shell.folder, shell.console) as site:

        def wake() -> None:
            shell.wait_for_request(DEVICE_ID)
            site.run()

        node = threading.Thread(target=wake)
        node.start()
        told = shell.type(shell.tree(), DEVICE_ID)
        node.join()
        assert steps(told) == ["build", "try", "store", "request", "wait", "report"]
        assert "my node: 2 files, " in told
        assert "a new virtual node confirmed it; main.py was run afterwards, and " in told
        (package,) = shell.console.packages()
        assert f"as {package.fuid}, in {shell.console.directory}" in told
        assert "1 of 1 device answered" in told
        assert f"{package.fuid}: 1 installed on trial" in told
        assert flash.read_tree(site.image)["/main.py"] == TREE["main.py"]
        assert flash.read_tree(site.image)["/lib/größe <b>.txt"] == b"text"


def test_one_of_two_does_not_take_it(
    shell: Shell, answer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer("d1", 1)
    answer("<b>d2", 2, "rolled back: [red]\x1b[2J 3 boots\nwithout confirm")
    line = shell.refused(shell.tree(), "--all", "--no-try", code=1)
    assert "report: 1 of 2 did not take it: <b>d2 rolled back (rolled back: [red]" in line
    assert "\x1b" not in line
    assert "stays requested" not in line


def test_who_does_not_answer_stays_requested(shell: Shell) -> None:
    line = shell.refused(shell.tree(), "d1", "d1", "<b>d2", "--no-try", "--timeout", "0.5", code=3)
    assert "report: 2 of 2 did not answer in time: d1, <b>d2. " in line
    assert "`console cancel` withdraws what stays requested" in line
    assert shell.asked()
    told = shell.type(shell.folder / "my node", "d1", "--no-try", "--no-wait")
    assert steps(told) == ["build", "try", "store", "request"]


def test_another_request_takes_its_place(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    fuid = shell.console.add_package(b"x", "x.tar").fuid
    real = module._request

    def request(*arguments: object) -> int:
        after = real(*arguments)
        shell.console.request("d1", fuid)
        return after

    monkeypatch.setattr(module, "_request", request)
    line = shell.refused(shell.tree(), "d1", "--no-try", code=1)
    assert f"d1 replaced (asked for {fuid} meanwhile)" in line


def test_who_is_removed_meanwhile(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module._request

    def request(*arguments: object) -> int:
        after = real(*arguments)
        shell.console.remove_devices(["d1"])
        return after

    monkeypatch.setattr(module, "_request", request)
    assert "d1 failed (removed)" in shell.refused(shell.tree(), "d1", "--no-try", code=1)


def test_json_is_for_programs(shell: Shell) -> None:
    out = shell.type(shell.tree(), "d1", "--no-try", "--json", "--timeout", 0, code=3)
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["step"] for line in lines] == [
        *("build", "try", "store", "request", "wait", "report")
    ]
    assert all(line["seconds"] >= 0 for line in lines)
    assert lines[1]["tried"] is False
    assert lines[2]["fuid"] == shell.console.packages()[0].fuid
    assert lines[5]["devices"] == [{"id": "d1", "state": "requested", "message": None}]
    assert "build " in shell.err
    out = shell.type(shell.folder / "none", "d1", "--json", code=2)
    assert json.loads(out)["error"].endswith("none is no folder")


def test_what_is_wrong_before_the_first_step(shell: Shell) -> None:
    root = shell.tree()
    for words, told in (
        ([root], "which devices? Name their ids, or --all, and not both"),
        ([root, "d1", "--all"], "and not both"),
        ([root, "d3", "d1"], "does not know d3: `console list` tells whom it knows"),
        ([root, "--all", "--key", root], "--sequence N is missing"),
        ([root, "d1", "--no-try", "--image", root], "--image IMG and --no-try"),
    ):
        assert told in shell.refused(*words)
    assert not shell.console.packages()
    shell.type(code=2)
    assert "missing argument 'FOLDER'" in shell.err
    shell.type("", "d1", code=2)
    assert "no name given" in shell.err
    shell.words = lambda *words: list(map(str, words))
    assert "upload it on the platform's page Packages" in shell.refused(root, "d1")
    assert "no console is running in" in shell.refused(root, "d1", "--dir", shell.folder)


def test_nothing_is_stored_that_is_not_built_or_not_taken(shell: Shell) -> None:
    left = "Nothing is stored, and nothing is requested"
    bad = {"main.py": b"def (\n"}, {"ota.json": b'{"device_key": "x"}'}, {}
    for number, tree in enumerate(bad):
        line = shell.refused(shell.tree(tree, str(number)), "d1")
        assert re.match(rf"push: build: .*\. {left}$", line)
        assert "--unchecked" not in line  # push has no such option
    large = shell.tree({"large.bin": random.Random(1).randbytes(2_100_000)}, "large")
    line = shell.refused(large, "d1")
    assert re.match(
        rf"push: try: the virtual node did not take it: not enough space.* {left}$", line
    )
    line = shell.refused(shell.tree(), "d1", "--image", shell.folder / "no.img")
    assert "push: try: no flash image" in line
    assert not shell.console.packages()
    assert not shell.asked()
    assert "--exclude ota.json" in shell.refused(shell.folder / "1", "d1")
    shell.type(shell.folder / "1", "d1", "--exclude", "ota.json", "--no-try", code=2)  # empty


def test_nothing_is_requested_that_is_not_stored(shell: Shell) -> None:
    shutil.rmtree(shell.console.directory / "packages")
    line = shell.refused(shell.tree(), "d1", "--no-try")
    assert "push: store: " in line
    assert "can not be written" in line
    assert "Nothing is stored, and nothing is requested" in line
    assert not shell.asked()
    assert not shell.console.packages()


def test_a_request_that_is_refused(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_known", lambda *_: ["d1", "gone"])
    line = shell.refused(shell.tree(), "d1", "--no-try")
    fuid = shell.console.packages()[0].fuid
    assert "push: request: device 'gone' is not known" in line
    assert f"It is stored as {fuid}, and nothing is requested" in line
    assert not shell.asked()


def test_without_the_simulator(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MICROPYTHON", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    told = shell.type(shell.tree(), "d1", "--no-wait")
    assert "not tried: it needs the simulator: pip install '.[sim]'" in told
    line = shell.refused(shell.folder / "my node", "d1", "--image", shell.folder)
    assert "push: try: --image needs the simulator: pip install '.[sim]'" in line


def test_a_signature_is_tried_with_its_key(shell: Shell) -> None:
    pem, _ = signing.key(1).write(shell.folder)
    told = shell.type(shell.tree(), "d1", "--no-wait", "--key", pem, "--sequence", 3)
    assert ", signed with key " in told
    assert "the signature was not checked" not in told
    other = from_pem(signing.key(2).write(shell.folder)[0])
    node = new_node(shell.folder, from_pem(pem).modulus)
    content = build(Selection({"a": b"1"}), sequence=1, signer=other, window=13)
    with pytest.raises(PackageError, match="did not take it: manifest: unknown key"):
        attempt(content, node, signed=True)


# Ctrl-C comes as a function of push begins, or within a call of the console.
DRIVER = """
import os, signal, sys
from host_sim import ctrl_c
from host_sim.console import wait
from insigh_ota import push as module

where, words = sys.argv[1], sys.argv[2:]
real, call = getattr(module, where, None), module.call

def press(*arguments):
    os.kill(os.getpid(), signal.SIGINT)
    return real(*arguments)

def press_in_call(directory, operation, *arguments):
    if operation == where:
        os.kill(os.getpid(), signal.SIGINT)
    return call(directory, operation, *arguments)

if real:
    setattr(module, where, press)
module.call = wait.call = press_in_call

def main():
    try:
        module.push(words)
    except SystemExit as end:
        return end.code

sys.exit(ctrl_c.run(main))
"""


@pytest.mark.parametrize(
    ("where", "told", "stored", "asked"),
    [
        ("_known", "stopped", 0, False),
        ("_build", "stopped at build. Nothing is stored, and nothing is requested", 0, False),
        ("_try", "stopped at try. Nothing is stored, and nothing is requested", 0, False),
        ("_store", "stopped at store. Nothing is stored, and nothing is requested", 0, False),
        ("package_add", "stopped at store. It is stored as FUID, and nothing is req", 1, False),
        ("_request", "stopped at request. It is stored as FUID, and nothing is req", 1, False),
        ("request_many", "stopped at request. FUID stays requested of d1: `console can", 1, True),
        ("views", "stopped at wait. FUID stays requested of d1: `console cancel` with", 1, True),
        ("_report", "stopped at report. FUID stays requested of d1: `console cancel`", 1, True),
    ],
)
def test_ctrl_c_leaves_what_it_tells(
    shell: Shell, where: str, told: str, stored: int, asked: bool
) -> None:
    words = shell.words(shell.tree(), "d1", "--no-try", "--timeout", "0")
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, where, *words],
        cwd=PROJECT,
        env=os.environ | {"TMPDIR": str(shell.folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    packages = shell.console.packages()
    assert done.returncode == 130, done
    assert done.stderr.startswith(told.replace("FUID", "".join(p.fuid for p in packages)))
    assert done.stderr.count("\n") == 1
    assert len(packages) == stored
    assert shell.asked() is asked
