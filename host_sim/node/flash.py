"""littlefs images of a node's flash, made and read by ``littlefs-python``.

It shares no code with MicroPython, so it is also the oracle of what is on a node's flash.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import click
import littlefs
from littlefs import LittleFS, UserContext

from host_sim import files as disk
from host_sim.command import PATH, SETTINGS
from host_sim.errors import SimError
from host_sim.node.agent_code import compile_agent
from insigh_ota.places import FIRMWARE

BLOCK = 4096
#: What ``VfsLfs2(bdev)`` uses in MicroPython: cache_size is 4 * max(read, prog).
GEOMETRY = {
    "block_size": BLOCK,
    "read_size": 32,
    "prog_size": 32,
    "lookahead_size": 32,
    "cache_size": 128,
    "block_cycles": 100,
    "name_max": 255,
}
#: For reading only: the same format, with fewer and larger steps.
_READING = GEOMETRY | {"read_size": 512, "cache_size": 512}
#: 256 MB: more than any chip, and less than this machine's memory.
MOST_BLOCKS = 1 << 16
#: Files that are no part of a node, wherever they turn up.
_SKIPPED = {"__pycache__", ".git", ".DS_Store"}


def image_blocks(image: Path) -> int:
    """How many blocks of flash an image has."""
    try:
        size = image.stat().st_size
    except OSError as error:
        raise SimError(f"no flash image {image}: {error.strerror}") from error
    if image.is_dir():
        raise SimError(f"{image} is a folder, and no flash image")
    if size == 0 or size % BLOCK:
        raise SimError(f"{image} is not a flash image: {size} bytes are not whole blocks")
    return size // BLOCK


@contextlib.contextmanager
def claimed(image: Path) -> Iterator[None]:
    """Inside the `with`, nobody else runs on this image or replaces it; SimError if one does so.

    A lock on the file itself, which ends with its process however that ends.
    """
    taken = f"{image} is the flash of a node that runs already: end that one, or take another file"
    with contextlib.ExitStack() as claim:
        try:
            claim.enter_context(disk.held(image, "rb", taken))
        except OSError as error:
            raise SimError(f"no flash image {image}: {error.strerror}") from error
        yield


class _Memory(UserContext):
    """As the library's own, which tells a logger of each read: that takes longer than the read."""

    def read(self, cfg: Any, block: int, off: int, size: int) -> bytearray:
        start = block * cfg.block_size + off
        return self.buffer[start : start + size]

    def prog(self, cfg: Any, block: int, off: int, data: bytes) -> int:
        start = block * cfg.block_size + off
        self.buffer[start : start + len(data)] = data
        return 0

    def erase(self, cfg: Any, block: int) -> int:
        start = block * cfg.block_size
        self.buffer[start : start + cfg.block_size] = b"\xff" * cfg.block_size
        return 0


def _mounted(image: Path) -> LittleFS:
    blocks = image_blocks(image)
    memory = _Memory(buffer=bytearray(image.read_bytes()))
    filesystem = LittleFS(memory, mount=False, block_count=blocks, **_READING)
    try:
        filesystem.mount()
    except littlefs.LittleFSError as error:
        raise SimError(f"{image} does not mount as littlefs: {error}") from error
    return filesystem


def _files(root: Path) -> dict[str, Path]:
    """Files below `root` by their path on the node, without the leading slash."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        if path.is_file() and not _SKIPPED.intersection(name.parts):
            found[name.as_posix()] = path
    return found


def _agent_files(firmware: Path, mpy: bool, scratch: Path, taken: set[str]) -> dict[str, Path]:
    """Files of the agent for a folder that already has the files `taken`."""
    chosen = {}
    for name, path in _files(firmware).items():
        compiled = str(PurePosixPath(name).with_suffix(".mpy"))
        if name in taken:
            continue
        if mpy and path.suffix == ".py" and name != "boot.py":
            # A source file of the same name would win over ours: the folder's choice either way.
            if compiled not in taken:
                compile_agent(path, scratch / compiled, name)
                chosen[compiled] = scratch / compiled
        elif path.suffix == ".py" and compiled in taken:
            continue  # our source would win over the folder's own compiled module
        else:
            chosen[name] = path
    return chosen


def build(
    root: Path | None,
    image: Path,
    *,
    blocks: int = 512,
    mpy: bool = False,
    agent: bool = True,
    firmware: Path = FIRMWARE,
) -> None:
    """Write a littlefs image of `root` with the agent laid under it.

    A file of `root` always wins over the agent's of the same name. `mpy`: the agent compiled,
    except ``boot.py``, which a node starts as source.
    """
    if root is not None and not root.is_dir():
        raise SimError(f"no folder {root}")
    if not 2 <= blocks <= MOST_BLOCKS:
        raise SimError(f"{blocks} blocks: a flash has 2 to {MOST_BLOCKS} of them")
    files = _files(root) if root is not None else {}
    folders = [p for p in sorted(root.rglob("*")) if p.is_dir()] if root is not None else []
    memory = _Memory(buffer=bytearray(b"\xff" * (blocks * BLOCK)))
    filesystem = LittleFS(memory, mount=False, block_count=blocks, **GEOMETRY)
    filesystem.format()
    filesystem.mount()
    with tempfile.TemporaryDirectory() as scratch:
        if agent:
            if not firmware.is_dir():
                raise SimError(f"no agent in {firmware}")
            files |= _agent_files(firmware, mpy, Path(scratch), set(files))
        try:
            for folder in folders:
                name = folder.relative_to(root)
                if not _SKIPPED.intersection(name.parts):
                    filesystem.makedirs("/" + name.as_posix(), exist_ok=True)
            for name, path in sorted(files.items()):
                filesystem.makedirs(str(PurePosixPath("/", name).parent), exist_ok=True)
                with filesystem.open("/" + name, "wb") as file:
                    file.write(path.read_bytes())
        except littlefs.LittleFSError as error:
            raise SimError(f"cannot put the files into {blocks} blocks: {error}") from error
    filesystem.unmount()
    with claimed(image) if image.is_file() else contextlib.nullcontext():
        disk.write(image, bytes(filesystem.context.buffer), parents=True)


def _walk(filesystem: LittleFS) -> Iterator[tuple[str, list[str], list[str]]]:
    for folder, folders, files in filesystem.walk("/"):
        prefix = folder.rstrip("/") + "/"
        yield folder, [prefix + name for name in folders], [prefix + name for name in files]


def read_all(image: Path) -> tuple[dict[str, bytes], list[str]]:
    """Content of every file, and every folder but the root, by absolute path on the node."""
    filesystem = _mounted(image)
    tree: dict[str, bytes] = {}
    found: list[str] = []
    try:
        for _, folders, files in _walk(filesystem):
            found += folders
            for name in files:
                with filesystem.open(name, "rb") as file:
                    tree[name] = file.read()
    except littlefs.LittleFSError as error:
        raise SimError(f"{image} can not be read: {error}") from error
    return dict(sorted(tree.items())), sorted(found)


def read_tree(image: Path) -> dict[str, bytes]:
    """Content of every file, by absolute path on the node."""
    return read_all(image)[0]


def read_folders(image: Path) -> list[str]:
    """Every folder but the root, by absolute path on the node."""
    return read_all(image)[1]


def listing(image: Path) -> list[tuple[str, int | None]]:
    """Sorted ``(path, size)`` of all files and folders; a folder's size is None."""
    filesystem = _mounted(image)
    found: list[tuple[str, int | None]] = []
    for _, folders, files in _walk(filesystem):
        found += [(name, None) for name in folders]
        found += [(name, filesystem.stat(name).size) for name in files]
    return sorted(found)


def extract(image: Path, target: Path) -> int:
    """Copy the tree of an image into the folder `target`; returns the number of files."""
    base = target.resolve()
    tree = read_tree(image)
    places = {name: _inside(base, name) for name in [*read_folders(image), *tree]}
    try:
        base.mkdir(parents=True, exist_ok=True)
        for name in read_folders(image):
            places[name].mkdir(parents=True, exist_ok=True)
        for name, content in tree.items():
            disk.write(places[name], content, parents=True)
    except OSError as error:
        raise SimError(f"cannot extract to {target}: {error}") from error
    return len(tree)


def _inside(base: Path, name: str) -> Path:
    """Where `name` of an image goes; never outside `base`, also not through a link in it."""
    parts = PurePosixPath(name).parts[1:]
    place = base.joinpath(*parts)
    odd = any(part in ("..", ".") or "\\" in part or "\0" in part for part in parts)
    if odd or not place.resolve().is_relative_to(base):
        raise SimError(f"{name} of the image would be written outside {base}")
    return place


@click.group(help="Make and read flash images of a node.", context_settings=SETTINGS)
def flash_group() -> None:
    """`flash`."""


@flash_group.command(
    "build",
    help="Make an image from a folder, with the agent laid under it.",
    epilog="Example: insigh-ota flash build --root my_node --out node.img --mpy",
)
@click.option("--root", type=PATH, metavar="DIR", help="what stands on the node's flash")
@click.option("--out", type=PATH, required=True, metavar="IMG")
@click.option("--blocks", type=int, default=512, help="of 4096 bytes; 512 is 2 MB")
@click.option("--mpy", is_flag=True, help="the agent compiled, boot.py as source")
@click.option("--no-agent", is_flag=True, help="without the agent")
@click.option(
    "--json", "always", is_flag=True, help="as it always does: it prints one line of JSON"
)
def _build_command(
    root: Path | None, out: Path, blocks: int, mpy: bool, no_agent: bool, always: bool
) -> None:
    build(root, out, blocks=blocks, mpy=mpy, agent=not no_agent)
    _print({"image": str(out), "blocks": blocks, "files": len(read_tree(out))})


@flash_group.command("extract", help="Copy the files of the image IMG into the folder DIR.")
@click.argument("image", metavar="IMG", type=PATH)
@click.argument("target", metavar="DIR", type=PATH)
@click.option(
    "--json", "always", is_flag=True, help="as it always does: it prints one line of JSON"
)
def _extract_command(image: Path, target: Path, always: bool) -> None:
    _print({"files": extract(image, target)})


@flash_group.command("ls", help="List the files of the image IMG.")
@click.argument("image", metavar="IMG", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="a line of JSON for each")
def _list_command(image: Path, as_json: bool) -> None:
    for name, size in listing(image):
        if as_json:
            _print({"path": name, "bytes": size, "folder": size is None})
        else:
            print(f"{'-' if size is None else size:>9}  {name}{'/' if size is None else ''}")


def _print(line: dict) -> None:
    print(json.dumps(line))
