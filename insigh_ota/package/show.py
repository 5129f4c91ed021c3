"""What a package, and what its installation, looks like to a person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from insigh_ota.package.archive import TRAILER, Package
from insigh_ota.package.delta import MOST, WHOLE, Layout, Release, differing
from insigh_ota.package.manifest import Manifest
from insigh_ota.package.restarts import Point, distances, price

if TYPE_CHECKING:  # it needs the simulator
    from insigh_ota.package.attempt import Cost

#: What flash takes, in ms: an erase of a block, and a page that is programmed.
_BLOCK, _ERASE, _PAGE, _PROGRAM = 4096, 45, 256, 0.7


def package(
    terminal: Console, found: Package, manifest: Manifest | None, raw: bytes, points: list[Point]
) -> None:
    """What is in it; raw: its bytes."""
    window = f", window of {1 << found.window} bytes" if found.window else ""
    content = sum(len(data) for _, data in found.files)
    terminal.print(
        f"{len(raw)} bytes, compression {found.compression}{window}; {len(found.files)} files of "
        f"{content} bytes"
    )
    if points:
        terminal.print(
            f"restart points: {len(points)}, at most {max(distances(points, raw))} bytes apart; "
            f"they add {price(raw):.1f} % to the size"
        )
    elif found.compression == "gzip":
        terminal.print("no restart points: a node that is cut off begins anew in its next wake")
    if manifest is None:
        terminal.print("no manifest: a migration, or made by another tool")
        for path, data in found.files:
            terminal.print(f"{len(data):>9}  {escape(path)}")
        return
    header = Table.grid(padding=(0, 2))
    for name in ("key", "sequence", "board", "mpy", "requires"):
        value = getattr(manifest, name)
        if value is not None:
            header.add_row(name, escape(str(value)))
    header.add_row("signature", "none" if manifest.signature is None else "RSA-3072, not verified")
    terminal.print(header)
    for path, length, digest in manifest.files:
        terminal.print(f"{length:>9}  {digest[:16]}…  {escape(path)}")
    for path in manifest.deleted:
        terminal.print(f"   delete                     {escape(path)}")


def cost(terminal: Console, found: Cost) -> None:
    """What an attempt took."""
    if not found.changed:
        terminal.print("the node has all of it already: nothing would change")
    terminal.print(
        f"tried on a virtual node: {found.fetched} bytes fetched, confirmed after "
        f"{found.prog_bytes} bytes programmed and {found.erases} blocks erased"
    )
    terminal.print(
        f"free blocks of 4096 bytes: {found.blocks_before} before, {found.blocks_after} after; "
        f"heap: {found.heap / 1024:.1f} KB at most (words of 64 bits); {found.seconds:.1f} s on "
        "this machine"
    )
    if found.floor_before != found.floor_after:
        terminal.print(
            f"the node took sequence {found.floor_before} or higher before, {found.floor_after} "
            "or higher after"
        )
    for line in found.notes:
        terminal.print(escape(line))


def index(terminal: Console, layout: Layout) -> None:
    """What it says."""
    found = layout.patches()
    size = sum(map(len, found))
    patches = f"{len(found)} patches, {size} bytes together" if found else "no patches"
    if layout.end + TRAILER <= WHOLE:
        how = f"at most {WHOLE >> 10} KB: every node fetches all of it; --since helps larger "
        how += "packages"
    else:
        how = f"manifest and index end within the first {layout.front} bytes"
    terminal.print(f"index: {len(layout.files)} files, {patches}; {how}")


def releases(
    terminal: Console, layout: Layout, new: dict[str, bytes], size: int, found: Sequence[Release]
) -> None:
    """What a node of each release would fetch, beside the whole package of `size` bytes."""
    table = [("a node of", "files that differ", "bytes to fetch", "flash works at least")]
    many = []
    for each in found:
        differ = [new[path] for path in differing(new, each.files)]
        if len(differ) > MOST:
            many.append(_plain(each.name))
        asked = sum(map(len, layout.wanted(new, each.files)))
        table.append((_plain(each.name), str(len(differ)), str(asked), _flash(differ)))
    table.append(("the whole package", str(len(new)), str(size), _flash(new.values())))
    # Names may be paths, which a table of rich would fold.
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    for name, *cells in table:
        line = name + " " * (widths[0] - cell_len(name))
        for cell, width in zip(cells, widths[1:], strict=True):
            line += f"   {cell:>{width}}"
        terminal.print(escape(line))
    for name in many:
        terminal.print(escape(f"{name}: more than {MOST} files differ: such a node fetches all"))


def strangers(
    terminal: Console, new: dict[str, bytes], found: Sequence[Release], doubt: str
) -> None:
    """Which releases have none of the package's paths; doubt: what to look at then."""
    for each in found:
        if not new.keys() & each.files.keys():
            name = escape(_plain(each.name))
            terminal.print(f"{name} shares no file with this package: check {doubt}")


def _flash(files: Iterable[bytes]) -> str:
    """How long these alone take, by the model above: the journal and the trial come on top."""
    took = sum(
        -(-len(content) // _BLOCK) * _ERASE + -(-len(content) // _PAGE) * _PROGRAM
        for content in files
    )
    return f"{took / 1000:.1f} s"


def _plain(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
