"""The migration ends at the adapter itself, which then takes the next package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from host_sim import sample, signing
from host_sim.console import Console
from host_sim.node import flash
from host_sim.sample import Tree, write_tree
from host_sim.site import Site
from insigh_ota.package import insighio, migrate
from insigh_ota.package.migrate import Migration
from tests.docs.test_examples import BROKER, NETWORK, STAND_INS, second
from tests.insighio.field import BOOTED, FIELD_TREE, SETTLED
from tests.insighio.fleet import FIELD, replace, tree_of

UNPACK = """
from apps.demo_console import apply_ota
print(apply_ota.do_apply("/package.tar"))
"""


def field_tree(modem: bool) -> Tree:
    tree = tree_of(FIELD)
    del tree[insighio.FIELD_OTA]  # the package brings it
    replace(tree, "main.py", b"MODEM = False", b"MODEM = %r" % modem)
    replace(tree, "apps/demo_console/cfg.py", b"/ota.json", b"/identity.json")
    tree |= {name: FIELD_TREE[name] for name in ("boot.py", insighio.OTA, insighio.APPLY)}
    tree |= {f"lib/{name}.py": (STAND_INS / f"{name}.py").read_bytes() for name in NETWORK}
    return tree | {"faults.py": b"FAULTS = {}\n"}


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    with Console(tmp_path / "console", broker=BROKER) as console:
        yield console


def unpacked(
    folder: Path, console: Console, modem: bool, keys: list[bytes] | None = None
) -> tuple[Site, Migration]:
    """A node on which the field's updater has unpacked, and power failed before its report."""
    tree = field_tree(modem)
    site = Site(folder, console, tree)
    made = migrate.make(
        FIELD_TREE[insighio.OTA],
        ("ca.der", console.ca_der.read_bytes()),
        keys or [],
        more={"mqtt": {"grace_ms": 50}},
    )
    tree["identity.json"] = flash.read_tree(site.image)["/ota.json"]
    tree["package.tar"] = made.content
    flash.build(write_tree(tree, folder / "field"), site.image, agent=False)
    assert site.node.exec(UNPACK).output == "True\n"
    return site, made


@pytest.mark.parametrize("modem", [False, True], ids=["wifi", "modem"])
def test_the_adapter_ends_the_migration(tmp_path: Path, console: Console, modem: bool) -> None:
    site, made = unpacked(tmp_path, console, modem)
    fuid = site.ask(made.content, "migrate.tar")
    run = site.run(timeout_s=60, wakes=2)
    assert run.names() == ["boot", "reset", "boot", "sleep", "boot", "sleep", "flash"], run.output
    assert run.output.count(SETTLED) == 1
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    assert site.retained() is None
    assert not console.downloads
    assert site.run(timeout_s=60).ops == 0

    brought = {"main.py": second(field_tree(modem)["main.py"])}
    fuid = site.ask(sample.tar_gz(brought))
    run = site.run(timeout_s=60)
    assert "version 2 runs" in run.output
    assert "log: OTA: confirmed" in run.output
    assert run.output.count(BOOTED) == 2
    assert site.reports()[-1] == {"e": 1, "i": fuid, "m": None}


@pytest.mark.slow
def test_a_fleet_is_signed_from_then_on_and_may_go_back(tmp_path: Path, console: Console) -> None:
    site, made = unpacked(tmp_path, console, False, [signing.modulus(1)])
    site.ask(made.content, "migrate.tar")
    site.run(timeout_s=60, wakes=2)
    asked = {"ota_insighio/arrival/back": b""}
    site.ask(sample.tar_gz(asked))
    assert "adapter" not in site.run(timeout_s=60).output
    assert site.reports()[-1]["m"].startswith("manifest")
    fuid = site.ask(sample.tar_gz(signing.sign(asked, 1, 1)))
    run = site.run(timeout_s=60)
    assert site.reports()[-1] == {"e": 1, "i": fuid, "m": None}, run.output
    assert "log: OTA: confirmed" in run.output
    run = site.run(timeout_s=60, wakes=2)
    assert "arrive: the field's updater comes back, a package asks for it" in run.output
    assert "field: nothing waits" in run.output
    files, tree = site.flash_files(), field_tree(False)
    assert {name: files["/" + name] for name in tree} == tree


@pytest.mark.slow
def test_an_adapter_that_does_not_load_leaves_the_old_updater(
    tmp_path: Path, console: Console
) -> None:
    """Such as .mpy of another MicroPython: the node is asked again, by the field's."""
    site, _ = unpacked(tmp_path, console, False)
    site.node.exec("with open('/ota_insighio/__init__.mpy', 'w') as f:\n f.write('M')")
    run = site.run(timeout_s=60)
    assert "OTA: the adapter does not load" in run.output
    assert "field: nothing waits" in run.output
    assert run.names() == ["boot", "sleep", "flash"], run.output


@pytest.mark.few(1)
@pytest.mark.parametrize("op", [1, 4, 8, 12])
def test_a_flash_that_fails_in_the_migration_is_mounted_anew(
    tmp_path: Path, console: Console, op: int
) -> None:
    """Nothing of the application writes on it before that."""
    site, _ = unpacked(tmp_path, console, False)
    run = site.run(fail=(op, "EIO"), wakes=2, timeout_s=60)
    first = run.output.split("version 1 runs")[1]
    assert "log: OTA: the migration, OSError 5" in first
    assert "checkAndApply:" not in first
    assert run.output.count(SETTLED) == 1


def test_a_flash_that_always_fails_does_not_keep_the_battery_awake(
    tmp_path: Path, console: Console
) -> None:
    site, _ = unpacked(tmp_path, console, False)
    run = site.run(fail=(1, "EIO"), persistent=True, timeout_s=60)
    assert run.names()[-2] == "sleep", run.names()
    assert 1 <= run.names().count("reset") <= 4
    assert "checkAndApply:" in run.output
