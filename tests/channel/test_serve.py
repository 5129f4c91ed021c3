"""Nodes that never sleep: in touch, quick, back after a loss, and never stuck."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import statistics
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from host_sim import sample
from host_sim.console import Faults
from host_sim.link.wiretap import Wiretap
from host_sim.node.node import Run
from host_sim.sample import DEVICE_ID
from tests.brokers import available_brokers, require_mosquitto
from tests.busy import factor
from tests.conftest import MakeSite
from tests.secrecy import WatchedSite

MAIN = """
import machine
import ota

print("version VERSION serves")
# Shorter than a node would have it: it has to be fed while nothing happens at all.
agent = ota.Agent(ota.load_config(), watchdog=machine.WDT(timeout=2500))
agent.serve()
"""
QUICK = {"retry_s": 1, "mqtt": {"keepalive": 2}}


def serving(version: int) -> bytes:
    return MAIN.replace("VERSION", str(version)).encode()


def package(version: int) -> bytes:
    return sample.tar_gz({"main.py": serving(version)})


class Serving:
    """A node that runs on a thread of its own, until the end of the `with`."""

    def __init__(self, site: WatchedSite) -> None:
        self._site = site
        self._condition = threading.Condition()
        self.output = ""
        self.run = Run()

    def __enter__(self) -> Serving:
        self._site.node.log = self._hear
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Until it has begun there is nothing that could be cut.
        while self._thread.is_alive():
            self._site.node.cut_power()
            self._thread.join(0.05)
        assert self.run.names()[-2] == "power_cut", (self.run.events, self.output)

    def _run(self) -> None:
        self.run = self._site.run(timeout_s=200)

    def _hear(self, text: str) -> None:
        with self._condition:
            self.output += text
            self._condition.notify_all()

    def wait_for(self, text: str, count: int = 1, timeout: float = 60) -> None:
        """Wait until the node has said it so many times."""
        with self._condition:
            said = self._condition.wait_for(
                lambda: self.output.count(text) >= count or not self._thread.is_alive(), timeout
            )
            assert said and self.output.count(text) >= count, self.output


@contextlib.contextmanager
def tapped(site: WatchedSite) -> Iterator[Wiretap]:
    """The node's connection to the broker goes through a wiretap."""
    with Wiretap(site.console.ports.mqtt) as tap:
        site.configure(mqtt={"port": tap.port})
        yield tap


def seconds_until(site: WatchedSite, condition) -> float:
    began = time.monotonic()
    assert site.console.wait_for(condition, 60)
    return time.monotonic() - began


# -- in touch ------------------------------------------------------------------------------------


@pytest.mark.few(1)
@pytest.mark.parametrize("broker", available_brokers())
def test_it_stays_connected_and_acts_at_once(make_site: MakeSite, broker: str):
    """Three seconds of silence, three requests; the watchdog of 2.5 s is fed all the while."""
    site = make_site({"main.py": serving(1)}, broker=broker, config=QUICK)
    latencies = []
    with tapped(site) as tap, Serving(site) as node:
        assert tap.wait_for(lambda: bool(tap.sent("PINGRESP", "down")))
        time.sleep(3.2)
        # One may be under way just now.
        assert tap.wait_for(lambda: len(tap.sent("PINGREQ")) == len(tap.sent("PINGRESP", "down")))
        assert len(tap.sent("CONNECT")) == 1
        pings = [p.t for p in tap.sent("PINGREQ")]
        for version in (2, 3, 4):
            count = len(site.console.downloads)
            fuid = site.ask(package(version))
            latencies.append(seconds_until(site, lambda n=count: len(site.console.downloads) > n))
            node.wait_for("ota: confirm", version - 1)
            assert site.reports()[-1] == {"e": 1, "i": fuid, "m": None}
    # The first ping is the fence; then one each half keep-alive, give or take the loop's second.
    gaps = [b - a for a, b in itertools.pairwise(pings)]
    assert 2 <= len(gaps) <= 3
    assert max(gaps) < 2.5 * factor()
    assert "wdt" not in node.run.names()
    assert node.run.names().count("reset") == 3
    assert "ota: later" not in node.output
    # It is in the middle of its listening when a request comes.
    assert statistics.median(latencies) < 1.0 * factor()


def test_a_request_that_stands_already_is_met_when_it_connects(make_site: MakeSite):
    site = make_site({"main.py": serving(1)}, config=QUICK)
    fuid = site.ask(package(2))
    with Serving(site) as node:
        node.wait_for("ota: confirm")
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    assert site.flash_files()["/main.py"] == serving(2)


@pytest.mark.parametrize("broker", available_brokers())
def test_a_newer_request_is_not_forgotten_over_the_end_of_an_older_one(
    make_site: MakeSite, broker: str
):
    """The node hears its own reports as well, and none of them is the end of another request."""
    owed = b"2 00000000 not enough space"
    extra = {".ota/report": b"\n%s %08x\n" % (owed, zlib.crc32(owed))}
    site = make_site({"main.py": serving(1)}, broker=broker, config=QUICK, extra=extra)
    damaged = bytearray(sample.tar_gz({"x": random.Random(1).randbytes(4000)}))
    damaged[-6] ^= 1
    site.console.faults.drip, site.console.faults.times = 10_000, 1
    first = site.ask(bytes(damaged))
    with Serving(site) as node:
        node.wait_for("ota: download")
        second = site.ask(package(2))
        node.wait_for("ota: confirm")
    ends = [(r["e"], r["i"]) for r in site.reports()]
    assert ends == [(2, "00000000"), (2, first), (1, second)]
    assert site.retained() is None


# -- lost and found ------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_comes_back_when_the_broker_has_been_restarted(make_site: MakeSite):
    require_mosquitto()
    site = make_site({"main.py": serving(1)}, broker="mosquitto", config=QUICK)
    with tapped(site) as tap, Serving(site) as node:
        assert tap.wait_for(lambda: bool(tap.sent("PINGRESP", "down")))
        with site.console.broker_down():
            node.wait_for("ota: later can not connect", 2)
            time.sleep(2)  # longer than its watchdog would wait
        connected = len(tap.sent("CONNACK", "down"))
        assert tap.wait_for(lambda: len(tap.sent("CONNACK", "down")) > connected, 60)
        fuid = site.ask(package(2))
        node.wait_for("ota: confirm")
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    assert "wdt" not in node.run.names()


@pytest.mark.slow
def test_a_broker_that_has_fallen_silent_is_found_by_an_unanswered_ping(make_site: MakeSite):
    """Down come CONNACK, SUBACK and the fence's PINGRESP, one more, and then nothing for ever."""
    site = make_site({"main.py": serving(1)}, config=QUICK, mqtt_link=f"hold={4 + 5 + 2 + 2}")
    link = site.mqtt_link
    assert link is not None
    with site, Serving(site) as node:
        assert link.wait_for(lambda: len(link.connections) == 2, 60)
        first, second = link.connections
        answered = max(s.t for s in link.segments if s.connection == 0 and s.direction == "down")
        # The next ping is sent a second later, and missed one more second later; then it pauses.
        assert second.opened - answered < (2 + 1 + 2.5) * factor()
        assert first.down == 13
        fuid = site.ask(package(2))
        node.wait_for("ota: confirm")
    assert "ota: later can not connect: OSError 110" in node.output
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    assert "wdt" not in node.run.names()


FAILURES = """
import machine
import time
import ota

def failures():
    memory = machine.RTC().memory()
    return memory[4] if memory else 0


agent = ota.Agent(ota.load_config(), progress=lambda *_: None)
while True:
    if agent.poll() == "later":
        print("failures in a row:", failures())
    elif agent.control and agent.settled_at is None:
        print("settled:", failures())
    time.sleep_ms(20)
"""


@pytest.mark.slow
def test_a_broker_that_lets_the_node_in_only_to_drop_it(make_site: MakeSite):
    """CONNACK, SUBACK, the fence's PINGRESP and one more come; the pauses grow all the same."""
    config = QUICK | {"retry_s": 2}  # twice as long as the connection lasts
    cut = f"cut=each:{4 + 5 + 2 + 2}"
    site = make_site({"main.py": FAILURES.encode()}, config=config, mqtt_link=cut)
    with site, Serving(site) as node:
        node.wait_for("failures in a row: 3\n")
    assert "settled" not in node.output


@pytest.mark.slow
def test_failures_are_forgotten_when_a_connection_has_lasted(make_site: MakeSite):
    require_mosquitto()
    site = make_site({"main.py": FAILURES.encode()}, broker="mosquitto", config=QUICK)
    with site, Serving(site) as node:
        node.wait_for("settled: 0\n")
        with site.console.broker_down():
            node.wait_for("failures in a row: 1\n")
        before = node.output.count("settled: 0\n")
        node.wait_for("settled: 0\n", before + 1)


@pytest.mark.slow
def test_it_feeds_the_watchdog_while_it_waits_for_another_try(make_site: MakeSite):
    """The pause is up to a minute, the watchdog's period 2.5 s."""
    site = make_site({"main.py": serving(1)}, config={"retry_s": 60}, mqtt_link="connect=refuse")
    with site, Serving(site) as node:
        node.wait_for("ota: later can not connect: the host does not answer")
        time.sleep(4)
    assert "wdt" not in node.run.names()


HANGING = b"""
import machine
import ota

def progress(step, value):
    print("step", step)
    if step == "download":
        print("hangs")
        while True:
            pass

wdt = machine.WDT(timeout=600)
ota.Agent(ota.load_config(), progress=progress, watchdog=wdt).serve()
"""


def test_a_loop_that_hangs_is_bitten_and_given_up(make_site: MakeSite):
    """The watchdog is fed by what moves, not by time; and each bite has cost an attempt."""
    site = make_site({"main.py": HANGING}, config=QUICK | {"max_attempts": 2})
    fuid = site.ask(package(2))
    with Serving(site) as node:
        node.wait_for("step report")
    assert node.run.names().count("wdt") == 2
    assert node.output.count("hangs") == 2
    reason = "can not apply: interrupted 2 times"
    assert site.reports() == [{"e": 2, "i": fuid, "m": reason}]
    assert site.retained() is None


# -- packages that can not be had ----------------------------------------------------------------


@pytest.mark.slow
def test_what_fails_for_now_is_tried_again_after_pauses_and_given_up(make_site: MakeSite):
    site = make_site({"main.py": serving(1)}, config=QUICK | {"max_attempts": 3})
    site.console.faults.status = 503
    fuid = site.ask(package(2))
    with Serving(site) as node:
        node.wait_for("ota: report")
        tried = [d.t for d in site.console.downloads]
        site.console.faults.clear()
        time.sleep(1)
        assert len(site.console.downloads) == 3  # and there is no fourth try
        again = site.ask(package(3))
        node.wait_for("ota: confirm")
    reason = "can not download: 503 from the server"
    assert site.reports() == [{"e": 2, "i": fuid, "m": reason}, {"e": 1, "i": again, "m": None}]
    assert site.flash_files()["/main.py"] == serving(3)
    # One second at most after the first failure, two after the next, and what the tries take.
    assert len(tried) == 3
    assert tried[1] - tried[0] < 1 + 1.5 * factor()
    assert tried[2] - tried[1] < 2 + 1.5 * factor()


def test_a_request_that_is_changed_while_it_pauses(make_site: MakeSite):
    """The new one is taken, from its first attempt on; of the old one nothing more is heard."""
    site = make_site({"main.py": serving(1)}, config=QUICK | {"max_attempts": 2})
    site.console.faults = Faults(status=503, times=2)
    site.ask(package(2))
    with Serving(site) as node:
        node.wait_for("ota: later can not download")
        fuid = site.ask(package(3))
        node.wait_for("ota: confirm")
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    assert site.retained() is None
    assert site.flash_files()["/main.py"] == serving(3)
    assert node.output.count("ota: later") == 2


def test_a_request_that_is_withdrawn_while_it_pauses(make_site: MakeSite):
    site = make_site({"main.py": serving(1)}, config=QUICK)
    site.console.faults = Faults(status=503)
    site.ask(package(2))
    with Serving(site) as node:
        node.wait_for("ota: later can not download")
        site.console.clear(DEVICE_ID)
        tries = len(site.console.downloads)
        time.sleep(1.5)
        assert len(site.console.downloads) <= tries + 1  # it may have been on its way
    assert site.reports() == []
    assert "/main.py" in site.flash_files()


# -- requests that are refused -------------------------------------------------------------------


@contextlib.contextmanager
def flood(site: WatchedSite) -> Iterator[None]:
    """A bad request each few milliseconds, every one with a file id of its own."""
    stop = threading.Event()

    def publish() -> None:
        for number in itertools.count():
            message = f'[{{"n":"e","v":0}},{{"n":"i","vs":"bad{number}"}}]'
            site.console.request_raw(DEVICE_ID, message.encode())
            if stop.wait(0.005):
                return

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["agent.serve()", "while True:\n    agent.poll()"])
def test_a_flood_of_bad_requests_is_answered_with_pauses(make_site: MakeSite, loop: str):
    """Each answer costs flash. Pauses grow; what is good is done after the last of them."""
    main = serving(1).replace(b"agent.serve()", loop.encode())
    site = make_site({"main.py": main}, config={"mqtt": {"keepalive": 2}})
    with Serving(site) as node:
        with flood(site):
            node.wait_for("ota: report")
            began = time.monotonic()
            time.sleep(8)
            lasted = time.monotonic() - began
        # The last one, and a second at least between any two.
        assert len(site.reports()) <= lasted / 1 + 2
        assert len(site.reports()) >= 2
        good = site.ask(sample.tar_gz({"main.py": serving(2)}))
        node.wait_for("ota: confirm")
    assert {"e": 1, "i": good, "m": None} in site.reports()
    assert site.flash_files()["/main.py"] == serving(2)
    assert "wdt" not in node.run.names()


@pytest.mark.slow
def test_refusals_that_are_long_ago_are_forgotten(make_site: MakeSite):
    """Else the pause of an hour's bad requests would meet next year's."""
    main = serving(1).replace(
        b"agent.serve()",
        b"""import time
while True:
    before = getattr(agent, "refusals", 0)
    agent.poll()
    if getattr(agent, "refusals", 0) != before:
        print("refusals:", agent.refusals)
    time.sleep_ms(5)
""",
    )
    site = make_site({"main.py": main}, config=QUICK)
    with Serving(site) as node:
        for count in (1, 2):
            site.console.request_raw(DEVICE_ID, b'[{"n":"e","v":0},{"n":"i","vs":"bad"}]')
            node.wait_for(f"refusals: {count}\n")
        node.wait_for("refusals: 0\n")
        site.console.request_raw(DEVICE_ID, b'[{"n":"e","v":0},{"n":"i","vs":"bad"}]')
        node.wait_for("refusals: 1\n", 2)


# -- poll ----------------------------------------------------------------------------------------

POLLING = """
import machine
import time
import ota

agent = ota.Agent(ota.load_config(), progress=lambda *_: None)

def measure(what, count):
    times = []
    outcomes = set()
    for _ in range(count):
        began = time.ticks_us()
        outcomes.add(agent.poll())
        times.append(time.ticks_diff(time.ticks_us(), began))
        time.sleep_ms(1)
    times.sort()
    print(what, outcomes, times[count // 2], times[count * 9 // 10], agent.control is not None)

print("first:", agent.poll())
measure("connected:", 300)
print("said")
while agent.control:
    outcome = agent.poll()
print("lost:", outcome, agent.reason)
measure("waiting:", 300)
"""


def test_poll_returns_promptly(make_site: MakeSite):
    """While it is connected, and while it waits for another try."""
    require_mosquitto()
    site = make_site(broker="mosquitto", config={"retry_s": 600})
    said = threading.Event()
    heard = ""

    def hear(text: str) -> None:
        nonlocal heard
        heard += text
        if "said\n" in heard:
            said.set()

    site.node.log = hear
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(site.node.exec, POLLING, timeout_s=100)
        assert said.wait(60), heard
        # Not in a thread that ends: with it would end the broker that it starts again.
        with site.console.broker_down():
            run = running.result()
    assert "first: idle\n" in run.output, run.output
    assert re.search(r"^lost: later can not connect: OSError 104$", run.output, re.MULTILINE)
    for what, connected in (("connected", "True"), ("waiting", "False")):
        found = re.search(rf"^{what}: {{None}} (\d+) (\d+) {connected}$", run.output, re.MULTILINE)
        assert found, run.output
        # In µs; with a busy machine in mind.
        assert int(found[1]) < 5_000 * factor()
        assert int(found[2]) < 50_000 * factor()


POLL_ACTS = """
import machine
import time
import ota

agent = ota.Agent(ota.load_config(), progress=lambda *_: None)
print("version VERSION")
while True:
    outcome = agent.poll()
    if outcome:
        print("poll:", outcome, agent.reason)
    time.sleep_ms(5)
"""


def test_poll_says_what_check_would(make_site: MakeSite):
    main = {v: POLL_ACTS.replace("VERSION", str(v)).encode() for v in (1, 2)}
    site = make_site({"main.py": main[1]}, config=QUICK)
    with Serving(site) as node:
        node.wait_for("poll: idle None\n")
        damaged = bytearray(sample.tar_gz({"main.py": main[2]}))
        damaged[-6] ^= 1
        site.ask(bytes(damaged))
        node.wait_for("poll: failed can not apply: bad archive, CRC-32 differs\n")
        site.ask(sample.tar_gz({"main.py": main[1]}))
        node.wait_for("poll: installed None\n")
        site.ask(sample.tar_gz({"main.py": main[2]}))
        node.wait_for("version 2\npoll: confirmed None\n")
    assert [r["e"] for r in site.reports()] == [2, 1, 1]


def test_serve_is_for_a_client_of_ours(make_site: MakeSite):
    site = make_site()
    code = "import ota\nota.Agent(ota.load_config(), client=object()).serve()\n"
    run = site.node.exec(code)
    assert run.error == "OtaError: bad call: serve() is for the agent's own client: call poll()"


WITHDRAWN = """
import machine
import time
import ota

def failures():
    memory = machine.RTC().memory()
    return memory[4] if memory else 0


# As an application that waits for its battery.
agent = ota.Agent(ota.load_config(), progress=lambda *_: None, policy=lambda _: "later")
while failures() < 2:
    agent.poll()
    time.sleep_ms(20)
print("withdraw it")
while failures():
    agent.poll()
    time.sleep_ms(20)
print("forgotten")
"""


def test_failures_of_a_request_that_is_withdrawn_are_forgotten(make_site: MakeSite):
    """Else the node would come back late after an outage, however long ago that request was."""
    main = WITHDRAWN.encode() + serving(1)
    site = make_site({"main.py": main}, config=QUICK)
    site.ask(package(2))
    with Serving(site) as node:
        node.wait_for("withdraw it")
        site.console.clear(DEVICE_ID)
        node.wait_for("forgotten")
