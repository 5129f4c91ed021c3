"""A node in one MicroPython process: the whole agent, but for the link and the control channel."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from pathlib import Path

from host_sim.node.node import run_code
from host_sim.sample import Tree
from tests import signing
from tests.package.hostile.raw import OLD_TREE

DEVICE = Path(__file__).parents[2] / "device"
KEYS = ["/a.pub", "/b.pub"]
BOARD = "esp32-s3 rev. 2"
#: Of a node that takes nothing but what is signed.
CONFIG = {"keys": KEYS, "require_signature": True, "board": BOARD}
LENIENT = {"require_signature": False}
KEYLESS = {"keys": [], "require_signature": False}
#: Such a node has key 1, and a place for another.
FILES = OLD_TREE | {"/a.pub": signing.key(1).modulus}
# What the journal and the folders may have taken of the twelve blocks that staging keeps back.
LEAST_FREE = 10
_SCRIPT = """
import signed_flips
import signed_probe
_trial = False  # our boot.py has run: else nothing is installed
bundle = open(BUNDLE, "rb")
node = signed_probe.Node(FILES, CONFIG, BLOCKS)
"""

Row = dict


def follow(
    agent: Path,
    scratch: Path,
    steps: list[tuple],
    *,
    files: Tree | None = None,
    blocks: int = 64,
    code: str = "signed_probe.run(node, bundle, STEPS)",
    **config: object,
) -> list:
    """What the node said after each step; see `run` of tests/device/signed_probe.py.

    A step's first argument is a package if it is of bytes. Keys of config replace those of CONFIG.
    """
    bundle, at = scratch / "bundle", 0
    placed = []
    with bundle.open("wb") as out:
        for what, *rest in steps:
            if rest and isinstance(rest[0], bytes):
                rest[0], at = (at, len(rest[0])), at + out.write(rest[0])
            placed.append((what, *rest))
    names = {
        "BUNDLE": str(bundle),
        "FILES": FILES if files is None else files,
        "CONFIG": CONFIG | config,
        "BLOCKS": blocks,
        "STEPS": placed,
    }
    lines = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    result = run_code(lines + _SCRIPT + code, path=[agent, DEVICE], heap="4M", timeout_s=100)
    assert result.exit_code == 0, (result.exit_code, result.output[-2000:])
    return [json.loads(line) for line in result.output.split("\n") if line]


def refused(
    agent: Path, scratch: Path, cases: list[tuple[bytes, str]], **options: object
) -> list[Row]:
    """Request each package of a node that has to refuse it for this reason, with flash as before.

    Reasons may be shortened. What was staged until then was what the manifest said, if there was
    one, or had to be.
    """
    rows = follow(agent, scratch, [("take", content) for content, _ in cases], **options)
    for number, ((_, reason), row) in enumerate(zip(cases, rows, strict=True)):
        assert row["end"] == "failed", (number, row)
        assert row["reason"].startswith(reason), (number, row["reason"])
        assert "commit" not in row["steps"]
        report = [{"n": "e", "v": 2}, {"n": "i", "vs": "fa8884d2"}]
        report.append({"n": "m", "vs": row["reason"]})
        assert [json.loads(payload) for payload in row["published"]] == [report]
        assert row["outside"], (number, "something outside /.ota was written")
        assert row["changes"] == {}, number
        assert row["least_free"] >= LEAST_FREE, number
        if "manifest" in row["staged"] or options.get("require_signature", True):
            only_what_is_listed(row["staged"])
    return rows


def only_what_is_listed(staged: dict[str, str]) -> None:
    """Nothing waited for an install but what the manifest says.

    staged: files in /.ota by name, their content in hex digits.
    """
    content = {name: bytes.fromhex(text) for name, text in staged.items()}
    members = {name for name in content if name[0].isdigit() and name[-1] != "~"}
    kept = {name for name in content if name[-1] == "~"}
    assert content.keys() - members - kept <= {"attempts", "journal", "manifest"}
    listed = re.findall(rb"^file (\w{64}) ", content.get("manifest", b""), re.MULTILINE)
    waiting = set()
    for line in content.get("journal", b"").split(b"\n"):
        if line[:2] not in (b"a ", b"r "):
            continue
        _, place, depth, sum_, path = line.decode().split(" ", 4)
        if int(depth):  # in a folder that the old tree does not have, as which it waits
            top = "/".join(path.split("/")[: -int(depth)])
            place += path.removeprefix(top)
        waiting.add(place)
        # By this the install knows that it is what was verified.
        assert zlib.crc32(content[place]) == int(sum_, 16)
        assert hashlib.sha256(content[place]).hexdigest().encode() in listed
    # One may lie there that was refused before it had a line; its last bytes are missing.
    assert len(members - waiting) <= 1


def on_flash(row: Row) -> Tree:
    """The files that are not as they were at the start; of removed ones the content is None."""
    return {
        path: None if content is None else bytes.fromhex(content)
        for path, content in row["changes"].items()
        if content != "folder"
    }
