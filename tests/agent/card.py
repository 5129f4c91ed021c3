"""A node with a package on its card, which its application gives to the agent."""

from __future__ import annotations

import random
from zlib import crc32

from host_sim import sample
from host_sim.sample import DEVICE_ID, Tree
from tests.conftest import MakeSite
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
GOOD = sample.tar_gz(BROUGHT)
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
