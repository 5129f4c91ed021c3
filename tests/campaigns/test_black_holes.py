"""Links that fall silent at each step: the node sleeps within the limits of docs/bad-links.md.

`make badlink` has them with longer times, each with a watchdog too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_sim.campaigns.badlink.holes import BlackHoles
from host_sim.campaigns.badlink.parts import run_part
from host_sim.campaigns.badlink.steps import DNS_S, HOLES

DOCUMENT = Path(__file__).parents[2] / "docs" / "bad-links.md"
STEPS = {"dns", "connect", "hello", "flight", "drip", "connack", "suback", "retained", "pingresp"}
STEPS |= {"header", "body", "clear", "report"}
#: These take many times timeout_s: `make badlink` has them.
LONG = ("body-drips", "drip-report")
WITH_WATCHDOG = ("dns-server", "suback", "body-drop", "clear-drop")


@pytest.fixture(scope="module")
def holes() -> Iterator[BlackHoles]:
    with BlackHoles(1) as holes:
        yield holes


def test_every_step_has_its_hole(holes: BlackHoles):
    assert {name.split("-")[0] for name in HOLES} == STEPS
    assert set(holes.cases()) == {name + end for name in HOLES for end in ("", ".watchdog")}


@pytest.mark.slow
def test_the_node_sleeps_within_its_limits(holes: BlackHoles):
    """And finishes the update in the wakes after it."""
    cases = [name for name in HOLES if name not in LONG]
    cases += [f"{name}.watchdog" for name in WITH_WATCHDOG]
    result = run_part(holes, cases)
    assert len(result.outcomes) == len(cases)
    assert [(o.case, o.wrong, o.slow) for o in result.failures] == []


@pytest.mark.slow
def test_the_watchdog_ends_a_call_that_never_returns(holes: BlackHoles):
    """It is fed when something moves, not by time."""
    wake = holes.hang()
    assert wake.run.names() == ["boot", "wdt", "flash"]
    assert wake.seconds < DNS_S + 3


def test_the_document_has_these_limits():
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| (.+?) \| [\d.]+ \| [\d.]+ \|$", text, re.MULTILINE)
    assert rows == [(hole.what, str(hole.limit)) for hole in HOLES.values()]
