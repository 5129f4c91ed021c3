"""There is always a way back, and a trial proves that there is: with a real console."""

from __future__ import annotations

import itertools

import pytest

from host_sim import sample
from host_sim.node.node import Chip, Run
from host_sim.sample import DEVICE_ID, Tree
from tests.conftest import FIRMWARE, MakeSite
from tests.secrecy import WatchedSite

NAPS = "import machine\nmachine.deepsleep({})\n"
#: What a node that hangs is like: it does nothing more by itself.
HANGS = b"print('version 2 hangs')\n"
CRASHES = b"\nprint('version 2 fails')\n1/0\n"
BOOTS = "rolled back: 3 boots without confirm"

OLD: Tree = {
    "main.py": sample.main_py(1),
    "data/replaced.txt": b"old " * 60,
    "pack/replaced.txt": b"old " * 10,
    "lib/twin.py": b"TWIN = 1\n",
    "lib/kept.py": b"KEPT = 1\n",
}
#: lib/twin.py is deleted by it.
NEW: Tree = {
    "data/replaced.txt": b"new " * 80,
    "data/added.txt": b"added",
    "pack/replaced.txt": b"new " * 10,
    "lib/twin.mpy": b"M\x06\x00\x1f\x00",
    "new/deep/file.txt": b"new",
    "new/other.txt": b"new",
}


def most(cases: list, quick: int) -> list:
    """Every quick-th of the cases, and the others for the slow tests."""
    return [
        pytest.param(*case, marks=[pytest.mark.slow] if n % quick else [])
        for n, case in enumerate(cases)
    ]


def came_back(site: WatchedSite, fuid: str, reason: str | None, extra: Tree | None = None) -> None:
    """Exactly the old tree (and what the new code wrote elsewhere), one e:2, and nothing open."""
    files = site.flash_files()
    assert files == site.files | (extra or {})
    # On a full flash the folder of its own stays, until there is room again.
    folders = site.flash_folders()
    assert [f for f in folders if f != "/.ota" or not extra] == site.folders
    ends = [(report["e"], report["m"]) for report in site.reports() if report["i"] == fuid]
    assert [event for event, _ in ends][-1:] == [2], ends
    if reason:
        assert ends[-1][1].startswith(reason)
    assert site.retained() is None


def takes_a_good_one(site: WatchedSite) -> Run:
    """A further package installs."""
    fuid = site.ask(sample.tar({"main.py": sample.main_py(3)}), "good.tar")
    run = site.run(wakes=2)
    assert "version 3 runs\n" in run.output and "ota: confirm" in run.output, run.output
    assert "check: idle" in run.output
    assert [r["e"] for r in site.reports() if r["i"] == fuid] == [1]
    return run


# -- obstacles -----------------------------------------------------------------------------------

OBSTACLE = """
import os


def remove(path):
    try:
        os.remove(path)
    except OSError:
        for entry in os.ilistdir(path):
            remove(path + "/" + entry[0])
        os.remove(path)


KIND, PATH = %r, %r
try:
    os.stat("/been")
except OSError:
    open("/been", "w").close()
    if KIND == "renamed":
        os.rename(PATH, "/elsewhere")
    else:
        try:
            remove(PATH)
        except OSError:
            pass  # the package has deleted it
    if KIND == "folder":
        os.mkdir(PATH)
        os.mkdir(PATH + "/sub")
        open(PATH + "/sub/x", "w").close()
    elif KIND == "file":
        open(PATH, "w").close()
"""
PATHS = (
    "/data/replaced.txt",
    "/data/added.txt",
    "/lib/twin.py",
    "/lib/twin.mpy",
    "/new/deep/file.txt",
    "/new/deep",
    "/new",
    "/pack",
    "/main.py",
)
OBSTACLES = [
    (kind, path)
    for path in PATHS
    for kind in ("folder", "gone", "file", "renamed")
    if (kind, path) != ("renamed", "/lib/twin.py")
]


@pytest.mark.few(1)
@pytest.mark.parametrize(("kind", "path"), most(OBSTACLES, 3))
def test_an_obstacle_of_new_code_goes(make_site: MakeSite, kind: str, path: str):
    site = make_site(OLD, blocks=128)
    main = (OBSTACLE % (kind, path)).encode() + CRASHES
    fuid = site.ask(sample.tar(NEW | {"main.py": main}), "p.tar")
    run = site.run(wakes=2, timeout_s=30)
    assert "check: rolled_back" in run.output, run.output
    files, folders = site.flash_files(), site.flash_folders()
    elsewhere = [name for name in files if name.startswith("/elsewhere")]
    assert bool(elsewhere) == (kind == "renamed")
    files = {name: content for name, content in files.items() if name not in elsewhere}
    assert files.pop("/been") == b""
    if (kind, path) in (("folder", "/pack"), ("folder", "/new"), ("folder", "/new/deep")):
        # A folder of the package's: what the new code wrote in it by itself stays, and so do the
        # folders above.
        assert files.pop(path + "/sub/x") == b""
        folders = [name for name in folders if not (path + "/sub/").startswith(name + "/")]
        folders = sorted({*folders, *(name for name in site.folders if path.startswith(name))})
    assert files == site.files
    assert [name for name in folders if not name.startswith("/elsewhere")] == site.folders
    assert site.reports()[-1]["i"] == fuid
    takes_a_good_one(site)


# -- a full flash --------------------------------------------------------------------------------

LOGS = b"""
import os
n = 0
for size in 4096, 100, 1:
    while True:
        n += 1
        try:
            name = "/log" + (str(n // 30) if size == 4096 else "x" * 60 + str(n))
            with open(name, "ab") as f:
                f.write(b"." * size)
        except OSError:
            break
"""


@pytest.mark.few(1)
@pytest.mark.parametrize("long", [False, True], ids=["short names", "long names"])
def test_the_log_of_the_new_version_fills_flash(make_site: MakeSite, long: bool):
    """With many deletions, in folders of their own, and an id of 64 characters."""
    name = "module_%02d" + "_with_a_long_name" * 5 * long
    old = OLD | {f"pack{n % 8}/{name % n}.py": b"A = %d\n" % n * 20 for n in range(40)}
    site = make_site(old, blocks=240)
    new = {f"pack{n % 8}/{name % n}.mpy": b"M\x06\x00\x1f\x00" for n in range(40)}
    fuid = site.ask(sample.tar(new | {"main.py": LOGS + CRASHES}), "p.tar")
    run = site.run(wakes=2, timeout_s=50, max_boots=40)
    assert "version 2 fails" in run.output, run.output
    assert "check: rolled_back" in run.output, run.output
    logs = {path: data for path, data in site.flash_files().items() if path.startswith("/log")}
    assert logs
    came_back(site, fuid, BOOTS, logs)
    site.node.exec("import os\nfor n in os.listdir('/'):\n    'log' in n and os.remove('/' + n)\n")
    takes_a_good_one(site)


# -- an application that is stopped in the middle ------------------------------------------------

#: As a task of asyncio that is cancelled: what stops it is no Exception.
STOPPED = b"""
import machine
import ota
from umqtt.simple import MQTTClient


class Stop(BaseException):
    pass


class Client(MQTTClient):
    stops = False

    def set_callback(self, callback):
        if self.stops:
            raise Stop
        super().set_callback(callback)


def progress(step, value):
    print("ota:", step)
    if step == %r:
        client.stops = True


print("version 1 runs")
config = ota.load_config()
mqtt = config["mqtt"]
names = config["device_id"].encode(), mqtt["host"], mqtt["port"]
client = Client(*names, config["device_id"].encode(), config["device_key"].encode(), 60)
client.set_callback(print)
client.connect()
try:
    print("check:", ota.Agent(config, progress, client=client).check())
except Stop:
    print("the old version goes on")
machine.deepsleep(60000)
"""


@pytest.mark.few(1)
@pytest.mark.parametrize("step", ["commit", "install", "report"])
def test_an_application_that_is_stopped_behind_the_commit(make_site: MakeSite, step: str):
    """It must not go on with the modules of the new version, whatever is thrown at the agent."""
    site = make_site(OLD | {"main.py": STOPPED % step}, blocks=128)
    site.ask(sample.tar(NEW | {"main.py": sample.main_py(2)}), "p.tar")
    run = site.run(wakes=1)
    assert "version 2 runs\n" in run.output and "check: confirmed" in run.output, run.output
    assert "goes on" not in run.output
    assert {report["e"] for report in site.reports()} == {1}


# -- small files that flash damages --------------------------------------------------------------

STOPS_AT_COMMIT = b"""
import machine
import ota


def progress(step, value):
    if step == "commit":
        machine.reset()


print("version 1 runs")
agent = ota.Agent(ota.load_config(), progress)
print("check:", agent.check())
if agent.reason:
    print("reason:", agent.reason)
machine.deepsleep(60000)
"""
#: Rolls back at once, as the rehearsal does.
GIVES_UP = b"""
import machine
import ota
from ota.install import trial
if trial.give_up("rolled back: a test"):
    machine.reset()
"""
FLIP = """
import os
for name in os.listdir("/.ota"):
    if name.split(".")[0] in %r:
        with open("/.ota/" + name, "rb") as file:
            data = bytearray(file.read())
        data[%s] ^= 1 << %d
        with open("/.ota/" + name, "wb") as file:
            file.write(data)
        print("damaged", name)
"""
SMALL = ["state", "journal", "journal2", "recovery", "attempts", "report"]
PHASES = {"commit": 1, "trial": 1, "back": 2, "told": 3}
WHERE = [("0", 6), ("len(data) // 2", 0), ("-1", 3), ("len(data) // 3", 2)]
#: What is there in each phase.
THERE = [
    (phase, name, *where)
    for phase, name in itertools.product(PHASES, SMALL)
    for where in WHERE
    if (name == "report") == (phase == "told") and not (name == "attempts" and phase != "commit")
]


def stopped(site: WatchedSite, phase: str) -> str:
    """Let a package come so far. Returns its file id."""
    new = GIVES_UP * (phase in ("back", "told")) + sample.main_py(2)
    fuid = site.ask(sample.tar(NEW | {"main.py": new}), "p.tar")
    resets = itertools.count(1)
    last = PHASES[phase]
    site.run(stop=lambda event: event["event"] == "reset" and next(resets) == last)
    return fuid


def old_main(phase: str) -> bytes:
    return STOPS_AT_COMMIT if phase == "commit" else sample.main_py(1)


@pytest.mark.few(1)
@pytest.mark.parametrize(("phase", "name", "at", "bit"), most(THERE, 5))
def test_a_flipped_bit_in_a_small_file(
    make_site: MakeSite, phase: str, name: str, at: str, bit: int
):
    site = make_site(OLD | {"main.py": old_main(phase)}, blocks=128)
    fuid = stopped(site, phase)
    damage = site.node.exec(FLIP % ((name,), at, bit))
    assert f"damaged {name}" in damage.output, damage.output
    run = site.run(wakes=2, timeout_s=30)
    reports = [report for report in site.reports() if report["i"] == fuid]
    stays = phase in ("commit", "trial")
    if stays:
        new = {
            "/" + path: content for path, content in (NEW | {"main.py": sample.main_py(2)}).items()
        }
        expected = {p: c for p, c in (site.files | new).items() if p != "/lib/twin.py"}
        assert "check: confirmed" in run.output, run.output
        assert site.flash_files() == expected
        assert {report["e"] for report in reports} == {1}
    else:
        # A report is made anew from the journal: it has lost its reason, and not its end. Or it
        # stands twice in its file.
        came_back(site, fuid, None if name == "report" else "rolled back: a test")
    assert site.retained() is None
    takes_a_good_one(site)


@pytest.mark.few(1)
@pytest.mark.parametrize("phase", ["commit", "trial", "back"])
@pytest.mark.parametrize("text", [b"", bytes(99), b"[2, 1]", b'\n[2, "trial", 8] 00000000\n'])
def test_a_state_of_which_nothing_is_left(make_site: MakeSite, phase: str, text: bytes):
    """To roll back is right in every phase. (A single bit does nothing: it stands there twice.)"""
    site = make_site(OLD | {"main.py": sample.main_py(1)}, blocks=128)
    if phase == "commit":
        site = make_site(OLD | {"main.py": STOPS_AT_COMMIT}, blocks=128)
    fuid = stopped(site, phase)
    if phase == "commit":
        site.console.clear(DEVICE_ID)  # else it is taken once more
    site.node.exec(f"with open('/.ota/state', 'wb') as file:\n    file.write({text!r})\n")
    site.run(wakes=2, timeout_s=30)
    came_back(site, fuid, "rolled back: damaged")
    takes_a_good_one(site)


@pytest.mark.few(1)
@pytest.mark.parametrize("phase", ["commit", "trial", "back"])
def test_both_copies_of_the_journal_are_damaged(make_site: MakeSite, phase: str):
    """The tree can not be had back: that is said, the transaction is closed, the next works."""
    site = make_site(OLD | {"main.py": old_main(phase)}, blocks=128)
    stopped(site, phase)
    site.node.exec(FLIP % (("journal", "journal2"), "len(data) // 2", 0))
    site.run(wakes=2, timeout_s=30, max_boots=30)
    if phase == "trial":
        # The new tree is whole, and proves itself: nothing has to move.
        assert [report["e"] for report in site.reports()] == [1]
    else:
        # Which package it was is lost as well. At the commit its request still waits.
        ends = [report for report in site.reports() if report["e"] == 2]
        assert [report["i"] for report in ends] == ["-"]
        assert ends[0]["m"].startswith("rolled back, but not whole: ")
        assert (site.reports()[-1]["e"] == 1) == (phase == "commit")
    assert site.retained() is None
    takes_a_good_one(site)


# -- chips ---------------------------------------------------------------------------------------

RELEASES = [f"1.{minor}" for minor in range(22, 30)]
CHIPS = [
    (name, release)
    for name, release in itertools.product(("esp32", "s3", "c3", "c6"), RELEASES)
    if name != "c6" or release >= "1.24"
]
CHIPS.sort(key=lambda case: case not in [("c3", "1.22"), ("c3", "1.23"), ("c6", "1.24")])


def good_then_hanging(site: WatchedSite, lost: int = 0) -> None:
    """A good update is kept, one that hangs comes back. lost: boots that crash by themselves."""
    fuid = site.ask(sample.tar({"main.py": sample.main_py(2)}), "good.tar")
    run = site.run(wakes=2)
    assert "version 2 runs\nota: confirm" in run.output, (run.output, run.events)
    assert [r["e"] for r in site.reports() if r["i"] == fuid] == [1]
    files = site.flash_files()
    fuid = site.ask(sample.tar({"main.py": HANGS, "new.txt": b"new"}), "hangs.tar")
    run = site.run(wakes=2, timeout_s=40)
    assert run.output.count("version 2 hangs") == 3 - lost, (run.output, run.events)
    assert "check: rolled_back" in run.output, (run.output, run.events)
    assert site.flash_files() == files
    assert [r["m"] for r in site.reports() if r["i"] == fuid][-1] == BOOTS


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("name", "release"), [*most(CHIPS, 6), pytest.param("c3", "1.23"), pytest.param("c6", "1.24")]
)
def test_chips(make_site: MakeSite, name: str, release: str):
    good_then_hanging(make_site(blocks=128, node={"chip": Chip(name, release)}))


@pytest.mark.few(2)
@pytest.mark.parametrize("name", ["esp32", "c3"])
@pytest.mark.parametrize(
    "more",
    [{"no_interrupts": True}, {"full_queue": 1}, {"full_queue": 20}],
    ids=["no interrupts", "full queue", "full queue for long"],
)
@pytest.mark.parametrize("release", ["1.24", "1.29"])
def test_chips_that_lack_something(make_site: MakeSite, name: str, release: str, more: dict):
    # Once the chip aborts at the deadline's timer; then there is only the watchdog.
    lost = int("no_interrupts" in more and release < "1.29")
    good_then_hanging(make_site(blocks=128, node={"chip": Chip(name, release, **more)}), lost)


def test_a_resolver_that_blocks(make_site: MakeSite):
    """Nothing is fed for 21 s at each connection; the trial lasts for longer."""
    chip = Chip("esp32", "1.28", dns_block_s=21, dns_answers=True)
    good_then_hanging(make_site(blocks=128, node={"chip": chip}, config={"timeout_s": 60}))


TAKES_TIMERS = b"""
import machine
for number in range(4):
    try:
        machine.Timer(number).init(period=60000, callback=lambda t: None)
    except Exception as error:
        print(error)
"""
FEEDS = b"""
import machine
dog = machine.WDT(timeout=30000)
machine.Timer(1).init(period=5000, callback=lambda t: dog.feed())
"""


@pytest.mark.parametrize("told", [True, False])
def test_a_watchdog_of_the_applications_at_its_own_confirm(make_site: MakeSite, told: bool):
    """Told of, it keeps its period, and ends a hang; else it gets six days: nobody can see it."""
    main = b"import machine\nimport ota\nmachine.WDT(timeout=30000)\nprint('version 2 runs')\n"
    main += b"ota.confirm(%s)\n" % str(told).encode()
    site = make_site(blocks=128, node={"chip": Chip("esp32", "1.28")})
    site.ask(sample.tar({"main.py": main}), "p.tar")
    ran = itertools.count(1)
    run = site.run(stop=lambda event: event["event"] == "repl" and next(ran) == 3)
    assert run.output.count("version 2 runs") == (3 if told else 1), (run.output, run.events)


SOFT = b"\nimport machine\nmachine.soft_reset()\n"


@pytest.mark.few(1)
@pytest.mark.parametrize("what", [TAKES_TIMERS, FEEDS], ids=["takes timers", "feeds a watchdog"])
@pytest.mark.parametrize(("name", "release"), [("esp32", "1.28"), ("c6", "1.25")])
def test_a_version_that_hangs_with_the_chips_timers(
    make_site: MakeSite, name: str, release: str, what: bytes
):
    site = make_site(blocks=128, node={"chip": Chip(name, release)})
    fuid = site.ask(sample.tar({"main.py": what + HANGS}), "p.tar")
    run = site.run(wakes=2, timeout_s=50)
    assert "check: rolled_back" in run.output, (run.output, run.events[-20:])
    came_back(site, fuid, BOOTS)
    takes_a_good_one(site)


def test_a_loop_of_soft_resets_ends(make_site: MakeSite):
    """Each weighs an eighth of a boot."""
    site = make_site(blocks=128)
    fuid = site.ask(sample.tar({"main.py": HANGS + SOFT}), "p.tar")
    run = site.run(wakes=2, timeout_s=50)
    assert 17 <= run.output.count("version 2 hangs") <= 24, run.output
    came_back(site, fuid, BOOTS)
    takes_a_good_one(site)


def test_resets_over_usb_are_no_crashes_and_still_end(make_site: MakeSite):
    site = make_site(blocks=128)
    fuid = site.ask(sample.tar({"main.py": HANGS}), "p.tar")
    site.run(stop=lambda event: event["event"] == "reset")
    for n in range(24):
        run = site.run(cause="usb", stop=lambda event: event["event"] == "repl")
        assert run.output == "version 2 hangs\n", n
    run = site.run(cause="usb", wakes=1)
    assert "check: rolled_back" in run.output
    came_back(site, fuid, BOOTS)


@pytest.mark.slow
def test_a_version_that_sleeps_lightly_for_ever(make_site: MakeSite):
    """It never connects, is never reset, and no timer goes on in its sleep."""
    site = make_site(blocks=128, node={"rtc": True})
    naps = b"import machine, time\nwhile True:\n    machine.lightsleep(14400000)\n"
    naps += b"    time.sleep_ms(400)\n"
    fuid = site.ask(sample.tar({"main.py": naps}), "p.tar")
    run = site.run(timeout_s=55)
    assert "check: rolled_back" in run.output, run.events[-5:]
    came_back(site, fuid, "rolled back: 7 days without confirm")


# -- looking -------------------------------------------------------------------------------------

LOOKED_AT = b"import os\nif os.getenv('LOOKED_AT'):\n    1/0\n"


def test_looking_does_not_end_a_trial(make_site: MakeSite):
    """Power on, `make status`, `mpremote ls`, and the button."""
    site = make_site(blocks=128)
    site.ask(sample.tar({"main.py": LOOKED_AT + sample.main_py(2)}), "p.tar")
    site.run(stop=lambda event: event["event"] == "reset")
    site.node.environ = {"LOOKED_AT": "1"}
    for cause in "power_on", "soft", "soft", "hard":
        run = site.run(cause=cause, stop=lambda event: event["event"] == "repl")
        assert run.output.count("ZeroDivisionError") == 1, run.output
    site.node.environ = {}
    run = site.run(cause="deepsleep")
    assert "version 2 runs\nota: confirm" in run.output, run.output
    assert [report["e"] for report in site.reports()] == [1]


# -- limits --------------------------------------------------------------------------------------

SELDOM = """
import machine
n = 0
try:
    with open("/wakes") as file:
        n = int(file.read())
except OSError:
    pass
with open("/wakes", "w") as file:
    file.write(str(n + 1))
if n % {every} != {every} - 1:
    machine.deepsleep({sleep_ms})
"""


@pytest.mark.parametrize(
    ("every", "sleep_s"), [(48, 300), (48, 3600)], ids=["every 48th wake", "an hour at a time"]
)
def test_a_node_that_connects_seldom_keeps_its_good_update(
    make_site: MakeSite, every: int, sleep_s: int
):
    site = make_site(blocks=128, node={"rtc": True})
    main = SELDOM.format(every=every, sleep_ms=sleep_s * 1000).encode() + sample.main_py(2)
    site.ask(sample.tar({"main.py": main}), "p.tar")
    run = site.run(wakes=50, timeout_s=50)
    assert "version 2 runs\nota: confirm" in run.output, run.output
    assert [report["e"] for report in site.reports()] == [1]


def test_a_modem_that_registers_late(make_site: MakeSite):
    """After 310 s; here a timer waits, as time of a node that only waits passes at once."""
    site = make_site(blocks=128)
    wait = b"import machine\n\n\ndef go(_):\n    import late\n\n\n"
    wait += b"machine.Timer(1).init(mode=machine.Timer.ONE_SHOT, period=310000, callback=go)\n"
    package = {"main.py": wait, "late.py": sample.main_py(2)}
    image = site.image.read_bytes()
    for _ in range(4):
        # The simulator's timers are a second thread of an interpreter that has no lock for all:
        # one boot in thirty whose callback does so much ends in a crash of it.
        site.image.write_bytes(image)
        before = len(site.reports())
        site.ask(sample.tar(package), "p.tar")
        run = site.run(timeout_s=30)
        if "the interpreter died" not in str(run.events):
            break
    assert "version 2 runs\nota: confirm" in run.output, (run.output, run.events)
    assert [report["e"] for report in site.reports()[before:]] == [1]


CLOCKS = {
    # What a wake does to the clock, how long it sleeps, and the fewest and most wakes.
    "goes on": ("pass", 12, 13, 16),
    "set forward": (
        "if r.datetime()[0] < 2026: r.datetime((2026, 11, 25, 0, 10, 0, 0, 0))",
        12,
        12,
        18,
    ),
    "back to 2000": ("r.datetime((2000, 1, 1, 0, 0, 0, 0, 0))", 1, 80, 7 * 24 + 2),
    "stands still": ("stand()", 1, 80, 7 * 24 + 2),
}
CLOCK = """
import machine
r = machine.RTC()


def stand():
    # Behind by the sleep that is to come: at the next boot it is what it was at this one.
    t = r.datetime()
    r.datetime((t[0], t[1], t[2], 0, t[4] - 1, t[5], t[6], 0))


print("busy")
if r.datetime()[0] < 2000 or r.datetime()[4] == 0:
    r.datetime((2001, 1, 2, 0, 10, 0, 0, 0)) if "{clock}" == "stand()" else None
{clock}
machine.deepsleep({hours} * 3600000)
"""


@pytest.mark.few(1)
@pytest.mark.parametrize("clock", CLOCKS)
def test_a_version_that_never_connects_is_rolled_back_in_seven_days(
    make_site: MakeSite, clock: str
):
    code, hours, fewest, wakes = CLOCKS[clock]
    site = make_site(blocks=128, node={"rtc": True})
    main = CLOCK.format(clock=code, hours=hours).encode()
    fuid = site.ask(sample.tar({"main.py": main}), "p.tar")
    run = site.run(wakes=wakes * 2, timeout_s=58, max_boots=wakes * 2 + 10)
    assert fewest <= run.output.count("busy") <= wakes, run.output.count("busy")
    assert "check: rolled_back" in run.output
    came_back(site, fuid, "rolled back: 7 days without confirm")


# -- rehearsal -----------------------------------------------------------------------------------


def source(name: str) -> bytes:
    return (FIRMWARE / "ota" / (name + ".py")).read_bytes()


OURS = (FIRMWARE / "boot.py").read_bytes()
BROKEN: dict[str, tuple[Tree, Tree]] = {
    # What is wrong, and a good version beside it.
    "staging raises": (
        {"ota/install/staging.py": b"raise ValueError\n" + source("install/staging")},
        {"ota/install/staging.py": source("install/staging") + b"\n# better\n"},
    ),
    "staging does not work": (
        {
            "ota/install/staging.py": source("install/staging").replace(
                b"def _add_file(", b"def _add_fail("
            )
        },
        {"ota/install/staging.py": source("install/staging") + b"\n# better\n"},
    ),
    "a journal that nothing is kept of between wakes": (
        {"ota/install/journal.py": source("install/journal").replace(b"def keep(", b"def kept(")},
        {"ota/install/journal.py": source("install/journal") + b"\n# better\n"},
    ),
    "an empty fetch": (
        {"ota/fetch.py": b""},
        {"ota/fetch.py": source("fetch") + b"\n"},
    ),
    "a report without its function": (
        {
            "ota/install/report.py": source("install/report").replace(
                b"def finish(", b"def finished("
            )
        },
        {"ota/install/report.py": source("install/report") + b"\n"},
    ),
    # As where a package brings one module of another release: what loads may lack a name that the
    # end of an update asks for.
    "a transaction without its preparation": (
        {"ota/install/ready.py": source("install/ready").replace(b"def prepare(", b"def made(")},
        {"ota/install/ready.py": source("install/ready") + b"\n"},
    ),
    "a staging without its end": (
        {
            "ota/install/finish.py": source("install/finish").replace(
                b"def finish(", b"def finished("
            )
        },
        {"ota/install/finish.py": source("install/finish") + b"\n"},
    ),
    # No update of a node at a broker that clears as it should needs it. Where it does, it would be
    # the last one.
    "kept raises": (
        {"ota/install/kept.py": b"raise ValueError\n" + source("install/kept")},
        {"ota/install/kept.py": source("install/kept") + b"\n"},
    ),
    # The package that brings it is no .tar.gz, and the next one is.
    "inflate raises": (
        {"ota/package/inflate.py": b"raise ValueError\n" + source("package/inflate")},
        {"ota/package/inflate.py": source("package/inflate") + b"\n"},
    ),
    # Ours as far as it matters. But the agent knows by it that there is a way back.
    "a boot.py that tidies up": ({"boot.py": OURS + b"del _trial\n"}, {"boot.py": OURS + b"\n"}),
    "an old ssl": ({"ssl.py": b"def wrap_socket(sock): pass\n"}, {"ssl_.py": b"x = 1\n"}),
}


@pytest.mark.few(2)
@pytest.mark.parametrize("name", BROKEN)
def test_a_version_that_can_not_be_updated_again(make_site: MakeSite, name: str):
    bad, good = BROKEN[name]
    for works in (False, True):
        site = make_site(blocks=192)
        package = (good if works else bad) | {"main.py": sample.main_py(2)}
        fuid = site.ask(sample.tar(package), "p.tar")
        run = site.run(wakes=3, timeout_s=30)
        if works:
            assert "version 2 runs\nota: confirm" in run.output, run.output
            assert [r["e"] for r in site.reports()] == [1]
            continue
        came_back(site, fuid, None)
        assert site.reports()[-1]["m"].startswith("rolled back: can not update again, "), (
            run.output
        )
        takes_a_good_one(site)


def test_a_machine_py_that_hides_the_chips(make_site: MakeSite):
    """A stub that came along. No update could end in a reset with it.

    The simulator's module of that name is loaded before; a chip's is built in, and looked for anew
    at each import.
    """
    site = make_site(blocks=128)
    stub = b"def deepsleep(ms):\n    print('stub sleeps')\n"
    main = b"import sys\nsys.modules.pop('machine')\n" + sample.main_py(2)
    fuid = site.ask(sample.tar({"machine.py": stub, "main.py": main}), "p.tar")
    run = site.run(wakes=2, timeout_s=30)
    assert "stub sleeps" in run.output, run.output
    came_back(site, fuid, "rolled back: can not update again, the module machine is not")
    takes_a_good_one(site)


_REMOVES_BOOT_PY = b"""\
import machine
import os
try:
    os.remove('/boot.py')
    machine.reset()
except OSError:
    pass
"""


def test_new_code_that_removes_boot_py(make_site: MakeSite):
    """No boot counts its trial any more, so it would be open for ever: the agent ends it."""
    site = make_site(OLD, blocks=128)
    main = _REMOVES_BOOT_PY + sample.main_py(2)
    fuid = site.ask(sample.tar(NEW | {"main.py": main}), "p.tar")
    run = site.run(wakes=2, timeout_s=30)
    assert "check: rolled_back" in run.output, run.output
    del site.files["/boot.py"]  # it is the application's fault that this is gone
    came_back(site, fuid, "rolled back: boot.py did not run")
    fuid = site.ask(sample.tar({"main.py": sample.main_py(3)}), "good.tar")
    site.run()
    assert site.reports()[-1]["m"].endswith("boot.py did not run, so there is no way back")


@pytest.mark.slow
def test_power_cuts_while_the_agent_ends_that_trial(make_site: MakeSite):
    """No boot.py goes on with its roll back either, so the agent does."""
    site = make_site(OLD, blocks=128)
    package = sample.tar(NEW | {"main.py": _REMOVES_BOOT_PY + sample.main_py(2)})
    start = site.image.read_bytes()
    fuid = site.ask(package, "p.tar")
    ops = site.run(timeout_s=30).ops
    del site.files["/boot.py"]
    for cut in range(ops // 2, ops + 1, 3):
        site.image.write_bytes(start)
        site.console.request(DEVICE_ID, fuid)
        site.run(cut=cut, timeout_s=30)
        site.run(wakes=3, timeout_s=30)
        came_back(site, fuid, "rolled back: ")


HOGS = b"keep = bytearray(%d)\n"


@pytest.mark.parametrize(("kept", "works"), [(72_000, False), (1_000, True)])
def test_a_version_that_keeps_so_much_memory_that_no_update_fits(
    make_site: MakeSite, kept: int, works: bool
):
    site = make_site(blocks=192, heap="162K")
    fuid = site.ask(sample.tar_gz({"main.py": HOGS % kept + sample.main_py(2)}))
    run = site.run(wakes=3, timeout_s=30)
    if works:
        assert "version 2 runs\nota: confirm" in run.output, run.output
        assert [r["e"] for r in site.reports()] == [1]
    else:
        came_back(site, fuid, "rolled back: can not update again, out of memory")
        takes_a_good_one(site)


def test_nothing_of_the_rehearsal_in_later_checks(make_site: MakeSite):
    site = make_site(blocks=128)
    main = sample.main_py(2).replace(
        b"machine.deepsleep",
        b"import sys\nprint([n for n in sys.modules if n[:3] == 'ota'])\nmachine.deepsleep",
    )
    site.ask(sample.tar({"main.py": main}), "p.tar")
    run = site.run(wakes=1)
    assert "ota: confirm" in run.output
    assert "rehearsal" not in run.output and "staging" not in run.output, run.output
    again = site.run(wakes=3)
    assert again.output.count("check: idle") == 3
    assert again.ops == 0
    assert "rehearsal" not in again.output and "ota.cycle" not in again.output


# -- flash errors and memory ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("cause", ["power_on", "hard", "soft", "wdt"])
@pytest.mark.parametrize("part", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
def test_one_flash_error_after_whatever_reset(make_site: MakeSite, cause: str, part: int):
    """The second try is not for nodes alone that have just been powered up."""
    site = make_site(OLD, blocks=128, config={"mqtt": {"grace_ms": 2}})
    start = site.image.read_bytes()
    fuid = site.ask(sample.tar(NEW | {"main.py": sample.main_py(2)}), "p.tar")
    ops = site.run().ops
    new = site.flash_files()
    for operation in range(1 + part, ops + 1, max(1, ops // 8)):
        site.image.write_bytes(start)
        before = len(site.reports())
        site.console.request(DEVICE_ID, fuid)
        output = site.run(cause=cause, fail=(operation, "ESP"), timeout_s=30).output
        for _ in range(2):
            output += site.run(cause="deepsleep").output
        ends = {report["e"] for report in site.reports()[before:]}
        assert ends == {1}, (operation, output)
        assert site.flash_files() == new, operation
        assert site.retained() is None


@pytest.mark.few(1)
def test_the_rehearsal_has_the_memory_that_an_update_has(make_site: MakeSite):
    """In a heap where an update works it must not give up, and keep a broken version."""
    site = make_site(blocks=160, heap="116K")
    tree = {"main.py": sample.main_py(2), "ota/install/kept.py": b"x = 1\n"}
    site.ask(sample.tar(tree), "p.tar")
    run = site.run(wakes=4, timeout_s=60)
    assert [report["e"] for report in site.reports()] == [1, 2], run.output
    assert "out of memory" not in run.output


@pytest.mark.parametrize("left", [53_000, 54_500, 56_000, 58_000, 60_000])
def test_out_of_memory_at_each_wake_ends(make_site: MakeSite, left: int):
    hogs = (
        b"import gc, machine, ota\nkeep = []\nagent = ota.Agent(ota.load_config())\n"
        b"print('version 1 runs')\n"
        b"while True:\n    gc.collect()\n    if gc.mem_free() < %d:\n        break\n"
        b"    keep.append(bytearray(500))\n"
        b"print('check:', agent.check())\nprint('reason:', agent.reason)\n"
        b"machine.deepsleep(60000)\n" % left
    )
    site = make_site({"main.py": hogs}, blocks=128, heap="200K")
    package = sample.tar_gz({"main.py": sample.main_py(2)})
    fuid = site.ask(package)
    run = site.run(wakes=12, timeout_s=40)
    reports = [(report["e"], report["i"]) for report in site.reports()]
    assert reports == [(2, fuid)], run.output
    # By itself, or because there is no room for the window. Where the last attempt has not even
    # the memory to say so, the wake after it says how many there were.
    said = site.reports()[0]["m"]
    assert " memory" in said or said == "can not apply: interrupted 5 times", run.output
    # At some sizes memory also ends before the attempt is counted.
    assert run.output.count("check: later") <= 8, run.output
    assert site.retained() is None
    assert site.flash_files() == site.files
