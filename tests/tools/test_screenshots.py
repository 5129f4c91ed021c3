"""The command that makes the pictures in docs/, and what it has made."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.screenshots import __main__ as screenshots
from tools.screenshots import page

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_pictures_are_there_and_small() -> None:
    for name in page._SHOTS:
        assert (DOCS / name).stat().st_size <= 200 * 1024
        assert f"({name})" in (DOCS / "page.md").read_text()


def test_what_can_not_be_made_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert screenshots.main(["nothing"]) == 2
    assert "no pictures 'nothing'" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "")
    assert screenshots.main(["page"]) == 2
    assert "chromium is not installed" in capsys.readouterr().err
