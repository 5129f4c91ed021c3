"""A platform and a node on the bench: lives a life, and has the model watch it."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from host_sim import ctrl_c, sample
from host_sim.campaigns import campaign
from host_sim.campaigns.campaign import kind_of
from host_sim.campaigns.lives import model as models
from host_sim.campaigns.lives import trees
from host_sim.campaigns.lives.life import Life, Wake, final_package, make
from host_sim.campaigns.lives.model import Model
from host_sim.campaigns.lives.package import Package
from host_sim.campaigns.powercut.platform import Platform, State
from host_sim.errors import SimError
from host_sim.node import flash
from host_sim.node.node import Event, Node, Run

_BLOCKS = 169
_TIMEOUT_S = 90
_STORM_BOOTS = 30
_NO_EVENTS = Wake("deepsleep")


@dataclass
class Outcome(campaign.Outcome):
    """What a life came to, and how many packages of which manner it had."""

    manners: Counter[str] = field(default_factory=Counter)


@dataclass
class Tally(campaign.Tally):
    """What a number of lives came to."""

    what = "lives"

    manners: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: campaign.Outcome) -> None:
        """Count one in."""
        super().add(outcome)
        assert isinstance(outcome, Outcome)
        self.manners += outcome.manners

    def rows(self) -> list[tuple[str, str]]:
        """The result, as the table has it."""
        manners = ", ".join(f"{n:,} {name}" for name, n in self.manners.most_common())
        return [*super().rows(), ("packages", manners)]


class LightPlatform(Platform):
    """The least platform, with many packages; and where a node tells what it does.

    `told` is called with each line of the node; its answer is Python that the node runs. `body`
    is called with a package, and returns what of it gets through, which nothing may be.
    """

    def __init__(self) -> None:
        super().__init__()
        self.packages: dict[str, Package] = {}
        self.told: Callable[[str], str] = lambda _line: ""
        self.body: Callable[[bytes], bytes] = lambda data: data

    def __enter__(self) -> LightPlatform:
        super().__enter__()
        self.story_port = self.listen(self._serve_story)
        return self

    def serve_package(self, connection: socket.socket) -> None:
        """The package whose file id the node names."""
        with connection.makefile("rb") as stream:
            fuid = stream.readline().decode().strip()
        connection.sendall(self.body(self.packages[fuid].archive))

    def _serve_story(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as stream:
            line = stream.readline().decode().strip()
        connection.sendall(self.told(line).encode())


class Bench:
    """A context manager; one life after the other."""

    def __init__(self, firmware: Path = flash.FIRMWARE) -> None:
        self.firmware = firmware

    def __enter__(self) -> Bench:
        with contextlib.ExitStack() as stack:
            # In memory where there is such a place.
            scratch = tempfile.TemporaryDirectory(dir=ctrl_c.memory())
            self._folder = Path(stack.enter_context(scratch))
            self.platform = stack.enter_context(LightPlatform())
            self.image = self._folder / "node.img"
            # Compiled once, not for each life.
            flash.build(None, self.image, mpy=True, firmware=self.firmware)
            flash.extract(self.image, self._folder / "compiled")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self, life: Life) -> Node:
        """The node of a life as it was flashed."""
        root = self._folder / "root"
        sample.write_tree(life.old, root)
        flash.build(root, self.image, blocks=_BLOCKS, firmware=self._folder / "compiled")
        shutil.rmtree(root)
        return Node(self.image, mtime=False, rtc=True)

    def run(self, seed: int) -> Outcome:
        """Live the life of a seed."""
        return self.live(make(seed, self.firmware))

    def live(self, life: Life) -> Outcome:
        """Live it."""
        return Performance(self, life).run()


class Performance:
    """One life."""

    def __init__(self, bench: Bench, life: Life) -> None:
        self._bench = bench
        self._life = life
        self._platform = platform = bench.platform
        self._node = bench.begin(life)
        self._read: tuple[bytes, tuple[dict[str, bytes], list[str]]] = (b"", ({}, []))
        self._model = Model(life, *self._flash())
        self._outcome = Outcome(life.seed, [])
        self._story = [str(life)]
        self._wake = _NO_EVENTS
        self._steps: Counter[str] = Counter()
        self._packets = self._heard = 0
        self._done: list[object] = []
        self._tree: trees.Tree = {}
        self._asked: str | None = None
        self._lock = threading.Lock()
        self._acted = False
        final = final_package(life)
        self._final = final
        platform.begin(State(), b"")
        platform.packages = {p.fuid: p for p in (*life.packages, final)}
        platform.told = self._guarded(self._told, "")
        platform.on_connect = self._guarded(lambda: self._look("at a contact"), None)
        platform.after_publish = self._guarded(self._published, None)
        platform.on_packet = lambda: self._packet_passes("lost")
        platform.after_packet = lambda: self._packet_passes("heard")
        platform.body = self._body

    def run(self) -> Outcome:
        """All wakes, a good end, one more package, and the judgement."""
        outcome, wrong = self._outcome, self._model.wrong
        began = time.monotonic()
        last = None
        for number, wake in enumerate(self._life.wakes, 1):
            self._story.append(f"== wake {number}: {wake}")
            last = self._one(wake, last)
            if wrong:
                break
        else:
            last = self._until_rest(last)
            if not wrong:
                self._story.append("== one more good package")
                self._ask(self._final.fuid)
                self._until_rest(last)
                if not self._model.requests[self._final.fuid].kept:
                    wrong.append("wedged: a further good package is not installed")
            if not wrong:
                self._model.judge(self._platform.state.reports)
        outcome.wrong = wrong
        outcome.ends = self._model.ends
        outcome.manners.update(
            request.package.manner
            for fuid, request in self._model.requests.items()
            if fuid != self._final.fuid
        )
        outcome.seconds = time.monotonic() - began
        outcome.story = "\n".join(self._story)
        return outcome

    # -- the platform's side ---------------------------------------------------------------------

    def _ask(self, fuid: str) -> None:
        self._withdraw()
        self._story.append(f"-- asks for {fuid}")
        self._asked = fuid
        self._model.ask(self._platform.packages[fuid])
        self._platform.retain(self._platform.packages[fuid].request)

    def _withdraw(self) -> None:
        standing = self._standing()
        if standing:
            self._story.append(f"-- withdraws {standing}")
            self._model.drop(standing)
            self._platform.retain(b"")

    def _standing(self) -> str | None:
        return self._asked if self._platform.state.retained else None

    def _published(self, _number: int) -> None:
        reports = self._platform.state.reports[self._heard :]
        self._heard += len(reports)
        for payload in reports:
            self._story.append(f"   reports {payload.decode()}")
            pack = {e["n"]: e.get("v", e.get("vs")) for e in json.loads(payload)}
            if pack["e"] == 1:
                self._model.applied(pack["i"], *self._flash())

    def _packet_passes(self, how: str) -> bool:
        if how == "lost":
            self._packets += 1
        for event in self._wake.of("mqtt"):
            if event.how == "refused" or (event.how == how and event.at == self._packets):
                return False
        return True

    def _body(self, data: bytes) -> bytes:
        self._steps["body"] += 1
        for event in self._wake.of("body"):
            if not event.how or self._steps["body"] == 1:
                # One that is withdrawn meanwhile still comes to the end of its download.
                self._model.spoil(self._standing() or self._asked)
                return data[: int(event.at)]
        return data

    # -- the node's side -------------------------------------------------------------------------

    def _guarded(self, call: Callable, otherwise: object) -> Callable:
        """Call it, in whatever thread; an error in it is the bench's own, and is told."""

        def guarded(*arguments: object) -> object:
            try:
                with self._lock:
                    return call(*arguments)
            except Exception as error:
                self._model.wrong.append(f"the bench itself failed: {error!r}")
                raise
            return otherwise

        return guarded

    def _flash(self) -> tuple[dict[str, bytes], list[str]]:
        image = self._bench.image.read_bytes()
        if image != self._read[0]:
            self._read = image, flash.read_all(self._bench.image)
        return self._read[1]

    def _look(self, moment: str) -> None:
        if not self._model.wrong:
            self._tree = self._model.look(moment, *self._flash())

    def _told(self, line: str) -> str:
        word, _, what = line.partition(" ")
        self._story.append(f"   {line}")
        if word == "hangs":
            self._node.only_waits()
            return ""
        self._look(f"at {line}")
        if word == "runs":
            return self._starts()
        self._steps[what] += 1
        return self._at_step(f"file {self._steps[what]}" if what == "file" else what)

    def _starts(self) -> str:
        acts: list[models.Act] = []
        files = self._flash()[0]
        if not (self._wake.of("flash") or self._model.wrong):
            acts = self._model.mischief(self._tree, files)
            if trees.LOG in files and not self._model.in_trial:
                acts.append(("remove", trees.LOG))
            if self._wake.of("write"):
                acts.append(("write", f"/own{self._outcome.wakes % 3}.txt"))
        return self._do(acts)

    def _at_step(self, step: str) -> str:
        for event in self._wake.of("ask", "withdraw"):
            if event.at == step and event not in self._done:
                self._done.append(event)
                if event.what == "ask":
                    self._ask(event.how)
                else:
                    self._withdraw()
        for event in self._wake.of("disturb"):
            standing = self._standing()
            if event.at == step and standing and event not in self._done:
                self._done.append(event)
                chance = random.Random(f"{self._life.seed} {event}")
                acts = self._model.disturbance(standing, self._tree, event.how, chance)
                if acts:
                    self._model.block(standing)
                return self._do(acts)
        return ""

    def _do(self, acts: list[models.Act]) -> str:
        if acts:
            self._acted = True
            self._model.does(self._tree, acts)
            self._story.append(f"   application: {'; '.join(' '.join(a) for a in acts)}")
        return models.code(acts)

    # -- wakes -----------------------------------------------------------------------------------

    def _one(self, wake: Wake, last: Run | None) -> Run:
        """One wake with what happens in it."""
        self._wake, self._packets, self._acted = wake, 0, False
        self._steps, self._done = Counter(), []
        for event in wake.of("ask", "withdraw"):
            if event.at == "":
                if event.what == "ask":
                    self._ask(event.how)
                else:
                    self._withdraw()
        standing, options = self._standing(), {}
        for event in wake.of("cut"):
            options |= {"cut": event.at, "torn": event.how, "seed": self._life.seed}
        for event in wake.of("storm"):
            options |= {"storm": event.at, "torn": event.how, "seed": self._life.seed}
            options["max_boots"] = _STORM_BOOTS
        for event in wake.of("flash"):
            options["fail"] = event.at, event.how
        cause = wake.cause
        if last is None or "power_cut" in last.names()[-2:]:
            cause = "power_on"
        elif cause == "deepsleep" and "sleep" not in last.names()[-2:]:
            cause = "hard"  # it sits at the REPL
        platform = self._platform
        self._node.environ = {
            "MQTT_PORT": str(platform.mqtt_port),
            "PACKAGE_PORT": str(platform.package_port),
            "STORY_PORT": str(platform.story_port),
            "STEPS": "1" if any(e.at for e in wake.of("ask", "withdraw", "disturb")) else "",
        }
        was_idle = not platform.state.retained and "/.ota" not in self._flash()[1]
        run = self._node.run(
            wakes=1, timeout_s=_TIMEOUT_S, cause=cause, on_event=self._follow, **options
        )
        spoilt = run.names().count("power_cut")
        spoilt += len(wake.of("flash")) + len(wake.of("mqtt"))
        for fuid in {standing, self._standing(), self._asked}:  # asked for and ended in one wake
            for _ in range(spoilt):
                self._model.spoil(fuid)
        self._outcome.wakes += 1
        self._outcome.boots += run.boots
        self._outcome.power_cuts += run.names().count("power_cut")
        self._story.append(f"   {cause}: {' '.join(run.names())}; {run.ops} operations")
        self._story += [f"   | {line}" for line in run.output.strip().splitlines()]
        self._judge_run(wake, run, was_idle and not self._standing())
        return run

    def _follow(self, event: Event) -> None:
        with self._lock:
            if event["event"] == "boot" and not self._model.wrong:
                deaf = bool(self._wake.of("mqtt"))
                self._model.boots(str(event["cause"]), deaf, *self._flash())
            elif event["event"] in ("sleep", "repl"):
                self._look(f"at {event['event']}")

    def _judge_run(self, wake: Wake, run: Run, was_idle: bool) -> None:
        wrong, names = self._model.wrong, run.names()
        if run.nor_violations:
            wrong.append("programmed over bytes that were not erased")
        if "timeout" in names:
            wrong.append("hangs for ever")
        if "boot_limit" in names and not wake.of("storm"):
            wrong.append("boots again and again")
        if any("flash does not mount" in str(event.get("error")) for event in run.events):
            wrong.append("flash does not mount")
        if not wake.of("flash"):
            for text in run.output.split("Traceback")[1:]:
                if "recovery" in text.split("\n  File")[-1]:
                    wrong.append("traceback in recovery: " + " ".join(text.split())[:200])
        quiet = was_idle and not self._acted and names[-2:] == ["sleep", "flash"]
        if quiet and run.ops and not wake.of("ask", "withdraw"):
            wrong.append(f"an idle check that writes, {run.ops} operations")

    def _until_rest(self, last: Run | None) -> Run | None:
        """Good wakes, until there is nothing left to do."""
        most = self._life.config["trial_wakes"] + 12
        for _ in range(most):
            last = self._one(_NO_EVENTS, last)
            if self._model.wrong:
                return last
            if last.output.endswith("check: idle\n") and not last.ops:
                left = sorted(p for p in (*self._flash()[1], *self._flash()[0]) if "/.ota" in p)
                left = [p for p in left if p == "/.ota" or p.startswith("/.ota/")]
                if left:
                    self._model.wrong.append("left behind: " + ", ".join(left))
                if self._standing():
                    self._model.wrong.append(f"still retained: {self._standing()}")
                return last
        self._model.wrong.append(f"wedged: not at rest after {most} good wakes")
        return last


def shrink(bench: Bench, life: Life, say: Callable[[str], object]) -> Life:
    """The life without all that can be left out while it still fails in the same way."""
    kind = kind_of(bench.live(life).wrong)
    if not kind:
        raise SimError(f"nothing is wrong with life {life.seed}")
    # What could be left out makes room for what comes after it, so once more until nothing can.
    n, found = 0, False
    while True:
        shorter = list(life.shorter())
        if n >= len(shorter):
            if not found:
                return life
            n, found = 0, False
        elif kind_of(bench.live(shorter[n]).wrong) == kind:
            life, found = shorter[n], True
            say(life.size)
        else:
            n += 1
