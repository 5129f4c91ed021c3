"""The agent in the firmware's ROMFS: its updates, and an agent on flash that takes its place."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from host_sim import sample
from host_sim.errors import SimError
from host_sim.node import flash, romfs
from host_sim.node.agent_code import compile_all
from host_sim.node.node import Node, run_code
from host_sim.sample import Tree, write_tree
from tests import signing
from tests.conftest import FIRMWARE, MakeSite
from tests.package.signed.packages import package

MAIN = """\
import machine
import ota

print("version %d runs, agent", ota.__version__, "of", ota.__file__)
agent = ota.Agent(ota.load_config())
print("check:", agent.check(), agent.reason)
machine.deepsleep(60_000)
"""
ROM = "of /rom/lib/ota/__init__.mpy"
FROZEN = "of ota/__init__.py"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ROMFS image with the agent."""
    path = tmp_path_factory.mktemp("romfs") / "rom.romfs"
    path.write_bytes(romfs.build(FIRMWARE))
    return path


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """An agent of another version, compiled, as a package brings it."""
    folder = tmp_path_factory.mktemp("newer")
    for source in FIRMWARE.rglob("*.py"):
        text = source.read_text().replace('__version__ = "', '__version__ = "9.')
        write_tree({source.relative_to(FIRMWARE).as_posix(): text.encode()}, folder)
    compile_all(folder, folder / "made")
    made = folder / "made"
    return {f.relative_to(made).as_posix(): f.read_bytes() for f in made.rglob("*.mpy")}


@pytest.fixture(params=["romfs", "frozen"])
def where(request: pytest.FixtureRequest) -> str:
    """Where the agent lies in the firmware."""
    return request.param


def test_found_as_on_a_board(image: Path, tmp_path: Path):
    code = """
        import os, sys
        print(sys.path, os.listdir('/'), os.listdir('/rom'))
        from ota import recovery
        print(sys.modules['ota'].__file__, recovery.__file__)
        for name in ('/rom/x', '/x/y'):
            try: os.rename('/here', name)
            except OSError as error: print(error.errno)
    """
    root = write_tree({"here": b"x"}, tmp_path / "root")
    flash.build(root, tmp_path / "node.img", blocks=32, agent=False)
    run = Node(tmp_path / "node.img", stock=False, romfs=image).exec(textwrap.dedent(code))
    assert run.output.splitlines() == [
        "['', '.frozen', '/rom', '/rom/lib', '/lib'] ['rom', 'here'] ['lib']",
        "/rom/lib/ota/__init__.mpy /rom/lib/ota/recovery.mpy",
        "1",
        "2",
    ]


def test_its_image_takes_none_of_the_heap(image: Path, tmp_path: Path):
    code = "import gc\ngc.collect()\nprint(gc.mem_free())"
    flash.build(None, tmp_path / "node.img", blocks=32, agent=False)
    plain = Node(tmp_path / "node.img", stock=False, heap="64K").exec(code).output
    with_it = Node(tmp_path / "node.img", stock=False, heap="64K", romfs=image).exec(code).output
    assert abs(int(plain) - int(with_it)) < 1024, (plain, with_it)


def test_no_image(tmp_path: Path):
    flash.build(None, tmp_path / "node.img", blocks=32, agent=False)
    with pytest.raises(SimError, match="ROMFS"):
        Node(tmp_path / "node.img", stock=False, romfs=tmp_path / "none").run()


# The image


@pytest.mark.check
def test_mpremote_builds_the_same_image(tmp_path: Path):
    more = write_tree({"x.py": b"y = 1\n", "lib/z.bin": b"\xff\x00"}, tmp_path / "more")
    romfs.lay(tmp_path / "rom", FIRMWARE, more)
    command = ["romfs", "--output", tmp_path / "theirs", "build", tmp_path / "rom"]
    subprocess.run([sys.executable, "-m", "mpremote", *command], check=True, capture_output=True)
    assert (tmp_path / "theirs").read_bytes() == romfs.build(FIRMWARE, more)


def test_the_image_has_these_files(tmp_path: Path):
    """MicroPython's own reader finds all of the agent, byte for byte, and what is laid beside."""
    more = write_tree({"x.py": b"y = 1\n", "lib/z.bin": b"\xff\x00"}, tmp_path / "more")
    (tmp_path / "image").write_bytes(romfs.build(FIRMWARE, more))
    script = f"""
import vfs
from binascii import crc32
with open({str(tmp_path / "image")!r}, "rb") as file:
    rom = vfs.VfsRom(file.read())
def show(folder):
    for entry in rom.ilistdir(folder):
        path = folder + "/" + entry[0]
        if entry[1] == 0x4000:
            show(path)
        else:
            with rom.open(path, "rb") as file:
                print(path, crc32(file.read()))
show("")
"""
    compile_all(FIRMWARE, tmp_path / "agent")
    files = {
        f"/lib/{f.relative_to(tmp_path / 'agent').as_posix()}": f for f in agent_files(tmp_path)
    }
    seen = dict(line.split() for line in run_code(script).output.splitlines())
    assert seen.pop("/lib/z.bin") == str(crc(b"\xff\x00"))
    assert seen.pop("/x.mpy")
    assert seen == {name: str(crc(path.read_bytes())) for name, path in files.items()}


def agent_files(folder: Path) -> list[Path]:
    """The compiled modules below `folder`/agent."""
    return [path for path in (folder / "agent").rglob("*") if path.is_file()]


def crc(content: bytes) -> int:
    """CRC-32, as MicroPython's binascii has it."""
    from zlib import crc32

    return crc32(content)


@pytest.mark.parametrize("name", ["ota/x.py", "lib/ota/x.py"])
def test_another_agent_is_not_mixed_in(tmp_path: Path, name: str):
    more = write_tree({name: b""}, tmp_path / "more")
    with pytest.raises(SimError, match="has its own"):
        romfs.build(FIRMWARE, more)
    with pytest.raises(SimError, match="no folder"):
        romfs.build(FIRMWARE, tmp_path / "none")


# The agent in it


@pytest.mark.check
def test_an_update(make_site: MakeSite):
    site = make_site({"main.py": (MAIN % 1).encode(), "data.txt": b"old"}, romfs=True)
    assert [n for n in site.files if "ota" in n] == ["/ota.json"]
    assert "/boot.py" in site.files
    content = {"main.py": (MAIN % 2).encode(), "data.txt": b"new", "lib/more.py": b"more = 1\n"}
    fuid = site.ask(sample.tar_gz(content))
    run = site.run()
    assert run.exit_code == 0, run.output
    assert "version 2 runs" in run.output
    assert ROM in run.output
    assert run.names() == ["boot", "reset", "boot", "sleep", "flash"]
    assert site.flash_files() == site.files | {"/" + n: c for n, c in content.items()}
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    again = site.run()
    assert "check: idle" in again.output
    assert again.ops == 0


def test_a_roll_back(make_site: MakeSite):
    site = make_site({"main.py": (MAIN % 1).encode()}, romfs=True, config={"trial_deadline_s": 60})
    fuid = site.ask(sample.tar_gz({"main.py": b"1/0\n", "data.txt": b"new"}))
    run = site.run(wakes=2)
    assert "version 1 runs" in run.output
    assert site.flash_files() == site.files
    assert [report["e"] for report in site.reports()] == [1, 2]
    assert site.reports()[-1]["i"] == fuid


def test_a_copy_of_recovery_is_kept_meanwhile(make_site: MakeSite):
    """As on flash, so that a package with an agent of its own breaks no roll back."""
    site = make_site({"main.py": (MAIN % 1).encode()}, romfs=True)
    site.ask(sample.tar_gz({"main.py": (MAIN % 2).encode()}))
    site.run(stop=lambda event: event["event"] == "reset")
    kept = [name for name in site.flash_files() if name.startswith("/.ota/recovery.")]
    assert kept == ["/.ota/recovery.mpy"]


def test_nothing_is_brought_into_it(make_site: MakeSite):
    site = make_site({"main.py": (MAIN % 1).encode()}, romfs=True)
    site.ask(sample.tar_gz({"rom/lib/ota/__init__.mpy": b"M"}))
    assert "can not apply: another filesystem: /rom" in site.run().output
    assert site.flash_files() == site.files
    assert [report["e"] for report in site.reports()] == [2]


# An agent on flash over that of the firmware


@pytest.mark.check
def test_an_agent_on_flash_comes_first(make_site: MakeSite, newer: Tree, where: str):
    site = make_site({"main.py": (MAIN % 1).encode()}, **{where: True})
    content = newer | {"main.py": (MAIN % 2).encode()}
    fuid = site.ask(sample.tar_gz(content))
    run = site.run()
    assert "version 2 runs, agent 9." in run.output, run.output
    assert "of ota/__init__.mpy" in run.output
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    assert site.flash_files() == site.files | {"/" + n: c for n, c in content.items()}
    # It updates the node again, by itself.
    site.ask(sample.tar_gz({"main.py": (MAIN % 3).encode()}))
    run = site.run()
    assert "version 3 runs, agent 9." in run.output, run.output
    assert "check: idle" in site.run().output


@pytest.mark.few(3)
@pytest.mark.parametrize("broken", ["__init__", "agent", "recovery"])
def test_one_that_is_broken_goes_again(make_site: MakeSite, newer: Tree, where: str, broken: str):
    site = make_site(
        {"main.py": (MAIN % 1).encode()}, config={"trial_deadline_s": 60}, **{where: True}
    )
    content = {n: c for n, c in newer.items() if n != f"ota/{broken}.mpy"}
    content[f"ota/{broken}.py"] = b"raise ValueError\n"
    fuid = site.ask(sample.tar_gz(content | {"main.py": (MAIN % 2).encode()}))
    run = site.run(wakes=2)
    assert run.output.rstrip().endswith("check: idle None"), run.output
    assert {"romfs": ROM, "frozen": FROZEN}[where] in run.output.splitlines()[-2]
    assert site.flash_files() == site.files
    assert site.flash_folders() == site.folders
    assert [report["e"] for report in site.reports()] == [1, 2]
    assert site.reports()[-1]["i"] == fuid


def test_half_of_an_agent_hides_the_whole_one(make_site: MakeSite, newer: Tree, where: str):
    """MicroPython finds the folder `/ota` first, and looks nowhere else: so it is rolled back."""
    site = make_site(
        {"main.py": (MAIN % 1).encode()}, config={"trial_deadline_s": 60}, **{where: True}
    )
    half = {"ota/cycle.mpy": newer["ota/cycle.mpy"], "main.py": (MAIN % 2).encode()}
    site.ask(sample.tar_gz(half))
    run = site.run(wakes=2)
    assert "version 1 runs" in run.output.splitlines()[-2], run.output
    assert site.flash_files() == site.files
    assert site.flash_folders() == site.folders
    assert [report["e"] for report in site.reports()] == [1, 2]


def test_an_agent_in_lib_is_not_seen(make_site: MakeSite, newer: Tree, where: str):
    """The firmware's stands before `/lib`."""
    site = make_site({"main.py": (MAIN % 1).encode()}, **{where: True})
    content = {f"lib/{name}": content for name, content in newer.items()}
    site.ask(sample.tar_gz(content | {"main.py": (MAIN % 2).encode()}))
    run = site.run()
    (line,) = [line for line in run.output.splitlines() if line.startswith("version 2 runs")]
    assert "agent 0." in line
    assert line.endswith({"romfs": ROM, "frozen": FROZEN}[where])


def test_an_empty_folder_hides_it_too(make_site: MakeSite, newer: Tree, where: str):
    """A package can delete the files of `/ota`, not the folder: so there is no way back by air."""
    site = make_site(
        newer | {"main.py": (MAIN % 1).encode(), "ota.key1": signing.key(1).modulus},
        config={"trial_deadline_s": 60},
        **{where: True},
    )
    site.ask(package({"main.py": (MAIN % 2).encode()}, deleted=tuple(newer)), "p.tar")
    run = site.run(wakes=2)
    assert "AttributeError" in run.output
    assert "version 1 runs, agent 9." in run.output.splitlines()[-2], run.output
    assert site.flash_files() == site.files
    assert [report["e"] for report in site.reports()] == [1, 2]


@pytest.mark.few(3)
@pytest.mark.parametrize("share", [0.3, 0.55, 0.75, 0.9])
def test_the_power_fails_meanwhile(make_site: MakeSite, newer: Tree, where: str, share: float):
    """At places in staging, install and trial: the next boots end all of it."""
    site = make_site({"main.py": (MAIN % 1).encode()}, **{where: True})
    image = site.image.read_bytes()
    content = newer | {"main.py": (MAIN % 2).encode()}
    new = site.files | {"/" + n: c for n, c in content.items()}
    site.ask(sample.tar_gz(content))
    ops = site.run().ops
    site.image.write_bytes(image)
    fuid = site.ask(sample.tar_gz(content))
    assert site.run(cut=int(ops * share), torn="half").exit_code == 3
    site.run()
    assert site.flash_files() == new
    assert site.reports()[-1] == {"e": 1, "i": fuid, "m": None}
