"""An agent of the flat layout is updated to today's over the air, and the way back.

Each scenario ends well without a cut and with each sampled one; `powercut --layouts` makes all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from host_sim import sample
from host_sim.campaigns.powercut import layouts
from host_sim.campaigns.powercut.bench import Bench, Result
from host_sim.campaigns.powercut.campaign import Examiner
from host_sim.campaigns.powercut.scenarios import BAD_MAIN, Scenario, main_py
from host_sim.node import flash
from tests.conftest import MakeSite
from tests.releases import need_release
from tests.secrecy import blocks_with_key

GOOD = ("layout", "layout-next", "layout-signed", "layout-back", "layout-again")
SCENARIOS = tuple(name + end for name in GOOD for end in ("", "-undone"))


@pytest.fixture(scope="module")
def examiner() -> Iterator[Examiner]:
    need_release()
    with Bench(layouts=True) as bench:
        yield Examiner(bench)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_release()
    return layouts.release_firmware(tmp_path_factory.mktemp("release"))


def uncut(examiner: Examiner, scenario: Scenario, wakes: int = 1) -> tuple[Result, list[str]]:
    """A scenario without a cut, and what is wrong with its end."""
    bench = examiner.bench
    start, _ = bench.flashed(scenario)
    result = bench.boot(scenario, start, wakes)
    return result, result.wrong + bench.judge_end(scenario, result, uncut=True)


def test_the_release_is_the_flat_layout(release: Path):
    modules = [path.name for path in (release / "ota").glob("*.py")]
    assert len(modules) == 32
    assert not [path for path in (release / "ota").iterdir() if path.is_dir()]
    live, new = (folder / "boot.py" for folder in (release, flash.FIRMWARE))
    assert live.read_bytes() != new.read_bytes()


def test_all_scenarios_are_here(examiner: Examiner):
    assert tuple(examiner.bench.scenarios) == SCENARIOS


def test_each_form_is_tried(examiner: Examiner):
    """Both agents as source and as .mpy, from the flat layout and back to it."""
    found = set()
    for name in GOOD:
        scenario = examiner.bench.scenarios[name]
        _, judge = examiner.bench.flashed(scenario)
        for tree in ("old", "new"):
            files = judge.files(tree)
            flat = "/ota/vetting" if tree == "old" else "/ota/package/vetting"
            found |= {(name, tree, path[4:]) for path in files if path.startswith(flat)}
    for case in (
        ("layout", "old", "/vetting.mpy"),
        ("layout", "new", "/package/vetting.mpy"),
        ("layout-signed", "old", "/vetting.py"),
        ("layout-signed", "new", "/package/vetting.py"),
        ("layout-again", "old", "/vetting.py"),
        ("layout-again", "new", "/package/vetting.mpy"),
    ):
        assert case in found


@pytest.mark.few(2)
@pytest.mark.parametrize("name", SCENARIOS)
def test_sampled_cuts(examiner: Examiner, name: str):
    assert uncut(examiner, examiner.bench.scenarios[name])[1] == []
    tally = examiner.sample(name, 1, 3, seed=1)
    assert tally.cuts == 3
    assert tally.failures == []


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_more_cuts(examiner: Examiner, name: str):
    for depth, count in ((1, 20), (2, 8), (3, 3)):
        assert examiner.sample(name, depth, count, seed=2).failures == []
    assert examiner.sweep_messages(name).failures == []


def test_old_modules_stay_only_where_nobody_deletes_them(examiner: Examiner):
    """What an unsigned package does not bring stays; a signed one deletes by its manifest."""
    for name, stays in (("layout", True), ("layout-signed", False)):
        _, judge = examiner.bench.flashed(examiner.bench.scenarios[name])
        new = judge.files("new")
        assert any(path.startswith("/ota/staging.") for path in new) == stays
        assert any(path.startswith("/ota/install/staging.") for path in new)


@pytest.mark.parametrize("main", [main_py(2), BAD_MAIN], ids=["confirmed", "rolled back"])
def test_old_modules_do_no_harm(examiner: Examiner, release: Path, main: bytes):
    """Each would end the boot that imports it; and source comes before .mpy."""
    gone = layouts.sources(release).keys() - layouts.sources(flash.FIRMWARE).keys()
    assert "ota/staging.py" in gone and len(gone) > 10
    scenario = Scenario(
        "stale",
        "today's agent, and broken modules of the flat one beside it",
        {"main.py": main_py(1)} | dict.fromkeys(sorted(gone), b"raise SystemExit\n"),
        {"main.py": main, "lib/new.txt": b"new"},
        config={"trial_deadline_s": 60},
        blocks=160,
    )
    if main == BAD_MAIN:
        scenario = replace(scenario.rolled_back(), name="stale-undone")
    assert uncut(examiner, scenario)[1] == []


def test_a_version_that_can_not_be_updated_again_is_rolled_back(examiner: Examiner):
    """Today's rehearsal ends a trial that the old agent has opened, in the old one's format."""
    good = examiner.bench.scenarios["layout"]
    package = {n: c for n, c in good.package.items() if n != "ota/install/journal.mpy"}
    scenario = replace(
        good.rolled_back(),
        name="incomplete",
        package=package,
        reason="rolled back: can not update again",
    )
    assert uncut(examiner, scenario, wakes=2)[1] == []


def test_today_s_boot_py_waits_for_make_deploy(examiner: Examiner):
    """The old agent takes no boot.py but its own: today's stays idle as /boot_user.py."""
    scenario = examiner.bench.scenarios["layout"]
    _, judge = examiner.bench.flashed(scenario)
    old, new = judge.files("old"), judge.files("new")
    assert new["/boot.py"] == old["/boot.py"]
    assert new["/boot_user.py"] == scenario.package["boot.py"]


# -- the way back --------------------------------------------------------------------------------


def test_an_old_agent_as_it_was_is_rolled_back(examiner: Examiner, release: Path):
    """It runs, but does not know the trial: nothing confirms that, and the limits end it."""
    restless = main_py(2).replace(b"machine.deepsleep(1000)", b"machine.reset()")
    package = {"main.py": restless} | layouts.sources(release)
    good = examiner.bench.scenarios["layout-back"]
    scenario = replace(good.rolled_back(), name="unbridged", package=package)
    result, wrong = uncut(examiner, scenario)
    assert "version 2 later a transaction waits for the next boot" in result.run.output
    assert wrong == []


def test_a_boot_py_of_the_old_agent_is_refused(examiner: Examiner, release: Path):
    good = examiner.bench.scenarios["layout-back"]
    package = good.package | {"boot.py": (release / "boot.py").read_bytes()}
    reason = "can not apply: /boot.py would start itself"
    scenario = replace(
        good, name="with boot.py", package=package, end="old", reports=("2",), reason=reason
    )
    assert uncut(examiner, scenario)[1] == []


def test_an_old_agent_without_its_check_sum_is_the_last_one(examiner: Examiner, release: Path):
    """Why way_back() ends the old recovery in its CRC-32: see there."""
    good = examiner.bench.scenarios["layout-again"]
    scenario = replace(good, name="unsealed", old=good.old | layouts.sources(release))
    wrong = "; ".join(uncut(examiner, scenario)[1])
    assert "rolled back, but not whole: lost" in wrong


# -- on a whole platform -------------------------------------------------------------------------


@pytest.mark.parametrize("mpy", [True, False], ids=["mpy", "py"])
def test_from_the_flat_layout_over_tls(
    make_site: MakeSite, release: Path, tmp_path: Path, mpy: bool
):
    """With the old agent's own MQTT and HTTPS, then with today's for the next package."""
    site = make_site(tls=True)
    app = {"/" + n: c for n, c in {"main.py": sample.main_py(1)}.items()}
    app |= {path: site.files[path] for path in ("/ota.json", "/ca.der")}
    root = sample.write_tree(
        {path[1:]: content for path, content in app.items()}, tmp_path / "old"
    )
    flash.build(root, site.image, mpy=mpy, firmware=release)
    site.key_blocks = blocks_with_key(site.image)
    package = {"main.py": sample.main_py(2)} | (
        layouts.compiled(flash.FIRMWARE, tmp_path) if mpy else layouts.sources(flash.FIRMWARE)
    )
    site.ask(sample.tar_gz(package))
    run = site.run(wakes=2)
    assert "check: confirmed" in run.output, run.output
    new = {"/" + name: content for name, content in package.items()}
    assert site.flash_files().items() >= new.items()
    site.ask(sample.tar_gz({"main.py": sample.main_py(3)}))
    run = site.run(wakes=2)
    assert "version 3 runs" in run.output
    assert "check: confirmed" in run.output, run.output
    assert [report["e"] for report in site.reports()] == [1, 1]
    assert not [path for path in site.flash_files() if path.startswith("/.ota")]
