"""Members that would take the node from its owner, or its way back from the node."""

from __future__ import annotations

from tests.package.hostile.raw import (
    OLD_TREE,
    extension,
    folder,
    gnu_name,
    member,
    package,
    pax,
    record,
)
from tests.package.hostile.registry import hostile

PROTECTED = "can not apply: protected path "


@hostile(PROTECTED + "/ota.json")
def configuration() -> bytes:
    """Another server, another key: the node would belong to somebody else."""
    return package(member(b"ota.json", b"{}"))


@hostile(PROTECTED + "/ota.json")
def configuration_by_many_slashes() -> bytes:
    """The same file, spelt so that a comparison of text misses it."""
    return package(member(b"//ota.json", b"{}"))


@hostile(PROTECTED + "/ota.json")
def configuration_by_dots() -> bytes:
    """The same file once more."""
    return package(member(b"./././ota.json", b"{}"))


@hostile(PROTECTED + "/ota.json")
def configuration_with_a_slash() -> bytes:
    """As a folder of that name."""
    return package(folder(b"ota.json/"))


@hostile(PROTECTED + "/ota.json/x")
def configuration_as_a_folder() -> bytes:
    """Something inside the file would make a folder of it."""
    return package(member(b"ota.json/x", b"x"))


@hostile(PROTECTED + "/ota.json")
def configuration_by_pax() -> bytes:
    """Only the PAX path names it."""
    return package(pax(path=b"ota.json"), member(b"harmless.json", b"{}"))


@hostile(PROTECTED + "/ota.json")
def configuration_by_a_gnu_name() -> bytes:
    """Only the GNU name does."""
    return package(gnu_name(b"./ota.json"), member(b"harmless.json", b"{}"))


@hostile(PROTECTED + "/ota.json")
def configuration_for_everybody() -> bytes:
    """A global header does."""
    return package(extension(b"g", record(b"path", b"ota.json")), member(b"harmless", b"{}"))


@hostile(PROTECTED + "/ota.json")
def configuration_unchanged() -> bytes:
    """Even with the content it has: a package that may name it may change it next time."""
    return package(member(b"ota.json", OLD_TREE["/ota.json"]))


@hostile(PROTECTED + "/ca.der")
def trust_anchor() -> bytes:
    """With another one any server would be the platform."""
    return package(member(b"ca.der", b"x"))


@hostile(PROTECTED + "/ca.der")
def trust_anchor_by_dots() -> bytes:
    """The configuration names it `/ca.der`."""
    return package(member(b".//./ca.der", b"x"))


@hostile(PROTECTED + "/.ota/state")
def state() -> bytes:
    """A state of the package's own would be an open transaction at the next boot."""
    return package(member(b".ota/state", b"1 commit x 0 0 3 24 300 installed "))


@hostile(PROTECTED + "/.ota/state")
def state_from_the_root() -> bytes:
    """The same by its absolute path."""
    return package(member(b"/.ota/state", b"x"))


@hostile(PROTECTED + "/.ota/state")
def state_by_dots() -> bytes:
    """The same behind the prefix of `tar -C dir .`."""
    return package(member(b"./.ota/state", b"x"))


@hostile(PROTECTED + "/.ota/state")
def state_by_slashes() -> bytes:
    """The same with slashes and dots in between."""
    return package(member(b".ota//.//state", b"x"))


@hostile(PROTECTED + "/.ota/state")
def state_by_the_prefix() -> bytes:
    """The folder stands in ustar's prefix field."""
    return package(member(b"state", b"x", prefix=b".ota"))


@hostile(PROTECTED + "/.ota/recovery.py")
def recovery_copy() -> bytes:
    """What boot.py runs first while a transaction is open."""
    return package(member(b".ota/recovery.py", b"def boot(): pass\n"))


@hostile(PROTECTED + "/.ota/journal")
def journal() -> bytes:
    """The list of what will be moved."""
    return package(member(b".ota/journal", b"a 0 0 /ota.json\n"))


@hostile(PROTECTED + "/.ota")
def ota_folder() -> bytes:
    """A folder entry alone does nothing, and has no business there."""
    return package(folder(b".ota/"))


@hostile(PROTECTED + "/.ota")
def ota_folder_as_a_file() -> bytes:
    """No transaction could ever be opened again."""
    return package(member(b".ota", b"x"))


@hostile("can not apply: nothing runs /boot.mpy")
def compiled_boot() -> bytes:
    """It would retire boot.py, which is what MicroPython starts."""
    return package(member(b"boot.mpy", b"M\x06\x00\x1f"))


@hostile("can not apply: nothing runs /main.mpy")
def compiled_main() -> bytes:
    """It would retire main.py."""
    return package(member(b"./main.mpy", b"M\x06\x00\x1f"))


@hostile("can not apply: nothing runs /boot_user.mpy")
def compiled_boot_user() -> bytes:
    """It would retire what our boot.py runs last."""
    return package(member(b"boot_user.mpy", b"M\x06\x00\x1f"))


@hostile(PROTECTED + "/data/keys", protected=("/data/keys/",))
def protected_by_the_owner() -> bytes:
    """The node's configuration protects further files."""
    return package(member(b"data/keys", b"x"))


@hostile(PROTECTED + "/data/keys/x", protected=("//data/./keys",))
def inside_what_the_owner_protects() -> bytes:
    """A folder is protected with all that is in it."""
    return package(member(b"data/keys/x", b"x"))


@hostile(PROTECTED + "/lib/driver.py", protected=("/lib/driver.py",))
def compiled_twin_of_what_the_owner_protects() -> bytes:
    """It would retire the protected source without ever naming it."""
    return package(member(b"lib/driver.mpy", b"M\x06\x00\x1f"))


@hostile(PROTECTED + "/lib/fast.mpy", protected=("/lib/fast.mpy",))
def source_twin_of_what_the_owner_protects() -> bytes:
    """The other way round."""
    return package(member(b"lib/fast.py", b"a = 1\n"))


@hostile(PROTECTED + "/boot_user.py", protected=("/boot_user.py",))
def boot_that_becomes_what_the_owner_protects() -> bytes:
    """A boot.py that knows no recovery is installed as boot_user.py."""
    return package(member(b"boot.py", b"b = 2\n"))


@hostile("can not apply: ", protected=("/secret/key.bin",))
def file_where_the_folder_of_what_the_owner_protects_belongs() -> bytes:
    """The protected file is not there yet, and could never be written any more."""
    return package(member(b"secret", b"x"))
