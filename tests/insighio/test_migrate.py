"""From the field's updater to ours, over the air: both halves on the node, with power cuts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_sim.node.flash_rules import IN_PLACE_KINDS, TORN_KINDS
from host_sim.node.node import Run
from host_sim.sample import Tree
from tests.insighio.field import (
    ARRIVE,
    FIELD_TREE,
    FILE_ID,
    FieldNode,
    Platform,
    adapter,
    migrated,
    migration,
)
from tools.deploy import firmware
from tools.package import insighio, migrate
from tools.package.migrate import Migration

DONE = {"e": 1, "i": FILE_ID}
SETTLED = "arrive: the migration is done\n"
BACK = "arrive: the field's updater comes back,"
BOOTED = "[boot] the field's boot.py runs"
FLAG = "/ota_applied_flag"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Migration:
    return migration(tmp_path_factory.mktemp("migration"))


@pytest.fixture
def platform(package: Migration) -> Iterator[Platform]:
    with Platform(package.content) as platform:
        platform.ask()
        yield platform


def is_reset(event: dict) -> bool:
    return event["event"] == "reset"


def first_half(node: FieldNode) -> int:
    """The field's updater does its part, up to the reset. Returns its flash operations."""
    run = node.run(stop=is_reset)
    assert run.names() == ["boot", "reset", "flash"], run.output
    return run.ops


def wrong(node: FieldNode, package: Migration, runs: list[Run]) -> list[str]:
    """What is not as it has to be at the end, a line each; the last run went on to its end."""
    found = []
    output = "".join(run.output for run in runs)
    names = runs[-1].names()
    if "exit" in names or "timeout" in names or names[-2] != "sleep":
        found.append(f"the node does not run: {names[-4:]}")
    if output.count("main runs") > output.count(BOOTED):
        found.append("a boot without the field's boot.py")
    if "Traceback" in runs[-1].output:
        found.append("an error after the power came back")
    files = node.files()
    files.pop(FLAG, None)  # the field's, which it writes at the very last
    expected = migrated(node.before, package, flag=False)
    if {path for path in files if files[path] != expected.get(path)}:
        found.append("files that do not belong there")
    if expected.keys() - files.keys():
        found.append("files are missing")
    if node.platform.retained:
        found.append("the request is still there")
    if not node.platform.reports or any(each != DONE for each in node.platform.reports):
        found.append(f"reported {node.platform.reports}")
    return found


def cut_at(node: FieldNode, package: Migration, op: int, torn: str, second: int = 0) -> list[str]:
    """Power fails at an operation, and, `second` operations into what follows, again."""
    runs = [node.run(wakes=3, cut=op, torn=torn)]
    if runs[0].exit_code != 3:
        return ["power did not fail"]
    if second:
        runs.append(node.run(wakes=3, cut=second, torn=torn))
    runs.append(node.run(wakes=3))
    return wrong(node, package, runs)


def sweep(node: FieldNode, package: Migration, cases: list[tuple]) -> list[str]:
    """Each case from here, and what was wrong."""
    saved, found = node.save(), []
    for case in cases:
        node.load(saved)
        found += [f"cut {case}: {each}" for each in cut_at(node, package, *case)]
    return found


def test_a_node_is_migrated(tmp_path: Path, platform: Platform, package: Migration) -> None:
    node = FieldNode(tmp_path, platform)
    run = node.run(wakes=2)
    reset, sleep = ["boot", "reset"], ["boot", "sleep"]
    assert run.names() == [*reset, *reset, *sleep, *sleep, "flash"], run.output
    assert run.output.count(SETTLED) == 1
    assert run.output.count(BOOTED) == 4
    assert node.files() == migrated(node.before, package)
    assert platform.reports == [DONE]
    assert not platform.retained
    assert node.run().ops == 0


# The first half


@pytest.mark.parametrize("count", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_power_fails_in_the_first_half(
    tmp_path: Path, platform: Platform, package: Migration, count: int
) -> None:
    """The field's own extraction, which has no safety: the node is asked again, and ends well."""
    node = FieldNode(tmp_path, platform)
    saved = node.save()
    total = first_half(node)
    node.load(saved)
    # The last ones are the switch, the report, and what comes between them.
    ops = {1 + n * (total - 1) // (count - 1) for n in range(count)} | {*range(total - 5, total)}
    kinds = list(IN_PLACE_KINDS)
    cases = [(op, kinds[n % len(kinds)]) for n, op in enumerate(sorted(ops))]
    assert sweep(node, package, cases) == []


@pytest.mark.parametrize("before", ["report", "clear"])
def test_power_fails_before_the_platform_knows(
    tmp_path: Path, platform: Platform, package: Migration, before: str
) -> None:
    """Our updater hears the request for the migration itself, and says that it is done."""
    node = FieldNode(tmp_path, platform)

    def hear(line: str) -> bool:
        if not line.startswith(before):
            return True
        node.node.cut_power()
        platform.hear = str
        return False

    platform.hear = hear
    runs = [node.run()]
    assert runs[0].exit_code == 3
    assert platform.retained
    runs.append(node.run(wakes=2))
    assert wrong(node, package, runs) == []
    assert platform.downloads == 1
    assert platform.reports == [DONE] * (1 + (before == "clear"))


@pytest.mark.parametrize("fault", ["shim first", "both shims", "boot first"])
def test_a_planted_fault_in_the_order_is_seen(
    tmp_path: Path, package: Migration, fault: str
) -> None:
    files = dict(package.files)
    if fault == "shim first":
        files = {insighio.OTA: files.pop(insighio.OTA)} | files
    elif fault == "both shims":
        apply = files.pop("ota_insighio/arrival/apply_ota.py")
        ota = files.pop(insighio.OTA)
        files |= {insighio.APPLY: apply, insighio.OTA: ota}
    else:
        files = {"boot.py": files.pop("ota_insighio/arrival/boot.py")} | files
    spoiled = migrate._with_size(files)
    with Platform(spoiled.content) as platform:
        platform.ask()
        node = FieldNode(tmp_path, platform)
        saved = node.save()
        total = first_half(node)
        node.load(saved)
        cases = [(total * n // 12 or 1, "none") for n in range(12)]
        cases += [(op, "none") for op in range(total - 12, total)]
        assert sweep(node, package, cases), fault


# The second half


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
    assert not [path for path in files if "arrival" in path or path.endswith("~")]
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
