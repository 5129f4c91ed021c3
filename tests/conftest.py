"""What end-to-end tests begin with, and what each of them is searched for at its end."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from xdist.scheduler import LoadGroupScheduling

from host_sim.console import Console
from host_sim.node.agent_code import compile_all
from host_sim.releases.interpreters import releases
from tests.brokers import need
from tests.secrecy import WatchedSite, holds_key

# These run inside MicroPython: agent/test_device_modules.py and docs/test_examples.py see to it.
collect_ignore = ["device", "stand_ins"]

MakeSite = Callable[..., WatchedSite]
FIRMWARE = Path(__file__).parents[1] / "firmware"


# Tests that share what takes long to start: one worker gets all with such a part in their id.
# The marks of pytest-xdist 3.8 for this have no effect with pytest 9.2.
TOGETHER = (
    "test_refused_with_its_reason_and_flash_as_it_was",
    "[rabbitmq",
    *(f"[{release.name}" for release in releases()),
)


class _Together(LoadGroupScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return next((part for part in TOGETHER if part in nodeid), nodeid)


@pytest.hookimpl(optionalhook=True)  # xdist may be switched off
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadGroupScheduling:
    """In place of the one that `--dist` names."""
    return _Together(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    """What CI takes fewer of."""
    parser.addoption("--cases", type=_count, help="at most so many slow cases of each test")


def _count(text: str) -> int:
    """A number of cases. ValueError: it is none."""
    if int(text) < 1:
        raise ValueError
    return int(text)


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a test with `few(n)`, n of its cases stay fast, the others are slow; then --cases."""
    fresh = [item for item in items if not item.get_closest_marker("slow")]
    for found in _by_test(item for item in fresh if item.get_closest_marker("few")):
        fast = _evenly(found, found[0].get_closest_marker("few").args[0])
        for item in found:
            if item not in fast:
                item.add_marker(pytest.mark.slow)
    if count := config.getoption("cases"):
        dropped: list[pytest.Item] = []
        for found in _by_test(item for item in items if item.get_closest_marker("slow")):
            # Drawn, the same ones each time: every nth one may always have the same value in it.
            kept = set(random.Random(found[0].nodeid).sample(found, min(count, len(found))))
            dropped += [item for item in found if item not in kept]
        config.hook.pytest_deselected(items=dropped)
        gone = set(dropped)
        items[:] = [item for item in items if item not in gone]


def _by_test(items: Iterable[pytest.Item]) -> list[list[pytest.Item]]:
    """The cases of each test."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    return list(cases.values())


def _evenly(items: list[pytest.Item], count: int) -> set[pytest.Item]:
    """So many of them, from all over the list."""
    return {items[number * len(items) // count] for number in range(count)}


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
