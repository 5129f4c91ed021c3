"""What the device refuses, and where the two readers differ: one row for each reason.

Every refusal of the device has to be true of the raw blocks, and whatever a row is true of has to
be refused. A row's name stands in the table of docs/archives.md; rows without a name are right
only where CPython refuses as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.package.archives import raw
from tests.package.archives.blocks import BLOCK, ZERO_BLOCK, is_utf8, record
from tests.package.archives.case import Case
from tests.package.archives.readers import Member
from tests.package.archives.wrapping import GzipMember, Wrapped, gzip_members

#: What the device takes for a file, for its long name, is a folder to CPython.
SHORT_NAME = "slash in the short name"
_LONGEST_NAME = 4096
#: Of a record that matters so much may be there before it is known how long it is.
_LONGEST_RECORD = _LONGEST_NAME + 128
_LONGEST_GZIP_TEXT = 1024
_NO_FILE = ("/boot.mpy", "/main.mpy", "/boot_user.mpy")
_PROTECTED = ("/.ota", "/ota.json")


@dataclass(frozen=True)
class Rule:
    """A refusal. text: in the device's error. name: of the documented difference."""

    text: str
    name: str | None
    holds: Callable[[Case], bool]


def _forbidden_character(case: Case) -> bool:
    return any(byte < 32 or byte in b"\\\x7f" for byte in case.name)


def _without_name(case: Case) -> bool:
    folder = case.raw.kind == b"5" or case.name.endswith(b"/")
    return case.path == "/" and not folder


def _protected(case: Case) -> bool:
    return any(case.path == path or case.path.startswith(path + "/") for path in _PROTECTED)


def _long_name_not_utf8(case: Case) -> bool:
    long_names = [content.split(b"\0")[0] for kind, content in case.raw.extensions if kind == b"L"]
    return not all(map(is_utf8, [*case.values(b"path"), *long_names]))


def _ambiguous(case: Case) -> bool:
    kinds = case.raw.kinds.replace("g", "")
    return len(kinds.replace("K", "")) > 1 or kinds.count("K") > 1


def _long_extension(case: Case) -> bool:
    of_gnu = [len(content) for kind, content in case.raw.extensions if kind in b"LK"]
    names = [len(record(key, v)) for key in (b"path", b"size") for v in case.values(key)]
    return max(of_gnu, default=0) > _LONGEST_NAME or max(names, default=0) > _LONGEST_RECORD


def _damaged_pax(case: Case) -> bool:
    contents = [content for kind, content in case.raw.extensions if kind in (b"x", b"g")]
    bad_size = [v for v in case.values(b"size") if v and not (v.isdigit() and len(v) <= 10)]
    nul = any(b"\0" in value for value in case.values(b"path"))
    return bool(bad_size) or nul or not all(raw.records(content)[1] for content in contents)


def _odd_number(case: Case) -> bool:
    numbers = [
        header[at : at + n] for header in case.raw.headers for at, n in ((124, 12), (148, 8))
    ]
    if len(case.raw.header) == BLOCK and any(case.raw.header):
        numbers.append(case.raw.header[148:156])
        if not case.in_force("size"):
            numbers.append(case.raw.header[124:136])
    return not all(map(raw.octal_or_base256, numbers))


def _folder_with_content(case: Case) -> bool:
    return case.name.endswith(b"/") and bool(case.size) and case.raw.kind in b"0\x007"


def _folder_to_cpython_is_cut(case: Case) -> bool:
    end = case.raw.start + BLOCK + (case.size or 0)
    return case.is_folder_to_cpython and end > len(case.reading.plain)


#: Of the extended headers of a member, whether or not it follows.
OF_EXTENSIONS = (
    Rule(
        "sparse file",
        "sparse files",
        lambda c: any(key.startswith(b"GNU.sparse.") for key, _ in c.raw.records()),
    ),
    Rule("not UTF-8", "names that are not UTF-8", _long_name_not_utf8),
    Rule("two extended headers", "ambiguous names", _ambiguous),
    Rule(
        "a global header between",
        "global header behind an extended one",
        lambda c: bool(re.search("[xLK].*g", c.raw.kinds)),
    ),
    Rule("extended header of", "long extended headers", _long_extension),
    Rule("damaged PAX header", "damaged PAX headers", _damaged_pax),
)
#: Of members whose header has a right check sum.
OF_MEMBERS = (
    Rule("is neither file nor folder", "links", lambda c: c.raw.kind in (b"1", b"2")),
    Rule("is neither file nor folder", "sparse files", lambda c: c.raw.kind == b"S"),
    Rule("is neither file nor folder", "Solaris headers", lambda c: c.raw.kind == b"X"),
    Rule("is neither file nor folder", None, lambda c: c.raw.kind not in b"0\x005712SXxgLK"),
    Rule("leaves the root", "inner ..", lambda c: b".." in c.parts),
    Rule("a character not allowed", "forbidden characters", _forbidden_character),
    Rule("longer than 255 bytes", "long parts", lambda c: max(map(len, c.parts)) > 255),
    Rule("a path is longer", "long paths", lambda c: len(c.path.encode(errors="replace")) > 1024),
    Rule("a file without a name", "files without a name", _without_name),
    Rule("protected path", "protected paths", _protected),
    Rule("nothing runs", "protected paths", lambda c: c.path in _NO_FILE),
    Rule("not UTF-8", "names that are not UTF-8", lambda c: not is_utf8(c.name)),
    Rule("a folder has content", "folders with content", _folder_with_content),
    Rule("number is not octal", "odd numbers", _odd_number),
    Rule("negative or huge number", "odd numbers", _odd_number),
    Rule("ends inside a member", SHORT_NAME, _folder_to_cpython_is_cut),
)


def _zero_blocks(case: Case) -> int:
    """How many blocks of zeros follow, two at most."""
    return next((n for n in (2, 1) if case.rest.startswith(ZERO_BLOCK * n)), 0)


def _ends_inside_block(case: Case) -> bool:
    if _zero_blocks(case) == 1:
        return BLOCK < len(case.rest) < 2 * BLOCK
    return 0 < len(case.raw.header) < BLOCK


def _without_end(case: Case) -> bool:
    """Nothing follows any more, or one zero block and then nothing."""
    return case.rest in (b"", ZERO_BLOCK)


def _damaged_header(case: Case) -> bool:
    return len(case.raw.header) == BLOCK and any(case.raw.header) and not case.is_member


def _ends_after_extension(case: Case) -> bool:
    return bool(case.raw.kinds.strip("g")) and not any(case.raw.header)


def _ends_inside_member(case: Case) -> bool:
    content = (case.size or 0) if case.is_member else 0
    return case.raw.start + bool(content) * BLOCK + content > len(case.reading.plain)


#: Of the place where CPython found no further member, or not all of one.
OF_ENDS = (
    Rule("ends inside a block", "part of a block at the end", _ends_inside_block),
    Rule(
        "data after a zero block",
        "members after one zero block",
        lambda c: _zero_blocks(c) == 1 and any(c.rest) and len(c.rest) >= 2 * BLOCK,
    ),
    Rule(
        "data after its end", "data after the end", lambda c: _zero_blocks(c) == 2 and any(c.rest)
    ),
    Rule("header check sum differs", "damaged headers", _damaged_header),
    Rule("number is not octal", "damaged headers", _damaged_header),
    Rule("negative or huge number", "damaged headers", _damaged_header),
    Rule("it has no end", "archives without an end", _without_end),
    Rule("ends after an extended header", None, _ends_after_extension),
    Rule("ends inside a member", None, _ends_inside_member),
    Rule("", None, lambda c: not c.start and _damaged_header(c)),  # not known for tar at all
    Rule("neither tar nor", None, lambda c: len(c.reading.plain) < BLOCK),
)


@dataclass(frozen=True)
class WrappingRule:
    """A refusal for what is wrong in any of the gzip members."""

    text: str
    name: str
    holds: Callable[[GzipMember], bool]


OF_WRAPPINGS = (
    WrappingRule("CRC of the gzip header", "gzip header CRC", lambda m: not m.header_crc_agrees),
    WrappingRule("unknown gzip method or flags", "reserved gzip flags", lambda m: m.flags & 0xE0),
    WrappingRule(
        "endless name", "long gzip names", lambda m: m.longest_text >= _LONGEST_GZIP_TEXT
    ),
    WrappingRule(
        "data after the compressed", "gzip members after padding", lambda m: m.behind_padding
    ),
)


def wrapping_rules(wrapped: Wrapped) -> list[WrappingRule]:
    """The rules by which this wrapping, which CPython can read, has to be refused."""
    if wrapped.kind != "gzip":
        return []
    members = gzip_members(wrapped.data)
    return [rule for rule in OF_WRAPPINGS if any(map(rule.holds, members))]


def member_rules(case: Case) -> list[Rule]:
    """The rules by which this member has to be refused."""
    rules = OF_EXTENSIONS + OF_MEMBERS * case.is_member
    return [rule for rule in rules if rule.holds(case)]


def end_rules(case: Case) -> list[Rule]:
    """The rules by which an archive that ends like this has to be refused."""
    return [rule for rule in OF_ENDS if rule.holds(case)]


@dataclass(frozen=True)
class Difference:
    """A member that both read, but not as the same. rest_differs: whether all behind it does."""

    name: str
    holds: Callable[[Case, Member], bool]
    rest_differs: Callable[[Case], bool] = lambda case: False


def _prefix_without_ustar(case: Case, mine: Member) -> bool:
    header = case.raw.header
    return header[257:263] != b"ustar\0" and header[345] > 0 and mine.path == case.path


def _slash_at_end(case: Case, mine: Member) -> bool:
    return case.name.endswith(b"/") and mine == Member(case.path, True, 0, None)


def _slash_in_short_name(case: Case, mine: Member) -> bool:
    return case.is_folder_to_cpython and not mine.is_folder


def _empty_value(case: Case, mine: Member) -> bool:
    if b"" in case.values(b"path"):
        return mine.path == case.path
    return b"" in case.values(b"size") and mine.size == case.size


DIFFERENCES = (
    Difference("prefix without ustar", _prefix_without_ustar),
    Difference("slash at the end", _slash_at_end),
    Difference(SHORT_NAME, _slash_in_short_name, lambda case: bool(case.size)),
    Difference("empty PAX values", _empty_value, lambda case: b"" in case.values(b"size")),
)
