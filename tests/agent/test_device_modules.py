"""The tests of tests/device, run inside MicroPython against the agent as source and compiled."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from host_sim.node.node import run_code

ROOT = Path(__file__).parents[2]
DEVICE = ROOT / "tests" / "device"
MODULES = sorted(DEVICE.glob("test_*.py"))


@pytest.mark.check
@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_inside_micropython(module: Path, agent: Path):
    """Every test function of the module ran, and passed."""
    result = run_code(module.read_text(), path=[agent, DEVICE], heap="32M")
    expected = set(re.findall(r"^def (test_\w+)", module.read_text(), re.MULTILINE))
    passed = set(re.findall(r"^ok (\w+)", result.output, re.MULTILINE))
    assert expected
    assert passed == expected, result.output
    assert "FAILED" not in result.output


def test_a_failing_device_test_is_seen(compiled: Path):
    """The runner itself can fail."""
    script = "import check\ndef test_wrong():\n    check.equal(1, 2)\ncheck.run(globals())\n"
    result = run_code(script, path=[compiled, DEVICE])
    assert "FAILED test_wrong" in result.output
    assert "ok" not in result.output


@pytest.mark.parametrize("place", ["ota", "lib/ota"])
def test_the_package_imports_from_both_places(place: str, agent: Path, tmp_path: Path):
    from host_sim.node import flash
    from host_sim.node.node import Node

    target = tmp_path / "root" / place
    shutil.copytree(agent / "ota", target, ignore=shutil.ignore_patterns("__pycache__"))
    flash.build(tmp_path / "root", tmp_path / "node.img", agent=False)
    code = "import ota\nprint(ota.Agent, ota.load_config, ota.confirm, ota.status())\n"
    run = Node(tmp_path / "node.img").exec(code)
    assert "<class 'Agent'>" in run.output, run.output
    assert "'state': 'idle'" in run.output
