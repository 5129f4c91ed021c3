"""The demo shows what it says, in lines that fit, and fails when it was not seen."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console as Terminal

from host_sim import demo


def show() -> tuple[int, str]:
    """Run the demo; its exit code and what it showed."""
    screen = io.StringIO()
    return demo.run(Terminal(file=screen, width=80), "amqtt"), screen.getvalue()


def test_the_whole_story_in_its_order():
    code, text = show()
    assert code == 0, text
    at = 0
    for part in (
        "node says: version 1 runs",
        "the operator requests package",
        "the node heard the request",
        "flash checked",
        "verified HTTPS download begins",
        "committed, changed paths: 57",
        "installed by renaming, paths: 57",
        "request cleared",
        "reported e:1 for",
        "the node boots (hard)",
        "node says: version 2 runs",
        "confirmed",
        "console heard: e:1 for",
        "version 3 is broken",
        "the operator requests package",
        "the power fails now",
        "the power fails at operation 60 of flash",
        "a half-changed tree:",
        "the node boots (power_on)",
        "boot.py has finished the install: 59 of 59 files",
        "node says: version 3 runs",
        "node says: RuntimeError: version 3 is broken",
        "node says: version 2 runs",
        "node says: check: rolled_back",
        "console heard: e:2 for",
        "rolled back: 3 boots without confirm",
        "the node came back to version 2 by itself",
    ):
        at = text.index(part, at) + len(part)
    # Nothing was wrapped: each line but the last two has its time.
    lines = text.strip().splitlines()[:-2]
    assert all(re.match(r" *\d+\.\d\d s  ", line) for line in lines if line), text


def test_the_bars_say_what_they_count():
    screen = io.StringIO()
    terminal = Terminal(file=screen, width=80, force_terminal=True, color_system=None)
    with demo.bars(terminal) as bars:
        story = demo.Story(terminal, bars)
        story.expect(52)
        for line in ("@ download 289773", "@ bytes 100000", *["@ file x"] * 13):
            story.hear(line + "\n")
    shown = " ".join(screen.getvalue().split())
    assert "100,000 of 289,773 bytes 35%" in shown
    assert "13 of 52 files 25%" in shown
    assert "/s" not in shown


def test_what_was_not_seen_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "_BLOCKS", 440)  # too small a flash for the new version
    code, text = show()
    assert code == 1
    assert "NOT SEEN: version 2 running" in text
    assert "NOT SEEN: e:1 at the console" in text
    assert "version 3" not in text
