"""Generated archives: the device reads what `tarfile` reads, or docs/archives.md says why not.

`make archives` is the long run of the same.
"""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.package.archives import campaign
from tests.package.archives.generate import QUIRKS, Archive, make
from tests.package.archives.judge import AGREED, NAMES, REFUSED, judge
from tests.package.archives.readers import HAS_FILTER, DeviceReading, Reading, read_here

ROOT = Path(__file__).parents[2]
# Two of three archives have a quirk; so every quirk is among the first so many.
EVERY_QUIRK = len(QUIRKS) * 3 // 2 + 3


pytestmark = pytest.mark.skipif(
    not HAS_FILTER,
    reason="this Python's tarfile has no data filter: use 3.10.12, 3.11.4 or newer",
)


def test_the_same_as_tarfile_or_documented(agent: Path):
    tally = campaign.compare([f"7/{n}" for n in range(600)], agent)
    assert tally.wrong == []
    assert tally.found[AGREED] > 200
    assert tally.found[REFUSED] > 50
    assert [name for name in NAMES if not tally.found[name]] == []


def test_every_difference_is_documented():
    text = (ROOT / "docs" / "archives.md").read_text()
    assert sorted(re.findall(r"^\| \*(.+?)\* \|", text, re.MULTILINE)) == sorted(NAMES)


def test_an_identity_always_gives_the_same_archive():
    for number in range(EVERY_QUIRK):
        assert make(f"3/{number}") == make(f"3/{number}")
    assert {quirk for n in range(EVERY_QUIRK) for quirk in make(f"3/{n}").quirks} == set(QUIRKS)


def as_cpython(reading: Reading) -> DeviceReading:
    """What the device would say if it did all that CPython does."""
    refusal = reading.damaged or reading.refusal
    error = f"can not apply: {refusal}" if refusal else None
    return DeviceReading(reading.members, error)


def sound_archives() -> Iterator[tuple[Archive, Reading]]:
    """Archives without a quirk, with CPython's reading."""
    for number in range(0, 300, 3):
        archive = make(f"4/{number}")
        yield archive, read_here(archive.wrapped)


def test_a_reading_that_is_not_quite_right_is_seen():
    """Each change of a right answer makes it a wrong one."""
    changed = 0
    for archive, reading in sound_archives():
        right = as_cpython(reading)
        if judge(archive.wrapped, reading, right).found != [AGREED] or not right.members:
            continue
        *before, last = right.members
        for members, error in (
            (before, None),
            ([*right.members, last], None),
            ([*before, last._replace(path=last.path + "x")], None),
            ([*before, last._replace(size=last.size + 1)], None),
            ([*before, last._replace(sha256="0" * 64)], None),
            ([*before, last._replace(is_folder=not last.is_folder)], None),
            (right.members, "can not apply: bad archive, header check sum differs"),
            (before, "can not apply: a path leaves the root"),
            ([], "crash: MemoryError()"),
        ):
            changed += 1
            assert judge(archive.wrapped, reading, DeviceReading(members, error)).wrong, error
    assert changed > 500


def test_a_device_that_took_all_that_cpython_takes_is_seen():
    """What has to be refused is missed even where CPython would miss it too."""
    caught = set()
    for number in range(2 * EVERY_QUIRK):
        archive = make(f"4/{number}")
        reading = read_here(archive.wrapped)
        if judge(archive.wrapped, reading, as_cpython(reading)).wrong:
            caught.update(archive.quirks)
    assert caught >= {
        "hard link",
        "symbolic link",
        "GNU sparse",
        "PAX sparse 1.0",
        "Solaris extended header",
        "inner ..",
        "backslash",
        "control character",
        "part too long",
        "path too long in bytes only",
        "not UTF-8",
        "UTF-8 of another kind",
        "protected",
        "x twice",
        "x and L",
        "junk after the end",
        "member after the end",
        "member after one zero block",
        "no end",
        "one zero block",
        "gzip header with a wrong CRC",
        "reserved gzip flag",
        "negative size",
        "wrong check sum",
    }


#: Faults planted in the reader: (file, what stands there, what it becomes).
FAULTS = {
    "padding": ("tarfile_lite", "self.padding = -size % _BLOCK", "self.padding = 0"),
    "prefix": ("tarfile_lite", '+ b"/" + name', "+ name"),
    "check sum": ("tarfile_lite", "total - 256 * negative != stated", "False"),
    "signed sum": ("tarfile_lite", "total - 256 * negative != stated", "True"),
    "global path": ("tarfile_lite", "override = dict(self.globals)", "override = {}"),
    "links": ("tarfile_lite", '"0\\x007"', '"0\\x0017"'),
    "zero blocks": ("tarfile_lite", "if zero_blocks == 2:", "if zero_blocks == 1:"),
    "no end": ("tarfile_lite", 'raise bad("it has no end")', "return False"),
    "gzip CRC": ("package/inflate", '"little") != self.sum:', '"little") == -1:'),
    "gzip members": ("package/inflate", "if len(following) and following[0] == 0x1F", "if False"),
    "window": ("package/zlib", ">> 4) + 8", ">> 4) + 7"),
    "dots": ("package/vetting", 'if part == b"..":', 'if part == b"...":'),
    "backslash": ("package/vetting", 'b"\\\\" in part or ', ""),
}


@pytest.fixture(scope="module")
def one_quirk_each() -> list[str]:
    """An archive for every quirk, with no other quirk that would hide what a fault makes of it."""
    alone = {}
    for number in itertools.takewhile(lambda _: len(alone) < len(QUIRKS), itertools.count()):
        archive = make(f"5/{number}")
        if len(archive.quirks) == 1:
            alone[archive.quirks[0]] = archive.identity
    return list(alone.values())


@pytest.mark.few(3)
@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_reader_is_seen(tmp_path: Path, one_quirk_each: list[str], fault: str):
    module, old, new = FAULTS[fault]
    shutil.copytree(campaign.FIRMWARE / "ota", tmp_path / "ota")
    file = tmp_path / "ota" / f"{module}.py"
    source = file.read_text()
    assert source.count(old) == 1
    file.write_text(source.replace(old, new))
    assert campaign.compare(one_quirk_each, tmp_path).wrong
