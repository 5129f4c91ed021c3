"""The pictures of the terminal in `docs/`: of real commands, and small enough for a clone."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.text import Text

from host_sim.errors import SimError
from tests.brokers import need
from tools.screenshots import terminal

DOCS = Path(__file__).parents[2] / "docs"


def test_what_a_command_prints_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("chromium")
    told = terminal._typed("--version", cwd=tmp_path)
    prompt, version = told.plain.splitlines()
    assert prompt == "$ insigh-ota --version"
    assert version.startswith("insigh-ota 0.")
    with pytest.raises(SimError, match="insigh-ota push ended with 2: insigh-ota push: "):
        terminal._typed("push", cwd=tmp_path)
    file = terminal._draw(tmp_path / "x.png", told + Text("\n<script>document.body.remove()"))
    assert file.read_bytes().startswith(b"\x89PNG")
    width = int.from_bytes(file.read_bytes()[16:20], "big")
    assert 200 < width < 1200
    monkeypatch.setattr(terminal, "MOST", 100)
    with pytest.raises(SimError, match=r"y.png would have \d+ bytes, more than 100"):
        terminal._draw(tmp_path / "y.png", told)
    assert not (tmp_path / "y.png").exists()


def test_those_in_the_repository_are_small() -> None:
    pictures = list(DOCS.glob("*.png"))
    assert {"terminal-push.png", "terminal-demo.png"} <= {each.name for each in pictures}
    assert all(each.stat().st_size <= 200 * 1024 for each in pictures)
