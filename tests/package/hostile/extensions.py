"""Extended headers that lie: PAX records, GNU long names, and both together."""

from __future__ import annotations

import gzip

from tests.package.hostile.raw import (
    END,
    FIRST,
    extension,
    gnu_name,
    header,
    member,
    package,
    pax,
    record,
)
from tests.package.hostile.registry import BAD, hostile

DAMAGED = BAD + "damaged PAX header"
TWO = BAD + "two extended headers for one member"
NOBODY = BAD + "ends after an extended header"


def x(content: bytes) -> bytes:
    """A package whose second member has this PAX header."""
    return package(extension(b"x", content), member(b"harmless", b"x"))


@hostile(DAMAGED)
def record_of_no_length() -> bytes:
    """A record that begins with its space."""
    return x(b" path=a\n")


@hostile(DAMAGED)
def record_of_length_zero() -> bytes:
    """A reader that believes it never gets on."""
    return x(b"0 path=a\n")


@hostile(DAMAGED)
def record_shorter_than_itself() -> bytes:
    """The next record begins in the middle of this one."""
    return x(b"6 path=abcdefgh\n")


@hostile(DAMAGED)
def record_past_the_end() -> bytes:
    """It reaches one byte behind the header's content."""
    return x(b"11 path=a\n")


@hostile(DAMAGED)
def record_of_a_huge_length() -> bytes:
    """It reaches a gigabyte behind it."""
    return x(b"1073741824 path=a\n")


@hostile(DAMAGED)
def record_of_a_length_beyond_numbers() -> bytes:
    """A thousand digits, each of which costs time."""
    return x(b"9" * 1000 + b" path=a\n")


@hostile(DAMAGED)
def record_of_a_negative_length() -> bytes:
    """A reader that believes it goes backwards, for ever."""
    return x(b"-9 path=a\n")


@hostile(DAMAGED)
def record_of_a_length_with_a_sign() -> bytes:
    """What int() would take."""
    return x(b"+9 path=a\n")


@hostile(DAMAGED)
def record_of_a_length_in_hexadecimal() -> bytes:
    """A length must be decimal."""
    return x(b"0xb path=a\n")


@hostile(DAMAGED)
def record_without_a_newline() -> bytes:
    """Its last byte is part of the value."""
    return x(b"9 path=abc")


@hostile(DAMAGED)
def record_without_an_equals_sign() -> bytes:
    """Neither key nor value."""
    return x(b"10 path/a\n")


@hostile(DAMAGED)
def record_without_a_space() -> bytes:
    """No length can be read."""
    return x(b"path=a\n")


@hostile(DAMAGED)
def records_then_garbage() -> bytes:
    """The first record is sound."""
    return x(record(b"path", b"a") + b"garbage")


@hostile(DAMAGED)
def records_then_zeros() -> bytes:
    """The header says it is longer than its records."""
    return x(record(b"path", b"a") + bytes(20))


@hostile(DAMAGED)
def pax_size_that_is_no_number() -> bytes:
    """Letters."""
    return package(pax(size=b"many"), member(b"evil", b"x"))


@hostile(DAMAGED)
def pax_size_negative() -> bytes:
    """A reader that believes it goes backwards."""
    return package(pax(size=b"-512"), member(b"evil", b"x"))


@hostile(DAMAGED)
def pax_size_with_a_fraction() -> bytes:
    """Times may have one, sizes may not."""
    return package(pax(size=b"1.5"), member(b"evil", b"x"))


@hostile(DAMAGED)
def pax_size_in_other_digits() -> bytes:
    """Arabic-Indic digits, which str.isdigit() takes for digits."""
    return package(pax(size="١".encode()), member(b"evil", b"x"))


@hostile(DAMAGED)
def pax_size_beyond_numbers() -> bytes:
    """A hundred digits."""
    return package(pax(size=b"9" * 100), member(b"evil", b"x"))


@hostile("not enough space: ")
def pax_size_of_four_gigabytes() -> bytes:
    """Zero for a reader that counts in 32 bits; the header's own size is honest."""
    return package(pax(size=b"4294967296"), member(b"evil", b"x"))


@hostile(BAD + "number is not octal")
def pax_size_of_nothing() -> bytes:
    """The content is read as members by who believes PAX, and is skipped by who does not."""
    return package(pax(size=b"0"), member(b"evil", b"!" * 600))


@hostile(BAD + "ends inside a member")
def pax_size_beyond_the_archive() -> bytes:
    """PAX promises more than there is."""
    return package(pax(size=b"9000"), member(b"evil", b"x"))


@hostile(BAD + "header check sum differs")
def global_size() -> bytes:
    """Every later member has the size of the first one."""
    parts = extension(b"g", record(b"size", b"3")), member(b"a", b"abc"), member(b"b", b"x" * 600)
    return package(*parts)


@hostile("can not apply: the same name twice: /same")
def global_path() -> bytes:
    """Every later member has one name."""
    parts = extension(b"g", record(b"path", b"same")), member(b"a", b"1"), member(b"b", b"2")
    return package(*parts)


@hostile(TWO)
def two_pax_headers() -> bytes:
    """Which of the names?"""
    return package(pax(path=b"one"), pax(path=b"two"), member(b"three", b"x"))


@hostile(TWO)
def two_gnu_names() -> bytes:
    """Which of the names?"""
    return package(gnu_name(b"one"), gnu_name(b"two"), member(b"three", b"x"))


@hostile(TWO)
def pax_path_and_gnu_name() -> bytes:
    """GNU tar and Python do not agree on which of them counts."""
    return package(pax(path=b"one"), gnu_name(b"two"), member(b"three", b"x"))


@hostile(TWO)
def gnu_name_and_pax_path() -> bytes:
    """The other way round."""
    return package(gnu_name(b"two"), pax(path=b"one"), member(b"three", b"x"))


@hostile(BAD + "extended header of ")
def pax_path_of_a_megabyte() -> bytes:
    """It fits into no node's memory."""
    content = record(b"path", b"x" * (1 << 20))
    return gzip.compress(x(content))


@hostile(BAD + "extended header of ")
def gnu_name_of_a_megabyte() -> bytes:
    """A name that fits into no node's memory."""
    return gzip.compress(package(gnu_name(b"n/" * (1 << 19)), member(b"x", b"x")))


@hostile(BAD + "extended header of ")
def gnu_link_target_of_a_megabyte() -> bytes:
    """The target of a link."""
    return gzip.compress(package(extension(b"K", b"n" * (1 << 20)), member(b"x", b"x")))


@hostile(DAMAGED)
def pax_of_four_gigabytes() -> bytes:
    """Only announced."""
    return package(header(b"x", kind=b"x", size_field=b"\x80" + (1 << 32).to_bytes(11, "big")))


@hostile(NOBODY)
def pax_of_nobody() -> bytes:
    """A PAX header, then the end."""
    return package(pax(path=b"evil"))


@hostile("can not apply: bad archive, it has no end")
def pax_of_nobody_without_an_end() -> bytes:
    """A PAX header, then nothing at all."""
    return FIRST + pax(path=b"evil")


@hostile(NOBODY)
def gnu_name_of_nobody() -> bytes:
    """A GNU name, then the end."""
    return package(gnu_name(b"evil"))


@hostile(NOBODY)
def pax_without_path_of_nobody() -> bytes:
    """As before, but nothing in it matters to this reader."""
    return package(pax(comment=b"evil"))


@hostile(NOBODY)
def gnu_link_target_of_nobody() -> bytes:
    """A `K` header, then the end."""
    return package(extension(b"K", b"target\0"))


@hostile(BAD + "it is empty")
def nothing_but_a_global_header() -> bytes:
    """An archive of no members."""
    return extension(b"g", record(b"comment", b"x")) + END


@hostile(BAD + "a global header between an extended one and its member")
def global_header_for_a_name() -> bytes:
    """Which of the two names does the member get?"""
    everybody = extension(b"g", record(b"path", b"two"))
    return package(pax(path=b"one"), everybody, member(b"three", b"x"))


@hostile(BAD + "ends inside a member")
def cut_inside_an_extension() -> bytes:
    """Half a PAX header at the end."""
    return FIRST + extension(b"x", record(b"path", b"n" * 600))[:700]
