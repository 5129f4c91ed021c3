"""Whether two readings of an archive agree, or differ in a way that docs/archives.md names."""

from __future__ import annotations

from dataclasses import dataclass, field

from insigh_ota.package.paths import of_macos
from tests.package.archives import raw
from tests.package.archives.blocks import BLOCK, with_check_sum
from tests.package.archives.case import Case
from tests.package.archives.raw import SIZE_FIELD, UNREAD_NUMBERS
from tests.package.archives.readers import DeviceReading, Reading, read_tar
from tests.package.archives.rules import (
    DIFFERENCES,
    OF_ENDS,
    OF_EXTENSIONS,
    OF_MEMBERS,
    OF_WRAPPINGS,
    SHORT_NAME,
    end_rules,
    member_rules,
    wrapping_rules,
)
from tests.package.archives.wrapping import Wrapped

AGREED = "same members"
REFUSED = "same refusal"
UNREAD = "numbers that are not read"
LAST_GLOBAL = "global header last"
GLOBAL_SIZE = "global size"
MACOS = "attributes of macOS"
#: The names of all documented differences.
NAMES = tuple(
    dict.fromkeys(
        [
            *(
                rule.name
                for rule in (*OF_EXTENSIONS, *OF_MEMBERS, *OF_ENDS, *OF_WRAPPINGS)
                if rule.name
            ),
            *(difference.name for difference in DIFFERENCES),
            UNREAD,
            LAST_GLOBAL,
            GLOBAL_SIZE,
            MACOS,
        ]
    )
)


class Wrong(Exception):
    """The readings differ, and no rule says why; or a rule was not kept."""


@dataclass
class Verdict:
    """What a comparison came to: the names of agreements and differences, or what is wrong."""

    found: list[str] = field(default_factory=list)
    wrong: str | None = None


def judge(wrapped: Wrapped, reading: Reading, device: DeviceReading) -> Verdict:
    """Compare the two readings of an archive."""
    verdict = Verdict()
    try:
        if reading.damaged:
            if not device.error or device.error.startswith("crash"):
                raise Wrong(f"damaged ({reading.damaged}), but the device says {device.error}")
            verdict.found.append(REFUSED)
        else:
            _compare(wrapped, reading, device, verdict.found)
    except Wrong as error:
        verdict.wrong = str(error)
    return verdict


def _compare(wrapped: Wrapped, reading: Reading, device: DeviceReading, found: list[str]) -> None:
    sizes = GlobalSizes()
    at = -1
    for mine in device.members:
        at = _past_macos(reading, at + 1, sizes, found)
        if at is None:
            return
        case = Case(reading, at)
        sizes.pass_by(case)
        theirs = case.entry.member if case.entry else None
        if theirs is None and not sizes.differ:
            _more_than_cpython(wrapped, case, device, found)
            return
        if mine != theirs and sizes.differ:
            found.append(GLOBAL_SIZE)
            return
        broken = member_rules(case)
        if broken:
            raise Wrong(f"member {at} is taken, but: {broken[0].text}")
        if mine != theirs:
            difference = next((d for d in DIFFERENCES if d.holds(case, mine)), None)
            if difference is None:
                raise Wrong(f"member {at} is {mine}, to CPython {theirs}")
            found.append(difference.name)
            if difference.rest_differs(case):
                return
    at = _past_macos(reading, at + 1, sizes, found)
    if at is None:
        return
    case = Case(reading, at)
    if sizes.differ and (device.error or case.entry):
        found.append(GLOBAL_SIZE)
    elif device.error:
        found.append(_explain(wrapped, case, device.error))
    elif case.entry:
        raise Wrong(f"ends before member {at}, {case.entry.info.name!r}")
    elif reading.refusal:
        _more_than_cpython(wrapped, case, device, found)
    else:
        broken = [rule.text for rule in (*wrapping_rules(wrapped), *end_rules(case))]
        if broken and not sizes.differ:
            raise Wrong(f"is taken, but: {broken[0]}")
        found.append(GLOBAL_SIZE if broken else AGREED)


def _past_macos(reading: Reading, at: int, sizes: GlobalSizes, found: list[str]) -> int | None:
    """The number of the next member that the device does not pass over; None: all behind differs.

    CPython may take such a file for a folder, and its content for what comes next.
    """
    while at < len(reading.entries):
        case = Case(reading, at)
        ours = of_macos(case.path[1:]) and case.raw.kind in b"0\x0075"
        if not ours or sizes.differ or member_rules(case):
            break
        found.append(MACOS)
        if case.is_folder_to_cpython and case.size:
            found.append(SHORT_NAME)
            return None
        sizes.pass_by(case)
        at += 1
    return at


class GlobalSizes:
    """CPython takes a global size for a member's, but finds the next by the size in the header.

    So all that comes behind differs as soon as the two mean different numbers of blocks.
    """

    def __init__(self) -> None:
        self.differ = False
        self._size: int | None = None

    def pass_by(self, case: Case) -> None:
        """Take notice of a member."""
        for value in case.values(b"size", b"g"):
            self._size = int(value) if value.isdigit() else None
        if self._size is None or case.values(b"size", b"x") or case.raw.kind not in b"0\x007":
            return
        size = raw.number(case.raw.header, 124, 12)
        self.differ |= size is None or -(-size // BLOCK) != -(-self._size // BLOCK)


def _explain(wrapped: Wrapped, case: Case, error: str) -> str:
    """The name of the difference that this refusal is, or REFUSED when CPython refuses too."""
    stopped = case.entry is None or case.entry.member is None
    rules = [*wrapping_rules(wrapped), *member_rules(case)]
    if stopped:
        rules += end_rules(case)
    true = [rule for rule in rules if rule.text in error]
    if not true:
        raise Wrong(f"refused, but that is not true: {error}")
    if stopped and case.reading.refusal:
        return REFUSED
    named = [rule.name for rule in true if rule.name]
    if not named:
        raise Wrong(f"refused by the device only: {error}")
    return named[0]


def _more_than_cpython(
    wrapped: Wrapped, case: Case, device: DeviceReading, found: list[str]
) -> None:
    """The device read on where CPython stopped."""
    only_global = case.raw.kinds and not case.raw.kinds.strip("g")
    if case.entry is None and only_global and not any(case.raw.header):
        found.append(LAST_GLOBAL)
        return
    at, header = case.raw.start, case.raw.header
    unread = []
    if case.entry is None and case.is_member:
        fields = (*UNREAD_NUMBERS, *[SIZE_FIELD] * bool(case.values(b"size")))
        unread = [(a, n) for a, n in fields if raw.number(header, a, n) is None]
    if unread:
        # CPython takes such a member for damaged; with these fields blank it has to agree.
        blank = bytearray(header)
        for start, length in unread:
            blank[start : start + length] = bytes(length)
        plain = case.reading.plain
        mended = plain[:at] + with_check_sum(bytes(blank)) + plain[at + BLOCK :]
        found.append(UNREAD)
        _compare(wrapped, read_tar(mended), device, found)
        return
    raise Wrong(f"CPython stopped with {case.reading.refusal!r}, the device did not")
