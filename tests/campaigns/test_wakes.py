"""Packages that come over many wakes: a few schedules here, many in `make wakes`."""

from __future__ import annotations

import dataclasses
import functools
import json
import random
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from host_sim import sample
from host_sim.campaigns.wakes import cli
from host_sim.campaigns.wakes.bench import LOST, Bench, Outcome, Tally
from host_sim.campaigns.wakes.schedule import (
    ENDS,
    KINDS,
    PATCHES,
    TROUBLES,
    Package,
    Schedule,
    Trouble,
    Wake,
    main_py,
    make,
)
from host_sim.node.flash_rules import TORN_KINDS
from insigh_ota.package import archive, restarts
from tests.conftest import MakeSite
from tests.mutants import Mutant

SEEDS = range(16)
DRAWN = make(0)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench() as bench:
        yield bench


@pytest.mark.few(1)
@pytest.mark.parametrize("part", range(2))
def test_it_arrives_and_little_is_fetched_again(bench: Bench, part: int):
    tally = Tally()
    for seed in SEEDS[part::2]:
        tally.add(bench.run(seed))
    assert not tally.failures, "\n".join(f"{o.wrong}\n{o.story}" for o in tally.failures)
    assert tally.resumed
    assert tally.ends["applied"]


def test_a_seed_tells_all():
    assert str(make(7)) == str(make(7)) != str(make(8))
    assert make(7).package.archive == make(7).package.archive


def test_schedules_have_everything_in_them():
    schedules = [make(seed) for seed in range(150)]
    wakes = [wake for schedule in schedules for wake in schedule.wakes]
    assert {wake.end for wake in wakes} == set(ENDS)
    assert {wake.torn for wake in wakes if wake.end == "power"} == set(TORN_KINDS)
    assert {t.what for schedule in schedules for t in schedule.troubles} == set(TROUBLES)
    packages = {(s.package.kind, s.package.signed) for s in schedules}
    # Somebody else's are few.
    assert packages >= {(kind, signed) for kind in KINDS for signed in (False, True)} - {
        (KINDS[2], True)
    }
    sizes = [len(s.package.archive) for s in schedules]
    assert min(sizes) < 20_000 and max(sizes) > 80_000
    parts = [wake.at for wake in wakes if wake.end in ("link", "budget")]
    assert min(parts) < 2500 and max(parts) > 60_000


# -- one at a time -------------------------------------------------------------------------------


#: Of patched(): the first ends inside the large file, the second behind it.
THREE = (Wake("budget", 22_000), Wake("budget", 23_850), Wake())


def schedule(
    *wakes: Wake, kind: str = "tar", size: int = 30_000, member: int = 9000, **more
) -> Schedule:
    """A node and a package of about so many bytes, in members of so many."""
    chance = random.Random(size)
    tree = {"main.py": main_py(2)}
    tree |= {f"d/part{n}.bin": chance.randbytes(member) for n in range(size // member)}
    tree["d/rest.bin"] = chance.randbytes(size % member)
    package = Package(1, "good", kind, tree)
    old = DRAWN.old | {"d/part1.bin": b"old"}
    found = Schedule(0, DRAWN.config, old, package, DRAWN.next, tuple(wakes))
    return dataclasses.replace(found, **more)


def patched(*wakes: Wake, **more) -> Schedule:
    """A node of a release, and a package with patches for it.

    So they come: a patch, a file of 40 KB that is whole, a patch, an unchanged one, two patches.
    """
    chance = random.Random(5)
    text = {f"d/text{n}.py": sample._source(chance, f"text{n}", 4000) for n in range(4)}
    same = {"d/same.py": sample._source(chance, "same", 3000)}
    newer = [(name, text[name][:700] + b"newer" + text[name][720:]) for name in text]
    large = {"d/large.bin": chance.randbytes(40_000)}
    files = [newer[0], *large.items(), newer[1], *same.items(), *newer[2:]]
    old = DRAWN.old | text | same
    package = Package(1, "good", PATCHES, dict(files) | {"main.py": main_py(2)}, release=old)
    found = Schedule(0, DRAWN.config, old, package, DRAWN.next, tuple(wakes))
    return dataclasses.replace(found, **more)


def listed(*wakes: Wake) -> Schedule:
    """A manifest so long that a restart point is in front of the index; nearly all is there."""
    chance = random.Random(6)
    same = {f"d/same{n}.bin": chance.randbytes(400) for n in range(100)}
    old = DRAWN.old | same
    package = Package(1, "good", PATCHES, same | {"main.py": main_py(2)}, release=old)
    return Schedule(0, DRAWN.config, old, package, DRAWN.next, tuple(wakes), blocks=352)


def play(bench: Bench, schedule: Schedule) -> Outcome:
    outcome = bench.play(schedule)
    assert outcome.wrong == [], outcome.story
    return outcome


@pytest.mark.few(1)
@pytest.mark.parametrize("end", ["budget", "link"])
@pytest.mark.parametrize(
    ("size", "part", "kind"),
    [(300_000, 4096, "tar"), (1_000_000, 20_480, "tar"), (1_000_000, 20_480, "tar.gz")],
)
def test_small_wakes(bench: Bench, size: int, part: int, kind: str, end: str):
    """300 KB at 4 KB a wake, 1 MB at 20 KB a wake; restart points are 11 KB apart."""
    again = 1536 if kind == "tar" else 12 * 1024
    wakes = (Wake(end, part),) * (size // min(part - 1536, 11_000) + 2)
    blocks = 160 + size // 2048
    outcome = play(bench, schedule(*wakes, kind=kind, size=size, blocks=blocks))
    assert outcome.fetched <= outcome.size + again * outcome.interruptions


@pytest.mark.few(1)
@pytest.mark.parametrize("seed", [5148, 6121])
def test_a_reset_anywhere_loses_little(bench: Bench, seed: int):
    """Without a word: what lies ahead in RAM is lost as well. Of gzip, and with patches."""
    drawn = make(seed)
    for at in range(9000, min(60_000, len(drawn.package.archive)), 1900):
        outcome = play(bench, dataclasses.replace(drawn, wakes=(Wake("reset", at),), troubles=()))
        assert outcome.fetched <= outcome.size + LOST


def ends(bench: Bench) -> list[tuple[int, str]]:
    packs = [json.loads(payload) for payload in bench.platform.state.reports]
    values = [{e["n"]: e.get("v", e.get("vs")) for e in pack} for pack in packs]
    return [(pack["e"], pack.get("m", "")) for pack in values]


def test_what_never_ends_is_given_up(bench: Bench):
    """Of somebody else's .tar.gz each wake begins anew: three times its size, and no more."""
    half = Wake("link", 15_000)
    play(
        bench,
        schedule(*(half,) * 12, kind=KINDS[2], limits={"max_fetched": 3}, given_up=True),
    )
    sent = sum(d.bytes_sent for d in bench.platform.journal.downloads()[-12:])
    assert ends(bench)[0][0] == 2
    assert sent <= 4 * 31_000


def test_wakes_without_progress_are_counted(bench: Bench):
    config = DRAWN.config | {"max_attempts": 3}
    old = DRAWN.old | {"ota.json": json.dumps(config).encode()}
    play(bench, schedule(*(Wake("link", 300),) * 4, old=old, given_up=True))
    assert ends(bench)[0][0] == 2


def test_wakes_with_progress_are_not(bench: Bench):
    config = DRAWN.config | {"max_attempts": 3}
    old = DRAWN.old | {"ota.json": json.dumps(config).encode()}
    play(bench, schedule(*(Wake("budget", 4000),) * 9, old=old))


class TwoMembers(Package):
    """As `cat a.tar.gz b.tar.gz` would be if both were halves of one tar; both promise points."""

    @functools.cached_property
    def archive(self) -> bytes:
        data = sample.tar(self.tree)
        middle = len(data) // 1024 * 512
        made = b""
        for half in (data[:middle], data[middle:]):
            deflate = zlib.compressobj(9, zlib.DEFLATED, -13)
            stream = b""
            for at in range(0, len(half), 512):
                stream += deflate.compress(half[at : at + 512]) + deflate.flush(zlib.Z_FULL_FLUSH)
            made += archive.wrap(stream + deflate.flush(), half, 13, restarts=True)
        return made


def test_a_wake_goes_on_in_the_first_gzip_member_only(bench: Bench):
    """The sums of a second one would begin in the middle. It costs bytes, and nothing else."""
    good = schedule().package
    package = TwoMembers(1, "good", "tar.gz", good.tree)
    cuts = *(Wake("link", at) for at in (12_000, 8000, 9000)), Wake("budget", 12_000)
    outcome = bench.play(schedule(*cuts, package=package))
    assert outcome.story.count("all: 200") == 1, outcome.story
    assert [w for w in outcome.wrong if not w.startswith("fetched too much")] == [], outcome.story


@pytest.mark.few(2)
@pytest.mark.parametrize("what", TROUBLES)
def test_each_trouble(bench: Bench, what: str):
    """In the middle of a large member, and at the next wake something else."""
    troubles = (Trouble(what, 3),)
    if what == "asked again":
        troubles = (Trouble("withdrawn", 3), Trouble(what, 4))
    wakes = (Wake("budget", 8000), Wake("link", 9000), Wake("budget", 8000))
    play(bench, schedule(*wakes, troubles=troubles))


@pytest.mark.few(2)
@pytest.mark.parametrize("what", TROUBLES)
def test_each_trouble_of_a_package_with_patches(bench: Bench, what: str):
    """The first wake ends inside the large file, the second behind it."""
    troubles = (Trouble(what, 3),)
    if what == "asked again":
        troubles = (Trouble("withdrawn", 3), Trouble(what, 4))
    play(bench, patched(*THREE, troubles=troubles))


def test_a_package_with_patches_goes_on(bench: Bench):
    """Inside a file, between two, and nothing of what has come comes twice."""
    outcome = play(bench, patched(*THREE))
    assert outcome.resumed == 2
    assert outcome.story.count("bytes=0-17: 206") == 1
    assert len(patched().package.archive) > 1.2 * outcome.size - 8000


NO_MEMORY = """\
class Wanted:
    def choose(*args):
        raise MemoryError

def progress(step, value):
    if step == "download":
        sys.modules["ota.package.plan"] = Wanted

agent = __import__("ota").Agent(config, progress)
"""


def test_where_memory_ends_at_an_index_all_comes(bench: Bench):
    """In the next wake. One that ends early says nothing of memory."""
    old = patched().old
    plain = 'agent = __import__("ota").Agent(config)\n'
    main = old["main.py"].decode().replace(plain, NO_MEMORY)
    wakes = Wake("budget", 500), Wake(), Wake()
    outcome = play(bench, patched(*wakes, old=old | {"main.py": main.encode()}))
    asked = re.findall(r"(all|bytes=\S+): 20", outcome.story)
    assert [each for each in asked if each[:8] != "bytes=0-" or each == "bytes=0-17"] == [
        *["bytes=0-17"] * 2,
        "all",
    ]
    assert outcome.ends["applied"]


@pytest.mark.few(1)
@pytest.mark.parametrize("at", [4400, 4420, 4440])
def test_a_wake_that_ends_between_a_manifest_and_its_index(bench: Bench, at: int):
    play(bench, listed(Wake("budget", at)))


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "act", ["f.write('other')", "f.seek(0); f.write('X')"], ids=["another size", "the same"]
)
@pytest.mark.parametrize("name", ["text1", "text2", "same", "text0"])
def test_the_plan_is_made_again(bench: Bench, name: str, act: str):
    """An application changes a file before its patch has come, or has been seen to be right."""
    mode = "w" if act.startswith("f.write") else "r+"
    code = f"with open('/d/{name}.py', '{mode}') as f:\n {act}\n"
    for before in 2, 3:
        play(bench, patched(*THREE, troubles=(Trouble("application", before, code=code),)))


def test_nothing_is_written_once_it_is_withdrawn(bench: Bench):
    wakes = (Wake("budget", 8000), Wake(), Wake())
    outcome = play(bench, schedule(*wakes, troubles=(Trouble("withdrawn", 2),)))
    assert re.findall(r"== .+\n.*; (\d+) operations", outcome.story)[2:] == ["0", "0"]


def test_the_table_of_the_page_is_what_a_campaign_writes():
    page = Path("docs") / cli.CAMPAIGN.page
    (table,) = cli.CAMPAIGN.place().findall(page.read_text())
    tally = Tally()
    tally.add(Outcome(1, []))
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", table, re.MULTILINE)
    assert [what for what, _ in rows] == ["what", *(what for what, _ in tally.rows())]
    assert dict(rows)["failures"] == "0"


# -- the rule can fail ---------------------------------------------------------------------------

PARTS = (Wake("budget", 8000), Wake("budget", 8000), Wake())
RESUME, FETCH, MARKS = "ota/install/resume.py", "ota/fetch.py", "ota/install/marks.py"
ARRIVAL, WANTED = "ota/arrival.py", "ota/package/wanted.py"
PLAN = "ota/package/plan.py"


def changed(name: str, before: int) -> Schedule:
    """An application changes a byte of this file before that wake."""
    code = f"with open('/d/{name}.py', 'r+') as f:\n f.write('X')\n"
    return patched(*THREE, troubles=(Trouble("application", before, code=code),))


def troubled(what: str, seeds: Sequence[int] = (0,), **more) -> list[Schedule]:
    """The same trouble, at places drawn from these seeds."""
    return [schedule(*PARTS, seed=seed, troubles=(Trouble(what, 3),), **more) for seed in seeds]


def same(schedule: Schedule) -> dict[str, bytes]:
    """The package's files but the last, on the node already."""
    return dict(list(schedule.package.tree.items())[1:-1])


def interrupted(end: str) -> list[Schedule]:
    """Ends that come without a warning."""
    return [schedule(*(Wake(end, at),) * 3) for at in (29_000, 30_000, 33_000)]


def mutant(name: str, *edits: tuple[str, str, str]) -> Mutant:
    return Mutant(name, "", "", edits)


#: Faults, and what catches them.
CATCHES = [
    (
        mutant(
            "what lies beside the journal is forgotten",
            (RESUME, '("journal", "j0", "j1", "j2", "j3", "j4", "j5")', '("journal",)'),
        ),
        interrupted("reset") + interrupted("power"),
    ),
    (
        mutant(
            "what waits is not compared with its check sum",
            (
                RESUME,
                '    if kind != "d" and (exists(waits) != _FILE or not _has(waits, sum_, feed)):',
                '    if kind != "d" and exists(waits) != _FILE:',
            ),
        ),
        troubled("flip", (0, 8, 9)),
    ),
    (
        mutant(
            "nor is the part of a member",
            (RESUME, "_crc_of_first(path, mark[3], mark[9], feed) == mark[4]", "True"),
        ),
        troubled("flip", (7,)),
    ),
    (
        mutant(
            "nor is the journal",
            (RESUME, "    if left or total != sum_:\n", "    if False:\n"),
        ),
        troubled("flip", (3, 19)),
    ),
    (
        mutant(
            "what is unchanged is not looked at again",
            (
                RESUME,
                "if there != _FILE or not _has(path, sum_, agent.feed):",
                "if False:",
            ),
        ),
        [
            dataclasses.replace(s, old=s.old | same(s))
            for s in troubled("application", (24, 30, 36), member=1000, size=12_000)
        ],
    ),
    (
        mutant(
            "the rest of another package",
            (
                FETCH,
                "    if download.etag and response.etag != download.etag:\n",
                "    if False:\n",
            ),
            (
                FETCH,
                "    if response.etag != download.etag and download.etag:\n",
                "    if False:\n",
            ),
        ),
        troubled("lies"),
    ),
    (
        mutant(
            "no mark on flash but at the end of a wake",
            (MARKS, "(_SOONER if archive.window else _STEP)", "(1 << 29)"),
        ),
        interrupted("reset"),
    ),
    (
        mutant(
            "a budget is forgotten",
            ("ota/download.py", "        if self.budget:\n", "        if False:\n"),
        ),
        [schedule(*PARTS)],
    ),
    (
        mutant(
            "the withdrawn stays",
            (
                "ota/install/opening.py",
                "    transaction.discard(agent.feed, request",
                "    False and transaction.discard(agent.feed, request",
            ),
        ),
        troubled("withdrawn"),
    ),
    (
        mutant(
            "the index is not kept over a wake",
            (RESUME, '"journal", "manifest", "mark", "index"', '"journal", "manifest", "mark"'),
        ),
        [patched(*THREE)],
    ),
    (
        mutant(
            "files are counted from the first one again",
            (WANTED, "self._number = begun + bool(inside)", "self._number = 0"),
        ),
        [patched(*THREE)],
    ),
    (
        mutant(
            "what a patch begins with is not hashed",
            (
                PLAN,
                "        found = there(",
                "        if len(places) > 1:\n            return places[0][0]\n"
                "        found = there(",
            ),
        ),
        [changed("text2", 3)],
    ),
    (
        mutant(
            "what is unchanged is not hashed",
            (
                PLAN,
                "        found = there(",
                "        if len(places) == 1:\n            return b''\n        found = there(",
            ),
        ),
        [changed("same", 2)],
    ),
    (
        mutant(
            "a patch reads the wrong place of the old file",
            (WANTED, "            self._at += self._step\n", ""),
        ),
        [patched(*THREE)],
    ),
    (
        mutant(
            "another package is met in each wake",
            (MARKS, "        if not self._download.done:\n", "        if False:\n"),
        ),
        [patched(*THREE, troubles=(Trouble("another tag", 3),))],
    ),
    (
        mutant(
            "a file is begun behind what was staged of it",
            (ARRIVAL, "walk = tar = marks.archive = wanted", "walk = tar = wanted"),
        ),
        [patched(*THREE)],
    ),
]


@pytest.mark.few(3)
@pytest.mark.parametrize(("fault", "schedules"), CATCHES, ids=[m.name for m, _ in CATCHES])
def test_a_planted_fault_is_caught(tmp_path: Path, fault: Mutant, schedules: list[Schedule]):
    with Bench(fault.plant(tmp_path)) as bench:
        assert any(bench.play(each).wrong for each in schedules)


#: Members by path and bytes, and for how many bytes of the archive marks may cost an erase.
PIECES = {
    "files of some KB": (
        {f"lib/some/part{n}.py": 400 + n * 331 % 9000 for n in range(40)},
        32 << 10,
    ),
    "one large file": (
        {"lib/application/drivers/temperature/tables.bin": 260_000},
        32 << 10,
    ),
    "small files": ({f"lib/some/part{n}.py": 700 for n in range(120)}, 10 << 10),
}


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
@pytest.mark.parametrize("pieces", PIECES)
def test_what_marks_cost(make_site: MakeSite, pieces: str, kind: str):
    """Beside the same update from a server with which no wake can go on: it writes none."""
    chance = random.Random(5)
    sizes, most = PIECES[pieces]
    # Half as long when packed, as sources are.
    tree = {
        name: bytes(chance.choice(b"0123456789abcdef") for _ in range(size))
        for name, size in sizes.items()
    }
    package = plain = sample.tar(tree)
    if kind == "tar.gz":
        package = restarts.compress(plain, 13)
    erases = []
    for tag in (None, 'W/"weak"'):
        site = make_site({"main.py": sample.main_py(1)}, blocks=320)
        site.console.faults.etag = tag
        site.ask(package, "p." + kind)
        run = site.run(wakes=1, timeout_s=60)
        assert [report["e"] for report in site.reports()] == [1], run.output
        erases.append(run.erases)
    with_marks, without = erases
    assert 0 < with_marks - without <= len(plain) // most, erases


@pytest.mark.slow
def test_the_same_schedules_are_right_without_the_fault(bench: Bench):
    """Else it would be the schedules that are wrong."""
    for _, schedules in CATCHES:
        for each in schedules[:3]:
            play(bench, each)
