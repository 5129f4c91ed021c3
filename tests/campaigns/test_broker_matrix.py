"""The matrix of brokers: small ones come out right, and what is wrong is told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from host_sim.campaigns.brokers import facts, story
from host_sim.campaigns.brokers.cli import _plan, brokers
from host_sim.campaigns.brokers.matrix import CELLS, HEAD, Cell, Result, choose, run_cell, version
from host_sim.campaigns.brokers.story import MEASURED, Counts, Plan
from host_sim.campaigns.brokers.turns import LEAST_TURNS, Idle, idle
from host_sim.console.brokers import KINDS
from host_sim.errors import SimError
from host_sim.link.wiretap import Segment
from tests.brokers import need, real_brokers
from tests.command_lines import parse


def segments(*words: tuple[str, float], connection: int = 0, length: int = 9) -> list[Segment]:
    return [Segment(connection, direction, length, t) for direction, t in words]


def test_what_an_idle_check_costs():
    check = segments(("up", 0), ("down", 0.1), ("up", 0.11), ("down", 0.2), ("up", 0.25))
    assert idle(check, False) == Idle(2, pytest.approx(50))
    # Pieces of one answer are one; the order in which two threads wrote them down is none.
    pieces = [*check, *segments(("down", 0.15), ("down", 0.19))]
    assert idle(reversed(pieces), False) == Idle(2, pytest.approx(50))
    # The end of each half is no word, nor is an answer to the goodbye.
    ended = [*check, *segments(("up", 0.26), length=0), *segments(("down", 0.27))]
    assert idle(ended, False) == Idle(2, pytest.approx(50))
    # A node that pings while it listens has listened all the while.
    pinging = [*check, *segments(("down", 0.26), ("up", 0.3))]
    assert idle(pinging, False) == Idle(3, pytest.approx(100))
    tls = segments(("up", -2), ("down", -1.9), ("up", -1), ("down", -0.9))
    assert idle([*tls, *check], True) == Idle(4, pytest.approx(50))
    for wrong in ([], [*check, *segments(("up", 0.3), connection=1)]):
        with pytest.raises(ValueError, match="one connection"):
            idle(wrong, False)


def test_cells_by_name():
    assert choose([]) == list(CELLS)
    assert choose(["nats"]) == [Cell("nats", False), Cell("nats", True)]
    assert choose(["aedes-500/tls", "amqtt/plain"]) == [
        Cell("aedes-500", True),
        Cell("amqtt", False),
    ]
    assert [cell.kind for cell in choose(["nats"])] == ["nats", "nats-tls"]
    with pytest.raises(SimError, match="no cell 'emqx': choose from mosquitto/plain"):
        choose(["emqx"])
    assert {cell.broker.partition("-")[0] for cell in CELLS} == set(real_brokers())
    assert {kind.partition("-")[0] for kind in KINDS} == set(real_brokers())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", (10, Plan(50, 15, 1))),
        ("--requests 12", (2, Plan(10, 5, 1))),
        ("--requests 3 --nodes 1 --learn 0 --others 0", (1, Plan(0, 3, 0))),
        ("--requests 1 --nodes 1", (1, Plan(10, 0, 1))),
    ],
)
def test_how_much_each_node_does(options: str, expected: tuple[int, Plan]):
    """All requests together are those asked for: one in ten wakes of learning has one."""
    assert _plan(SimpleNamespace(**parse(brokers, options.split()).params)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mosquitto/plain", "amqtt/tls"])
def test_a_broker_that_keeps_the_order(name: str):
    (cell,) = choose([name])
    need(cell.broker)
    result = run_cell(cell, 2, Plan(learn=10, requests=2, others=0))
    counts = result.counts
    assert result.mishaps == []
    assert (counts.requests, len(counts.wakes)) == (6, 6)
    assert max(counts.wakes) <= story.MOST_WAKES
    assert len(counts.idles) == 2 * MEASURED
    assert {each.turns for each in counts.idles} == {LEAST_TURNS[cell.tls]}


def slow_store(monkeypatch: pytest.MonkeyPatch, grace_ms: int) -> Result:
    """Two requests to a node that waits so long, where what is retained takes half a second."""
    monkeypatch.setattr(story, "MOST_WAKES", 3)
    monkeypatch.setattr(story, "MEASURED", 1)
    config = {"mqtt": {"grace_ms": grace_ms}}
    return run_cell(Cell(need("aedes-500"), False), 1, Plan(0, 2, 0), config)


@pytest.mark.slow
def test_a_slow_store_and_a_node_that_waits(monkeypatch: pytest.MonkeyPatch):
    result = slow_store(monkeypatch, 3000)
    assert result.mishaps == []
    assert len(result.counts.wakes) == result.counts.requests == 2
    assert result.counts.idles[0].waited_ms > 2900


def test_a_request_that_comes_too_late_is_told_as_missed(monkeypatch: pytest.MonkeyPatch):
    result = slow_store(monkeypatch, 50)
    assert result.counts.requests == 2
    assert result.counts.wakes == []
    assert [kind for kind, _ in result.counts.wrong] == ["missed", "missed"]
    assert result.mishaps[0].startswith("aedes-500/plain, node 0: missed: ")
    assert "| 0 of 2 |" in result.row()
    assert "| 2 missed |" in result.row()


class FakeConsole:
    """Reports that a console has seen, for what a story makes of them."""

    def __init__(self, *ends: tuple[str, int], retained: bytes | None = None) -> None:
        self._ends, self._retained = ends, retained

    def reports(self, _device: str) -> list:
        from host_sim.console import Report

        return [Report(e, i, None) for i, e in self._ends]

    def retained(self, _device: str) -> bytes | None:
        return self._retained


@pytest.mark.parametrize(
    ("ends", "wrong"),
    [
        ([("good", 1)], []),
        ([("good", 1), ("good", 1)], [("another end", "good, [1, 1]")]),
        ([("good", 2)], [("another end", "good, [2]")]),
        ([("good", 1), ("gone", 1)], [("done though withdrawn", "gone, [1]")]),
        ([("good", 1), ("gone", 2)], [("done though withdrawn", "gone, [2]")]),
        ([("good", 1), ("strange", 1)], [("done though withdrawn", "strange, [1]")]),
    ],
)
def test_each_end_is_judged(ends: list[tuple[str, int]], wrong: list[tuple[str, str]]):
    judged = object.__new__(story.Story)
    judged.counts = Counts()
    judged.member = story.Member(0, False)
    judged._expected = {"good": 1, "gone": None}
    judged._console = FakeConsole(*ends)
    judged._judge()
    assert judged.counts.wrong == wrong
    judged._console = FakeConsole(*ends, retained=b"[]")
    judged._judge()
    assert judged.counts.wrong[-1] == ("not cleared", "at the end")


def test_a_row_of_the_table():
    result = Result(
        Cell("nats", True),
        Counts(
            requests=3,
            wakes=[0, 2],
            cancels=1,
            idles=[Idle(4, 51.2), Idle(4, 9000.0), Idle(5, 50.1)],
            wrong=[("missed", "x"), ("another end", "y"), ("another end", "z")],
        ),
    )
    row = result.row()
    kinds = "2 another end, 1 missed"
    assert row == f"| nats, TLS | 2 of 3 | 2 | 1 | 0 | 0 | {kinds} | 4 | 51 | 9000 | 1 of 3 |"
    assert row.count("|") == HEAD.splitlines()[0].count("|") == HEAD.splitlines()[1].count("|")


@pytest.mark.parametrize("broker", real_brokers())
def test_versions_are_told(broker: str):
    assert version(need(broker)).split(".")[0].isdecimal()


def test_the_page_has_what_was_measured():
    """Its tables have this code's rows and columns."""
    page = (Path(__file__).parents[2] / "docs/brokers.md").read_text()
    assert HEAD in page
    for cell in CELLS:
        name = cell.broker + (", TLS" if cell.tls else "")
        assert f"\n| {name} | " in page, name
    questions = facts.Facts("amqtt")._questions()
    for question in questions:
        assert f"\n| {question} | " in page, question
    assert f"| | {' | '.join(facts.BROKERS)} |" in page
