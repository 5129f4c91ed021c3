"""From the field's updater to ours, over the air: all of it, and power cuts in the first half."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_sim.node.flash_rules import IN_PLACE_KINDS
from insigh_ota.package import insighio, migrate
from insigh_ota.package.migrate import Migration
from tests.insighio.field import (
    BOOTED,
    DONE,
    FILE_ID,
    SETTLED,
    FieldNode,
    Platform,
    first_half,
    migrated,
    sweep,
    wrong,
)


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


@pytest.mark.few(1)
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
    spoiled = migrate.with_size(files)
    with Platform(spoiled.content) as platform:
        platform.ask()
        node = FieldNode(tmp_path, platform)
        saved = node.save()
        total = first_half(node)
        node.load(saved)
        cases = [(total * n // 12 or 1, "none") for n in range(12)]
        cases += [(op, "none") for op in range(total - 12, total)]
        assert sweep(node, package, cases), fault


def with_free(folder: Path, platform: Platform, free: int) -> FieldNode:
    """A node with so many bytes of flash free."""
    node = FieldNode(folder / "roomy", platform)
    text = node.node.exec("import os\nprint(os.statvfs('/')[3])").output
    return FieldNode(folder / "tight", platform, blocks=256 - int(text) + free // 4096)


def test_the_flash_that_the_command_names_is_enough(
    tmp_path: Path, platform: Platform, package: Migration
) -> None:
    """For one download; and, the larger figure, where power fails and it is downloaded again."""
    node = with_free(tmp_path, platform, package.package_bytes + package.unpacked_bytes)
    assert wrong(node, package, [node.run(wakes=2)]) == []
    platform.ask()
    platform.reports.clear()
    node = with_free(tmp_path / "again", platform, package.free_bytes)
    assert wrong(node, package, [node.run(cut=1500), node.run(wakes=2)]) == []
    assert platform.downloads == 3


def test_a_flash_that_is_too_small_stays_with_the_old_updater(
    tmp_path: Path, platform: Platform, package: Migration
) -> None:
    """It ends in the middle, before the switch, and says so."""
    node = with_free(tmp_path, platform, package.package_bytes + package.unpacked_bytes // 2)
    run = node.run()
    assert "field: can not apply" in run.output
    assert platform.reports == [{"e": 2, "i": FILE_ID}]
    assert {path: node.files()[path] for path in node.before} == node.before
    assert "field: nothing waits" in node.run().output
