"""The node of a release itself: its flash is a littlefs, and it ends where power does."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_sim import sample
from host_sim.errors import SimError
from host_sim.node import flash
from host_sim.node.node import Node
from host_sim.releases.node import Interpreter, ReleaseNode
from tests.brokers import need
from tests.conftest import MakeSite
from tests.interpreters.conftest import RELEASES
from tests.processes import descendants, lives

ROOT = Path(__file__).parents[2]
NEWEST = RELEASES[-1].name
COMPILED = [release.name for release in RELEASES if release.mpy]

RULES = """
import os
def wrong(call, *args):
    try:
        call(*args)
    except OSError as error:
        return error.args[0]
def put(path, text):
    with open(path, "w") as file:
        file.write(text)
os.mkdir("/a")
put("/a/x", "old")
put("/y", "new")
print(wrong(os.stat, "/none"), wrong(os.mkdir, "/a"), wrong(os.rmdir, "/a"), wrong(open, "/a"))
print(wrong(os.stat, "/y/z"), wrong(os.rename, "/none", "/z"), wrong(os.rename, "/a", "/y"))
os.rename("/y", "/a/x")
os.chdir("/a")
print(os.getcwd(), open("x").read(), os.listdir(), os.stat("x")[6], os.stat("/a")[0] == 0x4000)
put("/a/lines", "one\\ntwo\\n")
print(list(open("lines")), open("lines", "rb").readline(2), [e[0] for e in os.ilistdir("/")])
free = os.statvfs("/")[3]
put("/big", "x" * 9000)
print(free - os.statvfs("/")[3])
"""
UNCLOSED = """
import machine
with open("/closed", "w") as file:
    file.write("kept")
file = open("/open", "w")
file.write("lost")
try:
    machine.deepsleep(10)
finally:
    print("never said")
"""
USED = """
import gc
from _host import ask
def deep():
    kept = bytearray(50000)
    for _ in range(1000):
        bytearray(100)
    at = %s
    at and at(8)
    return kept
%s
ask(8)
"""


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Interpreter]:
    need("releases")
    with Interpreter(NEWEST) as made:
        yield made


@pytest.fixture
def node(tmp_path: Path, interpreter: Interpreter) -> ReleaseNode:
    image = tmp_path / "node.img"
    flash.build(None, image, blocks=64, agent=False)
    return ReleaseNode(image, interpreter)


def test_its_flash_is_as_that_of_an_interpreter_with_littlefs(node: ReleaseNode):
    """The same answers and errors as of MicroPython's own VfsLfs2, and the same on flash."""
    own = Node(node.image.with_name("own.img"), mtime=False)
    own.image.write_bytes(node.image.read_bytes())
    output = own.exec(RULES).output
    assert "2 17 39 21" in output
    assert node.run(code=RULES).output == output.replace("\r", "")
    assert flash.read_all(node.image) == flash.read_all(own.image)


def test_what_is_not_closed_is_not_on_flash_and_nothing_runs_after_the_end(node: ReleaseNode):
    run = node.run(code=UNCLOSED)
    assert run.names() == ["boot", "sleep"]
    assert "never said" not in run.output
    tree = flash.read_tree(node.image)
    assert tree["/closed"] == b"kept"
    assert tree.get("/open", b"") == b""


def test_power_fails_at_an_operation(node: ReleaseNode):
    ops = node.run(code=RULES).ops
    assert ops > 10
    flash.build(None, node.image, blocks=64, agent=False)
    run = node.run(code=RULES, cut=4, torn="half")
    assert run.names() == ["boot", "power_cut"]
    assert run.ops == 4
    assert run.output == ""
    flash.read_tree(node.image)  # it is a littlefs still


@pytest.mark.parametrize(
    ("whose", "wrong"), [("certificate", "wrong-ca"), ("mqtt_certificate", "wrong-host")]
)
def test_the_host_verifies_a_server(
    make_site: MakeSite, interpreter: Interpreter, whose: str, wrong: str
):
    site = make_site(tls=True, **{whose: wrong})
    site.node = ReleaseNode(site.image, interpreter)
    fuid = site.ask(sample.tar_gz({"main.py": sample.main_py(2)}))
    run = site.run()
    assert "check: later" in run.output, run.output
    assert "TLS failed" in run.output
    assert site.flash_files()["/main.py"] == site.files["/main.py"]
    assert fuid.encode() in (site.retained() or b"")


def test_one_that_does_not_end_is_ended(tmp_path: Path):
    need("releases")
    image = tmp_path / "node.img"
    flash.build(None, image, blocks=64, agent=False)
    with Interpreter(NEWEST) as own, pytest.raises(SimError, match="has ended"):
        ReleaseNode(image, own).run(code="print('round')\nwhile True: pass", timeout_s=1)


@pytest.mark.parametrize("name", [COMPILED[0], NEWEST])
def test_what_is_in_use_is_what_can_be_reached(name: str, tmp_path: Path):
    """Inside a call, without the garbage that no collection has seen yet."""
    need("releases")
    image = tmp_path / "node.img"
    flash.build(None, image, blocks=64, agent=False)
    found = []
    with Interpreter(name) as own:
        for code in (USED % ("None", ""), USED % ("None", "deep()"), USED % ("ask", "deep()")):
            run = ReleaseNode(image, own).run(code=code)
            assert run.names()[-1] == "used", run.output
            found.append(run.events[-1]["bytes"])
    start, after, inside = found
    assert abs(after - start) < 300
    assert 50_000 < inside - start < 50_300


FOR_EVER = f"""
from host_sim.releases.node import Interpreter, run_code
with Interpreter({NEWEST!r}) as made:
    run_code(made, "while True: pass", {{}}, timeout_s=1000)
"""


def test_a_busy_release_ends_with_a_host_that_was_killed() -> None:
    need("releases")
    with subprocess.Popen([sys.executable, "-c", FOR_EVER], cwd=ROOT) as host:
        try:
            end = time.monotonic() + 120
            while not any(map(busy, started := descendants(host.pid))):
                assert time.monotonic() < end
                time.sleep(0.05)
        finally:
            host.kill()
    end = time.monotonic() + 30
    while any(map(lives, started)):
        assert time.monotonic() < end
        time.sleep(0.01)


def busy(pid: int) -> bool:
    """Whether it has used two seconds of the processor: a start takes less."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False  # it has ended since it was found
    return sum(map(int, told.rpartition(")")[2].split()[11:13])) > 200
