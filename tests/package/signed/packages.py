"""Packages of `insigh_ota.package`, and what somebody without the key could make of them."""

from __future__ import annotations

from collections.abc import Callable

from host_sim.sample import Tree
from insigh_ota.package.build import build
from insigh_ota.package.keys import Signer
from insigh_ota.package.sources import Selection
from tests import signing
from tests.package.hostile.raw import END, member

NAME = b".ota-manifest"

#: Two versions of an application.
A = {"data/t.csv": b"1,2\n" * 400, "lib/new.py": b"a = 1\n", "main.py": b"print('a')\n"}
B = {"data/t.csv": b"3,4\n" * 400, "lib/new.py": b"b = 2\n", "main.py": b"print('b')\n"}

Members = list[tuple[bytes, bytes]]


def package(
    files: Tree | None = None,
    signer: int | None = 1,
    *,
    deleted: tuple[str, ...] = (),
    sequence: int = 1,
    **lines: object,
) -> bytes:
    """A package as its owner makes it; signer: number of the key, None for nobody."""
    who = None
    if signer:
        key = signing.key(signer)
        who = Signer(key.modulus, key.sign)
    selection = Selection(dict(files or {}), set(deleted))
    return build(selection, sequence=sequence, signer=who, **lines)


def by_hand(
    files: Tree | None = None,
    signer: int | None = 1,
    *,
    change: Callable[[Members], Members] = lambda members: members,
    **lines: object,
) -> bytes:
    """A package with what the packager refuses; change: gets all members, and gives others."""
    key = signing.key(signer) if signer else None
    manifest = signing.manifest(files or {}, key, **lines)
    members = [(name.encode(), content) for name, content in (files or {}).items()]
    return archive(change([(NAME, manifest), *members]))


def archive(members: Members) -> bytes:
    """A tar archive of these members."""
    return b"".join(member(name, content) for name, content in members) + END


def root(tree: Tree) -> Tree:
    """A tree by absolute paths."""
    return {"/" + name: content for name, content in tree.items()}
