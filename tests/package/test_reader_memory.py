"""The heap that reading a package takes depends neither on its members nor on their size."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from host_sim import sample
from host_sim.node.agent_code import compile_all
from host_sim.node.node import CodeResult, run_code
from host_sim.node.process import compile_mpy
from tests.mutants import Mutant

DEVICE = Path(__file__).parents[1] / "device"
READER = "ota/tarfile_lite.py"
# What is alive when a sample is taken differs by where in a header the reader stands just then.
NOISE = 1024

MEASURE = """
import gc
from ota.package.archive import open_archive
from ota.tarfile_lite import TarReader

class File:
    '''A host file as a source; `peak` is the most that was in use after a collection, in bytes.'''

    def __init__(self, path, sampled):
        self._file = open(path, "rb")
        self._sampled = sampled
        self.peak = 0
        self.samples = 0

    def look(self):
        if self._sampled:
            gc.collect()
            self.samples += 1
            used = gc.mem_alloc()
            if used > self.peak:
                self.peak = used

    def readinto(self, buffer, n):
        self.look()
        return self._file.readinto(buffer, n)

def read(path, sampled):
    source = File(path, sampled)
    reader = TarReader(open_archive(source))
    buffer = bytearray(1024)
    members = total = 0
    while reader.next():
        members += 1
        while True:
            n = reader.readinto(buffer, 1024)
            source.look()
            if not n:
                break
            total += n
    print(members, total, source.peak, source.samples)

def stage(path):
    # All of it before the host's files are out of reach.
    import ramflash
    from ota.install.journal import Journal
    from ota.install.finish import finish
    from ota.install.staging import Staging

    source = File(path, True)
    ramflash.mount(400, ["ota.package.utf8"])
    journal = Journal([2, "fa8884d2", 3, 24, 7, 900, True, 0, 0, None])
    staging = Staging(lambda step, value: None, [], lambda: None, journal, bytearray(512))
    reader = TarReader(open_archive(source))
    while reader.next():
        staging.add(reader)
    finish(staging)
    staging.journal.close()
    print(staging.staged, staging.bytes, source.peak, source.samples)
"""

FORMS = {"tar": sample.tar, "gzip": sample.tar_gz, "microfreezer": sample.microfreezer}
# Name: (members, bytes of each).
PACKAGES = {"one": (1, 1024), "two": (2, 1024), "many": (1000, 1024), "big": (1, 8 << 20)}


def content(size: int) -> bytes:
    """Lines that compress as a table of measurements does."""
    lines = b"".join(b"%06d,%d\n" % (n, n * 7919 % 1000) for n in range(700))
    return (lines * (size // len(lines) + 1))[:size]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the measuring module, compiled, and all packages."""
    folder = tmp_path_factory.mktemp("memory")
    (folder / "measure.py").write_text(MEASURE)
    # As source, compiling it would be what takes most.
    compile_mpy(folder / "measure.py", folder / "inside" / "measure.mpy", "measure.py")
    for name, (members, size) in PACKAGES.items():
        tree = {f"data/{n:04}.csv": content(size) for n in range(members)}
        for form, make in FORMS.items():
            (folder / f"{name}.{form}").write_bytes(make(tree))
    return folder


def call(bench: Path, agent: Path, code: str, heap: str) -> CodeResult:
    path = [bench / "inside", agent, DEVICE]
    return run_code(f"import measure;measure.{code}", path=path, heap=heap, timeout_s=100)


def peak(bench: Path, agent: Path, name: str, form: str) -> int:
    """The most that is in use while the package is read, in bytes."""
    package = bench / f"{name}.{form}"
    result = call(bench, agent, f"read({str(package)!r}, True)", "512K")
    assert result.exit_code == 0, result.output
    members, total, most, samples = map(int, result.output.split())
    expected_members, size = PACKAGES[name]
    assert members == expected_members + 1  # the folder
    assert total == expected_members * size
    assert samples > total // 1024
    return most


def smallest_heap(reads: Callable[[int], bool]) -> int:
    """The least `-X heapsize` with which it reads to the end, in KB."""
    too_small, enough = 8, 256
    assert reads(enough)
    while enough - too_small > 1:
        middle = (too_small + enough) // 2
        if reads(middle):
            enough = middle
        else:
            too_small = middle
    return enough


def reads_in(bench: Path, agent: Path, name: str, form: str) -> Callable[[int], bool]:
    package = bench / f"{name}.{form}"
    code = f"read({str(package)!r}, False)"
    return lambda kb: call(bench, agent, code, f"{kb}K").exit_code == 0


@pytest.mark.few(1)
@pytest.mark.parametrize("form", FORMS)
def test_the_peak_is_the_same(bench: Path, compiled: Path, form: str):
    peaks = {name: peak(bench, compiled, name, form) for name in PACKAGES}
    assert max(peaks.values()) - min(peaks.values()) <= NOISE, peaks
    if form == "tar":  # where every read of the source is one of the reader
        # Not to the byte: a stale word on the C stack keeps a small block, or a few.
        assert abs(peaks["one"] - peaks["big"]) <= NOISE // 2
        assert abs(peaks["two"] - peaks["many"]) <= NOISE // 2


@pytest.mark.few(1)
@pytest.mark.parametrize("form", FORMS)
def test_the_smallest_heap_is_the_same(bench: Path, compiled: Path, form: str):
    least = smallest_heap(reads_in(bench, compiled, "one", form))
    for name in ("many", "big"):
        reads = reads_in(bench, compiled, name, form)
        assert reads(least + 1), (name, least)
        assert not reads(least - 2), (name, least)
    if form != "tar":
        assert least > 32  # its window


def test_reading_content_allocates_nothing(agent: Path):
    """1 MB in blocks of 1 KB, read and skipped, without a collection."""
    code = """
import gc
from ota.tarfile_lite import TarReader

class Source:
    def __init__(self, header):
        self.header = header
    def readinto(self, buffer, n):
        if self.header:
            buffer[:] = self.header
            self.header = None
        return n

def growth(skip):
    header = bytearray(512)
    header[:4] = b"name"
    header[124:136] = b"00004000000\\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\\0 " % sum(header)
    reader = TarReader(Source(header))
    reader.next()
    buffer = bytearray(1024)
    total = 0
    gc.collect()
    gc.disable()
    before = gc.mem_alloc()
    if skip:
        reader.skip()
    else:
        while True:
            n = reader.readinto(buffer, 1024)
            if not n:
                break
            total += n
    after = gc.mem_alloc()
    gc.enable()
    print(total, after - before)

growth(False)
growth(True)
"""
    result = run_code(code, path=[agent], heap="512K")
    assert result.output.split() == ["1048576", "0", "0", "0"]


@pytest.mark.slow
def test_staging_a_thousand_members_takes_no_more_than_one(
    bench: Path, compiled: Path, tmp_path: Path
):
    """Each name has a character of its own: MicroPython keeps those that it meets as strings."""
    peaks = []
    for members in (1, 1000):
        tree = {f"d{n % 9}/{chr(0x4E00 + n)}{n:04}": b"%060d" % n for n in range(members)}
        package = tmp_path / f"{members}.tar"
        package.write_bytes(sample.tar(tree, tar_format=tarfile.USTAR_FORMAT))
        result = call(bench, compiled, f"stage({str(package)!r})", "2500K")
        assert result.exit_code == 0, result.output
        staged, total, most, samples = map(int, result.output.split())
        assert (staged, total) == (members + min(members, 9), 60 * members)
        assert samples > members
        peaks.append(most)
    assert abs(peaks[1] - peaks[0]) <= NOISE, peaks


@pytest.mark.slow
def test_a_reader_that_remembers_is_seen(bench: Path, tmp_path: Path):
    """Both ways to measure, and the count of allocations, can fail."""
    mutant = Mutant(
        "names kept",
        "the reader remembers the names that it met",
        "",
        tuple(
            (READER, line, line + more)
            for line, more in (
                ("        self.globals = {}\n", "        self._met = []\n"),
                ("        self.name = name\n", "        self._met.append(name)\n"),
                ("            self.left -= n\n", "            self._last = [n]\n"),
            )
        ),
    )
    firmware = mutant.plant(tmp_path)
    folder = tmp_path / "mpy"
    compile_all(firmware, folder)
    assert peak(bench, folder, "many", "tar") - peak(bench, folder, "two", "tar") > 8 * NOISE
    least = smallest_heap(reads_in(bench, folder, "one", "tar"))
    assert not reads_in(bench, folder, "many", "tar")(least + 8)
    with pytest.raises(AssertionError):
        test_reading_content_allocates_nothing(folder)
