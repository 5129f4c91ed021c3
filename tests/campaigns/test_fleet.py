"""A small fleet goes through the day of a large one, and what is told of it is right."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from host_sim.campaigns.fleet import campaign
from host_sim.campaigns.fleet.campaign import Fleet, Plan, Result
from host_sim.campaigns.fleet.cli import plot, summary
from host_sim.campaigns.fleet.member import Member
from host_sim.campaigns.fleet.memory import MemoryWatch, Peak
from host_sim.campaigns.fleet.plot import expected_rate
from host_sim.errors import SimError
from tests.brokers import require_mosquitto

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
        other = Result(SMALL)
        fleet._judge(other)
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
    monkeypatch.setattr(campaign, "_PATIENCE_S", 2.5)
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
        watch._stop.wait(0.6)
    assert watch.peak.hosts_rss > len(hold)
