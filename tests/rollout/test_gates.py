"""Decisions on counts: growth, the first percent, and what stops."""

from __future__ import annotations

import pytest

from host_sim.campaigns.rollout.cases import ABSENT, BY_NAME, SLIGHT
from host_sim.campaigns.rollout.decisions import simulate
from insigh_ota.commands import main
from insigh_ota.rollout.gates import Rules, Tally, decide, is_grave

RULES = Rules()


def board(size: int, good: int = 0, out: int = 0, **bad: int) -> Tally:
    done = good + sum(bad.values())
    return Tally(size, asked=done + out, good=good, done=done, **bad)


def test_canaries_of_each_board_first():
    first = decide({"a": board(9000), "b": board(997), "c": board(3)}, RULES)
    assert dict(first.ask) == {"a": 3, "b": 3, "c": 3}
    tiny = decide({"a": board(5), "b": board(1)}, RULES)
    assert dict(tiny.ask) == {"a": 1, "b": 1}


def test_the_first_percent_waits_for_every_end():
    almost = {"a": board(5000, good=30, out=1), "b": board(5000, good=20)}
    assert not decide(almost, RULES).ask
    full = {"a": board(5000, good=50), "b": board(5000, good=50)}
    assert dict(decide(full, RULES).ask) == {"a": 25, "b": 25}


def test_never_more_than_the_first_percent_before_it_has_ended():
    asked = {"a": board(9700, good=60), "b": board(300, good=9)}
    ask = decide(asked, RULES).ask
    assert sum(ask.values()) == 31 and ask["b"] > 0


def test_a_wave_is_judged_before_the_next():
    done = board(1000, good=48, out=2)
    assert decide({"a": done}, RULES).wave == 1
    assert not decide({"a": board(1000, good=44, out=6)}, RULES).ask


def test_the_last_ones():
    assert decide({"a": board(10, good=9, out=1)}, RULES).over is False
    assert decide({"a": board(10, good=9, absent=1)}, RULES).over is True


@pytest.mark.parametrize("bad", ["grave", "lost"])
def test_one_failure_of_the_package_stops_among_the_first(bad: str):
    assert decide({"a": board(1000, good=49, **{bad: 1})}, RULES).stop
    assert not decide({"a": board(1000, good=250, **{bad: 1})}, RULES).stop


@pytest.mark.parametrize(("bad", "limit"), [("slight", 2), ("grave", 2), ("absent", 10)])
def test_a_share_stops(bad: str, limit: int):
    over = board(10_000, good=1000 - 10 * limit - 1, **{bad: 10 * limit + 1})
    under = board(10_000, good=1000 - 10 * limit, **{bad: 10 * limit})
    assert f"more than {limit} %" in decide({"a": over}, RULES).stop
    assert not decide({"a": under}, RULES).stop


def test_a_board_is_judged_by_itself():
    boards = {"most": board(9000, good=900), "few": board(300, good=26, slight=4)}
    assert "of board few" in decide(boards, RULES).stop


def test_few_of_the_nodes_own_reasons_do_not_stop():
    assert not decide({"a": board(1000, good=7, slight=2, absent=1)}, RULES).stop
    assert "none has ended well" in decide({"a": board(1000, slight=2)}, RULES).stop


@pytest.mark.parametrize(
    ("reason", "grave"),
    [
        ("rolled back: 3 boots without confirm", True),
        ("can not apply: …", True),
        ("no reason was given", True),
        ("<script>", True),
        ("not enough space: flash is full", False),
        ("can not download: 404", False),
    ],
)
def test_whose_fault(reason: str, grave: bool):
    assert is_grave(reason) is grave


# -- the decisions over seeds: docs/rollout.md has those of hundreds -----------------------------


@pytest.mark.parametrize("name", ["small", "brick", "dark", "full"])
def test_a_board_that_fails_stops_at_its_canaries(name: str):
    for seed in range(10):
        course = simulate(BY_NAME[name], 10_000, seed, RULES)
        assert course.stop and course.asked <= 100, (seed, course)


def test_three_percent_of_one_board():
    courses = [simulate(BY_NAME["third"], 10_000, seed, RULES) for seed in range(20)]
    assert all(course.stop for course in courses)
    # 1 - 0.97 ** 33 is 63 %: with 33 nodes of the board among the first 100 nobody can see more.
    assert sum(course.asked <= 100 for course in courses) >= 9
    assert sum(course.asked <= 500 for course in courses) >= 19


def test_noise_alone_comes_to_the_end():
    case = BY_NAME["good"]
    ends = [end for _, end in case.fleet(10_000, 1)]
    assert ends.count(ABSENT) > 50 and ends.count(SLIGHT) > 5
    courses = [simulate(case, 10_000, seed, RULES) for seed in range(6)]
    assert sum(not course.stop for course in courses) >= 5


@pytest.mark.parametrize("option", ["--max-failed", "--max-silent", "--guard"])
@pytest.mark.parametrize("text", ["nan", "-1", "101", "inf", "x"])
def test_a_limit_that_is_none(option: str, text: str, capsys: pytest.CaptureFixture[str]):
    assert main(["rollout", "--state", "none.json", option, text]) == 2
    assert option in capsys.readouterr().err
