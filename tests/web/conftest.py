"""A console that is told what it has seen, its page, and Debian's chromium."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from host_sim.web import WebServer
from tests.web.fake import FakeConsole

Open = Callable[..., Page]
#: A busy machine may need that long.
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium. Skips the test where it is not installed; in CI that fails the test."""
    found = shutil.which("chromium")
    if found is None:
        message = "chromium is not installed (Debian's package chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def fake(tmp_path: Path) -> FakeConsole:
    """A console without devices and packages."""
    return FakeConsole(tmp_path / "console")


@pytest.fixture
def web(fake: FakeConsole) -> Iterator[WebServer]:
    """The page of that console."""
    with WebServer(fake) as server:
        yield server


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open the page at an address, so wide; what its code complains of fails the test."""
    complaints: list[str] = []

    def hear(message) -> None:
        # An answer that is no 200 is one: those are what some tests want.
        if message.type == "error" and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    with contextlib.ExitStack() as stack:

        def make(url: str, width: int = 1280, **options) -> Page:
            context = browser.new_context(viewport={"width": width, "height": 900}, **options)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(PATIENCE_MS)
            page.on("console", hear)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(url)
            return page

        yield make
    assert not complaints, complaints
