"""A package that the application has, from a card, say: what is taken, and from what stream."""

from __future__ import annotations

import random

import pytest

from host_sim import sample
from tests import signing
from tests.agent.card import BROUGHT, BUILDERS, GOOD, card, nothing_was_said, with_brought
from tests.conftest import MakeSite
from tests.package.signed.packages import package as signed_package


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
    site = card(make_site, sample.tar(big), blocks=151)
    run = site.run()
    assert "install: failed not enough space: 3" in run.output, run.output
    assert site.flash_files() == site.files
    # It grows while it unpacks.
    site = card(make_site, sample.tar_gz({"big.bin": bytes(600_000)}), blocks=151)
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


#: The first boot installs: what is whole, or what ends in the middle.
_FIRST = "import machine\nif machine.reset_cause() == machine.PWRON_RESET:\n    "
WHOLE = _FIRST + "install()"
HALF = f"""
f = open("/card.bin", "rb")
class S:
    def read(self, n):
        if f.tell() > 3000:
            raise ValueError
        return f.read(min(n, 200))
{_FIRST}install(S())
"""


def ends_boot(event: dict) -> bool:
    return event["event"] in ("reset", "sleep")


@pytest.mark.parametrize(
    "step", [9, pytest.param(1, marks=pytest.mark.slow)], ids=["sample", "every"]
)
@pytest.mark.parametrize("order", [WHOLE, HALF], ids=["whole", "half"])
def test_flash_that_fails_ends_in_a_reset(make_site: MakeSite, order: str, step: int):
    """At whatever operation. Nothing is written before the reset, and the tree is the old one."""
    site = card(make_site, sample.tar(BROUGHT), order)
    pristine = site.image.read_bytes()
    total = site.run(stop=ends_boot).ops
    assert total > 20
    # The last ones, too: they remove what is staged.
    for operation in sorted({*range(1, total + 1, step), *range(total - 4, total + 1)}):
        site.image.write_bytes(pristine)
        run = site.run(fail=(operation, 5))
        assert run.names()[:3] == ["boot", "reset", "boot"], (operation, run.output)
        assert "Traceback" not in run.output
        assert "version 2 runs" not in run.output
        assert run.nor_violations == 0
        after = {n: c for n, c in site.flash_files().items() if not n.startswith("/.ota")}
        assert after == site.files, operation


#: Neither after a power up nor with the RTC's memory to count in: then it does not reset.
STAYS = f"""
import machine
if machine.reset_cause() == machine.PWRON_RESET:
    machine.RTC().memory(b"mine")
    machine.reset()
{HALF.replace(_FIRST, "")}
agent = None
import gc
gc.collect()
"""


@pytest.mark.parametrize(
    "step", [9, pytest.param(1, marks=pytest.mark.slow)], ids=["sample", "every"]
)
def test_a_node_that_does_not_reset_writes_no_more(make_site: MakeSite, step: int):
    site = card(make_site, sample.tar(BROUGHT), STAYS)
    pristine = site.image.read_bytes()
    total = site.run().ops
    for operation in sorted({*range(1, total + 1, step), *range(total - 4, total + 1)}):
        site.image.write_bytes(pristine)
        run = site.run(fail=(operation, 5))
        assert "install: later can not apply: flash failed, OSError 5" in run.output, run.output
        assert run.ops == operation
