"""One boot of the virtual node: a MicroPython process from power-up to its hard end.

The node reports what it does over a pipe; the host keeps the time of its timers and watchdog and
kills the process when the boot is over, so nothing of the application runs after a reset.
"""

from __future__ import annotations

import codecs
import contextlib
import math
import os
import select
import signal
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from host_sim.node import process
from host_sim.node.chip import QUEUE, Chip

# Reported by inside/_sim.py and inside/machine.py, which have the same numbers.
CUT, NOR_VIOLATION, SOFT_RESET, REPL, NO_FLASH = 1, 2, 3, 4, 5
RESET, SLEEP, WDT, ARM, DISARM, FIRED = 16, 17, 18, 19, 20, 21
PANIC, LIGHT_SLEEP, BLOCK, SET_CLOCK, HIT, INTERRUPT = 22, 23, 24, 25, 26, 27
# inside/late/_timer.py has the same numbers.
_GO_ON, _NONE_DUE = bytes((255, 0)), bytes((255, 1))

_EVENT = struct.Struct("<IIqq")
#: What `machine.reset_cause()` says; "usb" is a reset by the chip's own USB port.
CAUSES = {"usb": 0, "power_on": 1, "hard": 2, "wdt": 3, "deepsleep": 4, "soft": 5}

#: Timer callbacks at the REPL after which a node counts as idle for good (a periodic timer).
REPL_CALLBACKS = 1000
#: A callback that has not run after this long waits for a system call to return.
NUDGE_S = 0.02
#: The node tells of feeding the watchdog at most 16 times a timeout.
WDT_ALLOWANCE = 1.1


@dataclass
class Failure:
    """Operations `first` to `last` return `errno` instead of being done."""

    first: int = 0
    last: int = 0
    errno: int = 0


@dataclass
class Timer:
    """An armed ``machine.Timer``; `due` in virtual seconds."""

    serial: int
    period: float
    periodic: bool
    due: float


@dataclass
class End:
    """How a boot ended: `why` is an event number, or "stopped", "timeout", "died"."""

    why: int | str
    a: int = 0
    b: int = 0
    data: bytes = b""


class Boot:
    """Runs one boot; :meth:`run` returns how it ended. The process is gone by then."""

    def __init__(
        self,
        argv: list[str],
        env: dict[str, str],
        files: list[IO[bytes]],
        *,
        relay: Callable[[str], None],
        report: Callable[[dict], bool],
        deadline: float,
        chip: Chip | None = None,
        watchdog_s: float | None = None,
        attended: bool = False,
    ) -> None:
        self.relay = relay
        self.deadline = deadline
        self.text = codecs.getincrementaldecoder("utf-8")("replace")
        self._begin(report, chip or Chip(), watchdog_s, attended)
        self.output, output = os.pipe()
        os.set_blocking(self.output, False)
        self.events, events = os.pipe()
        control, self.control = os.pipe()
        try:
            with open(os.devnull, "rb") as nothing:  # noqa: PTH123
                fds = [nothing.fileno(), output, output, events, control]
                fds += [file.fileno() for file in files]
                self.pid = process.spawn(argv, fds, env)
        except BaseException:
            self._close(self.output, self.events, self.control)
            raise
        finally:
            self._close(output, events, control)

    def _begin(
        self,
        report: Callable[[dict], bool],
        chip: Chip,
        watchdog_s: float | None = None,
        attended: bool = False,
    ) -> None:
        """All but the process, as at power-up.

        `watchdog_s` is what a soft reset has left of a watchdog.
        """
        self.report = report
        self.chip = chip
        self.attended = attended  # whoever pressed Ctrl-C does something about it
        self.only_waits = False  # set from another thread: no code counts on real time any more
        self.timers: dict[int, Timer] = {}
        self.queue: list[bytes] = []  # callbacks that are due, the first one under way
        self.to_lose = chip.full_queue
        self.nudge = 0.0  # when to interrupt a node that does not run a due callback
        self.blocked = False
        self.at_repl: End | None = None
        self.callbacks_left = REPL_CALLBACKS
        self.jumped = 0.0  # virtual time is real time plus this
        self.clock_set = 0.0  # by the node itself
        self.hooks = 0
        self.watchdog = self.now() + watchdog_s if watchdog_s is not None else None
        self.pending = b""
        self.status = 0

    @staticmethod
    def _close(*fds: int) -> None:
        for fd in fds:
            os.close(fd)

    def now(self) -> float:
        """Virtual time in seconds."""
        return time.monotonic() + self.jumped

    def run(self) -> End:
        """Serve the node until its boot ends, then make sure that it is dead."""
        poll = select.poll()
        poll.register(self.output, select.POLLIN)
        poll.register(self.events, select.POLLIN)
        try:
            end = None
            while end is None:
                ready = {fd for fd, _ in poll.poll(self._patience())}
                # Output first: what was printed before an event comes before it.
                if ready and self._read_output() is None:
                    with contextlib.suppress(KeyError):  # done before
                        poll.unregister(self.output)
                end = self._read_events() if self.events in ready else self._pass_time()
                if end is None and time.monotonic() >= self.deadline:
                    end = End("timeout")
            return end
        finally:
            self.status = process.end(self.pid)
            while self._read_output():
                pass
            self.relay(self.text.decode(b"", True))
            self._close(self.output, self.events, self.control)

    def kill(self) -> None:
        """End the node from another thread, now."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def _patience(self) -> int:
        """Milliseconds until something is due."""
        due = min([self.deadline, *(t.due - self.jumped for t in self.timers.values())])
        if self.queue:
            due = min(due, self.nudge)
        if self.watchdog is not None:
            due = min(due, self.watchdog - self.jumped)
        if (self.at_repl or self.only_waits) and not self.queue:
            return 0
        return max(0, math.ceil((due - time.monotonic()) * 1000))

    def _read_output(self) -> bool | None:
        """Relay output; false when there is none at present, None when there will be no more."""
        try:
            data = os.read(self.output, 65536)
        except BlockingIOError:
            return False
        if not data:
            return None
        self.relay(self.text.decode(data))
        return True

    def _read_events(self) -> End | None:
        data = os.read(self.events, 65536)
        if not data:
            return End("died")
        self.pending += data
        while len(self.pending) >= _EVENT.size:
            code, size, a, b = _EVENT.unpack_from(self.pending)
            if len(self.pending) < _EVENT.size + size:
                break
            payload = self.pending[_EVENT.size : _EVENT.size + size]
            self.pending = self.pending[_EVENT.size + size :]
            end = self._handle(code, a, b, payload)
            if end:
                return end
        return None

    def _handle(self, code: int, a: int, b: int, payload: bytes) -> End | None:
        if code == ARM:
            period = self.chip.period(max(b, 1) / 1000)
            number, serial, periodic = a & 255, a >> 8 & 255, bool(a >> 16)
            if self.chip.fires(number):
                self.timers[number] = Timer(serial, period, periodic, self.now() + period)
        elif code == DISARM:
            self.timers.pop(a, None)
        elif code == FIRED:
            del self.queue[0]
            if self.queue:
                self._call()
            else:
                self._let_go_on()
        elif code == WDT:
            self.watchdog = self.now() + a / 1000 * WDT_ALLOWANCE
        elif code == LIGHT_SLEEP:
            self._stand_still(a / 1000)
        elif code == BLOCK:
            return self._block(a / 1000)
        elif code == HIT:
            self.hooks += 1
        elif code == INTERRUPT:
            if self.report({"event": "interrupt"}):
                return End("stopped")
        elif code == SET_CLOCK:
            self.clock_set += b / 1000
        elif code == NOR_VIOLATION:
            if self.report({"event": "nor_violation", "op": a, "at": b}):
                return End("stopped")
        elif code == REPL:
            error = payload.decode("utf-8", "replace") or None
            self.at_repl = End(REPL, a, b, payload)
            if self.report({"event": "repl", "error": error}):
                return End("stopped")
            if self.attended and payload.startswith(b"KeyboardInterrupt"):
                return self.at_repl
        else:
            return End(code, a, b, payload)
        return None

    def _pass_time(self) -> End | None:
        """Nothing to read: fire what is due; at the REPL, go to the next moment at once."""
        if self.queue and time.monotonic() >= self.nudge:
            # It seems to be inside a blocking system call: interrupt that, so that the callback
            # runs. Not at once: a signal during a collection would disturb how it stops threads.
            self.nudge = time.monotonic() + NUDGE_S
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGUSR1)
        number, timer_due, wdt_due = self._next()
        due = min(timer_due, wdt_due)
        idle = bool(self.at_repl) or self.only_waits
        if idle and not self.queue:
            if due == math.inf or self.callbacks_left == 0:
                return self.at_repl or End("timeout")
            self.jumped += max(0.0, due - self.now())
        now = self.now()
        if now >= wdt_due and not (idle and timer_due <= wdt_due):
            return End(WDT)
        if number is not None and now >= timer_due:
            return self._fire(number)
        return None

    def _next(self) -> tuple[int | None, float, float]:
        """The timer that is due first, when that is, and when the watchdog is."""
        number = min(self.timers, key=lambda n: self.timers[n].due, default=None)
        timer_due = self.timers[number].due if number is not None else math.inf
        return number, timer_due, self.watchdog if self.watchdog is not None else math.inf

    def _stand_still(self, seconds: float) -> None:
        """Let time pass for all but timers and watchdog."""
        self.jumped += seconds
        for timer in self.timers.values():
            timer.due += seconds
        if self.watchdog is not None:
            self.watchdog += seconds

    def _block(self, seconds: float) -> End | None:
        """Let time pass while the main thread runs nothing; then let it go on."""
        until = self.now() + seconds
        while True:
            number, timer_due, wdt_due = self._next()
            if wdt_due <= until and wdt_due <= timer_due:
                return End(WDT)
            if number is None or timer_due > until:
                break
            self.jumped += max(0.0, timer_due - self.now())
            end = self._fire(number)
            if end:
                return end
        self.jumped += max(0.0, until - self.now())
        self.blocked = True
        self._reply(_GO_ON)
        if not self.queue:
            self._let_go_on()
        return None

    def _let_go_on(self) -> None:
        """The callbacks that were due while the main thread was blocked have run."""
        if self.blocked:
            self.blocked = False
            self._reply(_NONE_DUE)

    def _fire(self, number: int) -> End | None:
        timer = self.timers[number]
        if timer.periodic:
            timer.due = max(timer.due + timer.period, self.now())
        else:
            del self.timers[number]
        self.callbacks_left -= bool(self.at_repl) or self.only_waits
        if self.to_lose or len(self.queue) == QUEUE:
            self.to_lose = max(0, self.to_lose - 1)
            stop = self.report({"event": "callback_lost", "timer": number})
            return End("stopped") if stop else None
        self.queue.append(bytes((number, timer.serial)))
        if len(self.queue) == 1:
            self._call()
        return None

    def _call(self) -> None:
        self.nudge = time.monotonic() + NUDGE_S
        self._reply(self.queue[0])

    def _reply(self, data: bytes) -> None:
        # It may just have been killed, as by a power cut: the end of its events tells of that.
        with contextlib.suppress(BrokenPipeError):
            os.write(self.control, data)


def temporary_file() -> IO[bytes]:
    """A file without a name, shared with the node by descriptor only."""
    return tempfile.TemporaryFile(buffering=0)


def open_image(image: Path) -> IO[bytes]:
    """The image file as the node gets it."""
    return image.open("r+b", buffering=0)
