"""Members that are neither file nor folder, or not all of one."""

from __future__ import annotations

from tests.package.hostile.raw import (
    BLOCK,
    GNU,
    extension,
    folder,
    gnu_name,
    header,
    member,
    package,
    padded,
    pax,
    record,
)
from tests.package.hostile.registry import BAD, hostile


def no_type(kind: str) -> str:
    return BAD + f"member of type {kind!r} is neither file nor folder"


@hostile(no_type("1"))
def hard_link() -> bytes:
    """A second name for the node's configuration."""
    return package(header(b"evil", kind=b"1", link=b"/ota.json"))


@hostile(no_type("1"))
def hard_link_out_of_the_root() -> bytes:
    """A second name for something outside."""
    return package(header(b"evil", kind=b"1", link=b"../../etc/passwd"))


@hostile(no_type("2"))
def symbolic_link() -> bytes:
    """A name that leads elsewhere."""
    return package(header(b"evil", kind=b"2", link=b"/.ota/state"))


@hostile(no_type("2"))
def symbolic_link_then_a_file_through_it() -> bytes:
    """The classic: the file's path is harmless, its folder is not."""
    return package(
        header(b"evil", kind=b"2", link=b"/.ota"), member(b"evil/state", b"1 commit x 0 0")
    )


@hostile(no_type("2"))
def symbolic_link_over_a_folder() -> bytes:
    """A live folder would become a way out."""
    return package(header(b"lib", kind=b"2", link=b".."), member(b"lib/evil", b"x"))


@hostile(no_type("2"))
def symbolic_link_by_pax() -> bytes:
    """Its target stands in a PAX header."""
    return package(pax(linkpath=b"../../etc/passwd"), header(b"evil", kind=b"2"))


@hostile(no_type("2"))
def symbolic_link_with_a_gnu_target() -> bytes:
    """Its target stands in a GNU `K` header."""
    target = member(b"././@LongLink", b"../" * 40 + b"x\0", b"K", magic=GNU)
    return package(target, header(b"evil", kind=b"2", magic=GNU))


@hostile(no_type("3"))
def character_device() -> bytes:
    """A node has no devices in its file system."""
    return package(header(b"dev/console", kind=b"3"))


@hostile(no_type("4"))
def block_device() -> bytes:
    """It would be all of flash."""
    return package(header(b"dev/flash", kind=b"4"))


@hostile(no_type("6"))
def fifo() -> bytes:
    """Who reads it waits for ever."""
    return package(header(b"evil", kind=b"6"))


@hostile(no_type("S"))
def sparse_of_old_gnu() -> bytes:
    """A few bytes that unfold to a gigabyte; its map stands in the header."""
    raw = bytearray(header(b"evil", 512, b"S", magic=GNU))
    raw[386:410] = b"00000000000\x0000000001000\0"
    raw[483:495] = b"10000000000\0"
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return package(bytes(raw), bytes(512))


@hostile(BAD + "sparse file")
def sparse_of_pax_1_0() -> bytes:
    """Its map is the first block of the content, its real name stands in the PAX header."""
    records = record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0")
    records += record(b"GNU.sparse.name", b"main.py") + record(b"GNU.sparse.realsize", b"1048576")
    content = padded(b"1\n0\n512\n") + bytes(BLOCK)
    return package(extension(b"x", records), member(b"GNUSparseFile.0/main.py", content))


@hostile(BAD + "sparse file")
def sparse_of_pax_0_1() -> bytes:
    """Its map stands in the PAX header."""
    records = record(b"GNU.sparse.size", b"1048576") + record(b"GNU.sparse.numblocks", b"1")
    records += record(b"GNU.sparse.map", b"0,512")
    return package(extension(b"x", records), member(b"evil", bytes(BLOCK)))


@hostile(BAD + "sparse file")
def sparse_for_everybody() -> bytes:
    """A global header makes every later file a sparse one."""
    records = record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0")
    return package(extension(b"g", records), member(b"evil", padded(b"1\n0\n1\n") + b"x"))


@hostile(no_type("M"))
def second_volume() -> bytes:
    """The rest of a file whose beginning is on another tape."""
    return package(member(b"main.py", b"the rest", b"M", magic=GNU))


@hostile(no_type("V"))
def volume_label() -> bytes:
    """The name of a tape."""
    return package(header(b"tape 1", kind=b"V", magic=GNU))


@hostile(no_type("D"))
def gnu_dump_folder() -> bytes:
    """A folder of an incremental backup: its content says what to delete."""
    return package(member(b"lib/", b"Ydriver.py\0\0", b"D", magic=GNU))


@hostile(no_type("N"))
def gnu_renames() -> bytes:
    """A list of renames and links of a very old GNU tar."""
    return package(member(b"././@MaNgLeD", b"Rename main.py to evil\n", b"N", magic=GNU))


@hostile(no_type("X"))
def solaris_extension() -> bytes:
    """Sun's own extended header, with a path in it."""
    return package(extension(b"X", record(b"path", b"../evil")), member(b"harmless", b"x"))


@hostile(no_type("A"))
def acl_of_solaris() -> bytes:
    """Who may do what, on a system that a node is not."""
    return package(member(b"main.py", b"user::rwx", b"A"))


@hostile(no_type("8"))
def reserved_type() -> bytes:
    """No standard has a meaning for it."""
    return package(header(b"evil", kind=b"8"))


@hostile(BAD + "member of type ")
def type_of_no_letter() -> bytes:
    """A type beyond ASCII."""
    return package(header(b"evil", kind=b"\xff"))


@hostile(BAD + "member of type ")
def type_of_a_control_character() -> bytes:
    """It must reach the report escaped."""
    return package(header(b"evil", kind=b"\x1b"))


@hostile(BAD + "a folder has content")
def folder_of_v7_with_content() -> bytes:
    """A slash at the end says folder, the size says file."""
    return package(member(b"lib/evil/", b"content", magic=bytes(8)))


@hostile(BAD + "header check sum differs")
def folder_with_content() -> bytes:
    """What stands behind a folder's header is the next header, whatever its size says."""
    return package(member(b"evil", b"content", b"5"))


@hostile(BAD + "a folder has content")
def long_name_makes_a_folder_of_a_file() -> bytes:
    """A GNU name with a slash at its end, in front of a file."""
    return package(gnu_name(b"lib/evil/"), member(b"harmless", b"content"))


@hostile("can not apply: a file where a folder is: /lib")
def file_type_for_a_folder() -> bytes:
    """The live folder would become a file."""
    return package(folder(b"new"), member(b"lib", b"x"))
