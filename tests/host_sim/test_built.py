"""`make frozen`: its builds and its measuring; MicroPython itself is not built in CI."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_sim.bench import built
from host_sim.bench.heap import Bench
from host_sim.bench.laboratory import FLASH, FROZEN, ROMFS, Laboratory
from host_sim.errors import SimError
from host_sim.node import flash, romfs
from host_sim.node.node import Node
from host_sim.sample import write_tree

HEADER = """\
#define MICROPY_VERSION_MAJOR 1
#define MICROPY_VERSION_MINOR 28
#define MICROPY_VERSION_MICRO 3
#define MICROPY_VERSION_PRERELEASE %d
"""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A folder that looks like MicroPython's sources; `make` there keeps what it was told."""
    tell = "all:\n\t@mkdir -p $(BUILD) && echo $(MAKEFLAGS) > $(BUILD)/micropython\n"
    files = {"py/mpconfig.h": HEADER % 0, "ports/unix/Makefile": tell}
    return write_tree({name: text.encode() for name, text in files.items()}, tmp_path / "mpy")


@pytest.mark.parametrize("where", [FLASH, ROMFS, FROZEN])
def test_each_place_has_a_build_of_its_own(sources: Path, where: str):
    program = built.build(sources, where)
    told = program.read_text()
    assert program.parent.name == f"build-ota-{where.lower()}"
    assert "MICROPY_FORCE_32BIT=1" in told
    inputs = sources / "ports" / "unix" / f"build-ota-{where.lower()}-manifest"
    assert f"FROZEN_MANIFEST={inputs}/manifest.py" in told
    manifest = (inputs / "manifest.py").read_text()
    assert 'require("umqtt.simple")' in manifest
    assert ("romfs_image" in manifest) == (where == ROMFS)
    assert (f'include("{flash.FIRMWARE.parent}/manifest.py")' in manifest) == (where == FROZEN)
    image: dict = {}
    exec((inputs / "romfs_image.py").read_text(), image)
    assert image["IMAGE"] == romfs.build(flash.FIRMWARE)


def test_a_build_that_fails_says_why(sources: Path):
    (sources / "ports/unix/Makefile").write_text("all:\n\t@echo no compiler here; exit 1\n")
    with pytest.raises(SimError, match="no compiler here"):
        built.build(sources, FLASH)


def test_which_release(sources: Path, tmp_path: Path):
    assert built.version(sources) == "1.28.3"
    (sources / "py/mpconfig.h").write_text(HEADER % 1)
    assert built.version(sources) == "1.28.3-preview"
    with pytest.raises(SimError, match="not MicroPython's sources"):
        built.version(tmp_path)


def test_a_node_takes_the_image_that_its_interpreter_holds(tmp_path: Path):
    """Here it is a module on flash, which is found as a frozen one is."""
    image = romfs.build(flash.FIRMWARE)
    root = write_tree({"romfs_image.py": f"IMAGE = {image!r}\n".encode()}, tmp_path / "root")
    flash.build(root, tmp_path / "node.img", blocks=128, agent=False)
    run = Node(tmp_path / "node.img", stock=False, romfs=True).exec(
        "import sys\nprint('romfs_image' in sys.modules)\nimport ota\nprint(ota.__file__)"
    )
    assert run.output == "False\n/rom/lib/ota/__init__.mpy\n"


def test_an_agent_in_romfs_takes_less(tmp_path: Path):
    used = {}
    for where in (FLASH, ROMFS):
        with Laboratory(where=where) as laboratory, Bench(laboratory) as bench:
            image = romfs.build(flash.FIRMWARE)
            if where == ROMFS:
                (laboratory.inside / "romfs_image.py").write_text(f"IMAGE = {image!r}\n")
                assert set(laboratory.agent_tree()) == {"boot.py"}
            start, _, after = bench.idle_use()  # the image is mounted before the start
            used[where] = after - start
    assert 0 < used[ROMFS] < used[FLASH]


def test_what_is_not_frozen_is_not_measured_as_if_it_were():
    with (
        Laboratory(where=FROZEN) as laboratory,
        Bench(laboratory) as bench,
        pytest.raises(SimError, match="no module named 'ota'"),
    ):
        bench.idle_use()
