"""A few random lives here, many in `make lives`; and that the model can say no."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_sim.campaigns.lives import cli, trees
from host_sim.campaigns.lives.bench import Bench, Outcome, Tally, shrink
from host_sim.campaigns.lives.life import Event, Life, Wake, make
from host_sim.campaigns.lives.model import Model, code
from host_sim.campaigns.lives.package import BAD, DOUBTFUL, REFUSED, Package, main_py
from host_sim.node.flash_rules import TORN_KINDS
from tests.mutants import MUTANTS, Mutant

SEEDS = range(15)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench() as bench:
        yield bench


@pytest.mark.few(1)
@pytest.mark.parametrize("part", range(3))
def test_each_moment_is_right(bench: Bench, part: int):
    tally = Tally()
    for seed in SEEDS[part::3]:
        tally.add(bench.run(seed))
    assert not tally.failures, "\n".join(f"{o.wrong}\n{o.story}" for o in tally.failures)
    assert tally.ends["applied"] >= len(SEEDS[part::3])
    assert tally.power_cuts


def test_a_seed_tells_all():
    assert str(make(7)) == str(make(7)) != str(make(8))
    assert [p.archive for p in make(7).packages] == [p.archive for p in make(7).packages]


def test_lives_have_everything_in_them():
    """Each manner, each kind of event, each cause, within four hundred seeds."""
    lives = [make(seed) for seed in range(400)]
    packages = [p for life in lives for p in life.packages]
    assert {p.manner for p in packages} == {"good", *BAD, *REFUSED, *DOUBTFUL}
    assert {p.kind for p in packages} == {"tar", "tar.gz", "microfreezer"}
    assert {p.signed for p in packages} == {True, False}
    assert any(p.folders for p in packages) and any(p.deleted for p in packages)
    wakes = [wake for life in lives for wake in life.wakes]
    assert {wake.cause for wake in wakes} == {"power_on", "deepsleep", "hard", "soft"}
    events = [event for wake in wakes for event in wake.events]
    whats = {"ask", "withdraw", "cut", "storm", "flash", "body", "mqtt", "disturb", "write"}
    assert {event.what for event in events} == whats
    assert {event.how for event in events if event.what == "cut"} == set(TORN_KINDS)
    assert {life.config["report"] for life in lives} == {"installed", "confirmed"}
    assert {len(life.wakes) for life in lives} >= {5, 25}


# -- the model can say no ------------------------------------------------------------------------

OLD = {"/main.py": main_py(0), "/data/a.txt": b"a", "/data/b.txt": b"b"}
GOOD = Package(1, "good", "tar", {"main.py": main_py(1), "data/a.txt": b"A", "new/c.txt": b"c"})
NEW = {**OLD, "/main.py": main_py(1), "/data/a.txt": b"A", "/new/c.txt": b"c"}
OPEN = {"/.ota/state": b"whatever"}
CONFIG = {"report": "installed", "trial_boots": 3, "trial_wakes": 24, "max_attempts": 5}


def model(package: Package = GOOD) -> Model:
    life = Life(1, CONFIG, {}, (package,), ())
    found = Model(life, OLD, folders(OLD))
    found.ask(package)
    return found


def folders(files: dict[str, bytes]) -> list[str]:
    return sorted({f for path in files for f in trees.above(path)})


def look(model: Model, files: dict[str, bytes]) -> None:
    model.look("here", files, folders(files))


def report(e: int, m: str = "") -> bytes:
    text = f'[{{"n":"e","v":{e}}},{{"n":"i","vs":"package1"}}'
    return (text + (f',{{"n":"m","vs":"{m}"}}]' if m else "]")).encode()


UNDONE = report(2, "rolled back: 3 boots without confirm")


def test_what_is_right_passes():
    kept = model()
    for files in (OLD, NEW | OPEN, NEW):
        look(kept, files)
    kept.judge([report(1), report(1)])
    assert kept.wrong == []
    undone = model(dataclasses.replace(GOOD, manner="crashes"))
    for files in (OLD, NEW | OPEN, OLD):
        look(undone, files)
    undone.judge([report(1), UNDONE])
    assert undone.wrong == []


MOMENTS = {
    "half of it": [{**OLD, "/data/a.txt": b"A"}],
    "a folder left by the way back": [NEW | OPEN, {**OLD, "/new/other.txt": b""}],
    "a file lost by the way back": [
        NEW | OPEN,
        {p: c for p, c in OLD.items() if "b.txt" not in p},
    ],
    "the old tree after the confirm": [NEW | OPEN, NEW, OLD],
}


@pytest.mark.parametrize("name", MOMENTS)
def test_moments_that_are_wrong(name: str):
    watched = model()
    for files in MOMENTS[name]:
        look(watched, files)
    assert watched.wrong[0].startswith("mixed tree here")


def test_what_new_code_writes_elsewhere_stays_and_no_more():
    watched = model(dataclasses.replace(GOOD, manner="crashes"))
    look(watched, NEW | OPEN)
    tree = trees.of_flash(NEW, folders(NEW))
    watched.does(tree, [("write", "/data/log"), ("remove", "/new/c.txt"), ("mkdir", "/new/c.txt")])
    look(watched, OLD | {"/data/log": b"by the application"})
    assert watched.wrong == []
    look(watched, OLD)
    assert watched.wrong


ENDS = {
    "no end was heard": ([OLD], "good", []),
    "installed, but no end was heard": ([NEW | OPEN, NEW], "good", []),
    "applied, though it is bad": ([NEW | OPEN, NEW], "crashes", [report(1)]),
    "applied, but the old tree came back": ([NEW | OPEN, OLD], "crashes", [report(1)]),
    "more than one end": ([OLD], "damaged", [report(2, "a"), report(2, "b")]),
    "no reason": ([OLD], "damaged", [report(2)]),
    "e:2, but the new tree is kept": ([NEW | OPEN, NEW], "good", [report(2, "can not")]),
    "another reason, though it ran": ([NEW | OPEN, OLD], "crashes", [report(2, "can not")]),
    "a good package refused": ([OLD], "good", [report(2, "can not apply")]),
    "a good package rolled back": ([NEW | OPEN, OLD], "good", [report(1), UNDONE]),
    "another limit than configured": (
        [NEW | OPEN, OLD],
        "crashes",
        [report(2, "rolled back: 4 boots without confirm")],
    ),
    "not whole, or so it says": (
        [NEW | OPEN, OLD],
        "crashes",
        [report(2, "rolled back, but not whole: 3 boots")],
    ),
}


@pytest.mark.parametrize("fault", ENDS)
def test_ends_that_are_wrong(fault: str):
    moments, manner, reports = ENDS[fault]
    watched = model(dataclasses.replace(GOOD, manner=manner))
    for files in moments:
        look(watched, files)
    watched.judge(reports)
    assert [text.partition(":")[0] for text in watched.wrong] == [fault.partition(":")[0]]


def test_what_is_withdrawn_ends_at_most_once():
    for reports, right in (
        ([], True),
        ([report(2, "x")], True),
        ([report(2, "x"), UNDONE], False),
    ):
        watched = model(dataclasses.replace(GOOD, manner="damaged"))
        watched.drop("package1")
        watched.judge(reports)
        assert (watched.wrong == []) == right


def test_a_good_package_may_be_undone_after_as_many_boots_as_configured():
    for cause, right in (("power_on", True), ("soft", False), ("deepsleep", False)):
        watched = model()
        look(watched, NEW | OPEN)
        for _ in range(4):
            watched.boots(cause, False, NEW | OPEN, folders(NEW))
        look(watched, OLD)
        watched.judge([report(1), UNDONE])
        assert (watched.wrong == []) == right, cause


# -- planted faults, and what is told of them ----------------------------------------------------


def mutant(name: str, file: str, old: str, new: str) -> Mutant:
    return Mutant(name, "", "", ((file, old, new),))


# A life that catches each: where lives are drawn in another way now, look for another seed.
PLANTED = {
    0: mutant(
        "an idle check that writes",
        "ota/agent.py",
        '                return "idle"  # nothing on trial, nothing owed, no litter\n',
        '                open("/checked", "w").close()\n                return "idle"\n',
    ),
    1: mutant(
        "the request is not cleared",
        "ota/install/report.py",
        '        control.ask("publish", control.topic, payload, True, qos)\n',
        "",
    ),
    2: next(m for m in MUTANTS if m.name == "stale source stays beside a new .mpy"),
    37: mutant(
        "clear whatever stands there",
        "ota/install/report.py",
        "    if mark_of(control.pending()) == mark and done() != mark:",
        "    if control.pending():",
    ),
}


@pytest.mark.few(1)
@pytest.mark.parametrize("seed", PLANTED, ids=[m.name for m in PLANTED.values()])
def test_a_planted_fault_is_caught(tmp_path: Path, seed: int):
    with Bench(PLANTED[seed].plant(tmp_path)) as bench:
        outcome = bench.run(seed)
    assert outcome.wrong, outcome.story


@pytest.mark.slow
def test_a_life_that_fails_is_shortened(tmp_path: Path):
    with Bench(PLANTED[0].plant(tmp_path)) as bench:
        told: list[str] = []
        life = shrink(bench, make(0, bench.firmware), told.append)
    assert not any(wake.events for wake in life.wakes)
    assert life.size == told[-1]


def test_a_node_that_only_waits_takes_no_time(bench: Bench):
    """Code that hangs for a minute is undone, and nobody here has waited for it."""
    tree = {"main.py": main_py(1, "hangs")}
    life = make(3)
    wakes = (Wake("power_on", (Event("ask", "", "package1"),)),)
    life = dataclasses.replace(life, packages=(Package(1, "hangs", "tar", tree),), wakes=wakes)
    outcome = bench.live(life)
    assert outcome.wrong == []
    assert outcome.ends == {"rolled back": 1, "applied": 1}
    assert outcome.seconds < life.config["trial_deadline_s"] / 2


def test_acts_are_python():
    acts = [("remove", "/a'b"), ("rename", "/a", "/b"), ("write", "/c"), ("fill", "/log.txt")]
    compile(code([*acts, ("mkdir", "/d"), ("rmdir", "/d")]), "acts", "exec")


def test_the_table_of_the_page_is_what_a_campaign_writes():
    page = Path("docs") / cli.CAMPAIGN.page
    (table,) = cli.CAMPAIGN.place().findall(page.read_text())
    tally = Tally()
    tally.add(Outcome(1, []))
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", table, re.MULTILINE)
    assert [what for what, _ in rows] == ["what", *(what for what, _ in tally.rows())]
    assert dict(rows)["failures"] == "0"
