"""The virtual node: a flash image that boots, through resets, deep sleep and power cuts."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import click

from host_sim.command import PATH
from host_sim.errors import SimError
from host_sim.node import stock
from host_sim.node.boot import Boot, temporary_file
from host_sim.node.chip import TIMERS, Chip
from host_sim.node.flash import claimed
from host_sim.node.flash_rules import TORN_KINDS
from host_sim.node.session import SIM_HEAP, Event, Hardware, Plan, Run, Session, heap_option

__all__ = ["SIM_HEAP", "TORN_KINDS", "Chip", "CodeResult", "Event", "Node", "Run", "run_code"]


class Node(Hardware):
    """A node whose flash is the file `image`; every run works on that file in place.

    `heap` is the MicroPython heap, such as ``"96K"``, not counting the simulator's own share.
    `stock` is a folder of modules that the node sees as frozen: ``True`` for those of stock
    firmware, ``False`` for none.
    `frozen` is a folder of more such modules, found as a firmware's own are: where ``.frozen``
    stands in ``sys.path``, and not on flash. A `boot.py` or `main.py` in it runs instead of the
    one on flash. Unlike in a firmware, a module of it takes heap once it is loaded.
    `romfs` is an image of a ROMFS, which is mounted at ``/rom`` and stands in ``sys.path`` as the
    ports do it; True is one that is frozen into the interpreter, as its module ``romfs_image``.
    `chip` is "esp32", "s3", "c3" or "c6", or a Chip with more to say; `release` is whose
    MicroPython its `machine` is like. The interpreter stays the same.
    With `rtc` the node's clock begins in 2000 at each power-on and goes on through deep sleep;
    otherwise it is the host's.
    With `hooks`, sources on flash may have been through :mod:`host_sim.node.keys`.
    `log` is called with each piece of the node's output as it comes. `environ` is what the node's
    `os.getenv` finds. Without `mtime` littlefs keeps no times of files (as a board's does): then
    equal runs leave equal images.
    `uarts`: what is at a UART, by its number: a port of this host, where a `Modem` of
    :mod:`host_sim.modem` listens. The time of such a node is virtual throughout: waiting takes
    none of the host's.
    """

    def __init__(
        self,
        image: Path,
        *,
        heap: str | None = None,
        stock: Path | bool = True,
        frozen: Path | None = None,
        romfs: Path | Literal[True] | None = None,
        chip: str | Chip = "esp32",
        release: str = "1.28",
        rtc: bool = False,
        hooks: bool = False,
        log: Callable[[str], object] | None = None,
        environ: dict[str, str] | None = None,
        mtime: bool = True,
        uarts: dict[int, int] | None = None,
    ) -> None:
        self.image = Path(image)
        self.uarts = uarts or {}
        self.environ = environ or {}
        self.mtime = mtime
        self.heap = heap
        self.chip = chip if isinstance(chip, Chip) else Chip(chip, release)
        self.chip.check()
        self.rtc = rtc
        self.hooks = hooks
        self.clock_ahead: float | None = None  # of the host's, in seconds
        self.frozen = Path(frozen) if frozen is not None else None
        self.romfs = romfs
        self.log = log
        self._session: Session | None = None
        self.rtc_memory = b""  # machine.RTC().memory() as the last run left it
        self._stock = stock

    def run(
        self,
        *,
        wakes: int = 1,
        cut: int | None = None,
        torn: str = "none",
        seed: int = 0,
        fail: tuple[int, int | str] | None = None,
        persistent: bool = False,
        fail_read: tuple[int, int | str] | None = None,
        storm: int | None = None,
        timeout_s: float = 60,
        max_boots: int = 100,
        cause: str = "power_on",
        wear: bool = False,
        keep_log: bool = False,
        interrupt: tuple[int, str] | None = None,
        interrupt_op: tuple[int, str] | None = None,
        then: str | None = None,
        stop: Callable[[Event], object] | None = None,
        on_event: Callable[[Event], object] | None = None,
    ) -> Run:
        """Boot the node and follow its resets and deep sleeps for up to `wakes` wakes.

        `cut`: power fails at this operation, leaving the state `torn` (see TORN_KINDS; `seed` for
        the random ones). `storm`: power fails after every so many operations, and comes back.
        `fail`: ``(operation, error)``, an error of the flash chip without a power cut, once or
        `persistent`; ``"ESP"`` is the one that ESP32 raises. `fail_read`: the same of a read of
        the first boot, counted from the first line of boot.py, once. `stop`: ends the run when it
        returns true for an event. `cause`: why it boots first; RTC memory of the run before is
        kept unless that is ``"power_on"``. `keep_log`: tell in :attr:`Run.severed` what the node
        was writing when the power failed.

        `interrupt`: ``(n, kind)`` with a kind of :data:`host_sim.node.keys.KINDS`, which happens
        at the n-th hook that the run comes by; a Ctrl-C has no effect while
        ``micropython.kbd_intr(-1)`` is in force. `interrupt_op`: the same at the first hook in
        main.py after operation n has begun. `then`: what is done at the REPL after a Ctrl-C,
        "soft_reset" (Ctrl-D) or "reset" (the button); nothing otherwise.
        """
        options = {name: value for name, value in locals().items() if name != "self"}
        return self._follow(Plan(**options))

    def exec(self, code: str, **options) -> Run:
        """Run `code` instead of ``/boot.py`` and ``/main.py``; options as for :meth:`run`."""
        return self._follow(Plan(**options, code=code))

    def cut_power(self) -> None:
        """From another thread: power fails now, between two operations, and the run is over."""
        session = self._session
        if session:
            session.cut_power()

    def only_waits(self) -> None:
        """From another thread: this boot does nothing any more, so its time passes at once."""
        session = self._session
        if session:
            session.only_waits()

    def _follow(self, plan: Plan) -> Run:
        plan.check()
        if self.frozen and not self.frozen.is_dir():
            raise SimError(f"no folder {self.frozen} of frozen modules")
        if isinstance(self.romfs, Path) and not self.romfs.is_file():
            raise SimError(f"no ROMFS image {self.romfs}")
        folder = None
        if self._stock is not False:
            folder = stock.ensure() if self._stock is True else Path(self._stock)
        session = self._session = Session(self, plan, folder)
        with temporary_file() as rtc:
            if plan.cause != "power_on":
                rtc.write(self.rtc_memory)
            run = session.follow(rtc)
            rtc.seek(0)
            self.rtc_memory = rtc.read()
        return run


@dataclass
class CodeResult:
    """What :func:`run_code` saw."""

    output: str
    exit_code: int

    @property
    def error(self) -> str | None:
        """The last line of a traceback, such as ``"ValueError: …"``."""
        return self.output.rstrip().rpartition("\n")[2] if self.exit_code else None


def run_code(
    script: str,
    *,
    heap: str | None = None,
    path: list[Path | str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = 60,
) -> CodeResult:
    """Run a snippet in the plain interpreter on the host's files, for tests of device modules.

    `path` comes before the rest of ``sys.path``; without `cwd` nothing is imported from where the
    host happens to be.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "script.py"
        file.write_text(script, encoding="utf-8")
        # Without `cwd` the '' of sys.path, which is wherever the host happens to be, is dropped.
        names = [""] * bool(cwd) + [str(folder) for folder in path or []]
        start = f"import sys;sys.path[:1]={json.dumps(names)};execfile({json.dumps(str(file))})"
        if cwd:
            start = f"import os;os.chdir({json.dumps(str(cwd))});{start}"
        texts: list[str] = []
        boot = Boot(
            [*heap_option(heap), "-c", start],
            {},
            [],
            relay=texts.append,
            report=lambda _: False,
            deadline=time.monotonic() + timeout_s,
        )
        end = boot.run()
        if end.why == "timeout":
            texts.append(f"\ntimeout after {timeout_s} s")
        return CodeResult("".join(texts), boot.status)


@click.command(
    help="Boot the virtual node from the flash image IMG, and follow its resets and deep sleeps. "
    "Events are lines of JSON on stdout; what the node prints goes to stderr.",
    epilog="Example: insigh-ota node node.img --wakes 3",
)
@click.argument("image", metavar="IMG", type=PATH)
@click.option("--heap", metavar="SIZE", help="MicroPython heap, such as 96K")
@click.option("--frozen", type=PATH, metavar="DIR", help="modules frozen into firmware")
@click.option("--romfs", type=PATH, metavar="FILE", help="the firmware's ROMFS image")
@click.option("--chip", type=click.Choice(list(TIMERS)), default="esp32")
@click.option("--release", default="1.28", metavar="1.N", help="of MicroPython")
@click.option("--wakes", type=int, default=1, help="follow this many wakes")
@click.option("--cut", type=int, metavar="OP", help="power fails at this operation")
@click.option("--torn", type=click.Choice(TORN_KINDS), default="none", metavar="KIND")
@click.option("--seed", type=int, default=0, help="for the random torn kinds")
@click.option("--storm", type=int, metavar="K", help="a cut after every K operations")
@click.option("--fail", metavar="OP[+]:ERROR", help="flash error, + for ever from OP on")
@click.option("--wear", is_flag=True, help="count erases by block")
@click.option("--timeout", type=float, default=60, metavar="SECONDS")
@click.option("--max-boots", type=int, default=100)
@click.option("--json", "always", is_flag=True, help="as it always does: lines of JSON on stdout")
def node(**given: Any) -> int:
    """`node IMG`; the exit code tells how the run ended."""
    return _command(SimpleNamespace(**given))


def _parse_fail(text: str) -> tuple[tuple[int, str], bool]:
    operation, _, error = text.partition(":")
    if not operation.rstrip("+").isdecimal() or not error:
        raise SimError(f"--fail {text}: write OP:ERROR, such as 12:EIO, or 12+:EIO for ever")
    return (int(operation.rstrip("+")), error), operation.endswith("+")


def _command(arguments: SimpleNamespace) -> int:
    """``node IMG``: events as JSON lines on stdout, the node's output on stderr."""

    def log(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()

    fail, persistent = _parse_fail(arguments.fail) if arguments.fail else (None, False)
    booted = Node(
        arguments.image,
        heap=arguments.heap,
        frozen=arguments.frozen,
        romfs=arguments.romfs,
        chip=arguments.chip,
        release=arguments.release,
        log=log,
    )
    with claimed(arguments.image):
        run = booted.run(
            wakes=arguments.wakes,
            cut=arguments.cut,
            torn=arguments.torn,
            seed=arguments.seed,
            fail=fail,
            persistent=persistent,
            storm=arguments.storm,
            timeout_s=arguments.timeout,
            max_boots=arguments.max_boots,
            wear=arguments.wear,
            on_event=lambda event: print(json.dumps(event), flush=True),
        )
    return run.exit_code
