"""From a retained request to new code running, on real brokers, over real TLS."""

from __future__ import annotations

import random
import threading

import pytest

from host_sim import sample
from host_sim.link.wiretap import Wiretap
from host_sim.sample import DEVICE_ID
from tests.brokers import available_brokers
from tests.conftest import MakeSite

OLD = sample.application()
NEW, PACKAGE = sample.next_version(OLD)
BUILDERS = {"tar": sample.tar, "tar.gz": sample.tar_gz}


def on_flash(tree: sample.Tree) -> sample.Tree:
    """A tree by absolute paths."""
    return {"/" + name: content for name, content in tree.items()}


def test_the_sample_is_real_sized():
    """The input is what the promise is about: size, kinds of files and of changes."""
    for tree in (OLD, NEW, PACKAGE):
        assert len(tree) >= 100
        assert sum(map(len, tree.values())) >= 600_000
    assert {name for name in PACKAGE if OLD.get(name) == PACKAGE[name]}
    assert {name for name in PACKAGE if name in OLD and OLD[name] != PACKAGE[name]}
    assert set(PACKAGE) - set(OLD)
    assert set(OLD) - set(PACKAGE)
    assert any(not name.isascii() for name in OLD)
    assert any(name.endswith(".mpy") for name in OLD)


@pytest.mark.check
@pytest.mark.few(8)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("broker", available_brokers())
@pytest.mark.parametrize("kind", BUILDERS)
def test_a_node_updates_itself(make_site: MakeSite, kind: str, broker: str, tls: bool):
    # 1,024 blocks: the .tar with all its PAX headers is larger than what 2 MB leave free.
    site = make_site(OLD, broker=broker, tls=tls, blocks=1024)
    fuid = site.ask(BUILDERS[kind](PACKAGE), f"package.{kind}")
    run = site.run()

    assert run.exit_code == 0, run.output
    assert "version 2 runs" in run.output
    assert run.names() == ["boot", "reset", "boot", "sleep", "flash"]
    assert run.nor_violations == 0
    assert site.flash_files() == site.files | on_flash(NEW)
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    assert site.retained() is None
    # Of a .tar.gz the first bytes are asked for alone: they tell whether there is an index.
    ranges = [download.range for download in site.console.downloads]
    assert ranges == ([None] if kind == "tar" else ["bytes=0-17", None])

    # Nothing is left to do: the next wake is idle and writes nothing.
    again = site.run()
    assert "check: idle" in again.output
    assert again.ops == 0
    assert len(site.reports()) == 1


@pytest.mark.parametrize("broker", available_brokers())
def test_the_order_on_the_wire(make_site: MakeSite, broker: str):
    """Request, retained clear, report; each QoS 1 and acknowledged before the next."""
    site = make_site(broker=broker)
    topic = site.console.topic(DEVICE_ID)
    package = sample.tar_gz({"main.py": sample.main_py(2)})
    fuid = site.ask(package)
    with Wiretap(site.console.ports.mqtt) as tap:
        site.configure(mqtt={"port": tap.port})
        site.run()
        packets = tap.packets

    request = f'[{{"n":"e","v":0}},{{"n":"i","vs":"{fuid}"}},{{"n":"t","vs":".tar.gz"}},'
    request += f'{{"n":"s","v":{len(package)}}}]'
    told = [p for p in packets if p.type == "PUBLISH" and p.direction == "down"]
    assert (told[0].topic, told[0].payload, told[0].qos) == (topic, request.encode(), 1)

    published = [p for p in packets if p.type == "PUBLISH" and p.direction == "up"]
    report = f'[{{"n":"e","v":1}},{{"n":"i","vs":"{fuid}"}}]'.encode()
    assert [(p.topic, p.payload, p.retain, p.qos) for p in published] == [
        (topic, b"", True, 1),
        (topic, report, False, 1),
    ]
    acknowledged = [
        packets.index(p) for p in packets if p.type == "PUBACK" and p.direction == "down"
    ]
    clear_at, report_at = (packets.index(p) for p in published)
    assert packets.index(told[0]) < clear_at < acknowledged[0] < report_at < acknowledged[1]
    # The node left for the download, came back to report, and then as the new version to confirm.
    assert [p.type for p in packets if p.direction == "up"].count("CONNECT") == 3

    # What a third client at the broker saw, in its order.
    seen = [m.payload for m in site.console.messages(DEVICE_ID)]
    assert seen == [request.encode(), b"", report]


def test_subscription_and_fence_leave_in_one_segment(make_site: MakeSite):
    site = make_site()
    with Wiretap(site.console.ports.mqtt) as tap:
        site.configure(mqtt={"port": tap.port})
        site.run()
        # The node is gone; its last bytes may still be on their way through the tap.
        assert tap.wait_for(lambda: bool(tap.sent("DISCONNECT")))
        sizes = [s.length for s in tap.segments if s.direction == "up" and s.length]
        sent = [p for p in tap.packets if p.direction == "up"]
    assert [p.type for p in sent] == ["CONNECT", "SUBSCRIBE", "PINGREQ", "DISCONNECT"]
    # CONNECT; SUBSCRIBE with PINGREQ; DISCONNECT.
    assert len(sizes) == 3


def test_an_idle_check_costs_no_flash_operation(make_site: MakeSite):
    site = make_site()
    run = site.run(wakes=3)
    assert run.output.count("check: idle") == 3
    assert (run.ops, run.erases) == (0, 0)


def test_a_package_that_changes_nothing_is_applied_without_reset(make_site: MakeSite):
    site = make_site(OLD, blocks=1024)
    fuid = site.ask(sample.tar_gz({n: OLD[n] for n in list(OLD)[:40]}))
    run = site.run()
    assert "reset" not in run.names()
    assert "check: installed" in run.output
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    assert site.retained() is None
    assert site.flash_files() == site.files


def test_old_firmware_as_source_and_compiled_behave_alike(make_site: MakeSite):
    ends = []
    for mpy in (False, True):
        site = make_site(mpy=mpy)
        site.ask(sample.tar({"main.py": sample.main_py(2)}), "p.tar")
        run = site.run()
        ends.append((run.names(), [r["e"] for r in site.reports()], "version 2" in run.output))
    assert ends[0] == ends[1] == (["boot", "reset", "boot", "sleep", "flash"], [1], True)


def test_report_confirmed_waits_for_the_new_version(make_site: MakeSite):
    site = make_site(config={"report": "confirmed"})
    fuid = site.ask(sample.tar_gz({"main.py": sample.main_py(2)}))
    heard = []
    run = site.run(on_event=lambda e: heard.append((e["event"], len(site.reports()))))
    assert ("reset", 0) in heard
    assert "version 2 runs" in run.output
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    assert site.retained() is None


def test_a_newer_request_takes_the_place_of_an_older_one(make_site: MakeSite):
    """What has been replaced during its download is neither installed nor reported."""
    site = make_site()
    filler = random.Random(3).randbytes(30_000)
    site.ask(sample.tar({"main.py": sample.main_py(2), "filler.bin": filler}), "a.tar")
    second = site.console.add_package(sample.tar_gz({"main.py": sample.main_py(3)}), "b.tar.gz")
    site.console.faults.drip = 40_000
    site.console.faults.times = 1

    def ask_again() -> None:
        site.console.wait_for(lambda: bool(site.console.downloads))
        site.console.request(DEVICE_ID, second.fuid)

    operator = threading.Thread(target=ask_again)
    operator.start()
    run = site.run()
    operator.join()
    assert "version 2 runs" not in run.output
    assert "version 3 runs" in run.output
    assert site.reports() == [{"e": 1, "i": second.fuid, "m": None}]
    assert site.retained() is None


def test_files_of_the_application_on_the_same_names_stay(make_site: MakeSite):
    """What the package does not name stays, byte for byte, even beside what it does name."""
    tree = {"main.py": sample.main_py(1), "data/log.csv": b"1,2\n" * 2000, "data/x": b"x"}
    site = make_site(tree)
    site.ask(sample.tar({"main.py": sample.main_py(2), "data/x": b"y", "data/z/w": b"w"}), "p.tar")
    site.run()
    changed = {"main.py": sample.main_py(2), "data/x": b"y", "data/z/w": b"w"}
    assert site.flash_files() == site.files | on_flash(changed)


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("p.tar", sample.tar({"main.py": sample.main_py(2)}, prefix="./")),
        ("p.tar.gz", sample.microfreezer({"main.py": sample.main_py(2)})),
        ("lies.tar", sample.tar_gz({"main.py": sample.main_py(2)})),
        ("lies.tar.gz", sample.tar({"main.py": sample.main_py(2)})),
    ],
    ids=["dot prefix", "microfreezer", "gzip called .tar", "tar called .tar.gz"],
)
def test_the_content_decides_not_the_extension(make_site: MakeSite, name: str, data: bytes):
    site = make_site()
    site.ask(data, name)
    assert "version 2 runs" in site.run().output
    assert [r["e"] for r in site.reports()] == [1]


def test_a_transport_of_the_integrator(make_site: MakeSite):
    """The same update over the frozen `requests`, on a plain test server, through the hook."""
    main = """
import machine
import ota
import requests

def open_stream(url):
    # For a test server only: requests knows no verified TLS.
    return requests.get(url.replace("https://", "http://"))

agent = ota.Agent(ota.load_config(), open_stream=open_stream)
print("check:", agent.check(), agent.reason)
machine.deepsleep(1000)
"""
    site = make_site({"main.py": main.encode()}, https_plain=True)
    site.plain_on_purpose = True
    fuid = site.ask(sample.tar_gz({"main.py": sample.main_py(2)}))
    run = site.run()
    assert "version 2 runs" in run.output, run.output
    assert [r["i"] for r in site.reports()] == [fuid]
    assert [r.path for r in site.console.plain_requests] == ["/mf-rproxy/packages/download"]


def test_modules_of_the_interpreter_are_found_as_before(make_site: MakeSite):
    """Where much memory is free an update keeps them in sys.modules, until it ends."""
    main = b"""
import gc, machine, ota, sys
before = {name for name in sys.modules}
agent = ota.Agent(ota.load_config())
print("check:", agent.check(), "plenty" if gc.mem_free() > 200000 else "little")
stay = [n for n in ("binascii", "io", "os", "time") if n in sys.modules and n not in before]
print("left:", stay)
sys.path.insert(0, "/mine")
import json
print("json:", json.WHOSE)
machine.deepsleep(60000)
"""
    site = make_site({"main.py": main, "mine/json.py": b'WHOSE = "the application"\n'}, heap="2M")
    site.ask(sample.tar({"main.py": sample.main_py(2)}), "p.tar")
    site.console.faults.status = 503
    run = site.run(wakes=1, timeout_s=60)
    assert "check: later plenty" in run.output
    assert "left: []" in run.output
    assert "json: the application" in run.output
