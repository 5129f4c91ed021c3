"""One node on the bench: run a scenario with given cuts, and say what went wrong."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from host_sim import ctrl_c
from host_sim.campaigns.plain import PlainPlatform
from host_sim.campaigns.powercut.judge import Judge
from host_sim.campaigns.powercut.layouts import layouts
from host_sim.campaigns.powercut.platform import State
from host_sim.campaigns.powercut.scenarios import FUID, Scenario, scenarios
from host_sim.errors import SimError
from host_sim.node.flash import FIRMWARE
from host_sim.node.node import Node, Run
from host_sim.site import freeze_agent

_TIMEOUT_S = 20.0
_EVENT = b'[{"n":"e","v":%s}'
_FLASH_REASONS = (b"can not apply: flash failed", b"not enough space: flash is full")


@dataclass(frozen=True)
class Cut:
    """Power fails at an operation (counted from the boot before), leaving the torn state `kind`.

    With `kind` "sent" or "heard", `op` counts the node's messages instead, and the power fails
    before or after the platform has dealt with that one.
    """

    op: int
    kind: str
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.op}.{self.kind}" + (f".{self.seed}" if self.seed else "")

    @classmethod
    def parse(cls, text: str) -> Cut:
        """The opposite of `str`."""
        try:
            op, kind, *seed = text.split(".")
            return cls(int(op), kind, int(seed[0]) if seed else 0)
        except ValueError:
            raise SimError(f"{text!r} is no cut: write OP.KIND or OP.KIND.SEED") from None


MESSAGE_KINDS = ("sent", "heard")


@dataclass
class Snapshot:
    """A node without power, and what the platform knows."""

    image: bytes
    state: State


class Bench:
    """A context manager that owns a platform, a folder and one node.

    Scenarios are flashed once; every case begins from a copy. `frozen`: the agent is in the node's
    firmware. `layouts`: the scenarios of layouts.py, for which an old release is needed.
    """

    def __init__(
        self, firmware: Path | None = None, frozen: bool = False, layouts: bool = False
    ) -> None:
        self._firmware = firmware or FIRMWARE
        self._is_frozen = frozen
        self._layouts = layouts

    def __enter__(self) -> Bench:
        with contextlib.ExitStack() as stack:
            # In memory where there is such a place: a case writes half a megabyte.
            scratch = tempfile.TemporaryDirectory(dir=ctrl_c.memory())
            self.folder = Path(stack.enter_context(scratch))
            self.platform = stack.enter_context(PlainPlatform(self.folder / "server"))
            if self._layouts:
                self.scenarios = layouts(self.folder, self._firmware)
            else:
                self.scenarios = scenarios(self.folder, self._firmware, self._is_frozen)
            frozen = self.folder / "frozen" if self._is_frozen else None
            if frozen:
                freeze_agent(frozen, self._firmware)
            self._flashed: dict[str, tuple[bytes, Judge]] = {}
            image = self.folder / "node.img"
            environ = {
                "MQTT_PORT": str(self.platform.mqtt_port),
                "PACKAGE_PORT": str(self.platform.package_port),
                "HTTPS_PORT": str(self.platform.https_port),
            }
            self.node = Node(image, environ=environ, mtime=False, frozen=frozen)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def flashed(self, scenario: Scenario) -> tuple[Snapshot, Judge]:
        """The scenario before its first boot, with the request retained, and its judge."""
        if scenario.name not in self._flashed:
            root = self.folder / "root"
            scenario.build(self.node.image, root)
            shutil.rmtree(root)
            image = self.node.image.read_bytes()
            old = Judge(image, {}, self.folder)
            new = scenario.new_tree(old.files("old"))
            self._flashed[scenario.name] = image, Judge(image, new, self.folder)
        image, judge = self._flashed[scenario.name]
        return Snapshot(image, State(scenario.request)), judge

    def boot(self, scenario: Scenario, start: Snapshot, wakes: int, **options) -> Result:
        """Power the node up from a snapshot and follow it; `options` are Node.run's.

        `cut`: a Cut. With `may_go_on` it is no fault when the node boots again and again. `which`
        is asked in place of the judge, and then only when the node connects.
        """
        self.node.image.write_bytes(start.image)
        self.platform.begin(start.state, scenario.archive)
        if scenario.https:
            self.platform.store(scenario.fuid, scenario.kind, scenario.archive)
        _, judge = self.flashed(scenario)
        wrong: list[str] = []
        which = options.pop("which", judge.which)

        connects = [0]

        def look() -> None:
            tree = which(self.node.image.read_bytes())
            if tree not in ("old", "new"):
                wrong.append(f"after a boot: {tree}")

        def connected() -> None:
            # boot.py has done its work, and the application has written nothing yet.
            connects[0] += 1
            look()

        def follow(event: dict) -> None:
            # Nor does the campaign's application write anything later in a boot.
            # At the REPL, after a Ctrl-C as well, somebody may run anything.
            if event["event"] in ("sleep", "repl"):
                look()

        self.platform.on_connect = connected
        if "fail" not in options and which == judge.which:
            options["on_event"] = follow
        cut: Cut | None = options.pop("cut", None)
        may_go_on = options.pop("may_go_on", False)
        if cut and cut.kind == "sent":
            self.platform.on_publish = lambda number: self._lose_power(cut, number)
        elif cut and cut.kind == "heard":
            self.platform.after_publish = lambda number: self._lose_power(cut, number)
        elif cut:
            options |= {"cut": cut.op, "torn": cut.kind, "seed": cut.seed}
        try:
            run = self.node.run(wakes=wakes, timeout_s=_TIMEOUT_S, **options)
        finally:
            self.platform.on_publish = self.platform.after_publish = lambda _number: False
        if run.nor_violations:
            wrong.append("programmed over bytes that were not erased")
        if "timeout" in run.names() or ("boot_limit" in run.names() and not may_go_on):
            wrong.append(f"hangs: {run.events[-2]}")
        for traceback in run.output.split("Traceback")[1:]:
            # What main.py of "boots" ends with, what a Ctrl-C is, and what boot.py may say where
            # the agent is frozen and leaves no copy.
            expected = "ZeroDivisionError|KeyboardInterrupt"
            expected += "|no module named 'recovery'" if scenario.frozen else ""
            if not re.search(expected, traceback):
                wrong.append("traceback: " + " ".join(traceback.split())[:300])
        after = Snapshot(self.node.image.read_bytes(), self.platform.state.copy())
        return Result(run, after, wrong, connects[0])

    def _lose_power(self, cut: Cut, number: int) -> bool:
        if number == cut.op:
            self.node.cut_power()
        return number == cut.op

    def in_trial(self, scenario: Scenario, snapshot: Snapshot) -> bool:
        """Whether this flash is in a trial, as its state says."""
        _, judge = self.flashed(scenario)
        return b"trial" in judge.file(snapshot.image, "/.ota/state")

    def change(self, image: bytes, code: str) -> bytes:
        """What a piece of MicroPython makes of a flash, as nobody's application."""
        self.node.image.write_bytes(image)
        run = self.node.exec(code)
        if run.error:
            raise SimError(f"this changes no flash: {run.error}")
        return self.node.image.read_bytes()

    def finish(self, scenario: Scenario, start: Snapshot) -> Result:
        """Give the node its wakes after a cut, without another one, and judge the end."""
        result = self.boot(scenario, start, scenario.after_cut)
        result.wrong += self.judge_end(scenario, result)
        return result

    def judge_end(self, scenario: Scenario, result: Result, uncut: bool = False) -> list[str]:
        """What is wrong with a node that had its time: tree, litter, request, reports."""
        _, judge = self.flashed(scenario)
        wrong = []
        tree = judge.which(result.after.image)
        if tree != scenario.end:
            wrong.append(f"ends with the tree: {tree}")
        floor = judge.floor(result.after.image)
        if floor != scenario.floor:
            wrong.append(f"ends with the floor {floor!r} instead of {scenario.floor!r}")
        left = judge.leftovers(result.after.image)
        if left:
            wrong.append("left in /.ota: " + ", ".join(left[:5]))
        state = result.after.state
        if state.retained:
            wrong.append("the request is still retained")
        reports = distinct_reports(state, scenario.fuid)
        right = [list(scenario.reports)]
        if not uncut:
            # A tree that was rolled back before its e:1 could be delivered ends in e:2 alone.
            right.append(right[0][-1:])
        if state.reports and not state.reports[-1].startswith(
            _EVENT % scenario.reports[-1].encode()
        ):
            wrong.append(f"the last report is not the end: {state.reports[-1]!r}")
        elif state.reports and scenario.reason.encode() not in state.reports[-1]:
            wrong.append(f"another reason than {scenario.reason!r}: {state.reports[-1]!r}")
        if reports not in right:
            wrong.append(f"reports {reports} instead of {list(scenario.reports)}")
        return wrong

    def judge_error_end(self, scenario: Scenario, result: Result) -> list[str]:
        """What is wrong with a node whose flash failed: it may have refused, with a reason."""
        _, judge = self.flashed(scenario)
        wrong = []
        state = result.after.state
        tree, reports = judge.which(result.after.image), distinct_reports(state, scenario.fuid)
        ends = [("old", ["2"]), (scenario.end, list(scenario.reports))]
        if (tree, reports) not in ends:
            wrong.append(f"ends with the tree: {tree}, reports {reports}")
        if (
            scenario.end == "new"
            and reports == ["2"]
            and not any(r in state.reports[-1] for r in _FLASH_REASONS)
        ):
            wrong.append(f"no reason of its own: {state.reports[-1]!r}")
        if state.retained:
            wrong.append("the request is still retained")
        left = judge.leftovers(result.after.image)
        if left:
            wrong.append("left in /.ota: " + ", ".join(left[:5]))
        return wrong


@dataclass
class Result:
    """What one run came to: `wrong` is empty when nothing was."""

    run: Run
    after: Snapshot
    wrong: list[str]
    connects: int = 0

    @property
    def was_cut(self) -> bool:
        """Whether the power failed in it."""
        return "power_cut" in self.run.names()


def distinct_reports(state: State, fuid: str = FUID) -> list[str]:
    """The events of the reports as a consumer sees them that removes duplicates."""
    seen: list[str] = []
    for payload in state.reports:
        event = next(
            (e for e in "12" if payload.startswith(b'[{"n":"e","v":%s}' % e.encode())), ""
        )
        if f'"vs":"{fuid}"'.encode() not in payload or not event:
            seen.append(f"unexpected {payload!r}")
        elif event not in seen:
            seen.append(event)
    return seen
