"""Time on a chip: what the interpreter does in an update, in instructions that valgrind counts."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from host_sim import sample
from host_sim.bench.laboratory import Laboratory
from host_sim.errors import SimError
from host_sim.node.process import program

#: As an ESP32 without PSRAM has it (128 KB), in words of twice the size. Collections take longer
#: in a larger one, and come less often in proportion.
HEAP = "256K"

#: Cycles of an ESP32 for one instruction counted here, at best, as it is taken, and at worst:
#: MicroPython's own perf_bench programs counted in the same way, beside their published scores on
#: an ESP32 at 160 MHz (docs/benchmarks.md).
CYCLES = (1.6, 2.1, 3.1)
CLOCK = 240e6

_START = (
    "import os, sys; sys.path.append(sys.argv[1]); from micropython_run import run_main;"
    "os._exit(run_main(['micropython', *sys.argv[2:]]) & 255)"
)
#: Where valgrind begins to count anew: what `mark` of inside/on_chip.py calls.
_MARK = "gc_isenabled"

#: Which C functions do what, in the order in which they are asked for.
KINDS = {
    "inflating": re.compile(r"uzlib_(?!crc32|adler32)|tinf_|deflateio_"),
    "check sums": re.compile(r"crc32|adler32|sha256"),
    "collecting": re.compile(r"gc_(?!alloc|free|realloc|nbytes)"),
}


@dataclass
class Count:
    """Instructions of each stretch between two marks, by kind; `ends` of the checks.

    Behind these, where a server knew Range, how many bytes it has sent.
    """

    stretches: dict[str, Counter[str]]
    ends: list[str | int]

    def total(self) -> int:
        """All of them."""
        return sum(kinds.total() for kinds in self.stretches.values())

    def kinds(self) -> Counter[str]:
        """Of all stretches, by kind."""
        return sum(self.stretches.values(), Counter())


@dataclass
class Fit:
    """Instructions of an update beyond the bare floor: all = fixed + members * … + KB * …"""

    fixed: float
    member: float
    kilobyte: float


def seconds(instructions: float, cycles: float = CYCLES[1]) -> float:
    """How long a chip takes for so many instructions."""
    return instructions * cycles / CLOCK


def find_valgrind() -> str | None:
    """Where valgrind is."""
    return shutil.which("valgrind")


def can_count(part: str) -> bool:
    """Whether valgrind is there; says so if not. Raises SimError where it has to be there."""
    if find_valgrind():
        return True
    message = f"{part}: not measured, valgrind is not installed (Debian's package valgrind)"
    if os.environ.get("CI") == "true":
        raise SimError(message)
    print(message, file=sys.stderr)
    return False


def update(laboratory: Laboratory, package: bytes) -> Count:
    """A whole update with this package on a node that has only the agent."""
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n"
        b'ETag: "0123456789abcdef"\r\nConnection: close\r\n\r\n' % len(package)
    )
    root = laboratory.folder / "chip"
    shutil.rmtree(root, ignore_errors=True)
    sample.write_tree(laboratory.agent_tree() | {"ca.der": b"anchor", "main.py": b"pass"}, root)
    return _run(laboratory, "update", head + package, root, len(package))


def update_by_ranges(laboratory: Laboratory, package: bytes, live: sample.Tree) -> Count:
    """The same on a node that has `live` as well, from a server that knows Range."""
    root = laboratory.folder / "chip"
    shutil.rmtree(root, ignore_errors=True)
    sample.write_tree(live | laboratory.agent_tree() | {"ca.der": b"anchor"}, root)
    return _run(laboratory, "update_by_ranges", package, root, len(package))


def patched(laboratory: Laboratory, cases: list[tuple[bytes, bytes, bytes]]) -> int:
    """Instructions that make files of (an old file, a patch, what it makes) beyond a copy."""
    content, lengths = b"".join(map(b"".join, cases)), [[*map(len, case)] for case in cases]
    found = _run(laboratory, "patched", content, laboratory.agent, lengths).stretches
    made, copied = (
        sum(kinds.total() for name, kinds in found.items() if name.startswith(what))
        for what in ("patched", "copied")
    )
    return made - copied


def floor(laboratory: Laboratory, package: bytes) -> Count:
    """The bare loop that receives the same package, and unpacks it into one file."""
    root = laboratory.folder / "chip"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    bits = 15 if package[:2] == b"\x1f\x8b" else 0
    return _run(laboratory, "floor", package, root, 0, bits)


def fit(laboratory: Laboratory, pack: Callable[[sample.Tree], bytes]) -> Fit:
    """What a member and a KB cost, from packages with more and more of either."""
    few, many = (10, 30, 60), (1, 4, 16)
    by_members = [_beyond_floor(laboratory, pack(_files(count, 1))) for count in few]
    by_size = [_beyond_floor(laboratory, pack(_files(few[0], size))) for size in many]
    slope, start = statistics.linear_regression([few[0] * size for size in many], by_size)
    each, _ = statistics.linear_regression(few, by_members)
    return Fit(start - few[0] * (each - slope), each - slope, slope)


def _files(count: int, kilobytes: int) -> sample.Tree:
    """Files that compress to half, some to a folder."""
    return {
        f"data/d{n // 20}/f{n:03}.txt": random.Random(n).randbytes(512 * kilobytes).hex().encode()
        for n in range(count)
    }


def _beyond_floor(laboratory: Laboratory, package: bytes) -> int:
    return update(laboratory, package).total() - floor(laboratory, package).total()


def _run(laboratory: Laboratory, function: str, answer: bytes, *arguments: object) -> Count:
    valgrind = find_valgrind()
    if not valgrind:
        raise SimError("valgrind is not installed (Debian's package valgrind)")
    if program().is_file():
        raise SimError("MICROPYTHON: only the wheel's interpreter is counted, by its symbols")
    stored = laboratory.folder / "answer"
    stored.write_bytes(answer)
    root, *rest = arguments
    call = ", ".join(map(repr, (str(root), str(stored), *rest)))
    counts = laboratory.folder / "callgrind"
    done = subprocess.run(
        [
            valgrind,
            "--tool=callgrind",
            f"--dump-before={_MARK}",
            "--combine-dumps=yes",
            f"--callgrind-out-file={counts}",
            *(sys.executable, "-S", "-E", "-c", _START, str(program())),
            *("-X", f"heapsize={HEAP}", "-c"),
            f"import sys;sys.path[:]=[{str(laboratory.inside)!r}];"
            f"import on_chip;on_chip.{function}({call})",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        # Nothing that differs from one machine to the next where it can be helped.
        env={"PATH": os.environ["PATH"], "HOME": str(laboratory.folder)},
    )
    try:
        ends, names = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        text = (done.stdout + done.stderr)[-800:]
        raise SimError(f"bench: {function} under valgrind failed: {text}") from error
    parts = _by_kind(counts)
    # The last part is how the interpreter ends.
    if len(parts) != len(names) + 1:
        raise SimError(f"bench: {len(parts)} parts counted, {len(names) + 1} expected")
    stretches = dict(zip(names, parts, strict=False))
    del stretches["start"]
    return Count(stretches, ends)


def _kind(function: str) -> str:
    return next((kind for kind, form in KINDS.items() if form.search(function)), "interpreter")


def _by_kind(file: Path) -> list[Counter[str]]:
    """Of each part of callgrind's output the instructions by kind, without those of callees."""
    parts: list[Counter[str]] = []
    names: dict[str, str] = {}
    kind, callee = "interpreter", False
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("part:"):
                parts.append(Counter())
            elif line.startswith(("fn=", "cfn=")):
                # A name is written out once, and has a number from then on.
                number, _, name = line.partition("=")[2].rstrip().partition(" ")
                if name:
                    names[number] = name
                if line[0] == "f":
                    kind = _kind(names[number])
            elif line.startswith("calls="):
                callee = True
            elif line[0] in "0123456789+-*":
                if not callee:
                    parts[-1][kind] += int(line.split()[1])
                callee = False
    return parts
