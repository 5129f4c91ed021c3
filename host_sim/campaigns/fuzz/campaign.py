"""Cases by the million: MicroPython processes, a watchdog over each, and the figures."""

from __future__ import annotations

import inspect
import json
import re
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from host_sim.campaigns.fuzz import corpus
from host_sim.campaigns.fuzz.device import TARGETS, Device, Failure, Tally
from host_sim.errors import SimError
from host_sim.node import flash
from host_sim.node.agent_code import compile_all
from host_sim.node.process import compile_mpy
from insigh_ota.package import index, patches

_INSIDE = Path(__file__).parent / "inside"
_CASES_IN_A_PROCESS = 50_000
_HEAP_TO_COMPILE = 192 << 10


@dataclass(frozen=True)
class Replay:
    """One case: its input, how it ended (outcome or traceback of a refusal), what it broke."""

    data: bytes
    outcome: str
    failure: Failure | None


class Fuzzer:
    """Runs cases against one firmware folder (ours, unless told), compiled unless told.

    limit_s: a batch of cases that takes longer hangs.
    """

    def __init__(
        self, firmware: Path | None = None, *, compiled: bool = True, limit_s: float = 20
    ) -> None:
        self.limit_s = limit_s
        firmware = firmware or flash.FIRMWARE
        self._more_heap = 0 if compiled else _HEAP_TO_COMPILE
        self._stop = threading.Event()
        self._scratch = tempfile.TemporaryDirectory()
        folder = self._folder = Path(self._scratch.name)
        self._path = [folder / "inside", folder if compiled else firmware]
        for source in sorted(_INSIDE.glob("*.py")):
            compile_mpy(source, folder / "inside" / f"{source.stem}.mpy", source.name)
        if compiled:
            compile_all(firmware, folder)
        _make_reference(folder / "inside")
        self.corpus_crc = corpus.write(folder)

    def close(self) -> None:
        """Remove what was compiled."""
        self._scratch.cleanup()

    def __enter__(self) -> Fuzzer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self,
        cases: dict[str, int],
        seed: int,
        jobs: int,
        progress: Callable[..., object] = lambda *_: None,
    ) -> list[Tally]:
        """That many cases of each target.

        `progress` hears of (target, further cases), and of (target, 0, further failures).
        """
        tallies = {target: Tally(target) for target in cases}
        with ThreadPoolExecutor(jobs) as pool:
            parts = [
                pool.submit(self.part, target, seed, first, last, progress)
                for target, count in cases.items()
                for first, last in _ranges(count)
            ]
            try:
                for part in as_completed(parts):
                    tally = part.result()
                    tallies[tally.target].add(tally)
                    progress(tally.target, 0, len(tally.failures))
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return list(tallies.values())

    def part(
        self,
        target: str,
        seed: int,
        first: int,
        last: int,
        progress: Callable[[str, int], object] = lambda *_: None,
    ) -> Tally:
        """The cases from first up to, not including, last, in one process; a hang ends it."""
        tally = Tally(target)
        begin = time.monotonic()
        batch = TARGETS[target].batch
        while first < last:
            device = self._run(Device(target, seed, progress), first, last, batch)
            device.count_into(tally)
            if device.ended:
                break
            # It went silent. The batch once more, with a sign of life before each case.
            first = min(device.at + batch, last)
            careful = self._run(Device(target, seed, progress), device.at, first, 1)
            careful.count_into(tally)
            if not careful.ended:
                failure = Failure(f"{target}/{seed}/{careful.at}", careful.silence)
                tally.failures.append(failure)
                break
            # It was only slow, perhaps because the machine is.
        tally.seconds = time.monotonic() - begin
        return tally

    def replay(self, replay_id: str) -> Replay:
        """One case again, with all there is to see of it."""
        match = re.fullmatch(r"(\w+)/(\d+)/(\d+)", replay_id)
        if not match or match[1] not in TARGETS:
            raise SimError(f"{replay_id}: write TARGET/SEED/CASE, as a failure prints it")
        case = int(match[3])
        device = Device(match[1], int(match[2]))
        # A hang that is interrupted shows where.
        timer = threading.Timer(self.limit_s / 2, device.interrupt)
        timer.start()
        try:
            self._run(device, case, case + 1, 1, show=True)
        finally:
            timer.cancel()
        if not device.ended:
            device.failures.append(Failure(replay_id, device.silence))
        failure = device.failures[0] if device.failures else None
        return Replay(bytes.fromhex(device.data), device.outcome, failure)

    def _run(
        self, device: Device, first: int, last: int, batch: int, show: bool = False
    ) -> Device:
        if not self._stop.is_set():
            corpus_file = self._folder / f"{device.target}.txt"
            device.run(
                f"import sys;sys.path[:1]={json.dumps([str(folder) for folder in self._path])};"
                f"import runner;runner.run({device.target!r},{device.seed},{first},{last},{batch},"
                f"{json.dumps(str(corpus_file))},{show})",
                first,
                self._more_heap,
                self.limit_s,
                self._stop,
            )
        return device


def _make_reference(folder: Path) -> None:
    """The packager's reading of patches and indexes, as a module for MicroPython."""
    text = (
        "from binascii import crc32\n"
        f"BASE = {index.BASE}\n_VERSION = {index._VERSION}\n"
        "class PackageError(Exception):\n    pass\n"
        "class Patched:\n    def __init__(self):\n        self.patches, self.at = [], 0\n"
    )
    text += inspect.getsource(patches._steps) + inspect.getsource(patches.apply)
    text += inspect.getsource(index.decode).replace("zlib.", "")
    source = folder / "reference.py"
    source.write_text(text)
    compile_mpy(source, folder / "reference.mpy", source.name)
    source.unlink()


def _ranges(count: int) -> list[tuple[int, int]]:
    """Equal parts of range(count), none beyond what one process gets."""
    parts = max(1, -(-count // _CASES_IN_A_PROCESS))
    return [(count * n // parts, count * (n + 1) // parts) for n in range(parts)]
