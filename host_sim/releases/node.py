"""A node in a release of MicroPython: boots from a flash image, through resets and power cuts."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from littlefs import LittleFSError

from host_sim import orphan
from host_sim.console.process_broker import find_program
from host_sim.errors import SimError
from host_sim.node import stock
from host_sim.node.session import Run
from host_sim.releases.flash import Flash
from host_sim.releases.interpreters import HERE, folder_of
from host_sim.releases.operations import Instance
from host_sim.releases.sockets import number_of

#: Every instance has so much at the start; it grows.
_HEAP = 4096 * 1024
_OFF = -0x80000000
_LOOK = -0x7FFFFFFF
_INSIDE = HERE / "inside"

# What is no question to the host; instances.mjs and inside/machine.py have the same numbers.
_OUTPUT, _END, _RESET, _SOFT_RESET, _SLEEP = range(1, 6)
_USED = 8

_CAUSES = {"power_on": 1, "reset": 2, "deep_sleep": 4, "soft_reset": 5}
_ENDS = {_RESET: "reset", _SOFT_RESET: "soft_reset", _SLEEP: "sleep"}
_NEXT = {"reset": "reset", "soft_reset": "soft_reset", "sleep": "deep_sleep"}


@dataclass
class Boot:
    """How an instance ended.

    `why`: "reset", "soft_reset", "sleep", "power_cut", "exit", or "used": where it asked for what
    is in use, in `bytes`.
    """

    why: str
    output: str
    error: str | None = None
    bytes: int = 0


class Interpreter:
    """A release, in a Node.js process that makes one instance after the other; use `with`."""

    def __init__(self, release: str) -> None:
        folder, node = folder_of(release), find_program("node")
        assert node is not None
        there, self._to = os.pipe()
        self._from, back = os.pipe()
        script = [HERE / "instances.mjs", folder, str(there), str(back)]
        self._process = subprocess.Popen(
            orphan.bound([node, *script]), stdin=subprocess.DEVNULL, pass_fds=(there, back)
        )
        os.close(there)
        os.close(back)
        self._answers = os.fdopen(self._from, "rb")

    def __enter__(self) -> Interpreter:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._to)
        self._process.terminate()
        self._process.wait()
        self._answers.close()

    def boot(
        self,
        instance: Instance,
        code: str = "",
        folders: dict[str, Path] | None = None,
        timeout_s: float = 60,
    ) -> Boot:
        """One instance, until it ends. code: runs in place of what is on flash.

        folders: more folders of modules, by what they are called in the instance.
        """
        output: list[str] = []
        used = False
        timer = threading.Timer(timeout_s, self._process.kill)
        timer.start()
        try:
            self._start(code, folders or {})
            for operation, a, b, data in self._questions():
                if operation == _OUTPUT:
                    output.append(data.decode(errors="replace"))
                elif operation == _END:
                    return Boot("exit", "".join(output), data.decode() or None)
                elif operation in _ENDS:
                    self._reply(_OFF)
                    return Boot(_ENDS[operation], "".join(output))
                elif operation == _USED and not used:
                    used = True
                    self._reply(_LOOK)
                elif operation == _USED:
                    return Boot("used", "".join(output), bytes=a)
                elif self._serve(instance, operation, a, b, data):
                    return Boot("power_cut", "".join(output))
        finally:
            timer.cancel()
            instance.sockets.close()
        raise SimError(f"the interpreter has ended, or {timeout_s} s: {''.join(output)[-600:]}")

    def _start(self, code: str, folders: dict[str, Path]) -> None:
        places = {"/sim": _INSIDE, "/stock": stock.ensure()} | folders
        start = f"import sys\nsys.path[:] = {list(places)} + ['.frozen']\n{code or _RUN}"
        job = {"heap": _HEAP, "folders": {to: str(at) for to, at in places.items()}, "code": start}
        self._reply(0, json.dumps(job).encode())

    def _questions(self) -> Iterator[tuple[int, int, int, bytes]]:
        while len(head := self._answers.read(16)) == 16:
            operation, a, b, size = struct.unpack("<iiiI", head)
            yield operation, a, b, self._answers.read(size)

    def _serve(self, instance: Instance, operation: int, a: int, b: int, data: bytes) -> bool:
        """Answer. Returns whether power has failed meanwhile."""
        try:
            result, found = instance.answer(operation, a, b, data)
        except LittleFSError as error:
            result, found = error.code, b""
        except OSError as error:
            result, found = -number_of(error), b""
        if instance.flashes[0].dead:
            self._reply(_OFF)
            return True
        self._reply(result, found)
        return False

    def _reply(self, result: int, data: bytes = b"") -> None:
        data = struct.pack("<iI", result, len(data)) + data
        while data:
            data = data[os.write(self._to, data) :]


_RUN = "import _start\n_start.start()\n"


class ReleaseNode:
    """As host_sim.node.node.Node, as far as this goes: `image` is its flash, changed in place."""

    def __init__(self, image: Path, interpreter: Interpreter) -> None:
        self.image = image
        self._interpreter = interpreter
        self._rtc = b""

    def run(
        self,
        *,
        wakes: int = 1,
        cut: int = 0,
        torn: str = "none",
        cause: str = "power_on",
        code: str = "",
        timeout_s: float = 60,
        max_boots: int = 30,
    ) -> Run:
        """Boot, and follow resets and deep sleeps for up to `wakes` wakes.

        `cut`: power fails at this operation, counted from the first boot; `torn`: what is left of
        it. `code`: runs in place of boot.py and main.py.
        """
        flash = Flash(self.image.read_bytes())
        flash.cut, flash.torn = cut, torn
        if cause == "power_on":
            self._rtc = b""
        run = Run()
        wake = 1
        try:
            while True:
                run.boots += 1
                run.events.append({"event": "boot", "wake": wake, "cause": cause})
                end = self._boot(flash, cause, code, timeout_s)
                run.output += end.output
                event: dict[str, object] = {"event": end.why}
                if end.why == "used":
                    event["bytes"] = end.bytes
                if end.error:
                    run.output += end.error
                    event["error"] = end.error.strip().rpartition("\n")[2]
                    run.exit_code = 1
                run.events.append(event)
                wake += end.why == "sleep"
                if end.why not in _NEXT or wake > wakes or run.boots == max_boots:
                    return run
                cause = _NEXT[end.why]
        finally:
            run.ops = flash.operations
            self.image.write_bytes(flash.buffer)

    def _boot(self, flash: Flash, cause: str, code: str, timeout_s: float) -> Boot:
        instance = Instance([flash], _CAUSES[cause], self._rtc)
        code = code and f"import _start\n_start.start({code!r})\n"
        try:
            return self._interpreter.boot(instance, code, timeout_s=timeout_s)
        finally:
            self._rtc = instance.rtc


def run_code(
    interpreter: Interpreter, code: str, folders: dict[str, Path], timeout_s: float = 60
) -> Boot:
    """Run a snippet on the interpreter's own files, as host_sim.node.node.run_code does."""
    code = f"import _start, gc\ngc.threshold(-1)\n{code}"
    return interpreter.boot(Instance([Flash()], 1, b""), code, folders, timeout_s)
