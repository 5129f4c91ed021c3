"""Attacks on a node that goes on with what an earlier wake has staged, one at a time.

Each of them has succeeded once: it left a wrong file, ended a good package, or had it fetched anew
in each wake. test_wakes.py has schedules without such an intent.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import random
import re
from collections.abc import Iterator

import pytest

from host_sim import sample
from host_sim.campaigns.wakes.bench import Bench, Outcome
from host_sim.campaigns.wakes.schedule import (
    KINDS,
    Package,
    Schedule,
    Trouble,
    Wake,
    main_py,
    make,
)
from host_sim.node import flash
from host_sim.sample import Tree
from host_sim.signing import MANIFEST

#: Where a version is rolled back, that is all that is reported.
CONFIG = make(0).config | {"report": "confirmed"}
DRAWN = dataclasses.replace(
    make(0), config=CONFIG, old=make(0).old | {"ota.json": json.dumps(CONFIG).encode()}
)
AGENT = 'agent = __import__("ota").Agent(config)\n'
RESETS = b"import machine\nmachine.reset()\n"


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench() as bench:
        yield bench


def noise(size: int, seed: int = 0) -> bytes:
    """So many bytes that do not compress, the same ones each time."""
    return random.Random(f"{size} {seed}").randbytes(size)


def members(count: int = 4, size: int = 9000) -> Tree:
    """A package of so many members of this size, and a good `main.py` in front."""
    return {"main.py": main_py(2)} | {f"d/p{n}.bin": noise(size, n) for n in range(count)}


def configured(**values: object) -> Tree:
    """The node's configuration, but for these values."""
    return {"ota.json": json.dumps(DRAWN.config | values).encode()}


def application(agent: str) -> Tree:
    """The node's `main.py`, which makes its agent in another way."""
    old = main_py(1).decode()
    assert old.count(AGENT) == 1
    return {"main.py": old.replace(AGENT, agent).encode()}


def attack(
    package: Package | Tree,
    *wakes: Wake,
    old: Tree | None = None,
    troubles: tuple[Trouble, ...] = (),
    given_up: bool = False,
    blocks: int = 224,
) -> Schedule:
    """A node with these files as well, and how each wake ends that is to fetch this package."""
    if not isinstance(package, Package):
        package = Package(1, "good", "tar", package, with_folders=False)
    there = DRAWN.old | (old or {})
    return Schedule(
        0,
        DRAWN.config,
        there,
        package,
        DRAWN.next,
        wakes,
        troubles,
        given_up=given_up,
        blocks=blocks,
    )


def play(bench: Bench, schedule: Schedule) -> Outcome:
    outcome = bench.play(schedule)
    assert outcome.wrong == [], outcome.story
    return outcome


def changes(path: str, at: int, byte: str) -> str:
    """Code that sets one byte of a file; `c` is the one that stands there."""
    return (
        f"with open({path!r}, 'r+b') as f:\n"
        f" f.seek({at})\n c = f.read(1)[0]\n f.seek({at})\n f.write(bytes([{byte}]))\n"
    )


def reports(bench: Bench) -> list[str]:
    """What the node has said of each request, "" where there is no message."""
    packs = [json.loads(payload) for payload in bench.platform.state.reports]
    return [{e["n"]: e.get("vs", "") for e in pack}.get("m", "") for pack in packs]


# -- what is staged, and belongs to another member ------------------------------------------------

#: Two members that begin alike, for longer than the part of one that a mark tells of.
ALIKE = noise(2100)
FIRST = ALIKE + noise(1900)
#: The first wake ends in the first of them, which is as it lies on the node.
IN_THE_FIRST = Wake("budget", 1536 + 2600)


def went_on_twice(outcome: Outcome) -> bool:
    """In the first member, and in it again after the reset."""
    return re.findall(r"bytes=(\d+)-: 206", outcome.story) == [str(1536 + 2048)] * 2


def test_the_part_of_a_member_is_not_taken_from_a_later_one(bench: Bench):
    """Nothing waits of a member that is unchanged so far: a later one has come to its place.

    It begins like the member, and a reset comes before the next mark. What waits is longer than
    the member: its end would stay behind the member's bytes.
    """
    tree = {"lib/a.txt": FIRST, "lib/b.txt": ALIKE + noise(5900), "lib/c.txt": noise(30_000)}
    tree["main.py"] = main_py(2)
    old = {"lib/a.txt": FIRST, "lib/b.txt": b"old"}
    outcome = play(bench, attack(tree, IN_THE_FIRST, Wake("reset", 12_400), old=old))
    assert went_on_twice(outcome)


def test_the_way_back_is_right_after_that(bench: Bench):
    """The same with code that never confirms: the old tree has to come back, byte for byte."""
    tree = {"lib/a.txt": FIRST, "b.txt": ALIKE + noise(1500), "lib/c.txt": noise(30_000)}
    tree["main.py"] = RESETS
    old = {"lib/a.txt": FIRST, "b.txt": b"old"}
    wakes = IN_THE_FIRST, Wake("reset", 8500)
    outcome = play(bench, attack(tree, *wakes, old=old, given_up=True))
    assert went_on_twice(outcome)
    assert "version 1 rolled_back" in outcome.story


# -- what flash has changed -----------------------------------------------------------------------


class Unsigned(Package):
    """With a manifest that nobody has signed."""

    @functools.cached_property
    def manifest(self) -> bytes:
        lines = ["insigh-ota-manifest 1", "key none", f"sequence {self.number}"]
        for name, content in self.tree.items():
            lines.append(f"file {hashlib.sha256(content).hexdigest()} {len(content)} {name}")
        lines += [f"delete {name}" for name in self.deleted]
        return "".join(f"{line}\n" for line in [*lines, "signature none"]).encode()

    @functools.cached_property
    def archive(self) -> bytes:
        return sample.tar({MANIFEST: self.manifest} | self.tree)


def test_a_manifest_that_flash_has_changed_deletes_nothing_else(bench: Bench):
    """One bit of a name in it, between two wakes. No signature would tell."""
    package = Unsigned(1, "good", "tar", members(), (), ("lib/ca.txt",))
    at = package.manifest.index(b"lib/ca.txt") + len("lib/c")
    flip = changes("/.ota/manifest", at, "ord('c')")
    outcome = play(
        bench,
        attack(
            package,
            Wake("budget", 20_000),
            old={"lib/ca.txt": b"goes", "lib/cc.txt": b"stays"},
            troubles=(Trouble("application", 2, code=flip),),
        ),
    )
    assert not outcome.resumed


@pytest.mark.slow
def test_what_flash_has_spoilt_costs_no_attempt(bench: Bench):
    """All comes again, so that several wakes bring less than was staged before: progress still."""
    flip = changes("/.ota/0", 5, "c ^ 1")
    outcome = play(
        bench,
        attack(
            members(),
            *(Wake("budget", 6000),) * 16,
            old=configured(max_attempts=3),
            troubles=(Trouble("application", 8, code=flip),),
        ),
    )
    assert outcome.ends["applied"]


# -- what the application has changed -------------------------------------------------------------


def test_a_folder_that_went_is_made_again(bench: Bench):
    """A new folder waits for its place in one that the application has removed since."""
    tree = {"a/b/x.bin": noise(9000), "a/c/y.bin": noise(20_000), "main.py": main_py(2)}
    removes = "os.remove('/a/keep.txt')\nos.rmdir('/a')\n"
    outcome = play(
        bench,
        attack(
            tree,
            Wake("budget", 14_000),
            old={"a/keep.txt": b"x"},
            troubles=(Trouble("application", 2, code=removes),),
        ),
    )
    assert outcome.ends["applied"]


def test_another_transport_begins_anew(bench: Bench):
    """The second wake brings the package in a way that knows no offset, and brings all of it."""
    tree = members(2)
    package = Package(1, "good", "tar", tree)
    other = """
class Other:
    status_code = 200

    def __init__(self, url):
        self.raw = open("/package.tar", "rb")

    def close(self):
        self.raw.close()

other = Other if os.getenv("BUDGET") == "40000" else None
agent = __import__("ota").Agent(config, open_stream=other)
"""
    old = application(other) | {"package.tar": package.archive}
    outcome = play(bench, attack(package, Wake("budget", 14_000), Wake("budget", 40_000), old=old))
    assert not outcome.resumed
    assert "version 2 confirmed" in outcome.story.partition("== good wake 1")[0]


def test_a_setting_that_has_no_part_in_it_may_change(bench: Bench):
    """`cycle_s` is another one in each wake, and each goes on where the one before has ended."""
    other = 'config["cycle_s"] = 300 + int(os.getenv("BUDGET")) % 10\n' + AGENT
    wakes = [Wake("budget", 20_000 + n) for n in range(2)]
    outcome = play(bench, attack(members(), *wakes, old=application(other)))
    assert outcome.resumed == 2


# -- what is counted ------------------------------------------------------------------------------


def test_a_file_of_the_boot_path_in_its_other_form_does_not_stop_it(bench: Bench):
    """The package has `ota/errors.py`, the node `ota/errors.mpy`: that goes, and needs no copy."""
    errors = (flash.FIRMWARE / "ota/errors.py").read_bytes()
    tree = {"main.py": main_py(2), "ota/errors.py": errors} | members()
    outcome = play(bench, attack(tree, *(Wake("budget", 20_000),) * 2))
    assert outcome.resumed == 2


def test_the_last_of_equal_wakes_tells_its_own_reason(bench: Bench):
    """Nothing of somebody else's .tar.gz can stay, and no wake brings more of it than the first.

    The last one that is allowed is known as such: there is no wake that only says "interrupted".
    """
    package = Package(1, "good", KINDS[2], members())
    wakes = (Wake("link", 15_000),) * 6
    play(bench, attack(package, *wakes, old=configured(max_attempts=3), given_up=True))
    (message,) = reports(bench)
    assert message.startswith("can not download: 503 from the server")


def test_space_is_not_counted_twice(bench: Bench):
    """Many folders that wait: what one wake can install, two can as well, on the same flash.

    Where the first fails, the agent itself has grown: then `blocks` has to grow with it.
    """
    tree = {"main.py": main_py(2)}
    tree |= {f"n/f{n}/x.bin": noise(600, n) for n in range(30)}
    tree["z/big.bin"] = noise(160_000)
    old = {"z/big.bin": noise(160_000, 7)}
    for wakes in (), (Wake("budget", 66_000),):
        outcome = play(bench, attack(tree, *wakes, old=old, blocks=315))
        assert outcome.resumed == len(wakes)
