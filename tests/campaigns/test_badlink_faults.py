"""The agent broken on purpose: each fault has to be caught by what tries bad links."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from host_sim.campaigns.badlink.control import ControlChannel
from host_sim.campaigns.badlink.holes import BlackHoles
from host_sim.campaigns.badlink.parts import run_part
from host_sim.campaigns.badlink.resume import Downloader
from host_sim.console.faults import Faults, in_turn
from tests.mutants import Mutant

DOCUMENT = Path(__file__).parents[2] / "docs" / "bad-links.md"
CUT = 30_000
DOWNLOAD, FETCH = "ota/download.py", "ota/fetch.py"
ENDING, WIRE, DIAL = "ota/install/ending.py", "ota/wire.py", "ota/dial.py"
Try = Callable[[Path], tuple[str, ...]]


def resumed(*faults: Faults) -> Try:
    """What goes wrong in a download whose second request meets these faults."""

    def attempt(firmware: Path) -> tuple[str, ...]:
        with Downloader("tar", 60_000, firmware) as downloader:
            first = Faults(cut_at=[CUT])
            downloader.console.faults = in_turn(first, *faults)
            return downloader.fetch("resumed").wrong

    return attempt


def cut_once(firmware: Path) -> tuple[str, ...]:
    """… in one that is cut once."""
    with Downloader("tar", 60_000, firmware) as downloader:
        return downloader.cut_at("cut", [CUT]).wrong


def silent_at(name: str) -> Try:
    """… in a wake with this black hole."""

    def attempt(firmware: Path) -> tuple[str, ...]:
        with BlackHoles(1, firmware) as holes:
            outcome = holes.run(name)
            return (*outcome.wrong, *filter(None, [outcome.slow]))

    return attempt


def before_the_report_is_heard(firmware: Path) -> tuple[str, ...]:
    """… when the control channel breaks while the report is on its way up."""
    with ControlChannel("amqtt", firmware) as channel:
        up = [packet for packet in channel.packets() if packet.direction == "up"]
        at = next(n for n, p in enumerate(up) if p.type == "PUBLISH" and p.payload)
        middle = sum(packet.length for packet in up[:at]) + up[at].length // 2
        (failure,) = run_part(channel, [f"up.reset.{middle}"]).failures
        return failure.wrong


def weak(firmware: Path) -> tuple[str, ...]:
    """What goes wrong where all answers have a weak tag."""
    with Downloader("tar", 60_000, firmware) as downloader:
        downloader.console.faults = Faults(cut_at=[CUT], etag='W/"x"')
        return downloader.fetch("weak").wrong


@dataclass(frozen=True)
class Planted:
    """A fault, where it is planted, and what has to catch it."""

    name: str
    fault: str
    caught_by: str
    edits: tuple[tuple[str, str, str], ...]
    attempt: Try
    allowed: tuple[str, ...] = ()
    """What goes wrong without the fault."""


_CHANGED = ("Transient can not download: the server has changed the package meanwhile",)

PLANTED = [
    Planted(
        "splices",
        "Content-Range is not compared with what was asked",
        "a range that begins a byte further",
        (
            (
                FETCH,
                "if not _is_rest(download, response):",
                "if False:",
            ),
        ),
        resumed(Faults(range_shift=1)),
        ("Transient can not download: Content-Range makes no sense",),
    ),
    Planted(
        "any package will do",
        "the entity tag is not compared",
        "a package that has changed",
        ((FETCH, "if response.etag != download.etag and download.etag:", "if False:"),),
        resumed(Faults(etag='"other"')),
        _CHANGED,
    ),
    Planted(
        "weak is strong",
        "a weak entity tag is taken for a strong one",
        "a package that is as good as the other",
        (("ota/https.py", 'value if strong else b""', "value"),),
        weak,
        ("Transient can not download: the body ended early",),
    ),
    Planted(
        "twice the beginning",
        "a server that sends all again is read from its first byte",
        "a server that does not know ranges",
        ((FETCH, "_skip(download)\n        return", "return"),),
        resumed(Faults(range_taken_as="")),
    ),
    Planted(
        "all again",
        "the rest is asked for from the beginning",
        "a cut",
        ((FETCH, 'config["ca"], download.done,', 'config["ca"], 0,'),),
        cut_once,
    ),
    Planted(
        "gives up",
        "a server in trouble is not asked again",
        "a 503 while resuming",
        ((FETCH, "_MOST_FRUITLESS = const(3)", "_MOST_FRUITLESS = const(1)"),),
        resumed(Faults(status=503)),
    ),
    Planted(
        "forgets",
        "the report is forgotten before it is sent",
        "a reset while the report goes up",
        (
            (
                ENDING,
                'send(agent, owed)\n                transaction.forget("report")\n            if',
                'transaction.forget("report")\n                send(agent, owed)\n            if',
            ),
        ),
        before_the_report_is_heard,
    ),
    Planted(
        "patience",
        "a wait takes six times timeout_s",
        "a black hole at SUBACK",
        ((WIRE, "return min(self.wait_ms, self", "return min(6 * self.wait_ms, self"),),
        silent_at("suback"),
    ),
    Planted(
        "starves the watchdog",
        "two waits in a row do not feed it",
        "a black hole in the body, and then at every connect",
        (
            (DIAL, "the watchdog.\n    wire.limits.step()", "the watchdog."),
            (DIAL, "an empty list\n            wire.limits.step()", "an empty list"),
            (FETCH, "        limits.step()\n", ""),
        ),
        silent_at("body-drop.watchdog"),
    ),
]


@pytest.mark.few(2)
@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_each_planted_fault_is_caught(planted: Planted, tmp_path: Path):
    firmware = Mutant(planted.name, planted.fault, "", planted.edits).plant(tmp_path)
    wrong = planted.attempt(firmware)
    assert wrong != planted.allowed


def test_the_table_is_the_list_of_faults():
    text = DOCUMENT.read_text().partition("## The proof can fail")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    assert rows[1:] == [(p.name, p.fault, p.caught_by) for p in PLANTED]
