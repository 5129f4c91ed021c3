"""Every request is heard, whatever the order of a broker's messages and however late they come.

How long is waited, by how much it is learned, and that no delay hides a request for longer than
24 wakes: tests/device/test_patience.py, in virtual time. Here it is nodes, and real connections.
"""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path

import pytest

from host_sim import sample
from host_sim.node.node import run_code
from host_sim.sample import CONTROL_CHANNEL, DEVICE_ID
from tests.busy import factor
from tests.channel.late_broker import ORDERS, REQUEST, LateBroker
from tests.conftest import MakeSite
from tests.docs.readme import ROOT
from tests.secrecy import WatchedSite

BEGIN = """
import machine
import time
import ota

_trial = False  # what boot.py leaves; here it may not have run
agent = ota.Agent(ota.load_config(), progress=lambda *_: None, policy=lambda _: "later")
began = time.ticks_ms()

def tell(outcome):
    took = time.ticks_diff(time.ticks_ms(), began)
    print("check:", outcome, took, agent.reason)
"""
MAIN = f"{BEGIN}tell(agent.check())\nmachine.deepsleep(1000)\n"
FIRST = 3
TOPIC = b"channels/%s/messages/%s/" % (CONTROL_CHANNEL.encode(), DEVICE_ID.encode())


def at(make_site: MakeSite, broker: LateBroker, main: str = MAIN, **config) -> WatchedSite:
    """A node at this broker, with the configuration as it is by default."""
    site = make_site({"main.py": main.encode()})
    site.config["mqtt"].pop("grace_ms")
    site.configure(mqtt={"port": broker.port, "host": "127.0.0.1"}, **config)
    return site


def rows(output: str) -> list[tuple[bool, int]]:
    """(whether the request was heard, how long it took in ms) of each check."""
    heard = {("later", "the application's policy"): True, ("idle", "None"): False}
    found = re.findall(r"^check: (\w+) (\d+) (.*)$", output, re.MULTILINE)
    return [(heard[outcome, reason], int(ms)) for outcome, ms, reason in found]


def checks(site: WatchedSite, **options) -> list[tuple[bool, int]]:
    """The same, of as many wakes."""
    run = site.run(timeout_s=60, **options)
    assert run.ops == 0
    found = rows(run.output)
    assert len(found) == options.get("wakes", 1), run.output
    return found


def remembered(site: WatchedSite) -> tuple[int, int]:
    """(contacts, lateness in ms) as the node has left them in the RTC's memory."""
    memory = site.node.rtc_memory
    kept = memory[2 : 2 + int.from_bytes(memory[:2], "little")]
    assert kept[:4] == b"ota\2"
    return kept[-3], int.from_bytes(kept[-2:], "big") - 1


def near(learned: int, late_ms: float) -> bool:
    """Whether it was measured: by the node's clock, on a machine that has other things to do."""
    least = max(1, late_ms / 2 - 50 * factor())  # this machine may have been late for SUBACK
    return least <= learned < late_ms + 1000 * factor()


def remember(site: WatchedSite, contacts: int, late_ms: int) -> None:
    """Have a node that wakes from deep sleep remember this."""
    kept = b"ota\2\0" + bytes([contacts]) + (late_ms + 1).to_bytes(2, "big")
    site.node.rtc_memory = len(kept).to_bytes(2, "little") + kept


# -- check() -------------------------------------------------------------------------------------


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("order", "late_ms"),
    [(order, 0) for order in ORDERS]
    + [(order, ms) for order in ORDERS[2:] for ms in (0.5, 5, 44, 150, 500)]
    + [("suback pong", 2000), ("pong suback", 9000)],
)
def test_a_request_is_heard_at_once_after_power_on(
    make_site: MakeSite, order: str, late_ms: float
):
    with LateBroker(order, late_ms) as broker:
        site = at(make_site, broker)
        broker.retained = REQUEST
        ((heard, took),) = checks(site)
        assert heard
        assert late_ms <= took < late_ms + 2000 * factor()
        contacts, learned = remembered(site)
        assert contacts == 1
        if "retained" in order:
            assert learned == 0
        elif late_ms >= 150:
            assert near(learned, late_ms)
        else:
            # 0: it may have come before this machine sent the rest.
            assert 0 <= learned < 1000 * factor()
        if late_ms < 1000:
            found = checks(site, wakes=2, cause="deepsleep")
            assert [heard for heard, _ in found] == [True, True]


def test_a_request_that_comes_live_teaches_as_well(make_site: MakeSite):
    """What is retained comes before PINGRESP here: the look before the commit sees that."""
    site = make_site({"main.py": MAIN.replace(', policy=lambda _: "later"', "").encode()})
    site.config["mqtt"].pop("grace_ms")
    site.configure()
    package = sample.tar({"main.py": site.files["/main.py"]})
    # By then it has connected, and listens for 10 s; else this shows nothing, but fails neither.
    timer = threading.Timer(2, site.ask, [package])
    timer.start()
    run = site.run(timeout_s=60)
    timer.join()
    assert "check: installed" in run.output
    assert remembered(site) == (2, 0)  # both looks are contacts


@pytest.mark.slow
def test_what_is_known_outlives_sleep_and_not_power(make_site: MakeSite):
    """A request that comes late, three wakes that are short, and 10 s again after power-on."""
    with LateBroker("suback pong", 150) as broker:
        site = at(make_site, broker)
        broker.retained = REQUEST
        checks(site, wakes=FIRST)
        contacts, learned = remembered(site)
        assert contacts == FIRST
        assert near(learned, 150)
        broker.retained = b""
        found = checks(site, wakes=3, cause="deepsleep")
        assert remembered(site) == (FIRST + 3, learned)
        for heard, took in found:
            assert not heard
            assert 3 * learned <= took < 3 * learned + 1500 * factor()
        ((_, took),) = checks(site)
        assert 10_000 <= took < 10_000 + 3000 * factor()
        assert remembered(site) == (1, -1)


def test_one_that_is_later_than_ever_is_heard_at_the_next_patient_wake(make_site: MakeSite):
    with LateBroker("suback pong", 700) as broker:
        site = at(make_site, broker)
        broker.retained = REQUEST
        remember(site, 24, 50)
        found = checks(site, wakes=4, cause="deepsleep")
        assert [heard for heard, _ in found] == [False, False, True, True]
        contacts, learned = remembered(site)
        assert contacts == FIRST + 1
        assert near(learned, 700)


def test_a_connection_that_fails_is_no_contact(make_site: MakeSite):
    """Else a node whose link is bad would have spent its patient ones before it heard anything."""
    with LateBroker() as broker:
        site = at(make_site, broker, timeout_s=1)
        remember(site, 25, 0)
        broker.on_ping = lambda: time.sleep(1.5)
        run = site.run(wakes=2, cause="deepsleep")
        assert run.output.count("check: later") == 2
        assert remembered(site) == (25, 0)


def test_no_wait_is_longer_than_the_limits(make_site: MakeSite):
    with LateBroker() as broker:
        site = at(make_site, broker, timeout_s=1)
        ((_, took),) = checks(site)
        assert 1000 <= took < 3000 * factor()


@pytest.mark.slow
def test_an_update_at_a_broker_that_is_late(make_site: MakeSite):
    """Though the first contact ends in a reset, what it has learned is there."""
    main = sample.main_py(1)
    with LateBroker("suback pong", 300) as broker:
        site = at(make_site, broker, main.decode(), timeout_s=2)
        package = sample.tar_gz({"main.py": sample.main_py(2)})
        fuid = site.console.add_package(package, "p.tar.gz").fuid
        broker.retained = site.console.request_payload(fuid).encode()
        run = site.run(timeout_s=60)
        assert run.names() == ["boot", "reset", "boot", "sleep", "flash"], run.output
        assert "check: confirmed" in run.output
        assert broker.retained == b""
    assert broker.published == [b"", b'[{"n":"e","v":1},{"n":"i","vs":"%s"}]' % fuid.encode()]
    contacts, learned = remembered(site)
    assert contacts >= 2
    assert near(learned, 300)


COSTS = """
import json
from patience_probe import seconds_of
costs = (
    (0, True, True), (0, False, False), (5, False, True), (150, False, True),
    (500, False, True), (2000, False, True),
)
print(json.dumps([round(seconds_of(1000, *cost)) for cost in costs]))
"""


@pytest.mark.slow
def test_the_page_has_what_a_thousand_wakes_cost(agent: Path):
    result = run_code(COSTS, path=[agent, ROOT / "tests" / "device"], heap="16M")
    page = (ROOT / "docs/protocol.md").read_text()
    table = page[page.index("| s per 1,000 wakes |") :].split("\n\n")[0]
    field, *told = (int(n.replace(",", "")) for n in re.findall(r"\| ([\d,]+) \|$", table, re.M))
    costs = json.loads(result.output)
    assert told == costs, result.output
    assert max(costs) < field


# -- begin() and check() -------------------------------------------------------------------------

OWN = f"""{BEGIN}
for n in range(BEGINS):
    client = agent.begin()
print("begun:", client is not None, time.ticks_diff(time.ticks_ms(), began))
if client:
    client.publish(TOPIC, b"21.5", False, 1)
time.sleep_ms(WORK_MS)
again = time.ticks_ms()
outcome = agent.check()
print("waited:", time.ticks_diff(time.ticks_ms(), again))
# The agent's code may go though the application holds the client.
print("let go:", client is None or client.sock is client.cb is client.wait_msg is None)
tell(outcome)
machine.deepsleep(1000)
"""


def own(begins: int = 1, work_ms: int = 0) -> str:
    """An application that publishes while the agent's broker takes its time."""
    return f"TOPIC = {TOPIC + b'data'!r}\nBEGINS, WORK_MS = {begins}, {work_ms}\n{OWN}"


def figures(output: str, name: str) -> int:
    return int(re.search(rf"^{name}: .*?(\d+)$", output, re.MULTILINE)[1])


CONNECT, PUBLISH, SUBSCRIBE, PINGREQ, DISCONNECT = 1, 3, 8, 12, 14


@pytest.mark.few(1)
@pytest.mark.parametrize(("late_ms", "heard"), [(400, True), (5, True), (0, False)])
def test_the_application_works_while_the_broker_takes_its_time(
    make_site: MakeSite, late_ms: int, heard: bool
):
    """On one connection; and check() waits for no more than is left."""
    with LateBroker("suback pong", late_ms) as broker:
        site = at(make_site, broker, own(work_ms=900))
        broker.retained = REQUEST if heard else b""
        remember(site, 5, 150)
        run = site.run(cause="deepsleep", timeout_s=100)
        assert [row[0] for row in rows(run.output)] == [heard], run.output
        assert figures(run.output, "begun") < 600 * factor()
        assert figures(run.output, "waited") < 400 * factor()
        assert "let go: True" in run.output
    assert broker.heard == [[CONNECT, SUBSCRIBE, PINGREQ, PUBLISH, DISCONNECT]]
    assert broker.published == [b"21.5"]
    # How late it came nobody knows: it lay there while the application worked.
    assert remembered(site) == (6, 150)


def test_check_waits_for_what_is_left_of_the_grace(make_site: MakeSite):
    with LateBroker("suback pong", 900) as broker:
        site = at(make_site, broker, own(work_ms=300))
        broker.retained = REQUEST
        remember(site, 5, 400)
        run = site.run(cause="deepsleep", timeout_s=100)
        assert [row[0] for row in rows(run.output)] == [True], run.output
        assert 100 < figures(run.output, "waited") < 890
        contacts, learned = remembered(site)
        assert contacts == 6
        assert near(learned, 900)


def test_begin_without_a_broker(make_site: MakeSite):
    """It raises nothing, and check() tells why: one failure, not two."""
    with LateBroker() as broker:
        site = at(make_site, broker, own())
    run = site.run(wakes=2, timeout_s=100)
    assert run.output.count("begun: False") == 2
    assert run.output.count("check: later") == 2
    assert run.output.count("can not connect: the host does not answer") == 2
    assert run.ops == 0


def test_begin_again_ends_what_was_begun(make_site: MakeSite):
    with LateBroker() as broker:
        site = at(make_site, broker, own(begins=3))
        remember(site, 5, 0)
        run = site.run(cause="deepsleep", timeout_s=100)
        assert [row[0] for row in rows(run.output)] == [False], run.output
    ended = [CONNECT, SUBSCRIBE, PINGREQ, DISCONNECT]
    whole = [CONNECT, SUBSCRIBE, PINGREQ, PUBLISH, DISCONNECT]
    assert broker.heard == [ended, ended, whole]


LOST = f"""{BEGIN}
agent.begin().sock.wire.close()
tell(agent.check())
print("again:", agent.check())
machine.deepsleep(1000)
"""


def test_a_connection_lost_since_begin(make_site: MakeSite):
    """A broker drops who is silent beyond the keep-alive: no request would ever be heard."""
    with LateBroker() as broker:
        site = at(make_site, broker, LOST)
        broker.on_ping = lambda: setattr(broker, "retained", REQUEST)
        remember(site, 5, 0)
        run = site.run(cause="deepsleep", timeout_s=100)
        assert [row[0] for row in rows(run.output)] == [True], run.output
        assert "again: later" in run.output
    assert len(broker.heard) == 3


POLLED = f"""{BEGIN}
agent.begin()
outcome = None
while outcome is None:
    outcome = agent.poll()
tell(outcome)
agent.leave()
machine.deepsleep(1000)
"""


def test_poll_ends_what_was_begun_as_well(make_site: MakeSite):
    with LateBroker("suback pong", 300) as broker:
        site = at(make_site, broker, POLLED)
        run = site.run(timeout_s=100)
        assert [row[0] for row in rows(run.output)] == [False], run.output
    assert broker.heard == [[CONNECT, SUBSCRIBE, PINGREQ, DISCONNECT]]


POLLED_FIRST = f"""{BEGIN}
while agent.poll() is None:
    pass
agent.leave()
began = time.ticks_ms()
tell(agent.check())
machine.deepsleep(1000)
"""


def test_a_check_after_a_poll_is_as_patient_as_any(make_site: MakeSite):
    """poll() does not wait, as its connection stays; that is no reason for check()."""
    with LateBroker("suback pong", 0) as broker:
        site = at(make_site, broker, POLLED_FIRST, timeout_s=2)
        run = site.run(timeout_s=100)
        ((_, took),) = rows(run.output)
        assert 2000 <= took < 5000 * factor()


# -- on the application's client -----------------------------------------------------------------

CLIENT = """
from umqtt.simple import MQTTClient

config = ota.load_config()
mqtt = config["mqtt"]
client = MQTTClient(b"name", mqtt["host"], mqtt["port"])
agent = ota.Agent(
    config, progress=lambda *_: None, policy=lambda _: "later", client=client
)

def on_message(topic, payload):
    print("heard", topic.split(b"/")[-1].decode(), agent.handle(topic, payload))
"""
BORROWED = f"""{BEGIN}{CLIENT}
if HAS_CALLBACK:
    client.set_callback(on_message)
client.connect()
before = client.sock
print("begun:", agent.begin() is client, client.sock is before)
client.publish(TOPIC + b"data", b"21.5", False, 1)
time.sleep_ms(800)
client.publish(TOPIC + b"data", b"22", False, 1)
print("nothing:", client.check_msg())
print("pending:", agent.pending)
tell(agent.check())
print("given back:", client.sock is before)
client.disconnect()
machine.deepsleep(1000)
"""


@pytest.mark.few(2)
@pytest.mark.parametrize("callback", [True, False])
@pytest.mark.parametrize("late_ms", [0, 200, 1500])
def test_between_the_two_the_client_is_the_application_s(
    make_site: MakeSite, callback: bool, late_ms: int
):
    """What comes meanwhile reaches its callback, and handle(), and is not lost."""
    begin = f"TOPIC, HAS_CALLBACK = {TOPIC!r}, {callback}\n"
    with LateBroker("suback pong", late_ms) as broker:
        broker.retained = REQUEST
        site = at(make_site, broker, begin + BORROWED)
        remember(site, 5, 700)
        run = site.run(cause="deepsleep", timeout_s=100)
        assert "begun: True True\n" in run.output, run.output
        assert "nothing: None" in run.output
        assert [row[0] for row in rows(run.output)] == [True], run.output
        if late_ms:
            assert ("heard ota True" in run.output) == (callback and late_ms == 200)
        assert f"pending: {late_ms < 1500}" in run.output
        assert "given back: True" in run.output
    assert broker.published == [b"21.5", b"22"]


def test_a_contact_that_finds_nothing_subscribes_once(make_site: MakeSite):
    begin = f"TOPIC, HAS_CALLBACK = {TOPIC!r}, True\n"
    with LateBroker("suback pong") as broker:
        site = at(make_site, broker, begin + BORROWED)
        remember(site, 5, 100)
        run = site.run(cause="deepsleep", timeout_s=100)
        assert [row[0] for row in rows(run.output)] == [False], run.output
    assert broker.heard == [[CONNECT, SUBSCRIBE, PINGREQ, PUBLISH, PUBLISH, DISCONNECT]]
    assert remembered(site) == (6, 100)


RECONNECTED = f"""{BEGIN}{CLIENT}
client.set_callback(on_message)
client.connect()
agent.begin()
client.sock.close()
client.connect()
tell(agent.check())
client.disconnect()
machine.deepsleep(1000)
"""


def test_a_client_that_was_connected_anew_is_subscribed_anew(make_site: MakeSite):
    with LateBroker("suback pong", 200) as broker:
        site = at(make_site, broker, RECONNECTED)
        remember(site, 5, 200)
        broker.on_ping = lambda: setattr(broker, "retained", REQUEST)
        run = site.run(cause="deepsleep", timeout_s=100)
        assert [row[0] for row in rows(run.output)] == [True], run.output
    second = [CONNECT, SUBSCRIBE, PINGREQ, DISCONNECT]
    assert broker.heard == [[CONNECT, SUBSCRIBE, PINGREQ], second]


# -- connections that stay -----------------------------------------------------------------------

STAYS = f"""{BEGIN}{CLIENT}
client.set_callback(on_message)
client.connect()
client.subscribe(TOPIC + b"ota", 1)
end = time.ticks_add(began, 20_000)
while time.ticks_diff(end, time.ticks_ms()) > 0:
    client.check_msg()
    outcome = agent.poll()
    if outcome:
        tell(outcome)
    if outcome == "later":
        break
    time.sleep_ms(20)
client.disconnect()
machine.deepsleep(1000)
"""


def test_poll_on_a_client_that_stays_does_not_block_and_misses_nothing(make_site: MakeSite):
    """Each subscription of the agent's has the message come late again: it is waited for then."""
    with LateBroker("suback pong", 1500) as broker:
        broker.retained = REQUEST
        site = at(make_site, broker, f"TOPIC = {TOPIC!r}\n{STAYS}")
        run = site.run(timeout_s=100)
        found = rows(run.output)
        assert [heard for heard, _ in found] == [False, True], run.output
        assert found[0][1] < 1400  # nothing had come, and it did not wait for it
        assert found[1][1] < 5000 * factor()
        assert "heard ota True" in run.output


SERVES = f"""{BEGIN}
end = time.ticks_add(began, 20_000)
while time.ticks_diff(end, time.ticks_ms()) > 0:
    outcome = agent.poll()
    if outcome:
        tell(outcome)
    if outcome == "later":
        break
    time.sleep_ms(20)
agent.leave()
machine.deepsleep(1000)
"""


def test_a_connection_of_its_own_that_stays(make_site: MakeSite):
    with LateBroker("suback pong", 1500) as broker:
        broker.retained = REQUEST
        site = at(make_site, broker, SERVES)
        run = site.run(timeout_s=100)
        found = rows(run.output)
        assert [heard for heard, _ in found] == [False, True], run.output
        assert found[0][1] < 1400
        assert 1500 <= found[1][1] < 3500 * factor()
    assert len(broker.heard) == 1
