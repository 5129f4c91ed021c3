"""Random fault scripts: a few of them here, many in `make scripts`; and that the rule can fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from host_sim import ctrl_c
from host_sim.campaigns import campaign
from host_sim.campaigns.campaign import Outcome, Tally
from host_sim.campaigns.scripts.bench import Bench
from host_sim.campaigns.scripts.cli import CAMPAIGN
from host_sim.campaigns.scripts.judge import Order, judge
from host_sim.campaigns.scripts.script import Package, make
from host_sim.console.journal import Message
from tests.brokers import require_mosquitto
from tests.mutants import MUTANTS, Mutant

SEEDS = range(15)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    require_mosquitto()
    with Bench() as bench:
        yield bench


@pytest.mark.few(1)
@pytest.mark.parametrize("part", range(3))
def test_old_or_new_and_one_end(bench: Bench, part: int):
    tally = Tally()
    for seed in SEEDS[part::3]:
        tally.add(bench.run(seed))
    assert not tally.failures, "\n".join(f"{o.wrong}\n{o.story}" for o in tally.failures)
    assert tally.ends["applied"]
    assert tally.power_cuts


def test_a_seed_tells_all():
    assert str(make(7)) == str(make(7)) != str(make(8))
    assert [p.archive() for p in make(7).packages] == [p.archive() for p in make(7).packages]


@pytest.mark.slow
def test_scripts_have_everything_in_them():
    """Each kind of fault, each kind of package, within three hundred seeds."""
    scripts = [make(seed) for seed in range(300)]
    text = "\n".join(map(str, scripts))
    for part in (
        "MQTT over TLS",
        "report confirmed",
        "cut=",
        "reset:",
        "hold=",
        "connect=hold",
        "connect=refuse",
        "corrupt=",
        "tls=",
        "'status': 503",
        "'status': 404",
        "cut_at",
        "range_taken_as",
        "content_range",
        "'etag'",
        "flip_at",
        "stall_at",
        "cut (",
        "cut_at_step",
        "fail (",
        "persistent",
        "asks idle",
        "asks download",
    ):
        assert part in text, part
    assert {p.kind for s in scripts for p in s.packages} == {"tar", "gzip", "microfreezer"}
    manners = {"good", "damaged", "crashes", "does not compile", "resets", "never connects"}
    assert {p.manner for s in scripts for p in s.packages} == manners


# -- the rule can fail ---------------------------------------------------------------------------


def mutant(name: str, file: str, old: str, new: str) -> Mutant:
    return Mutant(name, "", "", ((file, old, new),))


# A script that catches each: where scripts are drawn in another way now, look for another seed.
PLANTED = {
    0: next(m for m in MUTANTS if m.name == "delete before rename"),
    196: mutant(
        "clear whatever stands there",
        "ota/install/report.py",
        "    if mark_of(control.pending()) == mark and done() != mark:",
        "    if control.pending():",
    ),
    551: mutant(
        "the rest of another package",
        "ota/fetch.py",
        "    if response.etag != download.etag and download.etag:\n",
        "    if False:\n",
    ),
}


@pytest.mark.few(1)
@pytest.mark.parametrize("seed", PLANTED, ids=[m.name for m in PLANTED.values()])
def test_a_planted_fault_is_caught(tmp_path: Path, seed: int):
    require_mosquitto()
    with Bench(firmware=PLANTED[seed].plant(tmp_path)) as bench:
        outcome = bench.run(seed)
    assert outcome.wrong, outcome.story


def test_a_script_that_fails_says_its_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """And the command fails with it. Ctrl-C would say how far it came."""
    good = Outcome(3, [], Counter(applied=1), wakes=2, boots=3)
    bad = Outcome(4, ["still retained: b'[]'"], Counter(superseded=1), wakes=2, boots=2)
    monkeypatch.setattr(campaign, "run_all", lambda *_: iter([good, bad]))
    told: list[str] = []
    monkeypatch.setattr(ctrl_c, "tell", told.append)
    arguments = SimpleNamespace(seed=None, count=2, first=3, jobs=1, broker="amqtt")
    assert CAMPAIGN.command(arguments) == 1
    text = capsys.readouterr().out
    assert "FAILED seed 4: still retained" in text
    assert "python -m host_sim scripts --seed 4\n" in text
    assert "     1 still retained: 4\n" in text
    for row in ("scripts | 2", "failures | 1", "wakes | 4", "boots | 5"):
        assert f"| {row} |" in text
    assert "| requests | 2: 1 applied, 1 superseded |" in text
    assert told[-1] == "stopped: 2 scripts tried, 1 failures"
    monkeypatch.setattr(campaign, "run_all", lambda *_: iter([good]))
    assert CAMPAIGN.command(arguments) == 0


OLD = ({"/main.py": b"1", "/data/a": b"a"}, ["/data"])
FIRST = Order("11111111", Package({"main.py": b"2", "new/deep/b": b"b"}, "tar", "good"))
SECOND = Order("22222222", Package({"main.py": b"3"}, "tar", "crashes"))
NEW = ({"/main.py": b"2", "/data/a": b"a", "/new/deep/b": b"b"}, ["/data", "/new", "/new/deep"])


def report(e: int, i: str, m: str | None = None) -> Message:
    text = f'[{{"n":"e","v":{e}}},{{"n":"i","vs":"{i}"}}'
    text += f',{{"n":"m","vs":"{m}"}}]' if m else "]"
    return Message("channels/c/messages/d/ota", text.encode(), 1, False)


GOOD_ENDS = {
    "applied": (NEW, [FIRST], [report(1, "11111111")]),
    "applied, told twice": (NEW, [FIRST], [report(1, "11111111")] * 2),
    "refused": (OLD, [FIRST], [report(2, "11111111", "no")]),
    "superseded": (OLD, [FIRST, SECOND], [report(2, "22222222", "no")]),
    "applied, the next one rolled back": (
        NEW,
        [FIRST, SECOND],
        [report(1, "11111111"), report(1, "22222222"), report(2, "22222222", "rolled back: x")],
    ),
}
LEFT = ({**NEW[0], "/.ota/report": b"1 x"}, [*NEW[1], "/.ota"])
BAD_ENDS = {
    "no end": (OLD, [FIRST], [], "no end was heard"),
    "the last one must have an end": (
        NEW,
        [FIRST, SECOND],
        [report(1, "11111111")],
        "request 2 (22222222): no end",
    ),
    "applied and not there": (OLD, [FIRST], [report(1, "11111111")], "not the tree"),
    "refused and there": (NEW, [FIRST], [report(2, "11111111", "no")], "not the tree"),
    "a mixed tree": (
        ({**OLD[0], "/main.py": b"2"}, OLD[1]),
        [FIRST],
        [report(1, "11111111")],
        "not the tree that was reported: /new/deep/b",
    ),
    "a folder left": (
        (OLD[0], [*OLD[1], "/new"]),
        [FIRST],
        [report(2, "11111111", "no")],
        "not the folders",
    ),
    "two ends": (
        NEW,
        [FIRST],
        [report(2, "11111111", "no"), report(1, "11111111")],
        "more than one end: (2, 1)",
    ),
    "two reasons": (
        OLD,
        [FIRST],
        [report(2, "11111111", "no"), report(2, "11111111", "never")],
        "more than one end: (2, 2)",
    ),
    "applied, then refused": (
        OLD,
        [FIRST],
        [report(1, "11111111"), report(2, "11111111", "not enough space")],
        "more than one end",
    ),
    "no reason": (OLD, [FIRST], [report(2, "11111111")], "no reason"),
    "bad code kept": (
        ({**OLD[0], "/main.py": b"3"}, OLD[1]),
        [SECOND],
        [report(1, "22222222")],
        "applied, though it is crashes",
    ),
    "nobody asked": (OLD, [FIRST], [report(2, "11111111", "no"), report(1, "x")], "nobody asked"),
    "left behind": (LEFT, [FIRST], [report(1, "11111111")], "left behind: /.ota/report, /.ota"),
}


@pytest.mark.parametrize("name", GOOD_ENDS)
def test_ends_that_are_right(name: str):
    now, orders, messages = GOOD_ENDS[name]
    assert judge(OLD, now, orders, messages, None)[1] == []


@pytest.mark.parametrize("name", BAD_ENDS)
def test_ends_that_are_wrong(name: str):
    now, orders, messages, expected = BAD_ENDS[name]
    (wrong, *_) = judge(OLD, now, orders, messages, None)[1]
    assert expected in wrong


def test_a_request_that_stays_is_wrong():
    now, orders, messages = GOOD_ENDS["applied"]
    assert judge(OLD, now, orders, messages, b"[]")[1] == ["still retained: b'[]'"]
