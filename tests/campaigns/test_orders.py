"""Random scripts of cancel and replace: a few here, many in `make orders`; the rule can fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from host_sim.campaigns.campaign import Tally
from host_sim.campaigns.orders.bench import Bench
from host_sim.campaigns.orders.broker import REFUSALS
from host_sim.campaigns.orders.script import STEPS, Act, Package, Script, Wake, main_py, make
from tests.mutants import ORDER_MUTANTS, Mutant

# The last four: power fails between the look before the commit and its first write.
SEEDS = (*range(16), 496, 784, 800, 948)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench() as bench:
        yield bench


@pytest.mark.few(1)
@pytest.mark.parametrize("part", range(4))
def test_one_end_for_each_request_that_stood(bench: Bench, part: int):
    tally = Tally()
    for seed in SEEDS[part::4]:
        tally.add(bench.run(seed))
    assert not tally.failures, "\n".join(f"{o.wrong}\n{o.story}" for o in tally.failures)
    assert tally.ends["applied"]


def test_a_seed_tells_all():
    assert str(make(7)) == str(make(7)) != str(make(8))
    assert [p.archive() for p in make(7).packages] == [p.archive() for p in make(7).packages]


def test_scripts_have_everything_in_them():
    text = "\n".join(str(make(seed)) for seed in range(400))
    for part in (*STEPS, *REFUSALS, "client=", "own client", "confirmed", "cut (", "obeys"):
        assert part in text, part
    for number in range(1, 25):
        assert f"before {number}:" in text
        assert f"after {number}:" in text
    for move in ("ask", "cancel", "cancel ask", "again", "drop", "power", "ask power", "ask drop"):
        assert f": {move};" in text or f": {move}\n" in text, move


# -- between two packets, one by one -------------------------------------------------------------


def good(version: int, client: bool) -> Package:
    tree = {"main.py": main_py(version, client), f"new/v{version}.bin": b"%d" % version * 500}
    return Package(tree, "good", version)


def script(client: bool, *acts: Act, refusal: str = "") -> Script:
    asks = sum(act.moves.count("ask") for act in acts)
    packages = [good(n + 2, client) for n in range(asks)]
    return Script(0, client, "installed", refusal, packages, [Wake(acts)])


@pytest.mark.slow
@pytest.mark.parametrize("client", [False, True], ids=["own client", "client="])
@pytest.mark.parametrize("moves", ["cancel", "ask", "cancel ask"])
def test_between_every_two_packets(bench: Bench, moves: str, client: bool):
    """The same at each place in turn, up to the end of the update."""
    wrong, names = [], set()
    for number in range(1, 18):
        for when in ("before", "after"):
            acts = Act("start", ("ask",)), Act(f"{when} {number}", tuple(moves.split(" ")))
            outcome = bench.play(script(client, *acts))
            names.update(outcome.ends)
            if outcome.wrong:
                wrong.append(f"{when} {number}: {outcome.wrong}\n{outcome.story}")
    assert not wrong, "\n".join(wrong)
    assert {"withdrawn, no end", "applied"} <= names
    assert not any("excused" in name for name in names)


# -- the rule can fail ---------------------------------------------------------------------------

Scripts = Callable[[], Iterator[Script]]


def once(client: bool, *acts: Act, refusal: str = "") -> Scripts:
    """This script, and no other."""
    return lambda: iter([script(client, *acts, refusal=refusal)])


def around(move: str) -> Scripts:
    """This before each packet from the download on."""

    def scripts() -> Iterator[Script]:
        for number in range(7, 18):
            yield script(False, Act("start", ("ask",)), Act(f"before {number}", (move,)))

    return scripts


def wiped(move: str, *later: Wake) -> Scripts:
    """Another request just before a packet, the clear among them, and this at a later packet."""

    def scripts() -> Iterator[Script]:
        for number in CLEAR:
            for further in PUT_BACK:
                acts = (
                    ASK,
                    Act(f"before {number}", ("ask",)),
                    Act(f"before {number + further}", (move,)),
                )
                play = script(False, *acts)
                play.wakes += later
                play.packages = [good(n + 2, False) for n in range(4)]
                yield play

    return scripts


# Where these packets of the node are, or a little off that.
CLEAR, PUT_BACK = range(9, 14), range(3, 8)
ASK = Act("start", ("ask",))
CATCHES: dict[str, Scripts] = {
    "commits unseen": once(False, ASK, Act("download", ("cancel",))),
    "commits on a stale view": once(True, ASK, Act("file", ("cancel",))),
    "stays wiped": around("ask"),
    "kept in RAM": wiped("power"),
    "older over newer": wiped("power", Wake((ASK,))),
    "echo not looked at": wiped("ask"),
    "acknowledged, so cleared": once(False, ASK, refusal="drops"),
    "clear before report, for ever": once(True, ASK, refusal="closes"),
    "done in RAM": once(False, ASK, refusal="drops"),
    "done for ever": once(True, ASK, refusal="closes"),
}


@pytest.mark.few(1)
@pytest.mark.parametrize("mutant", ORDER_MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_fault_is_caught(tmp_path: Path, mutant: Mutant):
    with Bench(firmware=mutant.plant(tmp_path)) as bench:
        for play in CATCHES[mutant.name]():
            if bench.play(play).wrong:
                return
    pytest.fail("not caught")


@pytest.mark.slow
@pytest.mark.parametrize("name", CATCHES)
def test_the_same_scripts_are_right_without_the_fault(bench: Bench, name: str):
    """Else it would be the scripts that are wrong."""
    for play in list(CATCHES[name]())[:6]:
        outcome = bench.play(play)
        assert not outcome.wrong, f"{outcome.wrong}\n{outcome.story}"
