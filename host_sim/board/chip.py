"""One boot of the board: a MicroPython process whose own REPL talks on a terminal of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
import tty
from collections.abc import Callable
from pathlib import Path
from typing import IO

from host_sim.board.child import KEYBOARD_INTERRUPT
from host_sim.errors import SimError
from host_sim.node import boot, chip
from host_sim.node.boot import Boot, End
from insigh_ota.places import NO_SIMULATOR

# Reported by inside/_board.py, which has the same numbers.
BOOTING, MAIN = 32, 33

CTRL_A, CTRL_C, GO = b"\x01", b"\x03", b"\x07"
RAW_PROMPT = b"raw REPL; CTRL-B to exit\r\n>"
FRIENDLY_PROMPT = b'Type "help()" for more information.\r\n>>> '

#: In the moment between running a program and reading the next one, a Ctrl-C is fatal to the
#: interpreter. So it gets one only when it has been running for this long, or is reading.
SETTLED_S = 0.003


class Chip(Boot):
    """Like :class:`Boot`, but it lives on at the REPL, in real time, and can be typed to."""

    def __init__(
        self,
        argv: list[str],
        env: dict[str, str],
        files: list[IO[bytes]],
        *,
        raw: bool,
        patient: bool,
        report: Callable[[dict], bool],
    ) -> None:
        """`raw`: the soft reset came from the raw REPL, which goes on after it.

        `patient`: it was woken by hand. What is typed waits until boot.py has done its work; a
        Ctrl-C among it comes in time, however soon main.py would sleep again.
        """
        self.raw = raw  # follows what the interpreter does
        self._greets_in_raw = raw
        self.patient = patient
        self.typed = b""  # not yet given to the interpreter
        self.booted = False  # the node's own code runs, or has run
        self.listening = False
        self.was_in_main = False
        self.greeting_is_due = False
        # at_repl stays None: here Boot is not to skip to the next timer.
        self._begin(report, chip.Chip())
        self._hidden: bytes | None = None  # the greeting that is not to be seen
        self._tail = b""
        self._running_since: float | None = None
        self.tty, theirs = _terminal()
        self.events, events = os.pipe()
        control, self.control = os.pipe()
        try:
            fds = [theirs, theirs, theirs, events, control, *(file.fileno() for file in files)]
            self._process = _spawn(argv, fds, env)
            self.pid = self._process.pid
        except BaseException:
            self._close(self.tty, self.events, self.control)
            raise
        finally:
            self._close(theirs, events, control)

    def close(self) -> None:
        """Make sure that the interpreter is dead."""
        self._process.kill()
        self.status = self._process.wait()
        self._close(self.tty, self.events, self.control)

    def patience_s(self) -> float:
        """Seconds until something is due."""
        now = time.monotonic()
        due = [timer.due - self.jumped for timer in self.timers.values()]
        if self.queue:
            due.append(self.nudge)
        if self.watchdog is not None:
            due.append(self.watchdog - self.jumped)
        if self.listening and self.typed:
            due.append(now + SETTLED_S)
        return max(0.0, min([now + 1, *due]) - now)

    def pass_time(self) -> End | None:
        """Fire what is due, and type what has been waiting."""
        self._type()
        return self._pass_time()

    def read_events(self) -> End | None:
        """Take the node's events; returns how the boot ended."""
        return self._read_events()

    def read(self) -> bytes | None:
        """Output; empty when there is none at present, None when there will be no more."""
        try:
            data = os.read(self.tty, 65536)
        except BlockingIOError:
            return b""
        except OSError:
            return None
        return self._seen(data) if data else None

    def drain(self) -> bytes:
        """All output that there is."""
        text = b""
        while data := self.read():
            text += data
        return text

    def _seen(self, data: bytes) -> bytes:
        """Follow in which REPL the interpreter is; returns what may be shown."""
        if self._hidden is not None:
            self._hidden += data
            at = self._hidden.find(RAW_PROMPT)
            if at < 0:
                return b""
            data, self._hidden = self._hidden[at:], None
        self._tail = (self._tail + data)[-65536 - 64 :]
        raw, friendly = self._tail.rfind(RAW_PROMPT), self._tail.rfind(FRIENDLY_PROMPT)
        if raw != friendly:
            self.raw = raw > friendly
        self._tail = self._tail[-64:]
        return data

    def _handle(self, code: int, a: int, b: int, payload: bytes) -> End | None:
        if code == BOOTING:
            self.booted = True
            self.listening = not self.patient
        elif code == MAIN:
            self.was_in_main = self.listening = True
            if self.patient:
                self._say_what_waited()
        elif code == boot.REPL:
            self.was_in_main = self.listening = True
            self.greeting_is_due = self._greets_in_raw
            self.report({"event": "repl"})
        else:
            return super()._handle(code, a, b, payload)
        return None

    def enter_raw_repl(self) -> bytes:
        """At the end of a boot into the raw REPL: returns the output up to here."""
        self.greeting_is_due = False
        before = self.drain()
        self._hidden = b""
        os.write(self.tty, GO + CTRL_A)
        return before

    def _say_what_waited(self) -> None:
        """The node waits before main.py: interrupt it there if that is why it was woken."""
        _, ctrl_c, rest = self.typed.partition(CTRL_C)
        if ctrl_c:
            self.typed = rest
            os.kill(self.pid, KEYBOARD_INTERRUPT)
        else:
            os.write(self.tty, GO)

    def _type(self) -> None:
        """Give the interpreter what it can take now."""
        if not self.listening:
            return
        while self.typed:
            if self.typed[:1] == CTRL_C and self._does() != "reads":
                if not self._interrupt():
                    return
                self.typed = self.typed[1:]
                continue
            end = self.typed.find(CTRL_C, 1)
            try:
                done = os.write(self.tty, self.typed[: end if end > 0 else None])
            except OSError:  # its buffer is full, or it has just ended
                return
            self.typed = self.typed[done:]

    def _does(self) -> str:
        """What the interpreter does: "runs" a program, "reads" a line, or "works" in between.

        Only while it runs a program does it have a handler of its own for SIGINT.
        """
        status = Path(f"/proc/{self.pid}/status").read_text()
        caught = re.search(r"^SigCgt:\t(\w+)", status, re.MULTILINE)
        if caught and int(caught[1], 16) >> signal.SIGINT - 1 & 1:
            self._running_since = self._running_since or time.monotonic()
            return "runs"
        self._running_since = None
        return "reads" if re.search(r"^State:\tS", status, re.MULTILINE) else "works"

    def _interrupt(self) -> bool:
        """Raise KeyboardInterrupt in the node's program; false when it is too early for that."""
        if self._does() != "runs" or time.monotonic() - self._running_since < SETTLED_S:
            return False
        os.kill(self.pid, KEYBOARD_INTERRUPT)
        self._running_since = None
        return True


def _spawn(argv: list[str], fds: list[int], env: dict[str, str]) -> subprocess.Popen:
    """Start ``micropython argv…`` with `fds` as its descriptors 0, 1, 2, …"""
    spec = importlib.util.find_spec("micropython_run")
    if spec is None or spec.origin is None:
        raise SimError(NO_SIMULATOR)
    settings = {
        "path": [str(Path(__file__).parents[2]), str(Path(spec.origin).parent)],
        "spawn": ["micropython", *argv],
        "fds": fds,
        "env": env,
        "parent": os.getpid(),
    }
    return subprocess.Popen(
        [sys.executable, "-S", Path(__file__).with_name("child.py"), json.dumps(settings)],
        stdin=subprocess.DEVNULL,
        pass_fds=fds,
        start_new_session=True,  # Ctrl-C in a terminal is for the host
    )


def _terminal() -> tuple[int, int]:
    """A terminal that changes nothing of what passes."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    os.set_blocking(ours, False)
    return ours, theirs
