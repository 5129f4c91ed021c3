"""Names that try to leave the root, or that no file on the node may have."""

from __future__ import annotations

from tests.package.hostile.raw import (
    extension,
    folder,
    gnu_name,
    header,
    member,
    package,
    pax,
    record,
)
from tests.package.hostile.registry import BAD, hostile

LEAVES = "can not apply: a path leaves the root"
CHARACTER = "can not apply: a name has a character not allowed in it"
LONG = "can not apply: a name is longer than 255 bytes"


@hostile(LEAVES)
def dot_dot() -> bytes:
    """The plain traversal."""
    return package(member(b"../evil", b"x"))


@hostile(LEAVES)
def dot_dot_inside() -> bytes:
    """More steps up than down."""
    return package(member(b"a/../../evil", b"x"))


@hostile(LEAVES)
def dot_dot_that_stays() -> bytes:
    """It would stay in the root, but through a folder that may be a link on another system."""
    return package(member(b"lib/../evil", b"x"))


@hostile(LEAVES)
def dot_dot_after_the_root() -> bytes:
    """An absolute path does not make it any better."""
    return package(member(b"/../evil", b"x"))


@hostile(LEAVES)
def dot_dot_after_a_dot() -> bytes:
    """Behind the prefix that `tar -C dir .` writes."""
    return package(member(b"./../evil", b"x"))


@hostile(LEAVES)
def dot_dot_between_slashes() -> bytes:
    """For a reader that strips `../` once."""
    return package(member(b"..//..///evil", b"x"))


@hostile(LEAVES)
def dot_dot_doubled() -> bytes:
    """For a reader that removes `../` and does not look again."""
    return package(member(b"....//../evil", b"x"))


@hostile(LEAVES)
def dot_dot_at_the_end() -> bytes:
    """A folder that is its parent."""
    return package(folder(b"lib/.."))


@hostile(LEAVES)
def dot_dot_alone() -> bytes:
    """The folder above the root itself."""
    return package(folder(b".."))


@hostile(LEAVES)
def dot_dot_to_what_is_protected() -> bytes:
    """Up, and down again into the node's configuration."""
    return package(member(b"lib/../ota.json", b"{}"))


@hostile(LEAVES)
def dot_dot_in_the_prefix() -> bytes:
    """The step up stands in ustar's prefix field, not in the name."""
    return package(member(b"evil", b"x", prefix=b".."))


@hostile(LEAVES)
def dot_dot_in_pax() -> bytes:
    """The header's name is harmless, the PAX path that replaces it is not."""
    return package(pax(path=b"../evil"), member(b"harmless", b"x"))


@hostile(LEAVES)
def dot_dot_in_a_gnu_name() -> bytes:
    """The same by a GNU long name."""
    return package(gnu_name(b"../evil"), member(b"harmless", b"x"))


@hostile(LEAVES)
def dot_dot_for_everybody() -> bytes:
    """A global PAX header moves every later member out of the root."""
    return package(extension(b"g", record(b"path", b"../evil")), member(b"harmless", b"x"))


@hostile(CHARACTER)
def backslashes_up() -> bytes:
    """Traversal as Windows spells it."""
    return package(member(b"..\\..\\evil", b"x"))


@hostile(CHARACTER)
def backslash_root() -> bytes:
    """An absolute path as Windows spells it."""
    return package(member(b"C:\\boot.py", b"x"))


@hostile(CHARACTER)
def backslash_in_pax() -> bytes:
    """Hidden in a PAX path."""
    return package(pax(path=b"lib\\evil.py"), member(b"harmless", b"x"))


@hostile(BAD + "damaged PAX header")
def nul_in_pax() -> bytes:
    """A C program would stop at the NUL: two readers, two names."""
    return package(pax(path=b"main.py\0.txt"), member(b"harmless", b"x"))


@hostile(BAD + "damaged PAX header")
def nul_first_in_pax() -> bytes:
    """What is left of the name before the NUL is nothing."""
    return package(pax(path=b"\0main.py"), member(b"harmless", b"x"))


@hostile(CHARACTER)
def newline() -> bytes:
    """It would begin a line of its own in the journal."""
    return package(member(b"x\na 0 0 /main.py", b"x"))


@hostile(CHARACTER)
def newline_in_a_folder() -> bytes:
    """The same through the name of a folder."""
    return package(folder(b"x\na 0 0 /main.py"))


@hostile(CHARACTER)
def carriage_return() -> bytes:
    """It would overwrite the line on the terminal of who reads the report."""
    return package(member(b"x\rinstalled", b"x"))


@hostile(CHARACTER)
def escape_sequence() -> bytes:
    """It would command the terminal of who reads the report."""
    return package(member(b"x\x1b[2J", b"x"))


@hostile(CHARACTER)
def delete_character() -> bytes:
    """DEL is a control character as well."""
    return package(member(b"x\x7f", b"x"))


@hostile(CHARACTER)
def control_in_a_folder_above() -> bytes:
    """The bad character is not in the last part."""
    return package(member(b"a\x01/b", b"x"))


@hostile(LONG)
def part_of_256_bytes() -> bytes:
    """One more than littlefs takes."""
    return package(pax(path=b"n" * 256), member(b"harmless", b"x"))


@hostile(LONG)
def part_of_86_wide_characters() -> bytes:
    """86 characters of three bytes each: bytes count, not characters."""
    return package(pax(path="中".encode() * 86), member(b"harmless", b"x"))


@hostile(LONG)
def folder_above_of_256_bytes() -> bytes:
    """The long part is a folder that only this path implies."""
    return package(gnu_name(b"n" * 256 + b"/x"), member(b"harmless", b"x"))


@hostile("can not apply: a path is longer than 1024")
def path_of_2000_bytes() -> bytes:
    """Every part is short enough, all of them are not."""
    return package(pax(path=b"ab/" * 666 + b"x"), member(b"harmless", b"x"))


@hostile("can not apply: a file without a name")
def no_name() -> bytes:
    """An empty name field."""
    return package(member(b"", b"x"))


@hostile("can not apply: a file without a name")
def the_root_as_a_file() -> bytes:
    """A file that would take the place of everything."""
    return package(member(b".", b"x"))


@hostile("can not apply: a file without a name")
def empty_name_in_pax() -> bytes:
    """A PAX path of no bytes."""
    return package(pax(path=b""), member(b"", b"x"))


@hostile(BAD + "name is not UTF-8")
def latin_1() -> bytes:
    """Bytes that are no text: no computer could name the file again."""
    return package(member(b"gr\xfc\xdfe", b"x"))


@hostile(BAD + "name is not UTF-8")
def overlong_dots() -> bytes:
    """Dots in two bytes each, which a lax decoder takes for a step up."""
    return package(member(b"\xc0\xae\xc0\xae/evil", b"x"))


@hostile(BAD + "name is not UTF-8")
def overlong_slash() -> bytes:
    """A slash in three bytes, which a lax decoder takes for one."""
    return package(member(b"..\xe0\x80\xafevil", b"x"))


@hostile(BAD + "name is not UTF-8")
def half_a_surrogate_pair() -> bytes:
    """No character at all, though its bytes look like one."""
    return package(member(b"x\xed\xa0\x80", b"x"))


@hostile(BAD + "name is not UTF-8")
def beyond_unicode() -> bytes:
    """A code point behind the last one."""
    return package(member(b"x\xf7\xbf\xbf\xbf", b"x"))


@hostile(BAD + "name is not UTF-8")
def not_utf_8_in_pax() -> bytes:
    """PAX promises UTF-8."""
    return package(pax(path=b"\xff\xfe"), header(b"harmless"))
