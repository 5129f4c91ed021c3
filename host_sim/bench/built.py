"""`frozen`: the heap that the agent takes out of firmware, on interpreters that are built for it.

Frozen modules can only be had by building MicroPython. So this needs its sources, a C compiler for
32 bits (gcc-multilib) and some minutes, and CI does not run it.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console as Terminal

from host_sim import sample
from host_sim.bench.cli import DOCS, Part, write
from host_sim.bench.figures import table
from host_sim.bench.heap import KB, Bench, least, packages
from host_sim.bench.laboratory import FLASH, FROZEN, ROMFS, Laboratory
from host_sim.command import PATH
from host_sim.errors import SimError
from host_sim.node import process, romfs
from host_sim.node.flash import FIRMWARE
from host_sim.sample import Tree

#: What every ESP32 has frozen; then ours, by where the agent is to lie.
_STOCK = 'require("ssl")\nrequire("umqtt.simple")\n'
_MANIFESTS = {
    FLASH: "",
    ROMFS: 'module("romfs_image.py", base_path=".")\n',
    FROZEN: f'include("{FIRMWARE.parent}/manifest.py")\n',
}
#: Without what its build would have to fetch, and needs no agent.
_OPTIONS = ("MICROPY_FORCE_32BIT=1", "MICROPY_PY_FFI=0", "MICROPY_PY_BTREE=0", "submodules=")
_PAGE = DOCS / "firmware-builders.md"
Column = dict[str, str]


@click.command(
    help="Measure the heap that the agent takes frozen, in ROMFS and on flash, on interpreters "
    "that are built from MICROPYTHON, the folder of its sources."
)
@click.argument("sources", metavar="MICROPYTHON", type=PATH)
@click.option("--write", "writes", is_flag=True, help=f"put the table into {_PAGE.name}")
def frozen(sources: Path, writes: bool) -> int:
    """`frozen`."""
    terminal, columns = Terminal(), {}
    for where in _MANIFESTS:
        with terminal.status(f"building for: {where} …"):
            interpreter = build(sources.resolve(), where)
        with terminal.status(f"measuring: {where} …"), _interpreter(interpreter):
            if where == FLASH:
                columns["floor"] = measure(FLASH, floor=True)
            columns[where] = measure(where)
    rows = [(name, *(column[name] for column in columns.values())) for name in columns["floor"]]
    text = table(("KB", *columns), rows)
    text += f"\n\nMicroPython {version(sources)}, Unix port, 32-bit words."
    terminal.print(text, highlight=False, soft_wrap=True, markup=False)
    if writes:
        write(Part({"built": text}), _PAGE)
    return 0


def version(sources: Path) -> str:
    """The release of these sources."""
    try:
        text = (sources / "py/mpconfig.h").read_text()
    except OSError as error:
        raise SimError(f"{sources} are not MicroPython's sources: {error.strerror}") from error
    names = ("MAJOR", "MINOR", "MICRO", "PRERELEASE")
    found = [re.search(rf"VERSION_{name} (\d+)$", text, re.MULTILINE)[1] for name in names]
    return ".".join(found[:3]) + "-preview" * (found[3] != "0")


def build(sources: Path, where: str) -> Path:
    """The Unix interpreter with the agent in it, or none; made anew only where it has changed."""
    version(sources)
    port = sources / "ports" / "unix"
    name = f"build-ota-{where.lower()}"
    inputs = port / f"{name}-manifest"
    inputs.mkdir(exist_ok=True)
    _put(inputs / "romfs_image.py", f"IMAGE = {romfs.build(FIRMWARE)!r}\n")
    _put(inputs / "manifest.py", _STOCK + _MANIFESTS[where])
    command = ["make", "-C", port, f"FROZEN_MANIFEST={inputs / 'manifest.py'}", f"BUILD={name}"]
    done = subprocess.run(
        [*command, *_OPTIONS], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        raise SimError(f"{port} does not build: {done.stdout.decode(errors='replace')[-600:]}")
    return port / name / "micropython"


def _put(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


@contextlib.contextmanager
def _interpreter(path: Path) -> Iterator[None]:
    before = os.environ.get("MICROPYTHON")
    process.close()  # it has started with another one
    os.environ["MICROPYTHON"] = str(path)
    try:
        yield
    finally:
        process.close()
        del os.environ["MICROPYTHON"]
        if before is not None:
            os.environ["MICROPYTHON"] = before


def measure(where: str, floor: bool = False) -> Column:
    """What each path takes, in KB, on the interpreter that MICROPYTHON names.

    floor: of a program that does only what cannot be left out.
    """
    module = "bare_minimum" if floor else "only_check"
    with Laboratory(where=where) as laboratory, Bench(laboratory) as bench:
        start, *imported, after = bench.bare_use() if floor else bench.idle_use()
        column = {
            "in use after `import ota`": f"{(imported[0] - start) / KB:.1f}" if imported else "–",
            "in use after an idle check": f"{(after - start) / KB:.1f}",
            "least heap of an idle check": str(
                least(lambda heap: bench.idles(heap, module=module), 2, 64)
            ),
        }
        for name, window, data, live in _updates():
            call = f"check(window_bits={window})" if floor else "check()"
            fuid = bench.console.add_package(data, "p.tar.gz" if window else "p.tar").fuid
            works = bench.completes(bench.site(module, call, live), fuid)
            column[f"least heap of an update, {name}"] = str(least(works, 4, 200))
        return column


def _updates() -> Iterator[tuple[str, int, bytes, Tree]]:
    """(name, bits of its window, package, what is on the node) of a package of real size."""
    live, made = packages()
    _, tree = sample.next_version(live)
    del tree["main.py"]
    yield "`.tar`", 0, made["tar"], live
    yield "`.tar.gz`, window of 8 KB", 13, sample.tar_gz_window(tree, 13), live
    yield "`.tar.gz`, window of 32 KB", 15, made["tar.gz"], live
