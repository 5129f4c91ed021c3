"""One call of ``Node.run``: boot after boot until it is over, with what is to go wrong in it."""

from __future__ import annotations

import errno
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from host_sim.errors import SimError
from host_sim.node import flash_rules, process
from host_sim.node.boot import (
    CAUSES,
    CUT,
    NO_FLASH,
    PANIC,
    REPL,
    RESET,
    SLEEP,
    SOFT_RESET,
    WDT,
    Boot,
    End,
    Failure,
    open_image,
    temporary_file,
)
from host_sim.node.chip import Chip
from host_sim.node.flash import image_blocks
from host_sim.node.flash_rules import BLOCK, TORN_KINDS
from host_sim.node.keys import KINDS
from host_sim.node.keys import SOFT_RESET as SOFT_RESET_KEY

Event = dict[str, object]

#: Modules of stock firmware that the interpreter lacks; :mod:`host_sim.node.stock` has
#: the second part.
_FROZEN = ["ussl", "urequests"]
_FROZEN_STOCK = ["umqtt", "umqtt.simple"]

#: About what the simulator's own code takes of the node's heap (64-bit words), added to what the
#: caller asked for, so that the application has what it would have.
SIM_HEAP = 8 * 1024
#: The same for frozen modules of the caller's.
FROZEN_HEAP = 3 * 1024
#: The same for a ROMFS, beside its image, which no firmware has in its heap.
ROMFS_HEAP = 2 * 1024
#: The same for UARTs and virtual time.
UART_HEAP = 12 * 1024

#: What ESP-IDF calls an error of the flash chip; raised as OSError(-24577), not returned.
ESP_ERROR = 24577
#: 2000-01-01, when a node's clock begins after power-on.
EPOCH = 946684800

EXIT_OK, EXIT_ERROR, EXIT_CUT = 0, 1, 3


@dataclass
class Run:
    """What one call of :meth:`Node.run` did."""

    events: list[Event] = field(default_factory=list)
    output: str = ""
    exit_code: int = EXIT_OK
    ops: int = 0
    prog_bytes: int = 0
    erases: int = 0
    boots: int = 0
    nor_violations: int = 0
    hooks: int = 0
    wear: Counter[int] = field(default_factory=Counter)
    #: With `keep_log`: the operation at which power failed, not done, and those of that boot.
    severed: tuple[flash_rules.Operation, list[flash_rules.Operation]] | None = None

    @property
    def error(self) -> str | None:
        """The error that ended the application, such as ``"ValueError: …"``."""
        return next((str(e["error"]) for e in self.events if e.get("error")), None)

    def names(self) -> list[str]:
        """The events' names only, in order."""
        return [str(event["event"]) for event in self.events]


def error_number(error: int | str) -> int:
    """The number of an error such as "EIO"; "ESP" is the one that ESP32 raises."""
    number = getattr(errno, error, None) if isinstance(error, str) else error
    if error == "ESP":
        number = ESP_ERROR
    if not isinstance(number, int) or number <= 0:
        raise SimError(f"unknown error {error!r}: use a name such as EIO, ENOSPC or ESP")
    return number


@dataclass
class Plan:
    """What is to go wrong in a run, and when it is over."""

    wakes: int = 1
    cut: int | None = None
    torn: str = "none"
    seed: int = 0
    fail: tuple[int, int | str] | None = None
    persistent: bool = False
    fail_read: tuple[int, int | str] | None = None
    storm: int | None = None
    timeout_s: float = 60
    max_boots: int = 100
    cause: str = "power_on"
    wear: bool = False
    keep_log: bool = False
    interrupt: tuple[int, str] | None = None
    interrupt_op: tuple[int, str] | None = None
    then: str | None = None
    stop: Callable[[Event], object] | None = None
    on_event: Callable[[Event], object] | None = None
    code: str | None = None

    def failure(self) -> Failure:
        """:attr:`fail` and :attr:`persistent` as a range of operations."""
        if self.fail is None:
            return Failure()
        first, error = self.fail
        return Failure(first, 1 << 30 if self.persistent else first, error_number(error))

    def check(self) -> None:
        """Raise a clear error for what cannot be."""
        if self.torn not in TORN_KINDS:
            raise SimError(f"no torn kind {self.torn!r}: choose from {', '.join(TORN_KINDS)}")
        if self.cause not in CAUSES:
            raise SimError(f"no boot cause {self.cause!r}: {', '.join(CAUSES)}")
        for name in ("wakes", "cut", "storm", "max_boots"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SimError(f"{name} counts from 1, not {value}")
        if self.interrupt and self.interrupt_op:
            raise SimError("choose between interrupt and interrupt_op")
        for key in filter(None, (self.interrupt, self.interrupt_op)):
            if key[0] < 1 or key[1] not in KINDS:
                raise SimError(f"no interrupt {key!r}: a number from 1, and one of {KINDS}")
        if self.then not in (None, SOFT_RESET_KEY, "reset"):
            raise SimError(f"nobody can do {self.then!r} at the REPL: soft_reset or reset")
        if self.fail_read:
            error_number(self.fail_read[1])
        if self.cut and self.storm:
            raise SimError("choose between one cut and a cut storm")


class Hardware:
    """What a session has to know of its node, which sets it."""

    image: Path
    environ: dict[str, str]
    mtime: bool
    heap: str | None
    chip: Chip
    rtc: bool
    hooks: bool
    clock_ahead: float | None
    """Of the host's, in seconds."""
    frozen: Path | None
    romfs: Path | Literal[True] | None
    uarts: dict[int, int]
    log: Callable[[str], object] | None


class Session:
    """Boots an image again and again until something ends the run."""

    def __init__(self, node: Hardware, plan: Plan, stock_folder: Path | None) -> None:
        self.node = node
        self.image = node.image
        self.heap = node.heap
        self.log = node.log
        self.plan = plan
        self.modules = process.node_modules(stock_folder)
        # What the interpreter has frozen itself is in sys.modules once it is imported.
        lacks = stock_folder and not process.has_umqtt()
        self.frozen = _FROZEN + (_FROZEN_STOCK if lacks else [])
        self.result = Run()
        self.traffic = flash_rules.Traffic()
        self.texts: list[str] = []
        self.running: Boot | None = None
        self.power_is_cut = False
        self.waits = False  # since the begin of this boot, as said from another thread
        self.wake = 0
        self.watchdog_s: float | None = None  # what a soft reset has left of it
        self.sleeps = 0  # with a storm, only these count towards the wakes asked for
        self.deadline = time.monotonic() + plan.timeout_s
        self.keep_content = plan.keep_log or (
            plan.torn in flash_rules.ORDER_KINDS and bool(plan.cut or plan.storm)
        )
        self.blocks = image_blocks(self.image)

    def follow(self, rtc: IO[bytes]) -> Run:
        """Boot again and again until the run is over."""
        result, plan = self.result, self.plan
        cause: str | None = plan.cause
        while cause is not None:
            if result.boots == plan.max_boots:
                self.report({"event": "boot_limit", "boots": result.boots})
                result.exit_code = EXIT_ERROR
                break
            if cause == "power_on" and result.boots:
                rtc.truncate(0)
            cause = self.after(*self.boot(cause, rtc))
        result.ops, result.erases = self.traffic.ops, self.traffic.erases
        result.prog_bytes, result.wear = self.traffic.prog_bytes, self.traffic.wear
        last: Event = {
            "event": "flash",
            "ops": result.ops,
            "prog_bytes": result.prog_bytes,
            "erases": result.erases,
            "nor_violations": result.nor_violations,
        }
        if plan.wear:
            last["wear"] = {str(block): n for block, n in sorted(result.wear.items())}
        self.report(last)
        result.output = "".join(self.texts)
        return result

    def cut_power(self) -> None:
        """Kill the node; the run ends as at a cut operation."""
        self.power_is_cut = True
        boot = self.running
        if boot:
            boot.kill()  # else the next boot ends at its begin

    def only_waits(self) -> None:
        """What Node.only_waits() says."""
        self.waits = True
        boot = self.running
        if boot:
            boot.only_waits = True

    def report(self, event: Event) -> bool:
        """Record and pass on one event; true when the run is to stop here."""
        self.result.events.append(event)
        self.result.nor_violations += event["event"] == "nor_violation"
        if self.plan.on_event:
            self.plan.on_event(event)
        return bool(self.plan.stop and self.plan.stop(event))

    def relay(self, text: str) -> None:
        """Take a piece of the node's output."""
        self.texts.append(text)
        if text and self.log:
            self.log(text)

    def boot(self, cause: str, rtc: IO[bytes]) -> tuple[End, int]:
        """One boot; returns how it ended, and the process's exit status."""
        if cause in ("power_on", "deepsleep") or not self.result.boots:
            self.wake += 1
        self.result.boots += 1
        plan, base = self.plan, self.traffic.ops
        if self.report({"event": "boot", "wake": self.wake, "cause": cause}):
            return End("stopped"), 0
        cut = base + plan.storm + 1 if plan.storm else plan.cut or 0
        failure = plan.failure()
        start = [
            str(self.modules / "late"),
            self.frozen,
            int(plan.code is not None),
            self.blocks,
            base,
            cut,
            failure.first,
            failure.last,
            failure.errno,
            int(self.keep_content),
            CAUSES[cause],
            int(self.node.mtime),
            int(self.heap is None),
            self._more(cause),
            *self._failing_read(),
        ]
        self.waits = False
        with (
            open_image(self.image) as image,
            temporary_file() as log,
            temporary_file() as code,
        ):
            code.write((plan.code or "").encode())
            for file in (code, rtc):
                file.seek(0)
            arguments = ",".join(map(repr, start))
            script = f"import _start,_sim\n_sim.run(_start.start({arguments}))"
            more = SIM_HEAP + (FROZEN_HEAP if self.node.frozen else 0)
            more += UART_HEAP if self.node.uarts else 0
            more += self._romfs_heap()
            boot = Boot(
                [*heap_option(self.heap, more), "-c", script],
                self.node.environ | {"MICROPYPATH": str(self.modules)},
                [image, log, rtc, code],
                relay=self.relay,
                report=self.report,
                deadline=self.deadline,
                chip=self.node.chip,
                watchdog_s=self.watchdog_s,
                attended=plan.then is not None,
            )
            self.running = boot
            if self.waits:  # said before the host knew that it runs
                boot.only_waits = True
            if self.power_is_cut:
                boot.kill()
            end = boot.run()
            self.running = None
            self._keep_time(boot, end)
            self.result.hooks += boot.hooks
            log.seek(0)
            operations = list(flash_rules.read_log(log.read(), self.keep_content))
        self.traffic.add(operations)
        if end.why == CUT:
            self.traffic.ops += 1
            size = BLOCK if end.a == flash_rules.ERASE else len(end.data)
            last = flash_rules.Operation(end.a, end.b, size, end.data)
            seed = f"{plan.seed}:{self.traffic.ops}"
            if plan.keep_log:
                self.result.severed = last, operations
            flash_rules.apply_cut(self.image, last, operations, plan.torn, seed)
        return end, boot.status

    def _failing_read(self) -> tuple[int, int]:
        """The read that fails, in the first boot only, and its error."""
        read = self.plan.fail_read
        return (read[0], error_number(read[1])) if read and self.result.boots == 1 else (0, 0)

    def _more(self, cause: str) -> tuple | None:
        """What `inside/late/_more.py` is to do; None where the node is the usual one."""
        node = self.node
        frozen = str(node.frozen.absolute()) if node.frozen else ""
        keys = self._keys() if node.hooks else None
        romfs = node.romfs and ("" if node.romfs is True else str(node.romfs.absolute()))
        more = node.chip.settings(), self._clock(cause), frozen, keys, node.uarts, romfs
        return more if more != (Chip().settings(), None, "", None, {}, None) else None

    def _romfs_heap(self) -> int:
        romfs = self.node.romfs
        if romfs is None or romfs is True:
            return 0
        return romfs.stat().st_size + ROMFS_HEAP

    def _keys(self) -> tuple[int, int, int]:
        """Hooks until a key is pressed, the operation at which it is, and the place in KINDS."""
        hook, kind = self.plan.interrupt or (0, "")
        op, op_kind = self.plan.interrupt_op or (0, "")
        left = max(0, hook - self.result.hooks)
        return left, op, KINDS.index(kind or op_kind) if hook or op else 0

    def _clock(self, cause: str) -> int | None:
        """How many ms the node's clock is before the host's; None: it is the host's."""
        node = self.node
        if not node.rtc:
            return None
        if cause == "power_on" or node.clock_ahead is None:
            node.clock_ahead = EPOCH - time.time()
        return int(node.clock_ahead * 1000)

    def _keep_time(self, boot: Boot, end: End) -> None:
        soft = end.why == SOFT_RESET and boot.watchdog is not None
        self.watchdog_s = boot.watchdog - boot.now() if soft else None
        if self.node.clock_ahead is not None:
            slept = end.a / 1000 if end.why == SLEEP and end.a > 0 else 0
            self.node.clock_ahead += boot.jumped + boot.clock_set + slept

    def after(self, end: End, status: int) -> str | None:
        """Report the end of a boot; returns the cause of the next one, or None."""
        plan = self.plan
        event: Event
        code = EXIT_ERROR
        following = None
        if end.why == RESET:
            event, following = {"event": "reset"}, "hard"
        elif end.why == SOFT_RESET:
            event, following = {"event": "reset", "soft": True}, "soft"
        elif end.why == WDT:
            event, following = {"event": "wdt"}, "wdt"
        elif end.why == PANIC:
            event, following = {"event": "panic"}, "hard"
        elif end.why == SLEEP:
            event = {"event": "sleep", "ms": end.a if end.a >= 0 else None}
            self.sleeps += 1
            code, following = EXIT_OK, "deepsleep" if self.sleeps < plan.wakes else None
        elif end.why == CUT:
            event = {"event": "power_cut", "op": self.traffic.ops}
            code, following = EXIT_CUT, "power_on" if plan.storm else None
        elif self.power_is_cut:
            event, code = {"event": "power_cut", "op": None}, EXIT_CUT
        elif end.why == REPL:
            error = end.data.decode("utf-8", "replace") or None
            event = {"event": "exit", "error": error}
            code = EXIT_ERROR if error else EXIT_OK
            if plan.then and error and error.startswith("KeyboardInterrupt"):
                soft = plan.then == SOFT_RESET_KEY
                event = {"event": "reset", "by": "hand"} | ({"soft": True} if soft else {})
                following = "soft" if soft else "power_on"
        elif end.why == NO_FLASH:
            event = {"event": "exit", "error": "flash does not mount: " + end.data.decode()}
        elif end.why == "stopped":
            event, code = {"event": "stopped"}, EXIT_OK
        elif end.why == "timeout":
            event = {"event": "timeout", "seconds": plan.timeout_s}
        else:
            event = {"event": "exit", "error": f"the interpreter died, status {status}"}
        if self.report(event):
            following, code = None, EXIT_OK if code == EXIT_ERROR and following else code
        if following is None:
            self.result.exit_code = code
        return following


def heap_option(heap: str | None, more: int = 0) -> list[str]:
    """The interpreter's option for a heap such as ``"96K"`` and some bytes more."""
    if heap is None:
        return []
    match = re.fullmatch(r"(\d+)([KkMm]?)", heap)
    if not match:
        raise SimError(f"heap {heap!r}: write a size such as 96K")
    size = int(match[1]) << {"": 0, "k": 10, "m": 20}[match[2].lower()]
    return ["-X", f"heapsize={size + more}"]
