"""Tests that run in each release of MicroPython that npm has for Node.js (docs/limits.md)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from host_sim.releases.interpreters import Release, releases
from host_sim.releases.node import Interpreter
from tests.brokers import need
from tests.conftest import FIRMWARE

RELEASES = releases()


@pytest.fixture(scope="session", params=RELEASES, ids=lambda release: release.name)
def release(request: pytest.FixtureRequest) -> Release:
    """Each of them. Skips the test where they are not installed; in CI that fails it."""
    need("releases")
    return request.param


@pytest.fixture(scope="session")
def interpreter(release: Release) -> Iterator[Interpreter]:
    """A process of it, which makes the instances of all tests."""
    with Interpreter(release.name) as made:
        yield made


@pytest.fixture
def form(request: pytest.FixtureRequest, release: Release) -> str:
    """The agent compiled, "mpy", where the release loads that; else as source, "py"."""
    return getattr(request, "param", "mpy") if release.mpy else "py"


@pytest.fixture
def agent(form: str, compiled: Path) -> Path:
    """A folder to import the agent from."""
    return FIRMWARE if form == "py" else compiled
