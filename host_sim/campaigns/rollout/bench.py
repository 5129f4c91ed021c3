"""A fleet of light nodes at a real mosquitto, a rollout as a process of its own, and a judge."""

from __future__ import annotations

import contextlib
import csv
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from host_sim import ctrl_c
from host_sim.campaigns.rollout.cases import ABSENT, GOOD, GRAVE, LOST, SLIGHT, Case
from host_sim.campaigns.rollout.nodes import Nodes, make
from host_sim.console import Console
from host_sim.console.mqtt_client import MqttClient
from host_sim.errors import SimError
from insigh_ota.rollout import state as states
from insigh_ota.rollout.records import Phase

_PACKAGE = random.Random("rollout").randbytes(3000)
#: In which phases a node may be found, by what it is in for, when all is over.
_ENDS = {
    GOOD: {Phase.GOOD},
    GRAVE: {Phase.FAILED},
    SLIGHT: {Phase.FAILED},
    LOST: {Phase.LOST, Phase.SILENT},  # by whether its stat was heard
    ABSENT: {Phase.SILENT},
}
_LONGEST_S = 3600.0


@dataclass(frozen=True)
class Plan:
    """How one rollout is tried."""

    case: Case
    size: int = 10_000
    seed: int = 0
    period_s: float = 4.0
    silence_s: float = 30.0
    look_s: float = 2.0
    https_share: float = 0.1
    connections: int = 40
    kills: bool = False
    """Kill the rollout again and again, at random writes of its state and at random moments."""


@dataclass
class Found:
    """How it went."""

    seconds: float = 0.0
    asked: int = 0
    fetched: int = 0
    steps: int = 0
    kills: int = 0
    twice: int = 0
    """Nodes to which the request was sent more than once."""
    wakes: int = 0
    stage: str = ""
    why: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Bench:
    """A context manager: console, broker and nodes of one plan."""

    def __init__(self, plan: Plan, tell: Callable[[str], None] = lambda _: None) -> None:
        self.plan, self._tell = plan, tell

    def __enter__(self) -> Bench:
        with contextlib.ExitStack() as stack:
            folder = tempfile.TemporaryDirectory(dir=ctrl_c.memory())
            self._folder = Path(stack.enter_context(folder))
            self.console = stack.enter_context(
                Console(self._folder / "console", broker="mosquitto", reports="confirmed")
            )
            plan = self.plan
            nodes = make(plan.case.fleet(plan.size, plan.seed), plan.seed, plan.https_share)
            self.console.add_devices((n.id, n.key, n.channel) for n in nodes)
            package = self.console.add_package(_PACKAGE, name="package.tar")
            self.fuid = package.fuid
            self.nodes = Nodes(self.console, nodes, self.fuid, package.size, plan.period_s)
            stack.enter_context(self.nodes)
            stack.enter_context(self._observer())
            self.csv = self._folder / "devices.csv"
            with self.csv.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows((n.id, n.key, n.channel, n.board) for n in nodes)
            self.state = self._folder / "state.json"
            self._running = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def _observer(self) -> contextlib.AbstractContextManager[MqttClient]:
        client = self._admin(self.nodes.heard)
        client.subscribe("channels/+/messages/+/ota", 1)
        return client

    def _admin(self, heard: Callable) -> MqttClient:
        return self.console._connect(heard)

    # -- the rollout -----------------------------------------------------------------------------

    def command(self, *more: str) -> list[str]:
        """The rollout's command line behind `python -m …`."""
        plan = self.plan
        options = {
            "--state": self.state,
            "--devices": self.csv,
            "--broker": f"{self.console.mqtt_host}:{self.console.ports.mqtt}",
            "--fuid": self.fuid,
            "--type": ".tar",
            "--size": len(_PACKAGE),
            "--report": "confirmed",
            "--seed": plan.seed,
            "--silence": f"{plan.silence_s}s",
            "--look-every": f"{plan.look_s}s",
            "--connections": plan.connections,
        }
        words = [str(word) for pair in options.items() for word in pair]
        return [*words, "--plain", "--json", *more]

    def run(self, *more: str) -> Found:
        """The rollout to its end, or to its stop."""
        found, began = Found(), time.monotonic()
        chance = random.Random(self.plan.seed)
        while True:
            if time.monotonic() - began > _LONGEST_S:
                raise SimError("the rollout does not come to an end")
            code = self._once(found, chance if self.plan.kills else None, more)
            if code in (0, 1):
                break
            if code != -signal.SIGKILL:
                found.wrong.append(f"the rollout ended with exit code {code}")
                break
            found.kills += 1
        found.seconds = time.monotonic() - began
        return found

    def _once(
        self, found: Found, chance: random.Random | None, more: tuple[str, ...]
    ) -> int | None:
        module, first = "insigh_ota", ["rollout"]
        if chance is not None:
            module = "host_sim.campaigns.rollout.killed"
            first = [str(chance.randint(1, 12)), chance.choice(("before", "behind"))]
        words = [sys.executable, "-m", module, *first, *self.command(*more)]
        with ctrl_c.shielded():
            process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        limit = chance.uniform(1.0, 20.0) if chance is not None else _LONGEST_S
        killer = _Timer(limit, process)
        try:
            for line in process.stdout:
                with contextlib.suppress(ValueError):
                    event = json.loads(line)
                    found.steps += event["event"] == "step"
                    self._tell(line.rstrip())
            return process.wait()
        finally:
            killer.cancel()
            process.kill()
            process.wait()

    # -- the judge -------------------------------------------------------------------------------

    def judge(self, found: Found) -> Found:
        """What has to hold, whatever happened in between; adds to `found.wrong`."""
        state = states.load(self.state)
        if state is None:
            found.wrong.append("there is no state file")
            return found
        case, nodes = self.plan.case, self.nodes.nodes
        found.stage, found.why = state.stage, state.why
        found.counts = Counter(record.phase.value for record in state.records.values())
        found.asked = sum(node.requests > 0 for node in nodes.values())
        found.fetched = sum(node.fetched > 0 for node in nodes.values())
        found.twice = sum(node.requests > 1 for node in nodes.values())
        found.wakes = self.nodes.wakes
        wrong = found.wrong
        wrong += [f"{n.id}: asked behind its end" for n in nodes.values() if n.after_end]
        wrong += [f"{n.id}: {n.ended} ends" for n in nodes.values() if len(n.ended) > 1]
        if bool(state.why) != case.stops:
            wrong.append(f"it is {state.stage}: {state.why}")
        retained = self._retained()
        if state.stage == "done":
            for node in nodes.values():
                record = state.records.get(node.id)
                if record is None or record.phase not in _ENDS[node.end]:
                    phase = "never asked" if record is None else record.phase.value
                    wrong.append(f"{node.id}: {node.end}, and in the state file {phase}")
            absent = {node.id for node in nodes.values() if node.end == ABSENT}
            wrong += [f"{one}: a request was left" for one in retained - absent]
        else:
            wrong += [f"{one}: a request was left" for one in retained]
            wrong += [
                f"{one}: {record.phase.value} behind a stop"
                for one, record in state.records.items()
                if record.phase in (Phase.DUE, Phase.SENDING, Phase.ASKED, Phase.WITHDRAWING)
            ]
        return found

    def _retained(self) -> set[str]:
        """Whose request is on its topic, as somebody new hears it."""
        came: set[str] = set()
        with self._admin(
            lambda m: came.add(m.topic.split("/")[3]) if m.retain else None
        ) as client:
            client.subscribe("channels/+/messages/+/ota", 0)
            client.subscribe("fence", 0)
        return came


class _Timer:
    """Kills a process after a time."""

    def __init__(self, seconds: float, process: subprocess.Popen) -> None:
        import threading

        self._timer = threading.Timer(seconds, process.kill)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        """It has ended."""
        self._timer.cancel()
