"""Content that the node could not load, in places where that matters."""

from __future__ import annotations

from tests.package.hostile.raw import OLD_TREE, member, package
from tests.package.hostile.registry import hostile

NO_MPY = "can not apply: incompatible .mpy: "


def mpy(version: int = 6, flags: int = 0, small_int_bits: int = 31) -> bytes:
    """The header of a compiled module, with something behind it."""
    return b"M" + bytes([version, flags, small_int_bits]) + bytes(20)


@hostile(NO_MPY + "/lib/fast.mpy")
def mpy_of_the_next_abi() -> bytes:
    """Compiled for a MicroPython to come."""
    return package(member(b"lib/fast.mpy", mpy(version=7)))


@hostile(NO_MPY + "/lib/fast.mpy")
def mpy_of_the_last_abi() -> bytes:
    """Compiled for a MicroPython of the past."""
    return package(member(b"lib/fast.mpy", mpy(version=5)))


@hostile(NO_MPY + "/lib/fast.mpy")
def mpy_of_circuitpython() -> bytes:
    """The same file name, another interpreter."""
    return package(member(b"lib/fast.mpy", b"C" + mpy()[1:]))


@hostile(NO_MPY + "/lib/fast.mpy")
def mpy_of_another_processor() -> bytes:
    """Machine code for ARM Cortex-M4, which is nobody's here."""
    return package(member(b"lib/fast.mpy", mpy(flags=6 << 2 | 3)))


@hostile(NO_MPY + "/lib/fast.mpy")
def mpy_of_an_unknown_processor() -> bytes:
    """Machine code for something that does not exist."""
    return package(member(b"lib/fast.mpy", mpy(flags=0x2F << 2 | 3)))


@hostile(NO_MPY + "/lib/fast.mpy")
def mpy_with_larger_small_ints() -> bytes:
    """Its small integers have more bits than any interpreter's."""
    return package(member(b"lib/fast.mpy", mpy(small_int_bits=64)))


@hostile(NO_MPY + "/lib/fast.mpy is none")
def mpy_cut_in_its_header() -> bytes:
    """Three bytes, all of them right."""
    return package(member(b"lib/fast.mpy", mpy()[:3]))


@hostile(NO_MPY + "/lib/fast.mpy is none")
def mpy_of_no_bytes() -> bytes:
    """What a failed compiler leaves."""
    return package(member(b"lib/fast.mpy"))


@hostile(NO_MPY + "/new.mpy is none")
def mpy_that_is_source() -> bytes:
    """Renamed, not compiled."""
    return package(member(b"new.mpy", b"print('hello')\n"))


@hostile("can not apply: /boot.py does not compile, SyntaxError")
def boot_that_does_not_compile() -> bytes:
    """It begins as ours does, and then nothing makes sense."""
    return package(member(b"boot.py", OLD_TREE["/boot.py"] + b"\ndef (\n"))


@hostile("can not apply: /boot.py does not compile, ")
def boot_that_is_no_text() -> bytes:
    """A compiled file under the name of a source."""
    return package(member(b"boot.py", mpy() + bytes(range(256))))


@hostile("can not apply: /ota/agent.py does not compile, SyntaxError")
def agent_that_does_not_compile() -> bytes:
    """The node could not hear of the next update."""
    return package(member(b"ota/agent.py", b"import\n"))


@hostile("can not apply: /ota/new.py does not compile, SyntaxError")
def new_module_of_the_agent_that_does_not_compile() -> bytes:
    """A file that the node does not have yet, on the boot path all the same."""
    return package(member(b"ota/new.py", b"if 1:\nx = 1\n"))


@hostile("can not apply: /lib/ota/agent.py does not compile, SyntaxError")
def agent_in_lib_that_does_not_compile() -> bytes:
    """The other place where an agent may live."""
    return package(member(b"lib/ota/agent.py", b"x = = 1\n"))


@hostile("can not apply: /ota/agent.py does not compile, ")
def agent_of_a_thousand_brackets() -> bytes:
    """The compiler itself is led into the depth."""
    return package(member(b"ota/agent.py", b"x = " + b"(" * 5000 + b"\n"))
