"""Packages with an index, sound and crafted, and a node in one process that fetches them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from host_sim import sample
from host_sim.node.node import run_code
from host_sim.sample import Tree
from insigh_ota.package import delta, index
from insigh_ota.package.manifest import Manifest

DEVICE = Path(__file__).parents[1] / "device"
CONFIG = {"keys": [], "require_signature": False, "max_attempts": 3}
_SCRIPT = """
import wanted_probe
_trial = False  # our boot.py has run: else nothing is installed
bundle = open(BUNDLE, "rb")
node = wanted_probe.Node(FILES, CONFIG, BLOCKS)
"""
_TRIES = 8

Say = Callable[[bytes, list[index.Patched], int], bytes]
Rules = list[tuple[int, int, dict]]
Row = dict


def text(number: int, size: int) -> bytes:
    """Some source, the same for each number."""
    return sample._source(random.Random(number), f"m{number}", size)


def trees() -> tuple[Tree, Tree]:
    """What a node has and what comes: files to patch, replaced, added, and as they were."""
    old, new = {}, {}
    for number in range(4):
        content = text(number, 3000)
        old[f"lib/part{number}.py"] = content
        new[f"lib/part{number}.py"] = content[:1000] + b"\n# changed\n" + content[1000:]
    old["data.bin"] = new["data.bin"] = random.Random(5).randbytes(15_000)
    old["main.py"], new["main.py"] = b"print('a')\n", b"print('b')\n"
    new["lib/new.py"], new["more/deep/x.py"] = text(8, 900), text(9, 900)
    return old, new


def manifest_of(files: Tree) -> Manifest:
    """An unsigned manifest for these, in their order."""
    manifest = Manifest(sequence=1)
    for path, content in files.items():
        manifest.add(path, content)
    return manifest


def in_order(files: Tree) -> Tree:
    """As a manifest lists them."""
    return {path: files[path] for path in sorted(files, key=str.encode)}


def package(
    new: Tree,
    old: Tree,
    *,
    patches: delta.Patches | None = None,
    say: Say = index.encode,
    manifest: Manifest | None = None,
) -> tuple[bytes, delta.Layout]:
    """A package; patches: in the place of the right ones, by path; say: what the index says."""
    files = in_order(new)
    manifest = manifest or manifest_of(files)
    found = delta.patches_for(files, [delta.Release("1", old)])
    found |= patches or {}
    said = say(manifest.encode(), [index.Patched() for _ in files], 0)
    for _ in range(_TRIES):
        raw, layout = delta._lay(manifest, files, 13, found, said, set())
        now = say(manifest.encode(), layout.files, layout.end)
        if now == said:
            return raw, layout
        said = now
    raise AssertionError("the index does not settle")


def with_front(raw: bytes, units: int) -> bytes:
    """The same, and its header says that the index ends there."""
    return raw[:17] + bytes([raw[17] & 1 | units << 1]) + raw[18:]


def absolute(tree: Tree) -> Tree:
    """By absolute paths."""
    return {"/" + path: content for path, content in tree.items()}


def run(
    agent: Path,
    scratch: Path,
    files: Tree,
    cases: list[tuple],
    *,
    code: str = "wanted_probe.run(node, bundle, CASES)",
    blocks: int = 56,
    timeout_s: float = 400,
    **more: object,
) -> list:
    """Each case: (package, size or None, rules, further wakes, keys of the configuration)."""
    bundle = scratch / "bundle"
    bundle.write_bytes(b"".join(case[0] for case in cases))
    names = {
        "BUNDLE": str(bundle),
        "FILES": files,
        "CONFIG": CONFIG,
        "BLOCKS": blocks,
        "CASES": [(len(content), *rest) for content, *rest in cases],
        **more,
    }
    lines = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    # Each collection looks at all of the heap.
    heap = f"{2 + blocks // 32}M"
    result = run_code(lines + _SCRIPT + code, path=[agent, DEVICE], heap=heap, timeout_s=timeout_s)
    assert result.exit_code == 0, (result.exit_code, result.output[-3000:])
    return [json.loads(line) for line in result.output.split("\n") if line[:1] in ("[", "{")]


def changes(row: Row) -> Tree:
    """What is on flash otherwise than at the start; None for what is gone."""
    return {
        path: None if content is None else bytes.fromhex(content)
        for path, content in row["changes"].items()
        if content != "folder"
    }
