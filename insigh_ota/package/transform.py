"""What becomes of sources on their way into a package: minified, compiled, or neither."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from host_sim.errors import SimError
from host_sim.node.agent_code import compile_agent
from host_sim.node.process import compile_mpy
from insigh_ota.package import insighio, paths
from insigh_ota.package.errors import PackageError
from insigh_ota.package.sources import Selection
from insigh_ota.places import FIRMWARE

#: A node starts these as source, and compares boot.py's first lines with its own.
_STARTED = ("boot.py", "main.py", "boot_user.py")


def apply(selection: Selection, minify: list[str], compiled: list[str]) -> Selection:
    """The selection with sources that match a pattern minified or compiled; compiled wins.

    What a node starts itself (boot.py, main.py, boot_user.py) is never compiled, boot.py never
    minified, a template of the insighioNode firmware neither. A removed source whose pattern says
    compiled was an .mpy on the node.
    """
    result = Selection(taken=selection.taken)
    for path, content in selection.files.items():
        name = path
        if path.endswith(".py"):
            if _is_compiled(path, compiled):
                name, content = paths.twin(path), _compile(path, content)
            elif _is_minified(path, minify):
                content = _minify(path, content)
        if name in result.files:
            raise PackageError(f"{path} and {name} would be the same file: --exclude one of them")
        result.files[name] = content
    for path in selection.deleted:
        result.deleted.add(paths.twin(path) if _is_compiled(path, compiled) else path)
    # A new x.mpy retires x.py by itself, and the other way round.
    result.deleted -= {paths.twin(path) for path in result.files} | set(result.files)
    return result


def mpy_of(files: dict[str, bytes]) -> int | None:
    """What `sys.implementation._mpy` has to be for the .mpy among the files; None without any.

    Bytecode needs its version alone, machine code the processor as well.
    """
    versions, machine = {}, {}
    for path, content in files.items():
        if not path.endswith(".mpy"):
            continue
        if len(content) < 4 or content[:1] != b"M":
            raise PackageError(f"{path} is no .mpy file")
        versions[content[1]] = path
        if content[2] & 0x40:
            raise PackageError(f"{path} needs a certain kind of processor: say --mpy")
        if content[2] >> 2:
            machine[content[2]] = path
    if not versions:
        return None
    for found in (versions, machine):
        if len(found) > 1:
            raise PackageError(f"no node loads all of {', '.join(sorted(found.values()))}")
    return next(iter(versions)) | next(iter(machine), 0) << 8


def _is_minified(path: str, patterns: list[str]) -> bool:
    if path == "boot.py" or insighio.is_template(path):
        return False
    return paths.matches(path, patterns)


def _is_compiled(path: str, patterns: list[str]) -> bool:
    if not path.endswith(".py") or path in _STARTED or insighio.is_template(path):
        return False
    return paths.matches(path, patterns)


@cache  # releases share most of their files
def _compile(path: str, source: bytes) -> bytes:
    with tempfile.TemporaryDirectory(prefix="package-") as scratch:
        given, made = Path(scratch) / "in.py", Path(scratch) / "out.mpy"
        given.write_bytes(source)
        try:
            (compile_agent if _is_agents(path, source) else compile_mpy)(given, made, path)
        except SimError as error:
            raise PackageError(" ".join(str(error).split())) from error
        return made.read_bytes()


def _is_agents(path: str, source: bytes) -> bool:
    """Whether it is a module of this checkout's agent; of any other its names are not ours."""
    ours = FIRMWARE / "ota" / f"/{path}".rpartition("/ota/")[2]
    return ours.is_file() and ours.read_bytes() == source


@cache
def _minify(path: str, source: bytes) -> bytes:
    import python_minifier

    try:
        short = python_minifier.minify(source, path, rename_globals=False).encode() + b"\n"
    except (SyntaxError, UnicodeError, ValueError) as error:
        raise PackageError(f"{path} can not be minified: {error}") from error
    try:
        # The minifier knows CPython's grammar, of which MicroPython lacks some.
        _compile(path, short)
    except PackageError as error:
        raise PackageError(f"minified, {error}: leave it out of --minify") from error
    return short
