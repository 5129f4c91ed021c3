"""The code's size, what an idle node asks of flash, and the heap that each module takes."""

from __future__ import annotations

from host_sim.bench.laboratory import Laboratory
from host_sim.node.process import compile_mpy

#: What runs at power-up while a transaction is open.
BOOT_PATH = ("boot", "ota/recovery")


def sizes(laboratory: Laboratory) -> dict[str, int]:
    """Bytes of .mpy by module; boot.py, which lies on flash as source, compiled as well."""
    boot = laboratory.folder / "boot.mpy"
    compile_mpy(laboratory.firmware / "boot.py", boot, "boot.py")
    files = sorted((laboratory.agent / "ota").rglob("*.mpy"))
    return {"boot": boot.stat().st_size} | {
        file.relative_to(laboratory.agent).with_suffix("").as_posix(): file.stat().st_size
        for file in files
    }


def boot_calls(laboratory: Laboratory) -> dict:
    """{"boot": file system calls of an idle boot, "check": of an idle check, "writes": int}."""
    folder = laboratory.bundle("boot", agent=laboratory.agent_tree())
    return laboratory.measure("boot_calls", folder)


def ram(laboratory: Laboratory) -> dict[str, int]:
    """Heap that each module takes, in bytes, in this order; what it imports itself comes first."""
    order = "errors wire link dial enter control agent config backoff trust cycle recovery "
    order += "install.transaction install.ending install.attempt install.trouble install.opening "
    order += "stat arrival begin front request install.report install.kept download fetch https "
    order += "chunks tarfile_lite package.ahead package.archive package.inflate package.widen "
    order += "package.zlib package.pax package.utf8 package.vetting package.source "
    order += "install.journal install.staging install.marks install.start install.resume "
    order += "install.again install.finish install.boot_file install.ready package.signature "
    order += "package.manifest package.signed package.wanted package.plan install.anchors "
    order += "install.trial install.proof install.parts install.rehearsal serve "
    order += "halves borrowed local"
    heaps = laboratory.measure("ram", order.split())
    return {name.replace(".", "/"): size for name, size in heaps.items()}
