"""Light nodes at a real mosquitto; `python -m host_sim rollouts` has more of it."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from host_sim.campaigns.rollout.bench import Bench, Found, Plan
from host_sim.campaigns.rollout.cases import ABSENT, BY_NAME, GOOD, GRAVE
from host_sim.campaigns.rollout.cli import rollout_campaign
from tests.brokers import require_mosquitto


def run(plan: Plan) -> Found:
    require_mosquitto()
    with Bench(plan) as bench:
        return bench.judge(bench.run())


@pytest.mark.timeout(300)
def test_a_board_that_fails_of_a_thousand():
    found = run(Plan(BY_NAME["small"], 1000, period_s=1.0, silence_s=20, look_s=0.5))
    assert not found.wrong and found.stage == "stopped"
    assert found.asked <= 10


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_noise_alone_comes_to_the_end():
    found = run(Plan(BY_NAME["good"], 300, seed=3, period_s=1.0, silence_s=20, look_s=0.5))
    assert not found.wrong and found.stage == "done"
    assert found.counts["good"] >= 290


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["good", "small"])
def test_killed_again_and_again(name: str):
    plan = Plan(BY_NAME[name], 100, seed=4, period_s=0.7, silence_s=10, look_s=0.4, kills=True)
    found = run(plan)
    assert not found.wrong and found.kills


def test_the_judge_can_say_no():
    require_mosquitto()
    plan = Plan(BY_NAME["good"], 3, period_s=0.5, silence_s=20, look_s=0.2)
    with Bench(plan) as bench:
        for node in bench.nodes.nodes.values():
            node.end = GOOD
        found = bench.run()
        assert not bench.judge(found).wrong
        first, second, third = bench.nodes.nodes.values()
        first.after_end, second.end, third.ended = 1, GRAVE, [1, 1]
        bench.console.request(first.id, bench.fuid)
        second_look = bench.judge(Found()).wrong
    for part in ("asked behind its end", "good", "[1, 1] ends", "a request was left"):
        assert any(part in line for line in second_look), (part, second_look)


def test_the_noise_is_there():
    ends = [end for _, end in BY_NAME["good"].fleet(10_000, 0)]
    assert 60 < ends.count(ABSENT) < 140


def test_the_command_on_decisions():
    result = CliRunner().invoke(
        rollout_campaign, ["--decisions", "3", "--nodes", "1000", "--case", "small"]
    )
    assert result.exit_code == 0 and "| 3 of 3 | 100.0 % |" in result.output
