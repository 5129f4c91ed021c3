"""Headers whose numbers and sums lie, and archives that end in the wrong place."""

from __future__ import annotations

from tests.package.hostile.raw import BLOCK, END, FIRST, header, member, package
from tests.package.hostile.registry import BAD, hostile

DIFFERS = BAD + "header check sum differs"
NOT_OCTAL = BAD + "number is not octal"


def wrong(name: bytes, at: int, value: int) -> bytes:
    """A header with one byte changed after its sum was taken."""
    raw = bytearray(header(name))
    raw[at] = value
    return bytes(raw)


@hostile(DIFFERS)
def sum_of_another_name() -> bytes:
    """One bit of the name differs."""
    return package(wrong(b"a", 0, ord("c")))


@hostile(DIFFERS)
def sum_of_another_size() -> bytes:
    """One digit of the size differs."""
    return package(wrong(b"a", 134, ord("1")), bytes(BLOCK))


@hostile(DIFFERS)
def sum_of_another_type() -> bytes:
    """A file whose type became that of a folder."""
    return package(wrong(b"a", 156, ord("5")))


@hostile(DIFFERS)
def sum_of_zero() -> bytes:
    """For a reader that takes zero for "not given"."""
    return package(header(sum_field=b"000000\0 "))


@hostile(DIFFERS)
def sum_left_empty() -> bytes:
    """Eight spaces, which is what the sum is taken with."""
    return package(header(sum_field=b" " * 8))


@hostile(NOT_OCTAL)
def sum_not_octal() -> bytes:
    """A sum in hexadecimal."""
    return package(header(sum_field=b"00f3a0\0 "))


@hostile(BAD + "negative or huge number")
def sum_in_base_256() -> bytes:
    """Base-256 is for sizes; a negative one."""
    return package(header(sum_field=b"\xff" * 8))


@hostile(BAD + "negative or huge number")
def header_of_ones() -> bytes:
    """A block of erased flash."""
    return package(b"\xff" * BLOCK)


@hostile(NOT_OCTAL)
def size_not_octal() -> bytes:
    """Digits that octal does not have."""
    return package(header(size_field=b"00000000089\0"))


@hostile(NOT_OCTAL)
def size_in_hexadecimal() -> bytes:
    """What int(text, 0) would take."""
    return package(header(size_field=b"0x000000010\0"), bytes(BLOCK))


@hostile(NOT_OCTAL)
def size_with_underscores() -> bytes:
    """What int(text, 8) would take."""
    return package(header(size_field=b"0000_0000_1\0"), bytes(BLOCK))


@hostile(NOT_OCTAL)
def size_with_a_sign() -> bytes:
    """Minus one, as text."""
    return package(header(size_field=b"-0000000001\0"))


@hostile(NOT_OCTAL)
def size_in_two_words() -> bytes:
    """Which of them?"""
    return package(header(size_field=b"000 000001 \0"), bytes(BLOCK))


@hostile(BAD + "negative or huge number")
def size_negative_in_base_256() -> bytes:
    """Minus one, as two's complement: the reader would go backwards."""
    return package(header(size_field=b"\xff" * 12))


@hostile(BAD + "negative or huge number")
def size_with_an_unknown_mark() -> bytes:
    """The top bit is set, and some others with it."""
    return package(header(size_field=b"\x90" + bytes(11)))


@hostile("not enough space: ")
def size_of_95_bits() -> bytes:
    """The largest number that base-256 can say."""
    return package(header(size_field=b"\x80" + b"\x7f" + b"\xff" * 10))


@hostile("not enough space: ")
def size_of_four_gigabytes() -> bytes:
    """2**32: zero for a reader that counts in 32 bits."""
    return package(header(size_field=b"\x80" + (1 << 32).to_bytes(11, "big")))


@hostile("not enough space: ")
def size_of_all_sevens() -> bytes:
    """The largest number that octal can say: 8 GiB."""
    return package(header(size_field=b"77777777777\0"))


@hostile(BAD + "ends inside a member")
def size_beyond_the_archive() -> bytes:
    """It fits on flash, but there is no such content: the end blocks are taken for it, then
    nothing is left."""
    return FIRST + header(b"evil", 20_000) + bytes(3 * BLOCK)


@hostile(NOT_OCTAL)
def size_too_small() -> bytes:
    """The rest of the content is taken for a header."""
    return package(header(b"evil", 3), b"x" * BLOCK * 2)


@hostile(NOT_OCTAL)
def content_that_is_a_member() -> bytes:
    """A size of nothing: what should be content, with a member in it, is read as members; the
    garbage behind it gives it away."""
    return package(header(b"evil", 0), member(b"inner", b"x"), b"garbage".ljust(BLOCK, b"!"))


@hostile(BAD + "ends inside a block")
def cut_inside_a_header() -> bytes:
    """Half a header at the end."""
    return FIRST + header()[:300]


@hostile(BAD + "ends inside a member")
def cut_inside_content() -> bytes:
    """Half a file at the end."""
    return FIRST + header(b"evil", 600) + bytes(BLOCK)


@hostile(BAD + "ends inside a member")
def cut_inside_padding() -> bytes:
    """The file is complete, its block is not."""
    return FIRST + header(b"evil", 3) + b"abc" + bytes(100)


@hostile(BAD + "ends inside a block")
def cut_inside_an_end_block() -> bytes:
    """Some zeros at the end, but no block of them."""
    return FIRST + bytes(100)


@hostile(BAD + "data after a zero block")
def member_after_one_zero_block() -> bytes:
    """GNU tar warns and stops there, others read on: two readers, two archives."""
    return FIRST + bytes(BLOCK) + member(b"evil", b"x") + END


@hostile(BAD + "data after its end")
def member_after_the_end() -> bytes:
    """A second archive behind the first (`tar -A` done by cat), which a scanner may not see."""
    return FIRST + END + member(b"evil", b"x") + END


@hostile(BAD + "data after its end")
def garbage_after_the_end() -> bytes:
    """Something that is no member."""
    return FIRST + END + b"garbage".ljust(BLOCK, b"!")


@hostile(BAD + "data after its end")
def one_byte_after_the_end() -> bytes:
    """As little of it as there can be."""
    return FIRST + END + bytes(511) + b"x"


@hostile(BAD + "it is empty")
def nothing_but_the_end() -> bytes:
    """What tar makes of no files."""
    return END


@hostile(BAD + "it is empty")
def nothing_but_zeros() -> bytes:
    """An upload of which only the length arrived."""
    return bytes(10240)


@hostile(BAD + "it has no end")
def one_zero_block() -> bytes:
    """Not even a whole end."""
    return bytes(BLOCK)


@hostile(BAD + "it has no end")
def no_end() -> bytes:
    """Cut behind a member: nothing else tells that something is missing."""
    return FIRST + member(b"evil", b"x")


@hostile(BAD + "it has no end")
def half_an_end() -> bytes:
    """One zero block of the two."""
    return FIRST + member(b"evil", b"x") + bytes(BLOCK)
