"""What each campaign of a fleet needs: a console, its nodes in a few processes, and their news."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import queue
import tempfile
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from host_sim import ctrl_c, sample
from host_sim.campaigns.fleet.member import Job, Member, News, work
from host_sim.console import Console
from host_sim.errors import SimError
from host_sim.node import flash
from host_sim.sample import Tree

_NODES_A_PROCESS = 40
_OPEN_FILES = 1000
_PATIENCE_S = 600.0
# A node that serves ends in none of these ways.
_ENDS = ("exit", "timeout", "boot_limit", "sleep")

#: What a report says: event, file id, text.
End = tuple[int, str | None, str | None]

_Kind = TypeVar("_Kind", bound="Crew")


class Crew(ABC):
    """A context manager that owns console and processes.

    A subclass says what the nodes begin with, what they are asked for, and what happens to them.
    """

    def __init__(
        self, members: Iterable[Member], tell: Callable[[str], object] = lambda _text: None
    ) -> None:
        self._members = list(members)
        self._tell = tell
        self._heard: list[News] = []
        self._counts: Counter[str] = Counter()
        self._fuid = ""

    def __enter__(self: _Kind) -> _Kind:
        with contextlib.ExitStack() as stack:
            # A file for each node's flash.
            scratch = tempfile.TemporaryDirectory(dir=ctrl_c.memory())
            self._folder = Path(stack.enter_context(scratch))
            console = Console(self._folder / "console", broker="mosquitto")
            self._console = stack.enter_context(console)
            console.add_devices((m.device_id, m.key, m.channel) for m in self._members)
            # Forked processes would take along half of what the console's threads are doing.
            context = multiprocessing.get_context("spawn")
            self._news: multiprocessing.Queue[News] = context.Queue()
            self._stop = context.Event()
            self._archive, self._expected, shares = self._build()
            self._workers = [
                context.Process(target=work, args=(job, self._news, self._stop))
                for job in self._jobs(shares)
            ]
            stack.callback(self._end_workers)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # -- what there is -------------------------------------------------------------------------

    @abstractmethod
    def _build(self) -> tuple[bytes, str, list[tuple[Path, list[Member]]]]:
        """The package, the tree that all end with, and which nodes begin with which flash."""

    def _image(self, name: str, tree: Tree, *, blocks: int, retry_s: int) -> Path:
        """A flash with these files, the agent, and what a node has to know of the console."""
        config = {
            "device_id": "set-by-main.py",
            "device_key": "set-by-main.py",
            "control_channel": "set-by-main.py",
            "mqtt": {"host": "127.0.0.1", "tls": False, "grace_ms": 50},
            "retry_s": retry_s,
        }
        root = sample.write_tree(tree, self._folder / name)
        (root / "ota.json").write_text(json.dumps(config))
        (root / "ca.der").write_bytes(self._console.ca_der.read_bytes())
        image = self._folder / f"{name}.img"
        flash.build(root, image, blocks=blocks, mpy=True)
        return image

    def _jobs(self, shares: list[tuple[Path, list[Member]]]) -> list[Job]:
        ports = self._console.ports
        return [
            Job(
                members[first : first + _NODES_A_PROCESS],
                image,
                self._folder,
                ports.mqtt,
                ports.https,
                len(self._archive),
            )
            for image, members in shares
            for first in range(0, len(members), _NODES_A_PROCESS)
        ]

    def _end_workers(self) -> None:
        self._stop.set()
        for worker in self._workers:
            # What is in the queue must be read, or the process can not end.
            while worker.is_alive():
                self._listen(0.05)
                worker.join(0.05)
        self._listen(0.1)  # what the last one said as it ended

    # -- what happens --------------------------------------------------------------------------

    def _connect(self) -> float:
        """Start all nodes, and wait until all are connected; how long that took."""
        began = time.monotonic()
        with ctrl_c.shielded():
            for worker in self._workers:
                worker.start()
        took = max(self._all("contact", began, "connected").values()) - began
        self._tell(f"{len(self._members)} nodes are connected, {took:.1f} s")
        return took

    def _ask(self) -> tuple[float, float]:
        """Ask all for the package: when that began, and how long it took."""
        self._fuid = self._console.add_package(self._archive, "package.tar.gz").fuid
        began = time.monotonic()
        for member in self._members:
            self._console.request(member.device_id, self._fuid)
        took = time.monotonic() - began
        self._tell(f"all are asked for {self._fuid}, {took:.1f} s")
        return began, took

    def _all(self, what: str, since: float, said: str, value: str = "") -> dict[int, float]:
        """Wait until every node has told of it; when each first did."""
        first: dict[int, float] = {}
        done = 0
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            for news in self._heard[done:]:
                if news.what == what and news.t > since and value in news.value:
                    first.setdefault(news.number, news.t)
                if news.what in _ENDS:
                    raise SimError(
                        f"node {news.number} has ended: {self._last_words(news.number)}"
                    )
            done = len(self._heard)
            if len(first) == len(self._members):
                return first
            if time.monotonic() > deadline:
                missing = sorted({m.number for m in self._members} - set(first))
                words = self._last_words(missing[0])
                raise SimError(f"{len(missing)} nodes have not {said}; node {missing[0]}: {words}")
            self._listen(0.1)

    def _last_words(self, number: int) -> str:
        news = [f"{n.what} {n.value}".strip() for n in self._heard if n.number == number]
        return "; ".join(news[-8:])

    def _listen(self, timeout_s: float) -> None:
        """Take what news there are."""
        with contextlib.suppress(queue.Empty):
            while True:
                news = self._news.get(timeout=timeout_s)
                self._heard.append(news)
                self._counts[news.what] += 1
                timeout_s = 0

    # -- what has become of them ---------------------------------------------------------------

    def _is_end(self, ends: list[End]) -> bool:
        """Whether a node may have reported this."""
        return ends == [(1, self._fuid, None)]

    def _wrong(self) -> list[str]:
        """End the nodes; what is not as it has to be, a line each."""
        wrong = []
        for member in self._members:
            ends = [(r.e, r.i, r.m) for r in self._console.reports(member.device_id)]
            if not self._is_end(ends):
                wrong.append(f"node {member.number} reported {ends}")
        self._end_workers()
        for member in self._members:
            if self._console.retained(member.device_id):
                wrong.append(f"node {member.number}: a request is still retained")
        trees = {n.number: n.value for n in self._heard if n.what == "flash" and n.value}
        for member in self._members:
            if trees.get(member.number) != self._expected:
                wrong.append(f"node {member.number} has another tree than the new one")
        for news in self._heard:
            if news.what in ("said", "wdt", "nor_violation", *_ENDS):
                wrong.append(f"node {news.number}: {news.what} {news.value}")
        return wrong


def raise_file_limit() -> None:
    """Allow as many open files as a process of a fleet needs."""
    import resource  # not on every system

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _OPEN_FILES:
        if hard != resource.RLIM_INFINITY and hard < _OPEN_FILES:
            raise SimError(
                f"a fleet needs {_OPEN_FILES} open files, {hard} are allowed: ulimit -n"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, hard))
