"""The fleet's day: all connect, all are asked at once, and then all lose their broker at once."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import queue
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from host_sim import ctrl_c, sample
from host_sim.campaigns.badlink.lane import NOT_CLEARED
from host_sim.campaigns.fleet.member import Job, Member, News, digest, main_py, work
from host_sim.campaigns.fleet.memory import MemoryWatch, Peak
from host_sim.console import Console
from host_sim.errors import SimError
from host_sim.node import flash

_BLOCKS = 128
_NODES_A_PROCESS = 40
_OPEN_FILES = 1000
_PATIENCE_S = 600.0
# A node that serves ends in none of these ways.
_ENDS = ("exit", "timeout", "boot_limit", "sleep")

#: What the package brings beside `main.py`.
_FILES = {"data/table.bin": 12_000, "lib/new/driver.bin": 3_000, "data/small.txt": 40}


@dataclass(frozen=True)
class Plan:
    """A fleet of `nodes`, a `cut_share` of them on links that break; `retry_s` is the first
    window for their pauses; the broker is away for `down_s`.
    """

    nodes: int
    cut_share: float
    retry_s: int
    down_s: float


@dataclass
class Result:
    """What was seen. `wrong` is empty when all was as it has to be; times in seconds."""

    plan: Plan
    wrong: list[str] = field(default_factory=list)
    connect_s: float = 0.0
    """From the start of the first node until all were connected at a time."""
    ask_s: float = 0.0
    """How long it took the platform to ask all of them."""
    reported_s: list[float] = field(default_factory=list)
    """When each node on a good link had reported its end, counted from the first request."""
    reported_cut_s: list[float] = field(default_factory=list)
    """The same, of those on links that break."""
    confirmed_s: float = 0.0
    """When the last one had confirmed the new version."""
    downloads: int = 0
    """Downloads begun, those that were taken up again included."""
    laters: int = 0
    """How often a node left it for later before the broker was lost."""
    down_s: float = 0.0
    """How long the broker was away, from the loss until it answered again."""
    back_s: list[float] = field(default_factory=list)
    """When each node was in touch again, counted from the loss of the broker."""
    memory: Peak = field(default_factory=Peak)


class Fleet:
    """A context manager that owns console and processes; `run` is the whole story."""

    def __init__(self, plan: Plan, tell: Callable[[str], object] = lambda _text: None) -> None:
        self._plan = plan
        self._tell = tell
        chance = random.Random(plan.nodes)
        cut = set(chance.sample(range(plan.nodes), round(plan.nodes * plan.cut_share)))
        self._members = [Member(n, n in cut) for n in range(plan.nodes)]
        self._heard: list[News] = []
        self._counts: Counter[str] = Counter()

    def __enter__(self) -> Fleet:
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
            self._archive, self._image, self._expected = self._build()
            self._workers = [
                context.Process(target=work, args=(job, self._news, self._stop))
                for job in self._jobs()
            ]
            stack.callback(self._end_workers)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self) -> Result:
        """Connect, ask, lose the broker, and look at what has become of them."""
        result = Result(self._plan)
        with MemoryWatch() as watch:
            self._connect(result)
            watch.measure_shared()
            self._ask(result)
            self._lose_broker(result)
            result.memory = watch.peak
        self._judge(result)
        return result

    # -- what there is -------------------------------------------------------------------------

    def _build(self) -> tuple[bytes, Path, str]:
        """The package, the flash that all nodes begin with, and the tree that they end with."""
        chance = random.Random("fleet")
        old = {"main.py": main_py(1), "data/table.bin": chance.randbytes(12_000)}
        package = {"main.py": main_py(2)}
        package |= {name: chance.randbytes(size) for name, size in _FILES.items()}
        config = {
            "device_id": "set-by-main.py",
            "device_key": "set-by-main.py",
            "control_channel": "set-by-main.py",
            "mqtt": {"host": "127.0.0.1", "tls": False, "grace_ms": 50},
            "retry_s": self._plan.retry_s,
        }
        root = sample.write_tree(old, self._folder / "root")
        (root / "ota.json").write_text(json.dumps(config))
        (root / "ca.der").write_bytes(self._console.ca_der.read_bytes())
        image = self._folder / "fleet.img"
        flash.build(root, image, blocks=_BLOCKS, mpy=True)
        files, folders = flash.read_all(image)
        files |= {"/" + name: content for name, content in package.items()}
        expected = digest(files, [*folders, "/lib", "/lib/new"])
        return sample.tar_gz(package), image, expected

    def _jobs(self) -> list[Job]:
        ports = self._console.ports
        return [
            Job(
                self._members[first : first + _NODES_A_PROCESS],
                self._image,
                self._folder,
                ports.mqtt,
                ports.https,
                len(self._archive),
            )
            for first in range(0, len(self._members), _NODES_A_PROCESS)
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

    def _connect(self, result: Result) -> None:
        began = time.monotonic()
        with ctrl_c.shielded():
            for worker in self._workers:
                worker.start()
        result.connect_s = max(self._all("contact", began, "connected").values()) - began
        self._tell(f"{len(self._members)} nodes are connected, {result.connect_s:.1f} s")

    def _ask(self, result: Result) -> None:
        fuid = self._console.add_package(self._archive, "package.tar.gz").fuid
        self._fuid = fuid
        began = time.monotonic()
        for member in self._members:
            self._console.request(member.device_id, fuid)
        result.ask_s = time.monotonic() - began
        self._tell(f"all are asked for {fuid}, {result.ask_s:.1f} s")
        reported = self._all("report", began, "reported")
        confirmed = self._all("confirm", began, "confirmed")
        for member in self._members:
            times = result.reported_cut_s if member.cut else result.reported_s
            times.append(reported[member.number] - began)
        result.confirmed_s = max(confirmed.values()) - began
        result.downloads = len(self._console.downloads)
        result.laters = self._counts["later"]
        self._tell(f"all have confirmed the new version, {result.confirmed_s:.1f} s")

    def _lose_broker(self, result: Result) -> None:
        # Those that confirmed last are to be in the middle of their listening.
        time.sleep(1.5)
        began = time.monotonic()
        with self._console.broker_down():
            self._tell("the broker is gone")
            time.sleep(max(0.0, self._plan.down_s - (time.monotonic() - began)))
        result.down_s = time.monotonic() - began
        self._tell(f"the broker is back after {result.down_s:.1f} s")
        back = self._all("contact", began, "come back", value="idle")
        result.back_s = sorted(t - began for t in back.values())
        self._tell(f"the last node is back after {result.back_s[-1]:.1f} s")

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

    def _judge(self, result: Result) -> None:
        wrong = result.wrong
        for member in self._members:
            reports = self._console.reports(member.device_id)
            ends = list(dict.fromkeys((r.e, r.i, r.m) for r in reports))
            # A link that is cut at the clear looks like a broker that keeps the request.
            if ends not in ([(1, self._fuid, None)], [(1, self._fuid, NOT_CLEARED)]):
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
