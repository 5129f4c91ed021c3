"""What end-to-end tests begin with, and what each of them is searched for at its end."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from host_sim.console import Console
from host_sim.node.agent_code import compile_all
from tests.brokers import need
from tests.secrecy import WatchedSite, holds_key

# These run inside MicroPython: agent/test_device_modules.py and docs/test_examples.py see to it.
collect_ignore = ["device", "stand_ins"]

MakeSite = Callable[..., WatchedSite]
FIRMWARE = Path(__file__).parents[1] / "firmware"


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent as .mpy, and nothing of its source."""
    target = tmp_path_factory.mktemp("mpy")
    compile_all(FIRMWARE, target)
    return target


@pytest.fixture(params=[pytest.param("py", marks=pytest.mark.slow), "mpy"])
def agent(request: pytest.FixtureRequest, compiled: Path) -> Path:
    """A folder to import the agent from: its source, then itself compiled."""
    return FIRMWARE if request.param == "py" else compiled


@pytest.fixture
def make_site(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
) -> Iterator[MakeSite]:
    """Make a node at a console of its own; keywords not named here are the Site's.

    At the end of every test that uses it, all that node and console gave out is searched for the
    device key.
    """
    # Not the root: littlefs tells of every read there.
    caplog.set_level(logging.DEBUG, logger="console")
    sites: list[WatchedSite] = []
    with contextlib.ExitStack() as stack:

        def make(
            tree=None,
            *,
            broker="amqtt",
            certificate="good",
            mqtt_certificate="good",
            https_plain=False,
            **options,
        ) -> WatchedSite:
            folder = tmp_path / f"site{len(sites)}"
            console = Console(
                folder / "console",
                broker=need(broker),
                certificate=certificate,
                mqtt_certificate=mqtt_certificate,
                https_plain=https_plain,
            )
            stack.enter_context(console)
            site = WatchedSite(folder, console, tree, **options)
            stack.callback(site.close)
            sites.append(site)
            return site

        yield make
        leaks = [leak for site in sites for leak in site.leaks()]
    leaks += [f"log of {r.name}" for r in caplog.records if holds_key(r.getMessage())]
    leaks += ["standard output or error" for text in capfd.readouterr() if holds_key(text)]
    assert not leaks, leaks
