"""One node's story on a broker: it learns, is measured, and is asked for this and that."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from host_sim import sample
from host_sim.campaigns.brokers.turns import Idle, idle
from host_sim.campaigns.fleet.member import Member
from host_sim.campaigns.scripts.steps import Steps
from host_sim.console import Console
from host_sim.link.wiretap import Segment, Wiretap
from host_sim.node.node import Node, Run

#: A request is heard so many wakes later at the most, or it is missed.
MOST_WAKES = 24
# A node that waits for its channel in vain ends long before.
_WAKE_TIMEOUT_S = 120
#: A node is held at the beginning of a download until the console has come in between, and so
#: long behind that.
_SETTLED_S = 0.5
#: Idle checks that are measured: among so many is one patient one.
MEASURED = 24

_MAIN = """\
import machine
import os
import socket
import ota

config = ota.load_config()
config["device_id"], config["device_key"] = os.getenv("DEVICE_ID"), os.getenv("DEVICE_KEY")
config["control_channel"] = os.getenv("CONTROL_CHANNEL")
config["server"] = "localhost:" + os.getenv("HTTPS_PORT")
config["mqtt"]["port"] = int(os.getenv("MQTT_PORT"))

def progress(step, value):
    if step not in ("bytes", "file"):
        print("@" + step, value)
    port = os.getenv("STEP_PORT")
    if port and step == "download":
        held = socket.socket()
        held.connect(socket.getaddrinfo("127.0.0.1", int(port))[0][-1])
        held.write(step + "\\n")
        held.read(1)
        held.close()

agent = ota.Agent(config, progress=progress)
print("@outcome", agent.check(), agent.reason or "")
machine.deepsleep(60_000)
"""

#: What every node begins with.
TREE: sample.Tree = {"main.py": _MAIN.encode(), "data.txt": b"one"}
#: A package in which nothing is new: downloaded, compared, reported, and no reset.
SAME = sample.tar({"data.txt": b"one"})


@dataclass
class Counts:
    """What the nodes of a cell have seen. `wrong` is empty when all was as it has to be; else it
    has what kind of mishap it was, and the words for it.
    """

    requests: int = 0
    wakes: list[int] = field(default_factory=list)
    """For each request that was heard: how many wakes after it; 0 for the one it came in."""
    cancels: int = 0
    replaces: int = 0
    updates: int = 0
    idles: list[Idle] = field(default_factory=list)
    wrong: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """How much each node does."""

    learn: int
    """Wakes before it is measured, one in ten with a request."""
    requests: int
    others: int
    """Cancels, replaces and updates, each so many times."""

    @property
    def steps(self) -> int:
        """So often a node says that it has come further."""
        return -(-self.learn // 10) * 10 + MEASURED + self.requests + 5 * self.others


class Story(threading.Thread):
    """Node `number` at a console; `counts` are its own. What `config` says is in the image.

    `further` is called after each step of the plan.
    """

    def __init__(
        self,
        number: int,
        console: Console,
        image: Path,
        plan: Plan,
        tls: bool,
        further: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(name=f"node {number}", daemon=True)
        self.member = Member(number, False)
        self.counts = Counts()
        self._further = further
        self._console, self._plan, self._tls = console, plan, tls
        self._chance = random.Random(number)
        self._port = console.ports.mqtts if tls else console.ports.mqtt
        assert self._port is not None
        own = image.with_name(f"node{number}.img")
        shutil.copyfile(image, own)
        self.node = Node(
            own,
            environ={
                "DEVICE_ID": self.member.device_id,
                "DEVICE_KEY": self.member.key,
                "CONTROL_CHANNEL": self.member.channel,
                "HTTPS_PORT": str(console.ports.https),
                "STEP_PORT": "",
            },
            mtime=False,
        )
        self._wakes = 0
        self._awake_s = 0.4  # in the last wake
        self._expected: dict[str, int | None] = {}  # file id: the end that it has to have

    def run(self) -> None:
        """Everything, once."""
        with Wiretap(self._port) as self._wiretap, Steps() as self._steps:
            self.node.environ["MQTT_PORT"] = str(self._wiretap.port)
            try:
                self._learn()
                for step in (
                    *[self._measure] * MEASURED,
                    *[self._ask_once] * self._plan.requests,
                    *self._others() * self._plan.others,
                ):
                    step()
                    self._further()
            except Exception as error:
                self._wrong("broken off", f"{type(error).__name__}: {error}")
            self._judge()

    # -- what happens to it ------------------------------------------------------------------

    def _learn(self) -> None:
        """Wakes in which nothing is to be done, and a request now and then; the first at once."""
        while self._wakes < self._plan.learn:
            for step in (self._ask_once, *[self._idle_wake] * 9):
                step()
                self._further()

    def _measure(self) -> None:
        before = {segment.connection for segment in self._wiretap.segments}
        self._idle_wake()
        try:
            self.counts.idles.append(idle(self._new_segments(before), self._tls))
        except ValueError as error:
            self._wrong("not measured", str(error))

    def _others(self) -> list[Callable[[], None]]:
        both = [
            partial(do, during) for do in (self._cancel, self._replace) for during in (False, True)
        ]
        return [*both, self._update]

    def _new_segments(self, before: set[int]) -> list[Segment]:
        """Those of other connections, once the node has left."""

        def new() -> list[Segment]:
            return [each for each in self._wiretap.segments if each.connection not in before]

        # What it said last may still be on its way through.
        self._wiretap.wait_for(lambda: any(e.direction == "up" and not e.length for e in new()))
        return new()

    def _ask_once(self) -> None:
        """A request at any moment, awake or asleep."""
        fuid = self._package(SAME, 1)
        self.counts.requests += 1
        if self._chance.random() < 0.5:
            delay_s = self._chance.uniform(0, 1.2 * self._awake_s)
            timer = threading.Timer(delay_s, self._request, (fuid,))
            timer.start()
            self._wake()
            timer.join()
        else:
            self._request(fuid)
        heard = self._until_ended(fuid)
        if heard is None:
            self._wrong("missed", fuid)
        else:
            self.counts.wakes.append(heard)

    def _cancel(self, during: bool) -> None:
        """Withdrawn while it sleeps, or while it downloads: nothing is installed or reported."""
        text = self._chance.randbytes(8).hex().encode()
        fuid = self._package(sample.tar({"data.txt": text}), None)
        self._request(fuid)
        self.counts.cancels += 1
        if during:
            if not self._meanwhile(fuid, self._clear):
                return
        else:
            self._clear()
        self._idle_wake()

    def _replace(self, during: bool) -> None:
        """Another request takes its place: only that one counts."""
        text = self._chance.randbytes(8).hex().encode()
        first = self._package(sample.tar({"data.txt": text}), None)
        second = self._package(SAME, 1)
        self._request(first)
        self.counts.replaces += 1
        if during:
            if not self._meanwhile(first, lambda: self._request(second)):
                return
        else:
            self._request(second)
        if self._until_ended(second) is None:
            self._wrong("missed", f"{second}, which replaces {first}")

    def _update(self) -> None:
        """A package with a reset, a trial and a confirm."""
        text = self._chance.randbytes(8).hex().encode()
        fuid = self._package(sample.tar({"other.txt": text}), 1)
        self._request(fuid)
        self.counts.updates += 1
        output = ""
        for _ in range(MOST_WAKES):
            output += self._wake().output
            if "@confirm" in output:
                return
        self._wrong("not confirmed", fuid)

    # -- how it happens ----------------------------------------------------------------------

    def _wake(self) -> Run:
        began = time.monotonic()
        run = self.node.run(
            cause="deepsleep" if self._wakes else "power_on", timeout_s=_WAKE_TIMEOUT_S
        )
        self._awake_s = time.monotonic() - began
        self._wakes += 1
        if "sleep" not in run.names():
            self._wrong("did not sleep", run.output[-300:])
        return run

    def _idle_wake(self) -> None:
        run = self._wake()
        if "@outcome idle" not in run.output:
            self._wrong("not idle", run.output[-300:])
        elif run.ops:
            self._wrong("wrote to flash", f"{run.ops} times in an idle check")

    def _meanwhile(self, fuid: str, call: Callable[[], object]) -> bool:
        """Do something when the node begins to download; whether it got so far."""
        done = False

        def called() -> None:
            nonlocal done
            done = True
            call()
            time.sleep(_SETTLED_S)

        with self._steps.waiting({"download": called}) as port:
            self.node.environ["STEP_PORT"] = str(port)
            for _ in range(MOST_WAKES):
                self._wake()
                if done:
                    break
            self.node.environ["STEP_PORT"] = ""
        if not done:
            self._wrong("missed", fuid)
            self._clear()
        return done

    def _package(self, data: bytes, end: int | None) -> str:
        fuid = self._console.add_package(data, "package.tar").fuid
        self._expected[fuid] = end
        return fuid

    def _request(self, fuid: str) -> None:
        self._console.request(self.member.device_id, fuid)

    def _clear(self) -> None:
        self._console.clear(self.member.device_id)

    def _reported(self, fuid: str) -> bool:
        return any(report.i == fuid for report in self._console.reports(self.member.device_id))

    def _until_ended(self, fuid: str) -> int | None:
        """Wake until it is reported, and see that it is cleared. How many times; None: never."""
        wakes = 0
        while not self._reported(fuid):
            if wakes == MOST_WAKES:
                self._clear()
                return None
            self._wake()
            wakes += 1
        if self._console.retained(self.member.device_id) is not None:
            self._wrong("not cleared", fuid)
            self._clear()
        return wakes

    def _judge(self) -> None:
        """Each request that stood has one end, and the others have none."""
        seen: dict[str, list[int]] = {fuid: [] for fuid in self._expected}
        for report in self._console.reports(self.member.device_id):
            seen.setdefault(report.i, []).append(report.e)
        for fuid, ends in seen.items():
            end = self._expected.get(fuid)
            if end is None and ends:
                self._wrong("done though withdrawn", f"{fuid}, {ends}")
            elif end is not None and ends != [end] and ends:  # without any it is missed
                self._wrong("another end", f"{fuid}, {ends}")
        if self._console.retained(self.member.device_id) is not None:
            self._wrong("not cleared", "at the end")

    def _wrong(self, kind: str, words: str) -> None:
        self.counts.wrong.append((kind, " / ".join(words.split("\n"))))
