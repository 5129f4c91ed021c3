"""CPython's own `testtar.tar`, member by member: what programs of thirty years have written."""

from __future__ import annotations

import hashlib
import importlib.util
import tarfile
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.package.archives.judge import judge
from tests.package.archives.readers import HAS_FILTER, Member, clean, read_here, read_on_device
from tests.package.archives.wrapping import Wrapped

# The content of every regular file in it that is 7011 bytes long.
_REGTYPE = "e09e4bc8b3c9d9177e77256353b36c159f5f040531bbd4b024a8f9b9196c71ce"
_LONG = "/".join(["123"] * 125)
_LINK = "type '1' is neither file nor folder"
_SYMLINK = "type '2' is neither file nor folder"
_NOT_UTF8 = "name is not UTF-8"
#: All that is refused, and why. All else is regular files and folders.
REFUSED = {
    "ustar/lnktype": _LINK,
    "./ustar/linktest2/lnktype": _LINK,
    f"gnu/{_LONG}/longlink": _LINK,
    f"pax/{_LONG}/longlink": _LINK,
    "ustar/symtype": _SYMLINK,
    "./ustar/linktest2/symtype": _SYMLINK,
    "symtype2": _SYMLINK,
    "ustar/chrtype": "type '3' is neither file nor folder",
    "ustar/blktype": "type '4' is neither file nor folder",
    "ustar/fifotype": "type '6' is neither file nor folder",
    "gnu/sparse": "type 'S' is neither file nor folder",
    "gnu/sparse-0.0": "sparse file",
    "gnu/sparse-0.1": "sparse file",
    "gnu/sparse-1.0": "sparse file",
    "misc/regtype-suntar": "type 'X' is neither file nor folder",
    # These names are stored in ISO 8859-1.
    "ustar/umlauts-ÄÖÜäöüß": _NOT_UTF8,
    "misc/regtype-hpux-signed-chksum-ÄÖÜäöüß": _NOT_UTF8,
    "misc/regtype-old-v7-signed-chksum-ÄÖÜäöüß": _NOT_UTF8,
    "pax/bad-pax-äöü": _NOT_UTF8,
    "pax/hdrcharset-äöü": _NOT_UTF8,
}


class Part(NamedTuple):
    """One member of testtar.tar as an archive of its own."""

    name: str
    archive: bytes
    member: Member


@pytest.fixture(scope="module")
def testtar() -> Path:
    """The file in this interpreter's `test` package. Skips where a system does not ship it."""
    package = importlib.util.find_spec("test")
    for folder in package.submodule_search_locations or () if package else ():
        for name in ("testtar.tar", "archivetestdata/testtar.tar"):
            if Path(folder, name).exists():
                return Path(folder, name)
    pytest.skip("this Python has no test/testtar.tar (Debian's package libpython3-testsuite)")


def split(path: Path) -> list[Part]:
    """Each member with its extended headers, and with the global ones before it."""
    raw = path.read_bytes()
    found = []
    with tarfile.open(path, "r:", encoding="iso8859-1") as archive:
        start, globals_before = 0, b""
        for info in archive:
            content = archive.extractfile(info).read() if info.isfile() else b""
            digest = None if info.isdir() else hashlib.sha256(content).hexdigest()
            member = Member(clean(info.name), info.isdir(), len(content), digest)
            own = globals_before + raw[start : archive.offset] + bytes(1024)
            found.append(Part(info.name, own, member))
            if raw[start + 156 : start + 157] == b"g":
                globals_before += raw[start : info.offset]
            start = archive.offset
    return found


def test_every_member_is_read_or_refused_by_the_right_rule(testtar: Path, agent: Path):
    parts = split(testtar)
    readings = read_on_device(agent, [part.archive for part in parts])
    assert REFUSED.keys() <= {part.name for part in parts}
    taken = []
    for part, reading in zip(parts, readings, strict=True):
        if part.name in REFUSED:
            assert reading.members == [], part.name
            assert reading.error and REFUSED[part.name] in reading.error, part.name
        else:
            assert (reading.members, reading.error) == ([part.member], None), part.name
            taken.append(part.member)
    assert sum(member.is_folder for member in taken) == 3
    assert [m.path for m in taken if m.size == 7011 and m.sha256 != _REGTYPE] == []
    assert sum(member.size == 7011 for member in taken) == 14


@pytest.mark.skipif(not HAS_FILTER, reason="this Python's tarfile has no data filter")
def test_the_whole_is_refused_at_its_first_link(testtar: Path, agent: Path):
    """With the members before it as CPython reads them."""
    wrapped = Wrapped("plain", testtar.read_bytes())
    (reading,) = read_on_device(agent, [wrapped.data])
    assert reading.error and _LINK in reading.error
    assert len(reading.members) == 4
    assert judge(wrapped, read_here(wrapped), reading).found == ["links"]
