"""It is the same code: the simulator runs what is flashed, and that knows of no simulator."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from host_sim.node import flash
from host_sim.node.node import Node

ROOT = Path(__file__).parents[2]
FIRMWARE = ROOT / "firmware"
SOURCES = sorted(FIRMWARE.rglob("*.py"))


def test_there_is_firmware():
    assert len(SOURCES) >= 10


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_firmware_knows_of_no_simulator(source: Path):
    text = source.read_text()
    for word in ("host_sim", "simulat", "virtual", "unix", "pytest", "_sim"):
        assert word not in text.lower(), word


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_rules_of_device_code(source: Path):
    text = source.read_text()
    assert not re.search(r"^\s*assert\b", text, re.MULTILINE), "gone under -O3"
    assert not re.search(r"except\s*:", text), "a bare except hides what went wrong"
    assert "import typing" not in text and "from typing" not in text
    assert len(text.splitlines()) <= 420


def test_what_a_node_runs_is_byte_for_byte_the_firmware(tmp_path: Path):
    image = tmp_path / "node.img"
    flash.build(None, image)
    tree = flash.read_tree(image)
    expected = {"/" + p.relative_to(FIRMWARE).as_posix(): p.read_bytes() for p in SOURCES}
    assert tree == expected
    # And the node itself reads the same through its own littlefs.
    code = """
import hashlib, os, binascii
def walk(folder):
    for name, kind, *_ in os.ilistdir(folder or "/"):
        path = folder + "/" + name
        if kind & 0x4000:
            walk(path)
        else:
            with open(path, "rb") as file:
                print(path, binascii.hexlify(hashlib.sha256(file.read()).digest()).decode())
walk("")
"""
    import hashlib

    output = Node(image).exec(code).output
    seen = dict(line.split() for line in output.splitlines() if line)
    assert seen == {name: hashlib.sha256(data).hexdigest() for name, data in expected.items()}


def test_no_module_of_the_agent_is_replaced_on_the_node(tmp_path: Path):
    """Everything named ota… that a node has in memory came from its own flash."""
    image = tmp_path / "node.img"
    flash.build(None, image)
    code = """
import sys
import ota, ota.agent, ota.https, ota.package.inflate
import ota.install.staging, ota.recovery, ota.tarfile_lite
for name in sys.modules:
    if name.startswith("ota"):
        module = sys.modules[name]
        print(name, getattr(module, "__file__", "") or module.__path__)  # a folder has no file
"""
    lines = Node(image).exec(code).output.split("\n")
    seen = dict(line.split() for line in lines if line)
    assert len(seen) >= 10
    for name, file in seen.items():
        assert file.lstrip("/").startswith("ota/"), (name, file)
