"""How much memory the processes of a fleet take, where the system tells."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_EVERY_S = 0.25


@dataclass
class Peak:
    """The most that was seen, in bytes. All 0 where the system does not tell."""

    interpreters: int = 0
    """How many interpreters there were at a time."""
    interpreters_rss: int = 0
    """All of them together, what they share counted for each."""
    interpreters_pss: int = 0
    """All of them together, what they share counted once."""
    largest_rss: int = 0
    """The largest one."""
    hosts_rss: int = 0
    """The simulator's own processes together: console, package server, links, flash."""
    broker_rss: int = 0
    """Mosquitto."""


class MemoryWatch:
    """A context manager that looks now and then; `peak` is what it saw."""

    def __init__(self) -> None:
        self.peak = Peak()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def measure_shared(self) -> None:
        """Look at what the interpreters take, what they share counted once; it is slow."""
        _, interpreters, _ = self._processes()
        self.peak.interpreters_pss = max(self.peak.interpreters_pss, sum(map(_pss, interpreters)))

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY_S):
            hosts, interpreters, brokers = self._processes()
            sizes = [_rss(pid) for pid in interpreters]
            peak = self.peak
            peak.interpreters = max(peak.interpreters, len(sizes))
            peak.interpreters_rss = max(peak.interpreters_rss, sum(sizes))
            peak.largest_rss = max(peak.largest_rss, *sizes, 0)
            peak.hosts_rss = max(peak.hosts_rss, sum(map(_rss, hosts)))
            peak.broker_rss = max(peak.broker_rss, sum(map(_rss, brokers)))

    @staticmethod
    def _processes() -> tuple[list[int], list[int], list[int]]:
        """Our descendants: the simulator's processes, the interpreters, the brokers."""
        children: dict[int, list[int]] = {}
        names: dict[int, str] = {}
        for folder in _PROC.glob("[0-9]*"):
            try:
                stat = (folder / "stat").read_text()
                command = (folder / "cmdline").read_text()
            except OSError:
                continue
            pid = int(folder.name)
            children.setdefault(int(stat[stat.rindex(")") + 2 :].split()[1]), []).append(pid)
            names[pid] = "starter" if "server.py" in command else stat.split(")")[0]
        hosts, interpreters, brokers = [], [], []
        todo = [os.getpid()] if names else []
        while todo:
            pid = todo.pop()
            if "mosquitto" in names.get(pid, ""):
                brokers.append(pid)
                continue
            hosts.append(pid)
            for child in children.get(pid, []):
                # An interpreter is a fork of its starter, with the same command line.
                if names.get(pid) == names.get(child) == "starter":
                    interpreters.append(child)
                else:
                    todo.append(child)
        return hosts, interpreters, brokers


def _rss(pid: int) -> int:
    try:
        pages = int((_PROC / str(pid) / "statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _pss(pid: int) -> int:
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line[:4] == "Pss:")
