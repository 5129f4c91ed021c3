"""A node with the field firmware's files and the adapter, on the virtual node."""

from __future__ import annotations

import random
from pathlib import Path

from host_sim import sample
from host_sim.sample import Tree
from tests.conftest import MakeSite
from tests.docs.test_examples import at_console, second
from tests.secrecy import WatchedSite

ROOT = Path(__file__).parents[2]
ADAPTER = ROOT / "insighio" / "node"
FIELD = Path(__file__).parent / "node"


def tree_of(folder: Path) -> Tree:
    """The modules below a folder, by their paths on the node."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.py")
    }


def replace(tree: Tree, name: str, old: bytes, new: bytes) -> None:
    """Change what has to be there once."""
    assert tree[name].count(old) == 1, (name, old)
    tree[name] = tree[name].replace(old, new)


def field_node(
    make_site: MakeSite,
    modem: bool = False,
    faults: dict | None = None,
    settings: dict | None = None,
    watchdog_s: int = 0,
    left: dict[str, bytes] | None = None,
    before: bytes = b"",
    **options,
) -> WatchedSite:
    """The node. faults: of the modem; settings: of the field's cfg; left: the modem's files.

    before: code that main.py begins with.
    """
    tree = tree_of(FIELD) | tree_of(ADAPTER)
    replace(tree, "main.py", b"MODEM = False", b"MODEM = %r" % modem)
    replace(tree, "main.py", b"WATCHDOG_S = 0", b"WATCHDOG_S = %d" % watchdog_s)
    if settings:
        new = b"SETTINGS = %s" % repr(settings).encode()
        replace(tree, "apps/demo_console/cfg.py", b"SETTINGS = {}", new)
    tree["main.py"] = before + tree["main.py"]
    tree["faults.py"] = b"FAULTS = %s\n" % repr(faults or {}).encode()
    tree |= {f"ufs/{name}": content for name, content in (left or {}).items()}
    return at_console(make_site, tree, **options)


def package(site: WatchedSite, more: Tree | None = None) -> tuple[Tree, bytes]:
    """Version 2 with a file that is new: what it brings, and the archive."""
    tree = {
        "main.py": second(site.files["/main.py"]),
        "lib/new.bin": random.Random(7).randbytes(5000),
    }
    tree |= more or {}
    return tree, sample.tar_gz(tree)


def check_updated(site: WatchedSite, brought: Tree, fuid: str) -> None:
    """Version 2 is there, byte for byte, all else is as it was, and the platform knows."""
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    assert site.retained() is None
    after = {f"/{name}": content for name, content in brought.items()}
    assert site.flash_files() == site.files | after | {"/ota_applied_flag": b"done"}
