"""Downloads that are cut: at every place once, and at every place in one go."""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from host_sim import sample
from host_sim.campaigns.badlink.fetcher import Fetcher, content_digest
from host_sim.campaigns.badlink.parts import Outcome
from host_sim.console import Console
from host_sim.console.registry import Package
from host_sim.link import Link
from host_sim.node.flash import FIRMWARE

SIZE = 200_000
STEP = 97
#: One buffer of what unpacks: so much may have to be fetched again after a cut.
READ_BUFFER = 1024
BUILD = {"tar": sample.tar, "tar.gz": sample.tar_gz}


def archive(kind: str, size: int = SIZE) -> bytes:
    """A package of about `size` bytes; they look random, so compressing changes little."""
    chance = random.Random(97)
    tree = {"main.py": sample.main_py(2)}
    for n in range(5):
        tree[f"data/part_{n}.bin"] = chance.randbytes(size // 5 - 2500)
    return BUILD[kind](tree)


def places(size: int, step: int = STEP) -> list[int]:
    """Every `step`th byte of a body, before which it is cut."""
    return list(range(step, size, step))


class Downloader:
    """A context manager: one console with one package, and a node that fetches it."""

    def __init__(self, kind: str, size: int = SIZE, firmware: Path = FIRMWARE) -> None:
        self._firmware = firmware
        self._data = archive(kind, size)
        self._name = f"package.{kind}"
        self._digest = content_digest(self._data)

    def __enter__(self) -> Downloader:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self.console = stack.enter_context(Console(folder))
            self.fetcher = stack.enter_context(Fetcher(self.console, firmware=self._firmware))
            self.package: Package = self.console.add_package(self._data, self._name)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def cut_at(self, case: str, offsets: list[int]) -> Outcome:
        """One download in which the server ends the body at each of these offsets."""
        self.console.faults.cut_at = list(offsets)
        before = len(self.console.downloads)
        outcome = self.fetch(case)
        requests = self.console.downloads[before:]
        wrong = list(outcome.wrong)
        again = sum(request.bytes_sent for request in requests) - self.package.size
        if len(requests) != len(offsets) + 1:
            wrong.append(f"{len(requests)} connections for {len(offsets)} cuts")
        if again > READ_BUFFER * len(offsets):
            wrong.append(f"{again} bytes fetched again")
        return replace(outcome, wrong=tuple(wrong), again=again, cuts=len(offsets))

    def fetch(self, case: str, **options) -> Outcome:
        """One download; `options` are those of `Fetcher.fetch`."""
        began = time.monotonic()
        fetched = self.fetcher.fetch(
            self.package.fuid, self.package.size, **{"total_s": 3600} | options
        )
        wrong = []
        if fetched.error:
            wrong.append(fetched.error)
        elif fetched.digest != self._digest:
            wrong.append("other bytes than the package's")
        return Outcome(case, tuple(wrong), seconds=time.monotonic() - began)


def refetched(outcomes: list[Outcome]) -> str:
    """How many bytes came again, per cut."""
    cuts = sum(outcome.cuts for outcome in outcomes)
    mean = sum(outcome.again for outcome in outcomes) / max(cuts, 1)
    most = max((outcome.again / outcome.cuts for outcome in outcomes), default=0)
    return f"{cuts} cuts, {mean:.1f} bytes fetched again per cut, {most:.0f} at most"


class CutOnce:
    """One cut in each download, at every 97th byte of the package in turn."""

    lanes = 2

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.name = f"once.{kind}"
        self.what = f"one cut in each download of a .{kind}"

    def __enter__(self) -> CutOnce:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is shared by the lanes."""

    def cases(self) -> list[str]:
        """The offsets."""
        return [str(offset) for offset in places(len(archive(self._kind)))]

    def open_lane(self, stack: contextlib.ExitStack) -> Callable[[str], Outcome]:
        """A console and a node of its own."""
        downloader = stack.enter_context(Downloader(self._kind))
        return lambda case: downloader.cut_at(f"{self.name}/{case}", [int(case)])

    def summary(self, outcomes: list[Outcome]) -> str:
        """Bytes fetched again."""
        return refetched(outcomes)


class CutEverywhere(CutOnce):
    """One download of each kind, cut at every 97th byte."""

    def __init__(self) -> None:
        self.name = "everywhere"
        self.what = "one download with all the cuts, .tar and .tar.gz"

    def cases(self) -> list[str]:
        """The kinds."""
        return list(BUILD)

    def open_lane(self, stack: contextlib.ExitStack) -> Callable[[str], Outcome]:
        """A console and a node for each case."""

        def run(case: str) -> Outcome:
            with Downloader(case) as downloader:
                offsets = places(downloader.package.size)
                return downloader.cut_at(f"{self.name}/{case}", offsets)

        return run


class CutStream(CutOnce):
    """TCP resets at every 997th byte of the connection, TLS handshake and records included.

    What has come of a TLS record that is not whole can not be used.
    """

    _STEP = 997
    _RECORD = 16 * 1024

    def __init__(self) -> None:
        self._kind = "tar.gz"
        self.name = "stream"
        self.what = "one TCP reset in each download, anywhere in its TLS stream"

    def cases(self) -> list[str]:
        """Offsets of what comes down."""
        return [str(offset) for offset in range(0, len(archive(self._kind)), self._STEP)]

    def open_lane(self, stack: contextlib.ExitStack) -> Callable[[str], Outcome]:
        """A console, a node, and a link between them."""
        downloader = stack.enter_context(Downloader(self._kind))
        link = stack.enter_context(Link("127.0.0.1", downloader.console.ports.https))

        def fetch(case: str, profile: str) -> tuple[Outcome, int]:
            link.profile = profile
            before = link.delivered("down")
            return downloader.fetch(case, port=link.port), link.delivered("down") - before

        _, whole = fetch("whole", "")
        downloader.console.faults.cut_at = [downloader.package.size // 2]
        _, twice = fetch("twice", "")
        handshake = twice - whole  # and the answer's header

        def run(case: str) -> Outcome:
            outcome, came = fetch(f"{self.name}/{case}", f"cut=reset:{case}")
            again = max(0, came - whole - handshake)
            wrong = list(outcome.wrong)
            if int(case) < handshake and wrong and wrong[0].startswith("Transient"):
                wrong = []  # nothing to resume yet: that is for another wake
            if again > self._RECORD + READ_BUFFER:
                wrong.append(f"{again} bytes fetched again")
            return replace(outcome, wrong=tuple(wrong), again=again)

        return run
