"""Ctrl-C ends a command in one line, with exit code 130, and leaves nothing behind.

Every command line of the project runs under :func:`run`. Only the standard library's smallest
parts are imported here, so that :func:`watch` can come before all other imports.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import time
from pathlib import Path

TYPE_CHECKING = False  # not from typing, which takes its time
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import NoReturn

EXIT_CODE = 130
#: How long a command may take to end by itself before it is ended.
_LIMIT_S = 3
#: The same for one that ends what people use, such as a broker.
_GENTLE_LIMIT_S = 20
#: How long a signal may wait for the main thread before that is woken.
_PAUSE_S = 0.2
#: How long killed processes may take to be gone.
_PATIENCE_S = 1
#: What is the matter of who runs a command, and no fault of the command itself.
_OF_THE_DISK = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EACCES, errno.EPERM),
)
_MEMORY = Path("/dev/shm")
#: Tells worker processes of the folder that is made there.
_VARIABLE = "HOST_SIM_MEMORY"

_owner = os.getpid()
_folders: list[str] = []
_running = False
_stopping = False
_gentle: Callable[[], object] | None = None
_stderr = 2
_last_line = "stopped"


def watch() -> None:
    """From now on Ctrl-C ends this process quietly, also while it still imports."""
    signal.signal(signal.SIGINT, _on_ctrl_c)


def run(main: Callable[[], int]) -> int:
    """Run a whole command; returns its exit code, or ends the process after a Ctrl-C."""
    global _running
    watch()
    _open_streams()
    try:
        with shielded():
            _make_folders()
            _wake_main_thread()
            _running = True
        return main()
    except OSError as error:
        if not _stopping:
            if error.errno not in _OF_THE_DISK:
                raise
            sys.stderr.write(f"{_in_words(error)}\n")
            return 2
    except BaseException:
        # Whatever it is: with its processes ended, a command may raise anything.
        if not _stopping:
            raise
    finally:
        _running = False  # a Ctrl-C from here on needs nothing but the end
        if _stopping:
            _end()
        _remove(_folders)
    return EXIT_CODE


def _open_streams() -> None:
    """Stdin, stdout and stderr that are closed lead nowhere: no file gets their numbers."""
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)  # else it is closed to each child
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def _in_words(error: OSError) -> str:
    """One line on an error that no command foresaw."""
    what = f"{error.filename}: " if error.filename else ""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{what}{error.strerror}{': make room there, and repeat' if full else ''}"


def gently(end: Callable[[], object]) -> None:
    """Ctrl-C calls `end`, after which the command has to return, and interrupts nothing."""
    global _gentle
    _gentle = end
    watch()


def tell(line: str) -> None:
    """What the one line says in place of `stopped`: how far a campaign came, say."""
    global _last_line
    _last_line = line


def stopping() -> bool:
    """Whether it has come: from now on a case fails because its processes are ended."""
    return _stopping


def ignore() -> None:
    """In a worker process: Ctrl-C is for its parent, which ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """A Ctrl-C waits until this is over, and processes that are started meanwhile never hear it.

    For those that begin as a new interpreter, which would show a traceback while it imports.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def memory() -> str | None:
    """Where a temporary folder is best made whose files are written often, if there is a place."""
    return os.environ.get(_VARIABLE) or (str(_MEMORY) if _MEMORY.is_dir() else None)


def _make_folders() -> None:
    """All temporary folders go into these, whoever makes them: also those of a killed process."""
    import tempfile

    prefix = f"host_sim-{os.getpid()}-"
    # In the environment as well, for the processes that are started from here.
    if _MEMORY.is_dir():
        os.environ[_VARIABLE] = tempfile.mkdtemp(prefix=prefix, dir=_MEMORY)
        _folders.append(os.environ[_VARIABLE])
    tempfile.tempdir = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix=prefix)
    _folders.append(tempfile.tempdir)


def _wake_main_thread() -> None:
    """Let no signal wait behind a lock.

    Python runs handlers in the main thread. Where that is just about to wait for a lock, or where
    another thread gets the signal, it would wait on and run none.
    """
    import threading

    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))

    def wake() -> None:
        while came := os.read(read, 64):
            time.sleep(_PAUSE_S)
            if signal.SIGALRM in came or (signal.SIGINT in came and not _stopping):
                # One that wakes it; the handler does nothing the second time.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=wake, daemon=True).start()


def _on_ctrl_c(_signal: int, _frame: FrameType | None) -> None:
    global _stopping
    # In a forked worker: its parent ends it. And a second one changes nothing.
    if os.getpid() != _owner or _stopping:
        return
    _stopping = True
    # First of all: whatever goes wrong below, there is an end.
    _set_limit(_GENTLE_LIMIT_S if _gentle else _LIMIT_S)
    if _gentle:
        _gentle()
        return
    if not _running:
        _end()
    _mute()
    # What waits for one of these goes on at once. None of them has anything that outlives it.
    _kill_children()
    raise KeyboardInterrupt


def _set_limit(seconds: int) -> None:
    signal.signal(signal.SIGALRM, lambda *_: _end())
    signal.alarm(seconds)


def _mute() -> None:
    """Threads and libraries that are torn out of their work have nothing to say any more."""
    global _stderr
    _stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _end() -> NoReturn:
    """End here and now: other threads may still work, and nobody waits for them."""
    signal.alarm(0)
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    if _folders:
        # The threads of this process make folders, and start processes, behind any look at them.
        # It becomes another program, this file, which has none of them.
        with contextlib.suppress(Exception):
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            os.set_inheritable(_stderr, True)
            words = ["-I", "-S", __file__, str(_stderr), _last_line, *_folders]
            os.execv(sys.executable, [sys.executable, *words])
    _finish(_stderr, _last_line, _folders)


def _finish(stderr: int, line: str, folders: list[str]) -> NoReturn:
    """Kill what is below this process, remove its folders, say the line, and end."""
    _kill_children()
    _remove(folders)
    os.write(stderr, f"{line}\n".encode())
    os._exit(EXIT_CODE)


def _remove(folders: list[str]) -> None:
    import shutil

    for folder in folders:
        for _ in range(3):  # a thread may just have put something into it
            shutil.rmtree(folder, ignore_errors=True)


def _kill_children() -> None:
    """Kill every process below this one, whatever session it is in."""
    found: set[int] = set()
    # Stopped first: they start nothing more, so the next look finds the rest. Not for ever: the
    # threads of this process go on, and may start others.
    for _ in range(5):
        new = _descendants() - found
        found |= new
        _send(new, signal.SIGSTOP)
    _send(found, signal.SIGKILL)
    # Not gone at once: who is in the middle of a call makes his file still.
    give_up = time.monotonic() + _PATIENCE_S
    while found & {pid for pid, _ in _processes()} and time.monotonic() < give_up:
        time.sleep(0.01)


def _send(pids: set[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _descendants() -> set[int]:
    children: dict[int, list[int]] = {}
    for pid, parent in _processes():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    below = [os.getpid()]
    while below:
        new = children.get(below.pop(), [])
        found.update(new)
        below += new
    return found


def _processes() -> Iterator[tuple[int, int]]:
    """The number of each process and of its parent."""
    if Path("/proc/self/stat").exists():
        for file in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, ValueError):  # it has just ended
                # The name stands in brackets, and may hold anything.
                state, parent = file.read_text(errors="replace").rpartition(")")[2].split()[:2]
                if state != "Z":
                    yield int(file.parent.name), int(parent)
        return
    import subprocess

    columns = "pid=,ppid=,stat="
    with subprocess.Popen(["ps", "-A", "-o", columns], stdout=subprocess.PIPE) as ps:
        assert ps.stdout is not None
        found = [line.split() for line in ps.stdout]
    for pid, parent, state in found:
        if int(pid) != ps.pid and state[:1] != b"Z":
            yield int(pid), int(parent)


if __name__ == "__main__":  # what _end() has made of a command
    _finish(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
