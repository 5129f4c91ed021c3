"""Every hostile archive of the table is refused with its reason, and flash stays as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from host_sim.node.node import run_code
from tests.conftest import FIRMWARE
from tests.package.hostile import ATTACKS, LOOKALIKES, Attack
from tests.package.hostile.raw import END, OLD_TREE, member, pax

DEVICE = Path(__file__).parents[1] / "device"
SCRIPT = """
import staging_probe
_trial = False  # our boot.py has run: else nothing is installed
bundle = open(BUNDLE, "rb")
node = staging_probe.Node(FILES)
staging_probe.run_table(node, bundle, CASES)
"""
# What the journal and the folders may have taken of the twelve blocks that staging keeps back.
LEAST_FREE = 10


def try_on_node(agent: Path, scratch: Path, bodies: list[tuple]) -> list[dict]:
    """What a node made of each body; the rest of each is as `run_table` has it."""
    bundle = scratch / "bundle"
    bundle.write_bytes(b"".join(body for body, *_ in bodies))
    cases = [(len(body), *rest) for body, *rest in bodies]
    names = {"BUNDLE": str(bundle), "FILES": OLD_TREE, "CASES": cases}
    lines = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    result = run_code(lines + SCRIPT, path=[agent, DEVICE], heap="16M", timeout_s=100)
    assert result.exit_code == 0, result.output[-2000:]
    # Not splitlines(): names may hold what Unicode takes for the end of a line.
    return [json.loads(line) for line in result.output.split("\n") if line]


# conftest.py keeps these tests on one worker, or each worker would try all attacks.
@pytest.fixture(scope="module", params=[pytest.param("py", marks=pytest.mark.slow), "mpy"])
def seen(
    request: pytest.FixtureRequest, compiled: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict]:
    """What the node made of every attack, by name: one process for all of them."""
    agent = FIRMWARE if request.param == "py" else compiled
    bodies = [(a.build(), a.announced, a.length, a.protected) for a in ATTACKS]
    return dict(
        zip(
            [attack.name for attack in ATTACKS],
            try_on_node(agent, tmp_path_factory.mktemp("hostile"), bodies),
            strict=True,
        )
    )


def test_the_table_is_large_and_says_what_each_attack_is():
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 60
    for attack in ATTACKS:
        assert attack.about.endswith((".", "?")), attack.name


@pytest.mark.check
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_refused_with_its_reason_and_flash_as_it_was(attack: Attack, seen: dict[str, dict]):
    result = seen[attack.name]
    assert result["end"] == "failed", result
    assert result["reason"].startswith(attack.reason), result["reason"]
    report = [{"n": "e", "v": 2}, {"n": "i", "vs": "fa8884d2"}]
    report.append({"n": "m", "vs": result["reason"]})
    assert [json.loads(payload) for payload in result["published"]] == [report]
    assert not result["state"]
    assert result["outside"], "something outside /.ota was written while staging"
    assert result["untouched"], (result["new"], result["changed"])
    before, least, after = result["free"]
    assert after == before
    assert least >= LEAST_FREE


def test_lookalikes_are_harmless_and_keep_their_names(agent: Path, tmp_path: Path):
    bodies = []
    for name, _ in LOOKALIKES.values():
        parts = pax(path=name) + member(b"x", b"!") if len(name) > 100 else member(name, b"!")
        bodies.append((parts + END, 0, False, ()))
    results = try_on_node(agent, tmp_path, bodies)
    for (row, (_, path)), result in zip(LOOKALIKES.items(), results, strict=True):
        assert result["end"] == "reset", (row, result)
        assert result["new"] == [path], row
        assert result["changed"] == [], row
