"""A small fleet goes through the day of a large one, and what is told of it is right."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import pytest

from host_sim import sample
from host_sim.__main__ import main
from host_sim.campaigns import campaign
from host_sim.campaigns.fleet import crew, mixed
from host_sim.campaigns.fleet.campaign import Fleet, Plan, Result
from host_sim.campaigns.fleet.cli import plot, summary
from host_sim.campaigns.fleet.member import Member
from host_sim.campaigns.fleet.memory import MemoryWatch, Peak
from host_sim.campaigns.fleet.mixed import Mixed
from host_sim.campaigns.fleet.plot import expected_rate
from host_sim.console import Console
from host_sim.errors import SimError
from tests.brokers import require_mosquitto
from tests.busy import factor

SMALL = Plan(nodes=6, cut_share=0.34, retry_s=1, down_s=0.5)


@pytest.mark.slow
def test_all_are_asked_at_once_and_all_lose_their_broker():
    require_mosquitto()
    told: list[str] = []
    with Fleet(SMALL, told.append) as fleet:
        result = fleet.run()
        assert result.wrong == []
        # Any other end than the right one is told.
        fleet._expected, fleet._fuid = "another", "00000000"
        other = Result(SMALL, fleet._wrong())
    assert len(other.wrong) == 12
    assert other.wrong[0].startswith("node 0 reported [(1, '")
    assert other.wrong[-1] == "node 5 has another tree than the new one"
    assert summary(other)[-1] == "NOT as it must"
    assert (len(result.reported_s), len(result.reported_cut_s)) == (4, 2)
    assert result.downloads > 6  # those that were cut off have been taken up again
    assert len(result.back_s) == 6
    assert min(result.back_s) > SMALL.down_s / 2
    if Path("/proc/self/statm").exists():
        assert result.memory.interpreters == 6
        assert 6 * 10**6 < result.memory.interpreters_rss < 6 * 10**8
    assert told[0].startswith("6 nodes are connected")
    assert summary(result)[-1] == "all ended in one report and on the new tree"


@pytest.mark.slow
def test_a_node_that_never_comes_to_its_end_is_named(monkeypatch: pytest.MonkeyPatch):
    require_mosquitto()
    monkeypatch.setattr(crew, "_PATIENCE_S", 2.5 * factor())
    with (
        pytest.raises(SimError, match=r"2 nodes have not confirmed; node 0: .*CRC-32"),
        Fleet(Plan(nodes=2, cut_share=0, retry_s=1, down_s=0)) as fleet,
    ):
        fleet._archive = fleet._archive[:-6] + b"\0" + fleet._archive[-5:]
        fleet.run()


def test_members_differ_and_are_the_same_every_time():
    members = [Member(n, True) for n in range(50)]
    for part in (lambda m: m.device_id, lambda m: m.key, lambda m: m.channel):
        assert len({part(m) for m in members}) == 50
    assert len({m.profiles(20_000) for m in members}) == 50
    assert members[3].profiles(20_000) == Member(3, True).profiles(20_000)
    assert Member(3, False).profiles(20_000) == ("", "")


# -- nodes of several releases -------------------------------------------------------------------


@pytest.mark.slow
def test_one_package_for_nodes_of_several_releases():
    require_mosquitto()
    with Mixed(12) as fleet:
        result = fleet.run()
        assert result.wrong == []
        assert [(s.release, len(s.members)) for s in result.shares] == [
            (f"v{n}", 2) for n in range(1, 7)
        ]
        # No less than the layout either: all of it is needed.
        assert all(0 <= got - s.asked <= mixed.ALLOWED for s in result.shares for got in s.fetched)
        assert all(s.asked < result.size / 10 for s in result.shares)
        assert [s.differ > 0 for s in result.shares] == [True] * 5 + [False]
        # Any other end than the right one is told: two reports, none, and too many bytes.
        first, second = (fleet._members[n] for n in (0, 1))
        report = f'[{{"n":"e","v":1}},{{"n":"i","vs":"{fleet._fuid}"}}]'
        fleet._console.request_raw(first.device_id, report, retain=False)
        fleet._console._journal._messages_of[second.device_id] = []
        share = result.shares[2]
        share.asked -= mixed.ALLOWED + 1
        wrong = fleet._wrong()
        fleet._expected = "another"
        trees = fleet._wrong()[2:14]
    assert wrong[0].startswith(f"node 0 reported [(1, '{fleet._fuid}', None), (1, '")
    assert wrong[1] == "node 1 reported []"
    assert wrong[2:] == [
        f"node {n} of v3 fetched {got} bytes, {share.asked} by the layout"
        for n, got in zip((2, 8), share.fetched, strict=True)
    ]
    assert trees == [f"node {n} has another tree than the new one" for n in range(12)]


@pytest.mark.slow
def test_a_server_that_ignores_range_costs_too_much(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    require_mosquitto()

    class Ignores(Console):
        def __enter__(self) -> Console:
            self.faults.range_taken_as = ""
            return super().__enter__()

    monkeypatch.setattr(crew, "Console", Ignores)
    written: list[tuple[str, ...]] = []
    monkeypatch.setattr(campaign, "write", lambda *what: written.append(what))
    assert main(["fleet", "--mixed", "--nodes", "2", "--write"]) == 1
    told = capsys.readouterr().out
    assert "WRONG node 0 of v1 fetched 3" in told
    assert "WRONG node 1 of v2 fetched 3" in told
    assert not written


@pytest.mark.slow
def test_a_node_with_a_file_of_its_own_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    require_mosquitto()
    image = Mixed._image

    def changed(self: Mixed, name: str, tree: sample.Tree, **more: int) -> Path:
        return image(self, name, tree | {"assets/own.bin": b""} if name == "v2" else tree, **more)

    monkeypatch.setattr(Mixed, "_image", changed)
    assert main(["fleet", "--mixed", "--nodes", "2"]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "WRONG" in line]
    assert line == "WRONG node 1 has another tree than the new one"


def test_releases_differ_a_little_and_are_the_same_every_time():
    trees = sample.releases()
    assert sample.releases() == trees
    assert [len(tree) for tree in trees] == [105, 105, 106, 106, 105, 105]
    for old, new in pairwise(trees):
        assert 5 < sum(old.get(path) != content for path, content in new.items()) < 15


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--mixed", "--cut", "0.5"), "--mixed goes with --nodes and --write only"),
        (("--write",), "--write goes with --mixed only"),
        (("--mixed", "--nodes", "0"), "--nodes and --retry are at least 1"),
    ],
)
def test_options_that_do_not_go_together(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["fleet", *words]) == 2
    assert said in capsys.readouterr().err


def test_the_table_of_the_page_is_what_the_command_writes():
    (table,) = campaign.place(mixed.PLACE).findall((Path("docs") / mixed.PAGE).read_text())
    head, _, *rows = table.splitlines()
    assert head == mixed.Result([], 0, 0).table().splitlines()[0]
    assert [row.split("|")[1].strip() for row in rows] == [
        *(f"v{n}" for n in range(1, 7)),
        "the whole package",
    ]


# -- what is told --------------------------------------------------------------------------------


@pytest.mark.few(1)
@pytest.mark.parametrize(("retry_s", "down_s"), [(20, 0), (20, 8), (20, 20), (5, 12)])
def test_the_expected_rate_brings_everybody_back(retry_s: float, down_s: float):
    rate = expected_rate(200, retry_s, down_s, 64 * retry_s)
    assert sum(value for _, value in rate) * 0.1 == pytest.approx(200, rel=0.03)
    assert all(value == 0 for t, value in rate if t < down_s - 0.2)
    if down_s < retry_s:
        # Those whose first pause was longer than that, and nobody else yet.
        assert rate[int(down_s * 10) + 1][1] >= 200 / retry_s


def test_the_plot_shows_every_node():
    back = [8.2, 8.9, 9.0, 15.5, 40.1]
    text = plot(Result(Plan(5, 0, 20, 8), down_s=8.1, back_s=back))
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    bars = [r for r in root.iter(space + "rect") if r.get("class") == "bar"]
    heights = [float(bar.get("height", 0)) for bar in bars]
    assert len(bars) == 4
    assert sum(heights) / min(heights) == pytest.approx(5, rel=0.01)
    places = [float(bar.get("x", 0)) for bar in bars]
    assert places == sorted(places)
    inside = float(root.get("viewBox", "").split()[2])
    assert all(0 < float(b.get("x", 0)) + float(b.get("width", 0)) < inside for b in bars)
    assert "5 nodes lose one broker for 8 s" in text


def test_memory_is_told_where_it_is_known():
    result = Result(Plan(1, 0, 20, 8), reported_s=[1.0], back_s=[9.0])
    assert not any("RSS" in line for line in summary(result))
    result.memory = Peak(interpreters=1, interpreters_rss=10_000_000)
    assert "| all interpreters together, peak RSS | 10.0 MB |" in summary(result)


def test_memory_of_this_process_is_seen():
    if not Path("/proc/self/statm").exists():
        pytest.skip("this system does not tell")
    with MemoryWatch() as watch:
        hold = bytearray(64_000_000)
        give_up = time.monotonic() + 60
        while watch.peak.hosts_rss <= len(hold) and time.monotonic() < give_up:
            watch._stop.wait(0.1)
    assert watch.peak.hosts_rss > len(hold)
