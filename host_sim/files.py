"""Files that a command writes for somebody: whole, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from host_sim.errors import SimError

#: The names that Linux and macOS give to pseudo-terminals.
_TERMINAL = re.compile(r"/dev/(pts/\w+|ttys\d+)")


def write(
    path: Path,
    content: bytes | str,
    *,
    mode: int | None = None,
    parents: bool = False,
    new: bool = False,
    sync: bool = False,
) -> None:
    """Write beside, then rename: a full disk takes nothing of what was there before.

    mode: of the file, None: what is usual; parents: make missing folders; new: refuse a file that
    is there; sync: return when it would survive a loss of power. Raises SimError.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file() and not path.is_dir():
            path.write_bytes(data)  # a device, such as /dev/stdout
            return
        # What a link leads to is meant, not the link.
        _replace(path if new else Path(os.path.realpath(path)), data, mode, new, sync)
    except OSError as error:
        raise SimError(f"{path} can not be written: {why(path, error)}") from error


def place(text: str) -> Path:
    """An argument that names a file to write: told before hours of work, not behind them.

    Raises SimError.
    """
    path = Path(text)
    if path.is_dir():
        raise SimError(f"{text or '.'} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise SimError(f"{path.parent} is no folder: make it first")
    return path


@contextlib.contextmanager
def held(path: Path, mode: str, taken: str) -> Iterator[IO]:
    """One process at a time is inside the `with` of this file, which is opened in `mode`.

    The lock ends with its process, however that ends. Raises SimError, with `taken` as its text,
    where another has it; OSError where the file can not be opened.
    """
    with contextlib.ExitStack() as files:
        same = False
        while not same:  # else it has been replaced, or removed, between the two calls
            files.close()
            file = files.enter_context(path.open(mode))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SimError(taken) from None
            with contextlib.suppress(FileNotFoundError):
                same = os.path.samestat(os.fstat(file.fileno()), path.stat())
        files.callback(fcntl.flock, file, fcntl.LOCK_UN)  # a child process may have it as well
        yield file


@contextlib.contextmanager
def locked(path: Path, taken: str, *, parents: bool = False) -> Iterator[None]:
    """One process at a time is inside the `with`; raises SimError, with `taken` as its text.

    parents: make missing folders. The lock lies beside `path`, and is removed at the end.
    """
    if not path.name:
        raise SimError(f"{path} is a folder: name a file in it")
    beside = lock_of(path)
    with contextlib.ExitStack() as lock:
        try:
            if parents:
                beside.parent.mkdir(parents=True, exist_ok=True)
            file = lock.enter_context(held(beside, "a", taken))
        except OSError as error:
            raise SimError(f"{beside} can not be written: {why(beside, error)}") from error
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                ours, there = os.fstat(file.fileno()), beside.stat()
                # Else somebody has removed it, and it is another's by now; or it is no lock.
                if os.path.samestat(ours, there) and not there.st_size:
                    beside.unlink()


def lock_of(path: Path) -> Path:
    """The file that `locked` holds."""
    return path.with_name(path.name + ".lock")


def left_behind(link: Path) -> bool:
    """Whether a board that was killed has left this link to its terminal (board/wire.py).

    With its lock, or to no terminal. Whatever else leads to a terminal is somebody's.
    """
    if not link.is_symlink() or not _TERMINAL.fullmatch(str(link.readlink())):
        return False
    try:
        with lock_of(link).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return not link.exists()
    return True


def _replace(path: Path, data: bytes, mode: int | None, new: bool, sync: bool) -> None:
    if path.is_dir():
        raise IsADirectoryError
    beside = path.with_name(f".{secrets.token_hex(8)}~")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        with os.fdopen(os.open(beside, flags, 0o666 if mode is None else mode), "wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        if mode is None and path.exists():
            beside.chmod(path.stat().st_mode & 0o777)
        if new and (path.exists() or path.is_symlink()):
            raise FileExistsError
        beside.replace(path)
        if sync:
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def why(path: Path, error: OSError) -> str:
    """What is wrong, and what to do."""
    if isinstance(error, IsADirectoryError):
        return "it is a folder: name a file in it"
    if isinstance(error, FileExistsError) and path.parent.is_dir():
        return "it is there already"
    if isinstance(error, (FileNotFoundError, NotADirectoryError, FileExistsError)):
        return f"{path.parent} is no folder: make it first"
    return error.strerror or str(error)
