"""The tests of tests/device in each release, their littlefs on the host."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from host_sim.releases.interpreters import Release
from host_sim.releases.node import Interpreter, run_code

DEVICE = Path(__file__).parents[1] / "device"
MODULES = sorted(DEVICE.glob("test_*.py"))
#: These two take longer than all the others together.
LONG = ("test_folders_deeper_than_the_stack", "test_any_delay_up_to_10_s")
#: To an interpreter without a loader of .mpy each is incompatible.
OF_MPY = (
    "test_a_stale_twin_is_retired_and_comes_back",
    "test_mpy_files_that_this_interpreter_does_not_load",
)


def run(interpreter: Interpreter, agent: Path, text: str) -> str:
    """What a module of tests says."""
    end = run_code(interpreter, text, {"/agent": agent, "/device": DEVICE})
    assert end.why == "exit"
    return end.output + (end.error or "")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_inside_a_release(module: Path, release: Release, interpreter: Interpreter, agent: Path):
    """Every test function of the module ran, and passed."""
    left_out = "|".join(LONG if release.mpy else LONG + OF_MPY)
    text = re.sub(f"^def (?={left_out})", "def _", module.read_text(), flags=re.MULTILINE)
    expected = set(re.findall(r"^def (test_\w+)", text, re.MULTILINE))
    output = run(interpreter, agent, text)
    assert expected
    assert set(re.findall(r"^ok (\w+)", output, re.MULTILINE)) == expected, output
    assert "FAILED" not in output


def test_a_failing_test_is_seen(interpreter: Interpreter, agent: Path):
    """The runner itself can fail."""
    text = "import check\ndef test_wrong():\n    check.equal(1, 2)\ncheck.run(globals())\n"
    output = run(interpreter, agent, text)
    assert "FAILED test_wrong" in output
    assert "ok" not in output
