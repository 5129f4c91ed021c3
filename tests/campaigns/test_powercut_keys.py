"""A sample of the campaign of keys. What it catches stands in tests/mutants.py."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_sim.__main__ import main
from host_sim.campaigns.powercut import keys
from host_sim.campaigns.powercut.bench import Cut
from host_sim.campaigns.powercut.campaign import Row, Tally
from host_sim.campaigns.powercut.keys import Key, KeyExaminer
from host_sim.errors import SimError
from host_sim.node.keys import CTRL_C, KINDS, SOFT_RESET


@pytest.fixture(scope="module")
def examiner() -> Iterator[KeyExaminer]:
    with keys.hooked_bench() as bench:
        yield KeyExaminer(bench)


@pytest.mark.few(1)
@pytest.mark.parametrize("name", keys.SCENARIOS)
def test_sampled_keys(examiner: KeyExaminer, name: str):
    """Ten places of each cycle; all of them is `powercut --keys`."""
    chance, places = random.Random(name), examiner.places(name)
    resets = [key for key in places if key.kind == SOFT_RESET]
    sampled = chance.sample(resets, 6)
    # Where Ctrl-C is switched off it has no effect, which is no case.
    sampled += chance.sample([key for key in places if key.kind != SOFT_RESET], 4)
    tally = examiner.sweep(name, sampled)
    assert tally.cuts >= 6
    assert tally.failures == []


def late_in(examiner: KeyExaminer, name: str, kind: str) -> list[Key]:
    """Places at which boot.py rolls back."""
    hooks = examiner.cycle(name).run.hooks
    return [Key(int(hooks * share / 100), kind) for share in range(70, 95, 5)]


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["boots", "undeleted"])
@pytest.mark.parametrize("kind", KINDS)
def test_keys_while_boot_rolls_back(examiner: KeyExaminer, name: str, kind: str):
    tally = examiner.sweep(name, late_in(examiner, name, kind))
    assert tally.failures == []


@pytest.mark.slow
def test_a_key_after_a_key_and_a_cut_after_a_key(examiner: KeyExaminer):
    """The install that main.py has begun goes on in boot.py: no key may stop that one half way."""
    hooks = examiner.cycle("forty").run.hooks
    begun = Key(hooks * 6 // 10, SOFT_RESET)
    for after in (Key(60, CTRL_C), Key(60, SOFT_RESET), Cut(20, "half")):
        wrong = examiner.case("forty", Key(begun.at, begun.kind, after=after))
        assert wrong in ([], None), after
    assert examiner.case("forty", Key(begun.at, begun.kind, after=Cut(1, "none"))) == []
    twice = Key(60, SOFT_RESET, after=Key(60, SOFT_RESET, after=Cut(1, "none")))
    assert examiner.case("forty", Key(begun.at, begun.kind, after=twice)) == []
    assert examiner.case("forty", Key(hooks + 1, CTRL_C)) is None


def test_ids(examiner: KeyExaminer):
    long = "key:9.ctrl_c/key:9.soft_reset/op:9.ctrl_c/5.half.2"
    for text in ("key:57.ctrl_c", "op:3.soft_reset", "key:1.ctrl_c_twice/5.half.2", long):
        assert str(Key.parse(text)) == text
        assert keys.is_replay("boots/" + text)
    assert Key.parse("op:3.ctrl_c/key:9.soft_reset").after == Key(9, SOFT_RESET)
    for text in ("57.none", "key:x.ctrl_c", "key:5.shout", "key:5.ctrl_c/x"):
        with pytest.raises(SimError):
            Key.parse(text)
    assert not keys.is_replay("boots/57.none")
    assert examiner.replay("signed/op:9.soft_reset") == []
    for text in ("nowhere/key:1.ctrl_c", "signed/key:99999.ctrl_c"):
        with pytest.raises(SimError):
            examiner.replay(text)


@pytest.mark.slow
def test_command_line(capsys: pytest.CaptureFixture, tmp_path: Path):
    line = ["powercut", "--keys", "--scenario", "signed", "--sample", "3", "--jobs", "1"]
    main([*line, "--log", str(tmp_path / "log"), "--table", str(tmp_path / "table")])
    assert "signed/" in (tmp_path / "log").read_text()
    assert (tmp_path / "table").read_text().startswith("| scenario | tried |")
    assert main(["powercut", "--replay", "signed/key:1.soft_reset"]) == 0
    assert "nothing wrong" in capsys.readouterr().out
    assert main(["powercut", "--keys", "--scenario", "report"]) == 2


def test_the_table():
    row = Row("one", "title", "all places", 7, 2, Tally(9, 2), 3.2)
    assert keys.table([row, row]).splitlines()[2:] == [
        "| one: title | all places | 7 | 9 | 2 | 0 | 3 |",
        "| one: title | all places | 7 | 9 | 2 | 0 | 3 |",
        "| **all** | | 14 | 18 | 4 | 0 | 6 |",
    ]
