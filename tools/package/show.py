"""What a package, and what its installation, looks like to a person."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tools.package.archive import Package
from tools.package.attempt import Cost
from tools.package.manifest import Manifest
from tools.package.restarts import Point, distances, price


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
        f"tried on a virtual node: confirmed after {found.prog_bytes} bytes programmed and "
        f"{found.erases} blocks erased"
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
