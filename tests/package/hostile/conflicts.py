"""Sound members that contradict each other, or what is on the node."""

from __future__ import annotations

from tests.package.hostile.raw import OLD_TREE, folder, member, package, pax
from tests.package.hostile.registry import hostile

TWICE = "can not apply: the same name twice: "
NO_FOLDER = "can not apply: a folder where a file is: "


@hostile("can not apply: a file where a folder is: /lib")
def file_over_folder() -> bytes:
    """All drivers would be gone."""
    return package(member(b"lib", b"x"))


@hostile(NO_FOLDER + "/main.py")
def folder_over_file() -> bytes:
    """main.py would be a folder."""
    return package(folder(b"main.py"))


@hostile(NO_FOLDER + "/main.py")
def file_inside_a_live_file() -> bytes:
    """main.py would have to become a folder."""
    return package(member(b"main.py/x", b"x"))


@hostile(NO_FOLDER + "/main.py")
def file_deep_inside_a_live_file() -> bytes:
    """The same, some folders further down."""
    return package(member(b"main.py/a/b/c/x", b"x"))


@hostile(NO_FOLDER + "/new")
def file_inside_a_new_file() -> bytes:
    """The file above it comes with the same package."""
    return package(member(b"new", b"x"), member(b"new/x", b"x"))


@hostile(NO_FOLDER + "/new")
def folder_inside_a_new_file() -> bytes:
    """The same with a folder."""
    return package(member(b"new", b"x"), folder(b"new/x"))


@hostile(TWICE + "/new")
def file_over_a_new_folder() -> bytes:
    """The folder is implied by the member before."""
    return package(member(b"new/x", b"x"), member(b"new", b"x"))


@hostile(TWICE + "/new")
def file_over_a_new_folder_entry() -> bytes:
    """The folder has an entry of its own."""
    return package(folder(b"new"), member(b"./new", b"x"))


@hostile(NO_FOLDER + "/new")
def folder_over_a_new_file() -> bytes:
    """First the file, then a folder of its name."""
    return package(member(b"new", b"x"), folder(b"new/"))


@hostile(TWICE + "/new")
def file_twice() -> bytes:
    """Which one is meant?"""
    return package(member(b"new", b"1"), member(b"new", b"2"))


@hostile(TWICE + "/new")
def file_twice_with_the_same_content() -> bytes:
    """Even then: nobody packs a file twice."""
    return package(member(b"new", b"1"), member(b"new", b"1"))


@hostile(TWICE + "/lib/new.txt")
def file_twice_by_dots() -> bytes:
    """Two spellings of one name."""
    return package(member(b"lib/new.txt", b"1"), member(b"./lib/./new.txt", b"2"))


@hostile(TWICE + "/lib/new.txt")
def file_twice_by_slashes() -> bytes:
    """Two others."""
    return package(member(b"lib/new.txt", b"1"), member(b"/lib//new.txt", b"2"))


@hostile(TWICE + "/lib/new.txt")
def file_twice_by_pax() -> bytes:
    """Once by its header, once by PAX."""
    return package(member(b"lib/new.txt", b"1"), pax(path=b"lib/new.txt"), member(b"b", b"2"))


@hostile(TWICE + "/main.py")
def file_twice_the_first_unchanged() -> bytes:
    """The first one is what the node has already, and leaves nothing in the staging folder."""
    return package(member(b"main.py", OLD_TREE["/main.py"]), member(b"main.py", b"2"))


@hostile(TWICE + "/main.py")
def file_twice_the_second_unchanged() -> bytes:
    """The other way round."""
    return package(member(b"main.py", b"2"), member(b"main.py", OLD_TREE["/main.py"]))


@hostile("can not apply: both source and .mpy of /new.")
def source_and_compiled() -> bytes:
    """Each would retire the other."""
    return package(member(b"new.py", b"a = 1\n"), member(b"new.mpy", b"M\x06\x00\x1f"))


@hostile("can not apply: both source and .mpy of /new.")
def compiled_and_source() -> bytes:
    """The other way round."""
    return package(member(b"new.mpy", b"M\x06\x00\x1f"), member(b"new.py", b"a = 1\n"))


@hostile("can not apply: both source and .mpy of /lib/driver.")
def source_unchanged_and_compiled() -> bytes:
    """The source is what the node has, so the .mpy would be installed and never run."""
    return package(
        member(b"lib/driver.py", OLD_TREE["/lib/driver.py"]),
        member(b"lib/driver.mpy", b"M\x06\x00\x1f"),
    )


@hostile(TWICE + "/lib/driver.py")
def retired_and_then_brought() -> bytes:
    """As before, the other way round: the .mpy retires the source first."""
    return package(
        member(b"lib/driver.mpy", b"M\x06\x00\x1f"),
        member(b"lib/driver.py", OLD_TREE["/lib/driver.py"]),
    )


@hostile(TWICE + "/boot_user.py")
def two_second_boot_files() -> bytes:
    """A boot.py that knows no recovery becomes boot_user.py, which comes with the package too."""
    return package(member(b"boot_user.py", b"a = 1\n"), member(b"boot.py", b"b = 2\n"))
