"""The second half of the migration, arrive.py: power cuts, failing flash, and odd nodes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from host_sim.node.flash_rules import TORN_KINDS
from host_sim.node.node import Run
from host_sim.node.process import compiled
from host_sim.sample import Tree
from insigh_ota.deploy import firmware
from insigh_ota.package import insighio, migrate
from insigh_ota.package.migrate import Migration
from tests.insighio.field import (
    ARRIVE,
    DONE,
    FIELD_OTA,
    FIELD_TREE,
    SETTLED,
    FieldNode,
    Platform,
    adapter,
    cut_at,
    first_half,
    is_reset,
    sweep,
    wrong,
)

BACK = "arrive: the field's updater comes back,"


@pytest.mark.parametrize(
    "kinds", [["none", "half", "done"], pytest.param(list(TORN_KINDS), marks=pytest.mark.slow)]
)
def test_power_fails_at_every_operation_of_the_second_half(
    tmp_path: Path, platform: Platform, package: Migration, kinds: list[str]
) -> None:
    node = FieldNode(tmp_path, platform)
    first_half(node)
    saved = node.save()
    total = node.run(wakes=2).ops
    node.load(saved)
    assert total > 20
    every = len(kinds) == len(TORN_KINDS)
    cases = [
        (op, kind)
        for op in range(1, total + 1)
        for kind in (kinds if every else [kinds[op % len(kinds)]])
    ]
    assert sweep(node, package, cases) == []


@pytest.mark.slow
def test_power_fails_twice_in_the_second_half(
    tmp_path: Path, platform: Platform, package: Migration
) -> None:
    node = FieldNode(tmp_path, platform)
    first_half(node)
    saved = node.save()
    total = node.run(wakes=2).ops
    node.load(saved)
    found = []
    for op in range(1, total + 1, 2):
        for second in range(1, total - op + 1, 3):
            node.load(saved)
            found += [(op, second, each) for each in cut_at(node, package, op, "half", second)]
    assert found == []


@pytest.mark.slow
def test_the_flash_fails_at_every_operation_of_the_second_half(
    tmp_path: Path, platform: Platform, package: Migration
) -> None:
    """An error in place of a cut, once: the next wake goes on."""
    node = FieldNode(tmp_path, platform)
    first_half(node)
    saved = node.save()
    total = node.run(wakes=2).ops
    for op in range(1, total + 1):
        node.load(saved)
        run = node.run(wakes=2, fail=(op, "EIO"))
        assert wrong(node, package, [run, node.run(wakes=2)]) == [], op


FAULTS = {
    "moved away": ('_copy("/boot.py", "/boot_user.py")', 'os.rename("/boot.py", "/boot_user.py")'),
    "not kept": ('_copy("/boot.py", "/boot_user.py")', "pass"),
    "waits no more": ("    _remove_package()\n", "    os.remove(_APPLY)\n    _remove_package()\n"),
    "package stays": ("    _remove_package()\n", ""),
}


@pytest.mark.few(1)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_in_the_second_half_is_seen(tmp_path: Path, fault: str) -> None:
    folder = adapter(tmp_path / "adapter")
    source = ARRIVE.read_text()
    assert source.count(FAULTS[fault][0]) == 1
    (folder / "ota_insighio/arrive.py").write_text(source.replace(*FAULTS[fault]))
    ota = FIELD_TREE[insighio.OTA]
    spoiled = migrate.make(ota, ("ca.der", b"0trusted"), [], adapter=folder)
    with Platform(spoiled.content) as platform:
        platform.ask()
        node = FieldNode(tmp_path, platform)
        saved = node.save()
        total = first_half(node)
        late = [(op, "none") for op in range(total - 8, total)]
        halfway = node.save()
        more = [(op, "none") for op in range(1, node.run(wakes=2).ops)]
        node.load(halfway)
        found = sweep(node, spoiled, more)
        node.load(saved)
        assert found + sweep(node, spoiled, late), fault


# Nodes that are not as most


def settle(node: FieldNode) -> Run:
    first_half(node)
    run = node.run(wakes=2)
    assert run.names()[-2] == "sleep", run.output
    assert node.run().ops == 0
    return run


def test_a_boot_user_that_nothing_runs_is_kept(tmp_path: Path, platform: Platform) -> None:
    node = FieldNode(tmp_path, platform, {"boot_user.py": b"print('stray')\n"})
    run = settle(node)
    assert SETTLED in run.output
    assert "stray" not in run.output
    assert node.files()["/boot_user_before.py"] == b"print('stray')\n"
    assert node.files()["/boot_user.py"] == FIELD_TREE["boot.py"]


def test_a_boot_user_that_is_needed_keeps_the_old_updater(
    tmp_path: Path, platform: Platform
) -> None:
    own = FIELD_TREE["boot.py"] + b'execfile("/boot_user.py")\n'
    node = FieldNode(tmp_path, platform, {"boot_user.py": b"print('own')\n", "boot.py": own})
    run = settle(node)
    assert f"{BACK} there is a /boot_user.py that /boot.py needs" in run.output
    assert "field: nothing waits" in run.output
    check_back(node)


def check_back(node: FieldNode) -> None:
    """All that was there is there again, and works."""
    files = node.files()
    assert {path: files[path] for path in node.before} == node.before
    assert not [path for path in files if "insighio/arrival" in path or path.endswith("~")]
    node.platform.ask()
    run = node.run(stop=is_reset)
    assert "field: hears" in run.output


def test_a_frozen_boot_py_keeps_the_old_updater(tmp_path: Path, platform: Platform) -> None:
    """Ours would never run: no package could be taken."""
    (tmp_path / "frozen").mkdir()
    shutil.copy(Path(__file__).parents[1] / "stand_ins/field_updater/boot.py", tmp_path / "frozen")
    node = FieldNode(tmp_path, platform, frozen=tmp_path / "frozen")
    run = settle(node)
    assert f"{BACK} our boot.py did not run" in run.output
    check_back(node)


@pytest.mark.slow
def test_power_fails_on_the_way_back(tmp_path: Path, platform: Platform) -> None:
    (tmp_path / "frozen").mkdir()
    shutil.copy(Path(__file__).parents[1] / "stand_ins/field_updater/boot.py", tmp_path / "frozen")
    node = FieldNode(tmp_path, platform, frozen=tmp_path / "frozen")
    first_half(node)
    node.run(stop=is_reset)
    saved = node.save()
    total = node.run(wakes=2).ops
    for op in range(1, total + 1):
        node.load(saved)
        node.run(cut=op, torn="half")
        assert "field: nothing waits" in node.run(wakes=2).output, op
        files = node.files()
        assert {path: files[path] for path in node.before} == node.before, op


_ASK_BACK = """
import os
os.mkdir("/ota_insighio/arrival")
open("/ota_insighio/arrival/back", "w").close()
"""


def test_a_package_brings_the_old_updater_back(
    tmp_path: Path, platform: Platform, package: Migration
) -> None:
    """And power fails at every operation of it. Then the node may be migrated again."""
    node = FieldNode(tmp_path, platform)
    settle(node)
    node.node.exec(_ASK_BACK)
    saved = node.save()
    run = node.run(wakes=2)
    assert f"{BACK} a package asks for it" in run.output
    for op in range(1, run.ops + 1):
        node.load(saved)
        node.run(cut=op, torn="half")
        assert "field: nothing waits" in node.run(wakes=2).output, op
        files = node.files()
        assert {path: files[path] for path in node.before} == node.before, op
    check_back(node)
    runs = [node.run(wakes=2)]
    assert wrong(node, package, runs) == []


def keeps(node: FieldNode, name: str | None) -> bytes:
    """The field's updater is kept as this .mpy, or nowhere. Returns the .mpy."""
    content = compiled(FIELD_OTA, "apps.demo_console.ota")
    code = f"import os\nos.remove('/{insighio.FIELD_OTA}')\n"
    if name:
        code += f"with open('/{insighio.APP}{name}', 'wb') as file:\n    file.write({content})\n"
    node.node.exec(code)
    return content


@pytest.mark.parametrize("kept_as", ["field_ota.mpy", "ota.mpy"])
def test_a_compiled_updater_comes_back(tmp_path: Path, platform: Platform, kept_as: str) -> None:
    """Power fails at every operation of it."""
    node = FieldNode(tmp_path, platform)
    settle(node)
    content = keeps(node, kept_as)
    node.node.exec(_ASK_BACK)
    before = {path: each for path, each in node.before.items() if path != f"/{insighio.OTA}"}
    before |= {f"/{insighio.APP}ota.mpy": content}
    saved = node.save()
    run = node.run(wakes=2)
    assert f"{BACK} a package asks for it" in run.output
    assert run.ops > 5
    ends = set()
    for op in range(1, run.ops + 1):
        for torn in "none", "half", "done":
            node.load(saved)
            node.run(cut=op, torn=torn)
            run = node.run(wakes=2)
            assert "field: nothing waits" in run.output, (op, torn)
            ends.add(BACK in run.output)
            files = node.files()
            assert {path: files.get(path) for path in before} == before, (op, torn)
            updaters = [path for path in files if path.endswith(("ota.py", "ota.mpy"))]
            assert sorted(updaters) == [f"/{insighio.APPLY}", f"/{insighio.APP}ota.mpy"]
    assert ends == {True, False}
    # And it is one that works.
    platform.ask()
    assert "field: hears" in node.run(stop=is_reset).output


def test_what_nobody_kept_does_not_come_back(tmp_path: Path, platform: Platform) -> None:
    """The node goes on with the adapter, and says why."""
    node = FieldNode(tmp_path, platform)
    settle(node)
    keeps(node, None)
    node.node.exec(_ASK_BACK)
    before = node.files()
    run = node.run()
    text = "arrive: there is no field_ota.py that could come back, a package asks for it"
    assert text in run.output
    assert "adapter: nothing waits" in run.output
    assert "reset" not in run.names()
    assert node.files() == before


def test_the_way_back_waits_for_the_confirm(tmp_path: Path, platform: Platform) -> None:
    node = FieldNode(tmp_path, platform)
    settle(node)
    node.node.exec(_ASK_BACK)
    code = "from ota_insighio import arrive\nprint(arrive.settle())\n"
    trial = "import os\nos.mkdir('/.ota')\nopen('/.ota/state', 'w').close()\n"
    assert node.node.exec(trial + code).output == "False\n"
    assert node.node.exec("import os\nos.remove('/.ota/state')\n" + code).output.endswith("True\n")


def test_a_node_without_boot_py(tmp_path: Path, platform: Platform) -> None:
    node = FieldNode(tmp_path, platform, {"boot.py": None})
    assert SETTLED in settle(node).output
    assert node.files()["/boot.py"] == firmware.boot()
    assert "/boot_user.py" not in node.files()


def test_a_node_with_our_boot_py(tmp_path: Path, platform: Platform) -> None:
    """By cable, of any version: it stays."""
    tree: Tree = {"boot.py": b"# of ours\n" + firmware.boot(), "boot_user.py": b"print('own')\n"}
    node = FieldNode(tmp_path, platform, tree)
    run = settle(node)
    assert SETTLED in run.output
    assert {path: node.files()[path] for path in ("/boot.py", "/boot_user.py")} == {
        f"/{path}": content for path, content in tree.items()
    }


def test_a_full_flash_brings_the_old_updater_back(tmp_path: Path, platform: Platform) -> None:
    node = FieldNode(tmp_path, platform)
    first_half(node)
    saved = node.save()
    full = 0
    for op in range(1, 30, 7):
        node.load(saved)
        run = node.run(wakes=2, fail=(op, "ENOSPC"))
        if f"{BACK} flash is full" in run.output:
            check_back(node)
            full += 1
    assert full


FILL = """
import os
with open("/fill", "wb") as file:
    while os.statvfs("/")[3] > %d:
        file.write(bytes(4096))
        file.flush()
print(os.statvfs("/")[3])
"""


@pytest.mark.few(2)
@pytest.mark.parametrize("free", [1, 2, 3, 4, 5])
def test_a_flash_without_room_is_not_written_to(
    tmp_path: Path, platform: Platform, free: int
) -> None:
    """After a write that has failed for want of room littlefs is wrong in RAM."""
    node = FieldNode(tmp_path, platform)
    first_half(node)
    told = node.node.exec(FILL % free).output
    assert int(told) <= free
    run = node.run(wakes=2)
    assert f"{BACK} flash is full" in run.output, run.output
    check_back(node)


def test_a_reset_that_is_due_stays_due(tmp_path: Path, platform: Platform) -> None:
    """Where the application did not reset, the next check does not take it for a boot of ours."""
    node = FieldNode(tmp_path, platform)
    first_half(node)
    code = "import sys\nfrom ota_insighio import arrive\nprint(arrive.settle())\n"
    code += "sys.modules.clear()\nfrom ota_insighio import arrive\nprint(arrive.settle())\n"
    run = node.node.exec(code)
    assert run.output.endswith("True\nTrue\n"), run.output
    assert SETTLED in node.run(wakes=1).output


def test_other_requests_are_the_agents(
    tmp_path: Path, platform: Platform, package: Migration
) -> None:
    node = FieldNode(tmp_path, platform)
    settle(node)
    size = len(package.content)
    for other in ({"size": size + 1}, {"size": size, "kind": ".tar.gz"}):
        platform.ask(**other)
        assert "adapter: the agent hears" in node.run().output
    assert platform.reports == [DONE]
    platform.ask()  # a batch that has this node in it once more
    node.run()
    assert platform.reports == [DONE, DONE]
    assert not platform.retained
