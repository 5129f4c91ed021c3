"""A node on a board with so much RAM, of which the heap takes what TLS then does not get."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from host_sim import sample
from host_sim.bench import heap
from host_sim.bench.laboratory import Laboratory
from host_sim.console import Console
from host_sim.errors import SimError
from host_sim.node.node import run_code
from host_sim.site import Site

#: What the heap begins with on an ESP32, in KB.
FIRST_AREA = 56
#: What the simulator's own code takes of it beside SIM_HEAP, in KB, once all of `machine` that the
#: agent uses is loaded: it is, from the beginning, so that each boot has as much for itself.
MORE_OF_SIM = 3
#: What a session of this interpreter takes at most, in KB, with the console's certificate.
OWN_TLS = 28
KINDS = ("idle", "tar", "gz8", "gz")

_MAIN = """\
import machine
machine.RTC, machine.WDT, machine.Timer
kept = [bytearray(1008) for _ in range(%d)]
import %s
%s
machine.deepsleep(60_000)
"""


@dataclass(frozen=True)
class Ram:
    """A board's RAM, in KB: in all; of it for one TLS session; what the application keeps."""

    total: int = 100
    tls: int = 40
    kept: int = 20


@dataclass(frozen=True)
class Outcome:
    """Whether it completed, how the check ended, and what the heap and TLS did meanwhile."""

    done: bool
    said: str
    trace: list[str]

    def areas(self) -> list[int]:
        """The sizes of the areas that were added to the heap, in bytes, over all boots."""
        return [int(size) for size in re.findall(r"@ram area (\d+):", "\n".join(self.trace))]

    def tls_peak(self) -> int:
        """The most that a session had taken at its end, in bytes."""
        return max(map(int, re.findall(r"TLS ends, peak (\d+)", "\n".join(self.trace))), default=0)


class Model:
    """A console and nodes, both of its connections with TLS. End it with `with`.

    The simulator has to run with the program of :mod:`host_sim.esp32.interpreter`.
    """

    def __init__(self, folder: Path, laboratory: Laboratory) -> None:
        self.console = Console(folder / "console")
        self._folder, self._laboratory = folder, laboratory
        self._old, self._packages = heap.packages()
        _, package = sample.next_version(self._old)
        del package["main.py"]  # the node's own is the one that checks
        self._packages["gz8"] = sample.tar_gz_window(package, 13)
        self._packages["gz"] = self._packages["tar.gz"]
        self._sites = 0

    def __enter__(self) -> Model:
        free = run_code("import gc; print(gc.mem_free())", heap="64K").output
        if int(free) <= 64 * 1024:  # what the system has is counted where the heap can grow
            raise SimError("the interpreter has no model of the ESP32's heap")
        self.console.__enter__()
        return self

    def __exit__(self, *what: object) -> None:
        self.console.__exit__(*what)

    def run(self, kind: str, ram: Ram, steps: int = 0) -> Outcome:
        """An idle check, or a whole update with a package of this kind, of KINDS.

        steps: also say what is in use at each step, and at every so many bytes and files; looking
        collects, so that the heap grows later than it does without.
        """
        if ram.total <= FIRST_AREA or ram.tls < OWN_TLS:
            raise SimError(f"more than {FIRST_AREA} KB of RAM, and {OWN_TLS} of TLS")
        module, call = ("heap_user", f"cycle({steps})") if steps else ("only_check", "check()")
        inside = {
            f"lib/{module}.mpy": (self._laboratory.inside / f"{module}.mpy").read_bytes(),
            "main.py": (_MAIN % (ram.kept, module, f"{module}.{call}")).encode(),
        }
        tree = self._old | self._laboratory.agent_tree() | inside
        self._sites += 1
        folder = self._folder / f"site{self._sites}"
        site = Site(
            folder, self.console, tree, blocks=1024, tls=True, heap=f"{FIRST_AREA + MORE_OF_SIM}K"
        )
        site.node.environ |= {
            "ESP32_RAM": str(ram.total),
            "ESP32_MORE": str(ram.tls - OWN_TLS),
            "ESP32_TRACE": "1",
        }
        if kind == "idle":
            done = "check: idle"
            self.console.clear(sample.DEVICE_ID)  # one that a run before could not fulfil
        else:
            done = "check: confirmed"
            site.ask(self._packages[kind], "p.tar" if kind == "tar" else "p.tar.gz")
        lines = site.run(timeout_s=120).output.splitlines()
        said = [line for line in lines if line.startswith("check: ")]
        trace = [line for line in lines if line.startswith("@") and " file " not in line]
        ended = any(line.startswith(done) for line in said)
        return Outcome(ended, (said or lines or ["nothing"])[-1], trace)

    def least(self, kind: str, ram: Ram, most: int = 160, step: int = 4) -> int:
        """From how much RAM on it completes, in KB, beside the same TLS and application.

        Looked for from above, in steps: a smaller size, whose area is given back in time by
        chance, may do as well.
        """

        def works(total: int) -> bool:
            return self.run(kind, Ram(total, ram.tls, ram.kept)).done

        if not works(most):
            raise SimError(f"not even {most} KB are enough for {kind}")
        least = most
        for size in step, 1:
            while least - size > FIRST_AREA and works(least - size):
                least -= size
        return least
