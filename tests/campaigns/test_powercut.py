"""A sample of the power-fail campaign, and the proof that it can fail."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_sim.campaigns.powercut import keys
from host_sim.campaigns.powercut.bench import Bench, Cut, Snapshot, distinct_reports
from host_sim.campaigns.powercut.campaign import Examiner
from host_sim.campaigns.powercut.judge import Judge
from host_sim.campaigns.powercut.layouts import PREFIX
from host_sim.campaigns.powercut.platform import State
from host_sim.campaigns.powercut.scenarios import FROZEN
from host_sim.errors import SimError
from host_sim.node import flash
from host_sim.node.flash_rules import TORN_KINDS
from tests.mutants import MUTANTS, Mutant
from tests.releases import need_release

DOCUMENT = Path(__file__).parents[2] / "docs" / "power-cuts.md"
SCENARIOS = (
    "one",
    "forty",
    "gzip",
    "agent",
    "compiled",
    "moved",
    "full",
    "foreign",
    "confirmed",
    "stat",
    "boots",
    "wakes",
    "report",
    "signed",
    "undeleted",
    "few",
    "trusted",
    "shadows",
    "nested",
    "long",
    "parts",
    "points",
    "patches",
)


@pytest.fixture(scope="module")
def examiner() -> Iterator[Examiner]:
    with Bench() as bench:
        yield Examiner(bench)


def cycle(examiner: Examiner, name: str) -> int:
    """Operations of the complete cycle, which has to go well uncut."""
    bench = examiner.bench
    scenario = bench.scenarios[name]
    start, _ = bench.flashed(scenario)
    result = bench.boot(scenario, start, scenario.wakes)
    assert result.wrong + bench.judge_end(scenario, result, uncut=True) == []
    return result.run.ops


def test_all_scenarios_are_here(examiner: Examiner):
    assert tuple(examiner.bench.scenarios) == SCENARIOS


@pytest.mark.check
@pytest.mark.few(3)
@pytest.mark.parametrize("name", SCENARIOS)
def test_sampled_cuts(examiner: Examiner, name: str):
    """Four places of each cycle; all of them is `make powercut`."""
    ops = cycle(examiner, name)
    chance = random.Random(f"{name}{ops}")
    places = sorted(chance.sample(range(1, ops + 1), 4))
    tally = examiner.sweep(name, places, TORN_KINDS)
    assert tally.cuts == 4 * len(TORN_KINDS)
    assert tally.failures == []


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["one", "confirmed", "report"])
def test_cuts_at_every_message(examiner: Examiner, name: str):
    tally = examiner.sweep_messages(name)
    assert tally.cuts == 4  # before and after the clear, before and after the report
    assert tally.failures == []


@pytest.mark.slow
def test_sampled_second_and_third_cuts(examiner: Examiner):
    for name, depth in (("one", 2), ("forty", 2), ("compiled", 3), ("boots", 2)):
        tally = examiner.sample(name, depth, 5, seed=1)
        assert tally.failures == []


@pytest.mark.slow
def test_nothing_is_written_after_an_error_while_staging(examiner: Examiner):
    """littlefs would program over what the failed operation has left."""
    ops = cycle(examiner, "gzip")
    tally = examiner.sweep_errors("gzip", range(ops // 4, ops // 3), False)
    assert tally.cuts >= 20
    assert tally.failures == []


@pytest.mark.slow
def test_a_replay_meets_the_same_flash(examiner: Examiner):
    """What the sweep works out from one probe is what a real cut of that kind leaves."""
    bench = examiner.bench
    scenario = bench.scenarios["one"]
    start, _ = bench.flashed(scenario)

    def both(op: int, kind: str) -> tuple[Snapshot, Snapshot]:
        """What the sweep works out, and what the real cut leaves."""
        [(cut, sweep, _)] = examiner.cut_states(scenario, start, 1, op, [kind])
        return sweep, bench.boot(scenario, start, 1, cut=Cut.parse(str(cut))).after

    for op in (5, 23, 40, 61):
        for kind in TORN_KINDS:
            # The journal says how much RAM the package takes. The garbage collector takes for a
            # pointer what looks like one, so in some boots that is 32 bytes more.
            tries = (both(op, kind) for _ in range(20))
            assert any(sweep == real for sweep, real in tries), (op, kind)
    assert examiner.replay("one/23.bits.23/4.none") == []
    for wrong in ("one", "nowhere/1.none", "one/x", "one/99999.none"):
        with pytest.raises(SimError):
            examiner.replay(wrong)


@pytest.mark.slow
def test_no_number_of_cuts_in_a_row_is_too_many(examiner: Examiner):
    """60 boots of 5 operations each in the middle of a roll back, and of an install."""
    bench = examiner.bench
    for name, share in (("boots", 0.9), ("forty", 0.8)):
        scenario = bench.scenarios[name]
        start, judge = bench.flashed(scenario)
        place = int(cycle(examiner, name) * share)
        cut = bench.boot(scenario, start, scenario.wakes, cut=Cut(place, "none"))
        assert cut.was_cut
        storm = bench.boot(scenario, cut.after, 1, storm=5, max_boots=60, may_go_on=True)
        finished = bench.boot(scenario, storm.after, 3)
        assert finished.wrong == []
        assert judge.which(finished.after.image) in ("old", "new")
        assert judge.leftovers(finished.after.image) == []
        assert finished.after.state.reports and not finished.after.state.retained


@pytest.mark.slow
def test_a_storm_too_heavy_leaves_the_old_tree_running(examiner: Examiner):
    done, boots, wrong = examiner.storm("one", 30)
    assert (done, wrong) == (False, [])
    assert boots == 6  # five attempts, and one boot to give up and say so
    done, _, wrong = examiner.storm("one", 80)
    assert (done, wrong) == (True, [])


# -- the oracle ----------------------------------------------------------------------------------


def test_the_judge_knows_two_trees_and_nothing_else(examiner: Examiner, tmp_path: Path):
    from host_sim.node.node import Node

    bench = examiner.bench
    scenario = bench.scenarios["forty"]
    start, _ = bench.flashed(scenario)
    old = Judge(start.image, {}, tmp_path).files("old")
    judge = Judge(start.image, scenario.new_tree(old), tmp_path)
    node = Node(tmp_path / "node.img")

    def after(code: str) -> str:
        node.image.write_bytes(start.image)
        assert node.exec("import os\n" + code).exit_code == 0
        return judge.which(node.image.read_bytes())

    assert judge.which(start.image) == "old"
    assert after("os.mkdir('/.ota'); open('/.ota/x', 'w').close()") == "old"
    assert judge.leftovers(node.image.read_bytes()) == ["/.ota", "/.ota/x"]
    for change in (
        "os.remove('/d0/file0.bin')",
        "open('/d0/file1.bin', 'w').close()",
        "open('/added', 'w').close()",
        "os.mkdir('/empty')",
        "os.rename('/d1/file1.bin', '/d1/other.bin')",
    ):
        assert after(change).startswith("mixed tree: "), change
    broken = bytes(4096) * 2 + start.image[8192:]
    assert judge.which(broken).startswith("unmountable image")


def test_reports_are_counted_as_a_consumer_does():
    one = b'[{"n":"e","v":1},{"n":"i","vs":"fa8884d2"}]'
    two = b'[{"n":"e","v":2},{"n":"i","vs":"fa8884d2"},{"n":"m","vs":"x"}]'
    assert distinct_reports(State(b"", [one, one, two, one])) == ["1", "2"]
    assert distinct_reports(State(b"", [b"[]"])) == ["unexpected b'[]'"]
    other = one.replace(b"fa8884d2", b"00000000")
    assert distinct_reports(State(b"", [other]))[0].startswith("unexpected")


# -- the proof can fail --------------------------------------------------------------------------


def replay(cases: list[str], firmware: Path = flash.FIRMWARE) -> str:
    """What is wrong with the first of these cases that does not go well; they share a bench."""
    keyed = keys.is_replay(cases[0])
    frozen = cases[0].partition("/")[0].endswith(FROZEN)
    with keys.hooked_bench(firmware) if keyed else Bench(firmware, frozen) as bench:
        examine = (keys.KeyExaminer if keyed else Examiner)(bench).replay
        for case in cases:
            try:
                wrong = examine(case)
            except SimError:  # where Ctrl-C is switched off it interrupts nothing
                wrong = []
            if wrong:
                return f"{case}: {wrong}"
    return ""


def first_kill(mutant: Mutant, folder: Path) -> str | None:
    """How the mutant's scenario catches it: "uncut", the replay id of a case, or not at all."""
    if mutant.case:
        return replay(mutant.cases, mutant.plant(folder)) or None
    frozen, layouts = mutant.scenario.endswith(FROZEN), mutant.scenario.startswith(PREFIX)
    with Bench(mutant.plant(folder), frozen=frozen, layouts=layouts) as bench:
        examiner = Examiner(bench)
        scenario = bench.scenarios[mutant.scenario]
        start, _ = bench.flashed(scenario)
        result = bench.boot(scenario, start, scenario.wakes)
        if result.wrong or bench.judge_end(scenario, result, uncut=True):
            return "uncut"
        tally = examiner.sweep_messages(mutant.scenario)
        if tally.failures:
            return tally.failures[0].replay
        near = mutant.near * result.run.ops
        for op in sorted(range(1, result.run.ops + 1), key=lambda op: abs(op - near)):
            tally = examiner.sweep(mutant.scenario, [op], ("none", "half", "done"))
            if tally.failures:
                return tally.failures[0].replay
    return None


@pytest.mark.few(2)
@pytest.mark.parametrize(
    "mutant",
    [pytest.param(m, id=m.name, marks=[pytest.mark.slow] if m.slow else []) for m in MUTANTS],
)
def test_each_planted_fault_is_caught(mutant: Mutant, tmp_path: Path):
    if mutant.scenario.startswith(PREFIX):
        need_release()
    kill = first_kill(mutant, tmp_path)
    assert kill is not None
    assert (kill == "uncut") == mutant.uncut


@pytest.mark.slow
def test_the_cases_of_faults_go_well_without_them():
    cases = [case for mutant in MUTANTS for case in mutant.cases]
    keyed = [case for case in cases if keys.is_replay(case)]
    assert len(keyed) >= 2
    assert replay(keyed) == ""
    assert replay([case for case in cases if case not in keyed]) == ""


def test_the_kill_table_is_the_list_of_faults():
    rows = re.findall(
        r"^\| (.+?) \| (.+?) \| `([\w+-]+)`, (uncut|a cut|`\S+`) \|$",
        DOCUMENT.read_text(),
        re.MULTILINE,
    )
    assert rows == [(m.name, m.fault, m.scenario, m.caught_by) for m in MUTANTS]
    assert sum(not m.uncut for m in MUTANTS) >= 12


def test_the_campaign_says_how_long_it_takes_and_where_it_was_stopped():
    command = [sys.executable, "-m", "host_sim", "powercut", "--scenario", "one"]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # In the background of a shell Ctrl-C is switched off, for all that it starts as well.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    with running:
        first = running.stdout.readline()
        assert re.match(r"800 cuts, about \d+ (s|min) with \d+ cores?; N=60 ", first), first
        time.sleep(0.5)
        # As a terminal does it: the workers get it as well.
        os.killpg(running.pid, signal.SIGINT)
        rest = running.stdout.read()
    last = r"[\s\S]*stopped: \d+ cases tried, 0 failures; 0 of 1 parts complete\n"
    assert re.fullmatch(last, rest), rest
    assert running.returncode == 130
