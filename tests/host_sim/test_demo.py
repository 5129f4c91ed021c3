"""The demo shows what it says, and fails when it was not seen."""

from __future__ import annotations

import io

import pytest
from rich.console import Console as Terminal

from host_sim import demo


def show() -> tuple[int, str]:
    """Run the demo; its exit code and what it showed."""
    screen = io.StringIO()
    return demo.run(Terminal(file=screen, width=200), "amqtt"), screen.getvalue()


def test_the_whole_story_in_its_order():
    code, text = show()
    assert code == 0, text
    places = [
        text.index(part)
        for part in (
            "node says: version 1 runs",
            "the operator requests package",
            "the node heard the request",
            "flash checked",
            "verified HTTPS download begins",
            "committed, changed paths: 57",
            "installed by renaming, paths: 57",
            "request cleared",
            "reported [",
            "the node boots (hard)",
            "node says: version 2 runs",
            "confirmed",
        )
    ]
    assert places == sorted(places)


def test_what_was_not_seen_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "_BLOCKS", 440)  # too small a flash for the new version
    code, text = show()
    assert code == 1
    assert "NOT SEEN: version 2 running" in text
    assert "NOT SEEN: e:1 at the console" in text
