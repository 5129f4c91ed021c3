"""A package that the application has, from a card, say: no request, the same transaction."""

from __future__ import annotations

import json
import random
from zlib import crc32

import pytest

from host_sim import sample
from host_sim.sample import DEVICE_ID, Tree
from tests import signing
from tests.conftest import MakeSite
from tests.package.signed.packages import package as signed_package
from tests.secrecy import WatchedSite

CARD = "/card.bin"
#: Installs what is on the card when there is nothing else to do. ORDER: what comes first.
MAIN = """\
import machine
import os
import ota

VERSION = 1
ORDER = "check"
print("version", VERSION, "runs")


class Dog:
    fed = 0

    def feed(self):
        self.fed += 1


dog = Dog()
steps = []
agent = ota.Agent(ota.load_config(), lambda step, value: steps.append(step), watchdog=dog)


def check():
    print("check:", agent.check(), agent.reason)


def install(stream=None, **options):
    if stream is None:
        with open("/card.bin", "rb") as stream:
            return install(stream, **options)
    size = os.stat("/card.bin")[6]
    outcome = agent.install(stream, size, **options)
    print("install:", outcome, agent.reason)
    return outcome


if ORDER == "check":
    check()
    if agent.reason is None:
        install()
else:
    exec(ORDER)
print("steps", " ".join(sorted(set(steps))), "fed", dog.fed > 5)
machine.deepsleep(60_000)
"""
FILLER = random.Random(5).randbytes(9000)
BROUGHT: Tree = {"main.py": sample.main_py(2), "new/folder/filler.bin": FILLER, "data.txt": b"2\n"}
SLEEP = b"import machine\nmachine.deepsleep(1000)\n"
BUILDERS = {
    "tar": sample.tar,
    "tar.gz": sample.tar_gz,
    "microfreezer": sample.microfreezer,
}


def main_py(order: str = "check") -> bytes:
    return MAIN.replace('"check"\nprint', f"{order!r}\nprint", 1).encode()


def card(make_site: MakeSite, content: bytes, order: str = "check", **options) -> WatchedSite:
    """A node of version 1 with a package on its card."""
    extra = options.pop("extra", {})
    tree = {"main.py": main_py(order), "data.txt": b"1\n", CARD[1:]: content}
    return make_site(tree | extra, **options)


def with_brought(site: WatchedSite, brought: Tree = BROUGHT) -> Tree:
    return site.files | {"/" + name: content for name, content in brought.items()}


def nothing_was_said(site: WatchedSite) -> bool:
    """The platform has neither heard nor sent anything."""
    return not site.console.messages(DEVICE_ID) and not site.console.downloads


def small_file(text: str) -> bytes:
    """As recovery.save() writes it."""
    line = f"\n{text} {crc32(text.encode()):08x}\n"
    return (line if len(line) > 63 else line * 2).encode()


@pytest.mark.check
@pytest.mark.few(2)
@pytest.mark.parametrize("report", ["installed", "confirmed"])
@pytest.mark.parametrize("kind", BUILDERS)
def test_it_is_installed_and_confirmed_and_nobody_is_told(
    make_site: MakeSite, kind: str, report: str
):
    site = card(make_site, BUILDERS[kind](BROUGHT), config={"report": report})
    run = site.run()
    assert "reset" in run.names(), run.output
    assert "version 2 runs" in run.output
    assert "check: confirmed" in run.output
    assert site.flash_files() == with_brought(site)
    assert nothing_was_said(site)
    again = site.run()
    assert "check: idle" in again.output
    assert again.ops == 0


@pytest.mark.parametrize("options", [{"lib": True}, {"frozen": True}, {"mpy": False}], ids=str)
def test_wherever_the_agent_lives(make_site: MakeSite, options: dict):
    site = card(make_site, GOOD, **options)
    run = site.run()
    assert "check: confirmed" in run.output, run.output
    assert site.flash_files() == with_brought(site)


def test_what_is_there_already_needs_no_reset(make_site: MakeSite):
    site = card(make_site, sample.tar({"data.txt": b"1\n"}))
    run = site.run()
    assert "install: installed None" in run.output, run.output
    assert "reset" not in run.names()
    assert site.flash_files() == site.files
    assert nothing_was_said(site)


GOOD = sample.tar_gz(BROUGHT)
BROKEN = {
    "no archive": (b"hello " * 200, "failed can not apply: bad archive, neither tar nor"),
    "one bit": (
        GOOD[:-6] + bytes([GOOD[-6] ^ 1]) + GOOD[-5:],
        "failed can not apply: bad archive, CRC-32 differs",
    ),
    "half of it": (GOOD[:4000], "failed can not apply: bad archive, compressed stream ends early"),
    "bytes behind it": (
        sample.tar(BROUGHT) + bytes(512) + b"x" * 600,
        "failed can not apply: bad archive, data after its end",
    ),
    "protected": (sample.tar({"ota.json": b"{}"}), "failed can not apply: protected path /ota"),
    "outside": (sample.tar({"../x": b"x"}), "failed can not apply: a path leaves the root"),
    "does not compile": (
        sample.tar({"a.py": b"a", "ota/agent.py": b"def (\n"}),
        "failed can not apply: /ota/agent.py does not compile",
    ),
}


@pytest.mark.few(3)
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_package_changes_nothing(make_site: MakeSite, name: str):
    content, text = BROKEN[name]
    site = card(make_site, content)
    run = site.run()
    assert f"install: {text}" in run.output, run.output
    assert site.flash_files() == site.files
    assert site.flash_folders() == site.folders
    assert nothing_was_said(site)
    # And it takes the next one from the platform.
    fuid = site.ask(sample.tar(BROUGHT), "p.tar")
    assert "check: confirmed" in site.run().output
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]


def test_it_has_to_fit(make_site: MakeSite):
    big = {"big.bin": random.Random(1).randbytes(300_000)}
    site = card(make_site, sample.tar(big), blocks=150)
    run = site.run()
    assert "install: failed not enough space: 3" in run.output, run.output
    assert site.flash_files() == site.files
    # It grows while it unpacks.
    site = card(make_site, sample.tar_gz({"big.bin": bytes(600_000)}), blocks=150)
    run = site.run()
    assert "install: failed not enough space: " in run.output, run.output
    assert site.flash_files() == site.files


def test_without_our_boot_py_there_is_no_way_back(make_site: MakeSite):
    site = card(make_site, GOOD, extra={"boot.py": b"print('theirs')\n"})
    run = site.run()
    assert "install: failed can not apply: this agent's boot.py did not run" in run.output
    assert site.flash_files() == site.files


# -- signatures --------------------------------------------------------------------------------

KEYS = {"keys": ["/a.pub"], "require_signature": True}
PUB = {"a.pub": signing.key(1).modulus}


def test_a_signature_can_be_required(make_site: MakeSite):
    for content, text in (
        (GOOD, "there is none, and this node requires it"),
        (signed_package(BROUGHT, None), "not signed, and this node requires it"),
        (signed_package(BROUGHT, 2), "unknown key"),
    ):
        site = card(make_site, content, config=KEYS, extra=PUB)
        run = site.run()
        assert f"install: failed manifest: {text}" in run.output, run.output
        assert site.flash_files() == site.files
        assert nothing_was_said(site)


def test_sequence_numbers_count(make_site: MakeSite):
    """What was brought by hand raises the number, and is measured by it."""
    site = card(make_site, signed_package(BROUGHT, 1, sequence=7), config=KEYS, extra=PUB)
    run = site.run()
    assert "check: confirmed" in run.output, run.output
    assert site.flash_files() == with_brought(site) | {"/ota.sequence": b"7"}
    assert nothing_was_said(site)

    old = signed_package(BROUGHT, 1, sequence=6)
    site = card(make_site, old, config=KEYS, extra=PUB | {"ota.sequence": b"7"})
    run = site.run()
    assert "install: failed manifest: sequence 6 is older than 7" in run.output, run.output
    assert site.flash_files() == site.files


def test_a_number_of_what_is_there_already_counts(make_site: MakeSite):
    content = signed_package({"data.txt": b"1\n"}, 1, sequence=9)
    site = card(make_site, content, config=KEYS, extra=PUB)
    run = site.run()
    assert "install: installed None" in run.output, run.output
    assert site.flash_files() == site.files | {"/ota.sequence": b"9"}


# -- beside the platform -----------------------------------------------------------------------


def test_it_waits_until_a_trial_is_over(make_site: MakeSite):
    brought = {"main.py": main_py("install()\ncheck()\ninstall()"), "data.txt": b"2\n"}
    site = card(make_site, GOOD)
    site.ask(sample.tar(brought), "p.tar")
    run = site.run()
    text = "install: later a trial is open: this version has to be confirmed first"
    assert text in run.output, run.output
    confirmed = run.output.index("check: confirmed")
    assert run.output.index(text) < confirmed < run.output.index("version 2 runs")
    assert site.flash_files() == with_brought(site)


def test_a_request_that_waits_is_done_afterwards(make_site: MakeSite):
    """And the tries of the other package are not counted as its own."""
    orders = "install()\ncheck()"
    site = card(make_site, GOOD[:4000], orders, config={"max_attempts": 1})
    fuid = site.ask(sample.tar({"main.py": sample.main_py(3)}), "p.tar")
    run = site.run()
    assert "install: failed" in run.output
    assert "version 3 runs" in run.output, run.output
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]

    site = card(make_site, GOOD, orders, config={"max_attempts": 1})
    third = {"main.py": sample.main_py(3)}
    fuid = site.ask(sample.tar(third), "p.tar")
    run = site.run()
    assert run.output.count("runs") == 3, run.output
    assert "version 3 runs" in run.output
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    assert site.retained() is None
    assert site.flash_files() == with_brought(site, BROUGHT | third)


def test_attempts_of_a_request_are_kept(make_site: MakeSite):
    count = small_file("fa8884d2 3")
    site = card(make_site, GOOD[:4000], "install()", extra={".ota/attempts": count})
    assert "install: failed" in site.run().output
    assert site.flash_files() == site.files


OWED = {".ota/report": small_file("2 fa8884d2 can not apply: out of memory")}
SAID = {"e": 2, "i": "fa8884d2", "m": "can not apply: out of memory"}
#: Once, before the platform is asked.
ONCE = """
if "tried" in os.listdir("/"):
    check()
else:
    open("tried", "w").close()
    install()
"""


@pytest.mark.parametrize("bad", [False, True], ids=["good", "rolled back"])
def test_what_is_owed_is_not_lost(make_site: MakeSite, bad: bool):
    """The platform hears the end of an earlier request, whatever becomes of this package."""
    brought = BROUGHT | ({"main.py": b"def (:\n"} if bad else {})
    config = {"trial_deadline_s": 60}
    site = card(make_site, sample.tar(brought), ONCE, extra=OWED, config=config)
    run = site.run(timeout_s=30)
    assert site.reports() == [SAID], run.output
    assert ("check: rolled_back rolled back: 3 boots" in run.output) == bad
    assert not {"/.ota/report", "/.ota/owed"} & set(site.flash_files())


def test_a_damaged_one_does_not_stay(make_site: MakeSite):
    site = card(make_site, GOOD, "check()", extra={".ota/owed": b"\ndamaged 12345678\n"})
    assert "check: idle" in site.run().output
    assert not any("/.ota" in name for name in site.flash_files())
    assert nothing_was_said(site)


@pytest.mark.slow
def test_what_is_owed_survives_a_cut_at_each_operation(make_site: MakeSite):
    brought = BROUGHT | {"main.py": b"def (:\n"}
    config = {"trial_deadline_s": 60}
    site = card(make_site, sample.tar(brought), ONCE, extra=OWED, config=config)
    pristine = site.image.read_bytes()
    for cut in range(1, site.run(timeout_s=30).ops + 1):
        site.image.write_bytes(pristine)
        told = len(site.reports())
        site.run(cut=cut, timeout_s=30)
        run = site.run(wakes=2, timeout_s=30)
        reports = site.reports()[told:]
        # It may come twice, when the power fails before it is forgotten.
        assert reports in ([SAID], [SAID, SAID]), (cut, run.output)
        assert not any("/.ota" in name for name in site.flash_files()), cut


def test_a_version_that_fails_comes_back_and_nobody_is_told(make_site: MakeSite):
    """But the application is."""
    brought = BROUGHT | {"main.py": b"def (:\n"}
    site = card(make_site, sample.tar(brought), config={"trial_deadline_s": 60})
    run = site.run(timeout_s=30)
    text = "check: rolled_back rolled back: 3 boots without confirm"
    assert text in run.output, run.output
    assert site.flash_files() == site.files
    assert site.flash_folders() == site.folders
    assert nothing_was_said(site)


def test_an_application_without_its_channel_may_confirm(make_site: MakeSite):
    """And nothing waits for the platform then."""
    code = (
        b"import ota\nprint(ota.status()['file_id'], ota.confirm(), ota.status()['undelivered'])\n"
    )
    site = card(make_site, sample.tar({"main.py": code + SLEEP}))
    run = site.run()
    assert "(local) True None" in run.output, run.output
    assert not any("/.ota" in name for name in site.flash_files())


def test_a_report_that_flash_has_damaged_is_not_made_up(make_site: MakeSite):
    """What is made again from a journal of such a package is not for the platform either."""
    head = [2, "(local)", 3, 24, 7, 900, 0, 0, 0, None]
    text = json.dumps(head).encode() + b"\n="
    journal = text + crc32(text).to_bytes(4, "little")
    extra = {".ota/report": b"\ndamaged 12345678\n", ".ota/journal": journal}
    site = card(make_site, GOOD, "check()", extra=extra)
    run = site.run()
    text = "check: rolled_back rolled back: the report was damaged on flash"
    assert text in run.output, run.output
    assert nothing_was_said(site)
    assert not any("/.ota" in name for name in site.flash_files())


# -- what the application gives, and gets ------------------------------------------------------


def test_the_application_may_reset_itself(make_site: MakeSite):
    """Until then it runs on in its own tree; nothing else is installed meanwhile."""
    orders = """
install(reset=False)
import sys
print("loaded:", *sorted(name for name in sys.modules if name.startswith("ota")))
print(open("/data.txt").read().strip(), "is there,", ota.status()["state"])
install()
check()
import machine
machine.reset()
"""
    site = card(make_site, GOOD, orders)
    run = site.run()
    assert "install: committed None\n" in run.output, run.output
    assert "1 is there, commit\n" in run.output
    assert "loaded: ota ota.agent ota.errors\n" in run.output
    assert "install: later a transaction waits for the next boot" in run.output
    assert "check: later a transaction waits for the next boot" in run.output
    assert "version 2 runs" in run.output
    assert "check: confirmed" in run.output
    assert site.flash_files() == with_brought(site)
    assert nothing_was_said(site)


STREAMS = {
    "read": "def read(self, n):\n  return f.read(min(n, 100))",
    "one argument": "def readinto(self, b):\n  return f.readinto(memoryview(b)[:77])",
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams_of_any_shape(make_site: MakeSite, name: str):
    orders = f"f = open('/card.bin', 'rb')\nclass S:\n {STREAMS[name]}\ninstall(S())"
    site = card(make_site, sample.tar_gz(BROUGHT), orders)
    run = site.run()
    assert "check: confirmed" in run.output, run.output


BAD_STREAMS = {
    "raises": ("def read(self, n):\n  raise OSError(5, 'secret')", "the stream failed, OSError 5"),
    "ends": ("def readinto(self, b):\n  return 0", "the stream ended after 0 bytes"),
    "not ready": ("def readinto(self, b):\n  pass", "the stream ended after 0 bytes"),
    "too much": ("def read(self, n):\n  return bytes(n + 1)", "the stream failed, ValueError"),
    "too much told": ("def readinto(self, b):\n  return 999999", "the stream failed, ValueError"),
    "no stream": ("", "the stream failed, AttributeError"),
}


@pytest.mark.few(3)
@pytest.mark.parametrize("name", BAD_STREAMS)
def test_a_stream_that_fails(make_site: MakeSite, name: str):
    code, text = BAD_STREAMS[name]
    site = card(make_site, GOOD, f"class S:\n {code or 'pass'}\ninstall(S())")
    run = site.run()
    assert f"install: later can not apply: {text}" in run.output, run.output
    assert site.flash_files() == site.files


def test_no_byte_behind_the_package_is_asked_for(make_site: MakeSite):
    """A socket would wait for it."""
    orders = """
f = open("/card.bin", "rb")
class S:
    def read(self, n):
        data = f.read(n)
        if not data:
            print("asked beyond")
        return data
install(S())
"""
    for build in BUILDERS.values():
        site = card(make_site, build(BROUGHT), orders)
        run = site.run()
        assert "check: confirmed" in run.output, run.output
        assert "asked beyond" not in run.output


def test_the_application_sees_what_moves(make_site: MakeSite):
    site = card(make_site, GOOD[:-1], "install()")
    run = site.run()
    assert "steps bytes failed file space fed True" in run.output, run.output


def test_flash_that_fails_ends_in_a_reset(make_site: MakeSite):
    """Nothing may be written before it, and the tree is the old one."""
    site = card(make_site, GOOD, "reset_before or install()", heap="200K")
    flag = b"import machine\nreset_before = machine.reset_cause() != machine.PWRON_RESET\n"
    site._root.joinpath("main.py").write_bytes(flag + main_py("reset_before or install()"))
    site.configure()
    run = site.run(fail=(4, 5))
    assert run.names()[:3] == ["boot", "reset", "boot"], (run.events, run.output)
    assert "version 2 runs" not in run.output
    after = {n: c for n, c in site.flash_files().items() if not n.startswith("/.ota")}
    assert after == site.files


@pytest.mark.slow
@pytest.mark.parametrize("report", ["installed", "confirmed"])
@pytest.mark.parametrize("bad", [False, True], ids=["good", "bad"])
def test_a_cut_at_each_operation(make_site: MakeSite, bad: bool, report: str):
    """The old tree or the new one, in the end, and the platform is told nothing."""
    brought = BROUGHT | ({"main.py": b"def (:\n"} if bad else {})
    config = {"trial_deadline_s": 60, "report": report}
    site = card(make_site, sample.tar(brought), config=config)
    pristine = site.image.read_bytes()
    total = site.run(timeout_s=30).ops
    new = with_brought(site, brought)
    ends = set()
    for cut in range(1, total + 1):
        site.image.write_bytes(pristine)
        site.run(cut=cut, timeout_s=30)
        between = {n: c for n, c in site.flash_files().items() if not n.startswith("/.ota")}
        run = site.run(timeout_s=30)
        after = site.flash_files()
        assert after in (site.files, new), (cut, run.output)
        assert bad or after == new, (cut, run.output)
        ends.add((between == site.files, "rolled_back" in run.output))
    assert len(ends) > 1
    assert nothing_was_said(site)
