"""Cancel and replace: what is withdrawn before the commit is not installed, on real brokers.

Random scripts of it: tests/campaigns/test_orders.py.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from host_sim import sample
from host_sim.campaigns.scripts.steps import Steps
from host_sim.link import Link
from host_sim.sample import DEVICE_ID
from tests.brokers import available_brokers
from tests.conftest import MakeSite
from tests.secrecy import WatchedSite

# The application tells each step of the agent, and is held there until something has been done.
_HELD = """
import machine
import os
import ota
import socket
import time

def progress(step, value):
    port = os.getenv("STEP_PORT")
    if port:
        s = socket.socket()
        s.connect(socket.getaddrinfo("127.0.0.1", int(port))[0][-1])
        s.write(step + "\\n")
        s.read(1)
        s.close()
    if step != "bytes":
        print("step", step, value)

print("version VERSION runs")
"""
_OWN = """
agent = ota.Agent(ota.load_config(), progress=progress)
print("check:", agent.check(), agent.reason, agent.pending)
machine.deepsleep(60_000)
"""
_BORROWED = """
from umqtt.simple import MQTTClient
config = ota.load_config()
name, mqtt = config["device_id"].encode(), config["mqtt"]
client = MQTTClient(name, mqtt["host"], mqtt["port"], name, config["device_key"].encode(), 60)
client.set_callback(lambda topic, payload: None)
client.connect()
agent = ota.Agent(config, progress=progress, client=client)
print("check:", agent.check(), agent.reason, agent.pending)
machine.deepsleep(60_000)
"""
# The way of a request, up to the commit.
BEFORE = ("request", "space", "download", "bytes", "file")
FILLER = random.Random(3).randbytes(30_000)
# Too little for a mark on flash: another wake fetches all of it once more.
LITTLE = FILLER[:3_000]


def main_py(version: int, client: bool = False) -> bytes:
    """The application's `main.py`, with a client of the agent's or one of its own."""
    text = _HELD.replace("VERSION", str(version))
    return (text + (_BORROWED if client else _OWN)).encode()


@pytest.fixture
def steps() -> Iterator[Steps]:
    with Steps() as steps:
        yield steps


def held(
    site: WatchedSite, steps: Steps, actions: dict[str, Callable[[], object]], **options: Any
):
    """Run the node; each action is done while it is held at that step."""
    with steps.waiting(actions) as port:
        site.node.environ = {"STEP_PORT": str(port)}
        run = site.run(**options)
        assert not actions, "the node never came to that step"
    return run


def ask(site: WatchedSite, version: int, client: bool, filler: bytes = FILLER) -> str:
    tree = {"main.py": main_py(version, client), "filler.bin": filler}
    return site.ask(sample.tar(tree), f"v{version}.tar")


@pytest.mark.check
@pytest.mark.few(1)
@pytest.mark.parametrize("client", [False, True], ids=["own client", "client="])
@pytest.mark.parametrize("step", BEFORE)
def test_cancelled_before_the_commit(make_site: MakeSite, steps: Steps, step: str, client: bool):
    """Nothing is installed, nothing is reported, and nothing of it is left on flash."""
    site = make_site({"main.py": main_py(1, client)}, broker="mosquitto")
    ask(site, 2, client)
    on_the_way = client and step in ("bytes", "file")
    # While the node is held the server goes on: on a busy machine it must not come to the end.
    site.console.faults.drip = 6_000 if on_the_way else 20_000
    run = held(site, steps, {step: lambda: site.console.clear(DEVICE_ID)})
    assert "check: idle None False" in run.output, run.output
    assert "step commit" not in run.output
    assert "step notice the request was withdrawn" in run.output
    assert site.reports() == []
    assert site.flash_files() == site.files
    assert not any(path.startswith("/.ota") for path in site.flash_folders())
    assert site.run(cause="deepsleep").ops == 0
    if on_the_way:
        # It hears of it on the way, and does not fetch the rest.
        (download,) = site.console.downloads
        assert download.bytes_sent < len(FILLER), download


@pytest.mark.few(2)
@pytest.mark.parametrize("client", [False, True], ids=["own client", "client="])
@pytest.mark.parametrize("step", BEFORE)
def test_replaced_before_the_commit(make_site: MakeSite, steps: Steps, step: str, client: bool):
    """The newer one is taken up in the same contact, and only it has an end."""
    site = make_site({"main.py": main_py(1, client)}, broker="mosquitto")
    ask(site, 2, client)
    second: list[str] = []
    run = held(site, steps, {step: lambda: second.append(ask(site, 3, client))})
    assert run.output.count("version") == 2, run.output
    assert "version 3 runs" in run.output
    assert "check: confirmed None False" in run.output
    assert run.names().count("reset") == 1
    assert site.reports() == [{"e": 1, "i": second[0], "m": None}]
    assert site.retained() is None


@pytest.mark.few(1)
@pytest.mark.parametrize("broker", available_brokers())
@pytest.mark.parametrize("step", ["commit", "install"])
def test_replaced_after_the_commit(make_site: MakeSite, steps: Steps, step: str, broker: str):
    """Then both are done, one after the other; the clear of one does not take the other away."""
    site = make_site({"main.py": main_py(1)}, broker=broker)
    first = ask(site, 2, False)
    second: list[str] = []
    run = held(site, steps, {step: lambda: second.append(ask(site, 3, False))})
    assert "version 3 runs" in run.output, run.output
    ends = [(r["e"], r["i"]) for r in site.reports()]
    assert ends == [(1, first), (1, second[0])]
    assert site.retained() is None


def test_replaced_again_and_again(make_site: MakeSite, steps: Steps):
    """One contact follows an operator who can not make up his mind three times, and no more."""
    site = make_site({"main.py": main_py(1)}, broker="mosquitto")
    ask(site, 2, False)
    actions: dict[str, Callable[[], object]] = {}
    asked = []

    def again() -> None:
        asked.append(ask(site, 3 + len(asked), False))
        if len(asked) < 6:
            actions["download"] = again

    actions["download"] = again
    with steps.waiting(actions) as port:
        site.node.environ = {"STEP_PORT": str(port)}
        run = site.run()
    assert run.output.count("step download") == 3
    assert "check: idle None True" in run.output, run.output
    site.node.environ = {}
    assert "version 5 runs" in site.run(cause="deepsleep").output
    assert site.reports() == [{"e": 1, "i": asked[-1], "m": None}]


def test_the_same_once_more_is_the_same(make_site: MakeSite, steps: Steps):
    """Who asks for a package again while it comes does not make the node begin anew."""
    site = make_site({"main.py": main_py(1)}, broker="mosquitto")
    first = ask(site, 2, False)
    run = held(site, steps, {"download": lambda: site.console.request(DEVICE_ID, first)})
    assert "version 2 runs" in run.output
    assert len(site.console.downloads) == 1
    assert site.reports() == [{"e": 1, "i": first, "m": None}]


@pytest.mark.slow
def test_what_changes_nothing_is_withdrawn_as_well(make_site: MakeSite, steps: Steps):
    """No report says that a package is installed which nobody wants any more."""
    site = make_site({"main.py": main_py(1), "filler.bin": FILLER}, broker="mosquitto")
    site.ask(sample.tar({"filler.bin": FILLER}), "same.tar")
    run = held(site, steps, {"download": lambda: site.console.clear(DEVICE_ID)})
    assert "check: idle None False" in run.output, run.output
    assert site.reports() == []
    assert site.flash_files() == site.files


# -- nobody to ask -------------------------------------------------------------------------------

# What waits in /.ota behind the staging: two members and a copy of the one that is replaced, what
# a commit needs, and what says where another wake goes on.
STAGED = {"/.ota/" + name for name in ("0", "1", "0~", "journal", "journal2", "recovery.mpy")}
STAGED |= {"/.ota/mark", "/.ota/attempts"}


@pytest.mark.slow
@pytest.mark.parametrize("filler", [FILLER, LITTLE], ids=["goes on", "from its beginning"])
def test_a_broker_that_is_away_before_the_commit(make_site: MakeSite, steps: Steps, filler: bytes):
    """Nothing is installed: it may have been withdrawn. The next wake does it.

    It goes on from the last mark on flash, so what has been staged stays.
    """
    site = make_site({"main.py": main_py(1)}, config={"timeout_s": 2}, broker="mosquitto")
    with Link("127.0.0.1", site.console.ports.mqtt) as link:
        site.configure(mqtt={"port": link.port})
        fuid = ask(site, 2, False, filler)

        def cut() -> None:
            link.profile = "connect=refuse"

        run = held(site, steps, {"download": cut})
        assert "check: later can not connect: the host does not answer" in run.output, run.output
        assert "step commit" not in run.output
        left = set(site.flash_files()) - set(site.files)
        if filler is FILLER:
            # Lines of the journal that a mark has kept may lie aside of it.
            assert {name for name in left if not re.fullmatch("/.ota/j[0-5]", name)} == STAGED
        else:
            assert left == {"/.ota/attempts"}
        link.profile = ""
        assert "version 2 runs" in site.run(cause="deepsleep").output
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    first, second = site.console.downloads
    assert first.range is None
    assert bool(second.range) == (filler is FILLER)
    assert set(site.flash_files()) - set(site.files) == {"/filler.bin"}


@pytest.mark.slow
def test_a_broker_that_is_away_for_a_moment(make_site: MakeSite, steps: Steps):
    """The node tries again within seconds, before it gives a download away."""
    site = make_site({"main.py": main_py(1)}, broker="mosquitto")
    with Link("127.0.0.1", site.console.ports.mqtt) as link:
        site.configure(mqtt={"port": link.port})
        fuid = ask(site, 2, False)

        def cut() -> None:
            link.profile = "connect=refuse"
            timer.start()

        def mend() -> None:
            link.profile = ""

        timer = threading.Timer(1.5, mend)
        run = held(site, steps, {"file": cut})
        timer.join()
    assert "version 2 runs" in run.output, run.output
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    assert len(site.console.downloads) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("filler", "wakes"), [(FILLER, 3), (LITTLE, 2)], ids=["goes on", "from its beginning"]
)
def test_a_broker_that_is_always_away_before_the_commit(
    make_site: MakeSite, steps: Steps, filler: bytes, wakes: int
):
    """It counts as an attempt: a node that can never come back must not download for ever.

    Where the first wake has brought a mark to flash, that is something new, and the attempts begin
    behind it.
    """
    config = {"timeout_s": 2, "max_attempts": 2}
    site = make_site({"main.py": main_py(1)}, config=config, broker="mosquitto")
    with Link("127.0.0.1", site.console.ports.mqtt) as link:
        site.configure(mqtt={"port": link.port})
        fuid = ask(site, 2, False, filler)

        def cut() -> None:
            link.profile = "connect=refuse"

        for _ in range(wakes):
            link.profile = ""
            run = held(site, steps, {"download": cut}, cause="deepsleep")
            assert "check: later can not connect: " in run.output, run.output
        link.profile = ""
        site.node.environ = {}
        assert "check: failed" in site.run(cause="deepsleep").output
    assert [(r["e"], r["i"]) for r in site.reports()] == [(2, fuid)]
    told = site.reports()[0]["m"]
    assert told.startswith("can not connect: the host does not answer, OSError ")
    assert told.endswith(" bytes were staged") == (filler is FILLER)
    first, *others = [download.range for download in site.console.downloads]
    assert len(others) == wakes - 1
    assert first is None
    assert all(bool(range_) == (filler is FILLER) for range_ in others)
    assert site.flash_files() == site.files
