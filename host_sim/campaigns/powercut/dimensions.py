"""Obstacles, a full flash, flipped bits: each at each phase of an update, and with power cuts.

A case is a scenario and its steps, mishaps (see mishaps.py) and cuts in their order. Whatever the
end is, one further good package has to be installed after it.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from host_sim import signing
from host_sim.campaigns.powercut import mishaps
from host_sim.campaigns.powercut.bench import Bench, Cut, Result, Snapshot
from host_sim.campaigns.powercut.ends import FOLDER, OWN, Ends, Node, is_own
from host_sim.campaigns.powercut.mishaps import ALONE, BY_CODE, NOW, PHASES, STAGES, Mishap
from host_sim.campaigns.powercut.platform import State
from host_sim.campaigns.powercut.scenarios import Scenario, main_py
from host_sim.errors import SimError
from host_sim.node.flash_rules import TORN_KINDS

#: Each dimension, and the scenarios in which it is tried in full.
DIMENSIONS = {
    "obstacles": ("forty", "boots", "compiled", "signed", "undeleted", "nested", "trusted"),
    "full": ("forty", "boots", "compiled", "signed", "undeleted", "nested", "long"),
    "bits": ("few", "signed", "undeleted", "trusted"),
}
#: … where all of these would take days.
IN_FULL = {"bits": ("few",)}
#: More boots than this are no way back. 20 tries, and 20 more, were ours.
MOST_BOOTS = 45
#: Wakes that the node gets to come to an end, and then once more.
_WAKES = (3, 6)
_NEXT_WAKES = (2, 3)
_NEXT = "7e57ab1e"

Step = Cut | Mishap


def parse_step(text: str) -> Step:
    """One part of a replay id."""
    return Mishap.parse(text) if text.startswith("@") else Cut.parse(text)


@dataclass
class Outcome:
    """What a case came to: `wrong` is empty when nothing was; `not_whole`: it says so itself."""

    wrong: list[str] = field(default_factory=list)
    not_whole: bool = False


class Dimensions:
    """Cases of all dimensions on one bench."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._stages: dict[tuple[str, int], str] = {}
        self._totals: dict[str, int] = {}
        self._phases: dict[tuple[str, str], Snapshot | None] = {}
        self._found: dict[tuple[str, str], list[Mishap]] = {}

    # -- phases ----------------------------------------------------------------------------------

    def tree(self, scenario: Scenario, image: bytes) -> Node:
        """Everything on a flash."""
        tree = self.bench.flashed(scenario)[1].everything(image)
        if isinstance(tree, str):
            raise SimError(tree)
        return tree

    def stage(self, scenario: Scenario, snapshot: Snapshot) -> str:
        """How far the update is, as flash and platform say."""
        tree = self.tree(scenario, snapshot.image)
        state = tree.get("/.ota/state")
        if isinstance(state, bytes):
            phase = re.search(rb"commit|trial|back", state)
            return phase[0].decode() if phase else "commit"
        told = snapshot.state.reports or not snapshot.state.retained or "/.ota/report" in tree
        return "closed" if told else "staging"

    def total(self, scenario: Scenario) -> int:
        """Operations of the uncut cycle."""
        if scenario.name not in self._totals:
            start, _ = self.bench.flashed(scenario)
            result = self.bench.boot(scenario, start, scenario.wakes)
            wrong = result.wrong + self.bench.judge_end(scenario, result, uncut=True)
            if wrong:
                raise SimError(f"{scenario.name} fails by itself: {'; '.join(wrong)}")
            self._totals[scenario.name] = result.run.ops
        return self._totals[scenario.name]

    def _cut(self, scenario: Scenario, op: int) -> Snapshot:
        start, _ = self.bench.flashed(scenario)
        return self.bench.boot(scenario, start, scenario.wakes, cut=Cut(op, "none")).after

    def _stage_at(self, scenario: Scenario, op: int) -> int:
        key = scenario.name, op
        if key not in self._stages:
            self._stages[key] = self.stage(scenario, self._cut(scenario, op))
        return STAGES.index(self._stages[key])

    def _first(self, scenario: Scenario, stage: int) -> int:
        """The first operation at which a cut finds this stage, or a later one."""
        low, high = 1, self.total(scenario) + 1
        while low < high:
            middle = (low + high) // 2
            if self._stage_at(scenario, middle) >= stage:
                high = middle
            else:
                low = middle + 1
        return low

    def phase(self, scenario: Scenario, name: str) -> Snapshot | None:
        """The node without power in this phase; None when the scenario has no such phase."""
        key = scenario.name, name
        if key not in self._phases:
            stage, share = PHASES[name]
            index = STAGES.index(stage)
            low, high = self._first(scenario, index), self._first(scenario, index + 1)
            there = low < high
            op = low + int(share * (high - 1 - low))
            self._phases[key] = self._cut(scenario, op) if there else None
        return self._phases[key]

    # -- cases -----------------------------------------------------------------------------------

    def paths(self, scenario: Scenario) -> list[str]:
        """Every file of the package, and what goes for it (twins, deletions)."""
        judge = self.bench.flashed(scenario)[1]
        old, new = judge.files("old"), judge.files("new")
        named = {"/" + name for name in scenario.package if name != signing.MANIFEST}
        return sorted(named | {p for p in {*old, *new} if old.get(p) != new.get(p)})

    def cases(self, scenario: Scenario, dimension: str) -> Iterator[Mishap]:
        """Every mishap of a dimension."""
        if dimension != "bits":
            for phase in BY_CODE:
                snapshot, stage = self._begins(scenario, phase)
                if dimension == "full":
                    yield from mishaps.fillings(phase)
                else:
                    tree = self.tree(scenario, snapshot.image)
                    yield from mishaps.by_code(phase, stage, tree, self.paths(scenario))
        for phase, (stage, _) in PHASES.items():
            snapshot = self.phase(scenario, phase)
            if snapshot and (
                stage in STAGES[1:4]
                or dimension == "bits"
                or (stage == "closed" and dimension == "full")
            ):
                yield from self._at(scenario, dimension, phase, stage, snapshot)

    def _at(
        self, scenario: Scenario, dimension: str, phase: str, stage: str, snapshot: Snapshot
    ) -> Iterator[Mishap]:
        alone = phase in ALONE or (phase == NOW and stage in ("commit", "back"))
        if dimension == "full":
            if not alone:
                yield from mishaps.fillings(phase)
            return
        tree = self.tree(scenario, snapshot.image)
        if dimension == "bits":
            yield from mishaps.damages(phase, tree)
        else:
            old = self.bench.flashed(scenario)[1].files("old")
            signed = signing.MANIFEST in scenario.package
            for mishap in mishaps.obstacles(phase, stage, tree, self.paths(scenario)):
                # Once the agent has shown that it can update again, breaking it is the
                # application's own end.
                late = phase in ("trial2", NOW) and scenario.end == "new"
                if late and mishap.path.startswith("/ota/"):
                    continue
                if alone and not mishap.inside:
                    continue
                if mishaps.unknowable(stage, mishap, tree, signed):
                    continue
                if not mishaps.silences(mishap, tree, old):
                    yield mishap

    def _begins(self, scenario: Scenario, phase: str) -> tuple[Snapshot, str]:
        """What is on flash when the application does something by itself, and the stage."""
        start, _ = self.bench.flashed(scenario)
        if phase != "on-trial":
            return start, "commit" if phase == "at-commit" else "staging"
        trial = self.phase(scenario, "trial")
        if trial is None:
            raise SimError(f"{scenario.name} has no trial")
        return trial, "trial"

    def mix(self, name: str, dimensions: list[str], count: int, seed: int) -> Iterator[str]:
        """Replay ids of random cases: a mishap, and a power cut before or after it."""
        chance = random.Random(f"{name}:{seed}")
        scenario = self.bench.scenarios[name]
        start, _ = self.bench.flashed(scenario)
        while count:
            dimension = chance.choice(dimensions)
            torn = chance.choice(TORN_KINDS)
            if chance.random() < 0.5:
                op = chance.randint(1, self.total(scenario))
                cut = Cut(op, torn, op if torn in ("bits", "scatter") else 0)
                after = self.bench.boot(scenario, start, scenario.wakes, cut=cut).after
                stage = self.stage(scenario, after)
                found = list(self._at(scenario, dimension, NOW, stage, after))
                if not found:
                    continue
                steps: list[Step] = [cut, chance.choice(found)]
            else:
                key = name, dimension
                if key not in self._found:
                    self._found[key] = list(self.cases(scenario, dimension))
                mishap = chance.choice(self._found[key])
                ops = self.operations(scenario, mishap)
                if not ops:
                    continue
                op = chance.randint(1, ops)
                steps = [mishap, Cut(op, torn, op if torn in ("bits", "scatter") else 0)]
            count -= 1
            yield "/".join([name, *map(str, steps)])

    # -- one case --------------------------------------------------------------------------------

    def examine(self, identity: str) -> Outcome:
        """Run one case by its replay id."""
        name, *texts = identity.split("/")
        scenario = self.bench.scenarios.get(name)
        if scenario is None or not texts:
            raise SimError(f"{identity!r} is no replay id: write SCENARIO/STEP[/STEP…]")
        return self.run(scenario, [parse_step(text) for text in texts])

    def run(self, scenario: Scenario, steps: list[Step]) -> Outcome:
        """Take the steps, let the node come to its end, judge it, and ask for another package."""
        case = _Case(self, scenario, any(isinstance(step, Cut) for step in steps))
        try:
            for step in steps:
                if isinstance(step, Cut):
                    case.cut(step)
                else:
                    case.suffer(step)
            return case.end()
        finally:
            for name in ("AT", "DO", "ON_TRIAL"):
                self.bench.node.environ.pop(name, None)

    def operations(self, scenario: Scenario, mishap: Mishap) -> int:
        """How many operations follow on a mishap, to know what there is to cut."""
        case = _Case(self, scenario, True)
        try:
            case.suffer(mishap)
            return case.boot(case.wakes).run.ops
        finally:
            for name in ("AT", "DO", "ON_TRIAL"):
                self.bench.node.environ.pop(name, None)


class _Case:
    def __init__(self, dimensions: Dimensions, scenario: Scenario, with_cut: bool) -> None:
        self.dimensions, self.bench, self.scenario = dimensions, dimensions.bench, scenario
        self.with_cut = with_cut
        self.now, self.judge = self.bench.flashed(scenario)
        self.wakes = scenario.wakes
        self.which = self.judge.which
        self.begun = False
        self.mishap: Mishap | None = None
        self.ends: Ends | None = None
        self.wrong: list[str] = []
        self.boots = 0

    def boot(self, wakes: int, cut: Cut | None = None) -> Result:
        """The next run of the node."""
        result = self.bench.boot(
            self.scenario,
            self.now,
            wakes,
            which=self.which,
            max_boots=MOST_BOOTS,
            may_go_on=True,
            cut=cut,
        )
        self.begun = True
        self.now = result.after
        for text in result.wrong:
            if text.startswith("after a boot: "):
                if not any(before.startswith("ran on") for before in self.wrong):
                    self.wrong.append("ran on a mixed tree: " + text.partition("tree: ")[2])
            elif not text.startswith("traceback"):  # whatever boot.py has guarded
                self.wrong.append(text)
        return result

    def cut(self, cut: Cut) -> None:
        """Run until the power fails."""
        result = self.boot(self.wakes, cut)
        if not result.was_cut:
            raise SimError(f"there is no operation {cut.op} to cut")
        self.wakes = self.scenario.after_cut

    def suffer(self, mishap: Mishap) -> None:
        """Let it happen now, or arrange that the application does it."""
        if self.mishap or (self.begun and mishap.phase in PHASES):
            raise SimError("one mishap, and none of a phase after a cut")
        self.mishap = mishap
        dimensions, scenario = self.dimensions, self.scenario
        if mishap.by_code:
            begins, stage = dimensions._begins(scenario, mishap.phase)
            environ = self.bench.node.environ
            if stage == "trial":
                environ["ON_TRIAL"] = mishap.code() + "\n1/0\n"
            else:
                files = [p for p in dimensions.paths(scenario) if p in self.judge.files("new")]
                step = {"at-first": "file " + files[0], "at-last": "file " + files[-1]}
                environ |= {"AT": step.get(mishap.phase, "commit "), "DO": mishap.code()}
        else:
            if mishap.phase != NOW:
                snapshot = dimensions.phase(scenario, mishap.phase)
                if snapshot is None:
                    raise SimError(f"{scenario.name} has no phase {mishap.phase}")
                self.now = snapshot
                self.begun = True
                self.wakes = scenario.after_cut
            begins, stage = self.now, dimensions.stage(scenario, self.now)
        after = self.bench.change(begins.image, mishap.code())
        # After a cut littlefs shows some names only when something has been written.
        before = dimensions.tree(scenario, self.bench.change(begins.image, mishaps.TOUCH))
        self.ends = Ends(
            self.judge,
            before,
            dimensions.tree(scenario, after),
            stage=stage,
            path=mishap.path,
            by_code=mishap.by_code,
            loose=mishap.by_code and self.with_cut,
            fills=mishap.fills,
            inside=mishap.inside,
            bit=mishap.kind == "bit" and mishaps.is_doubled(mishap.path, before),
            usual=None if self.with_cut else scenario.reason,
        )
        self.which = self.ends.which
        if not mishap.by_code:
            self.now = Snapshot(after, self.now.state)

    def end(self) -> Outcome:
        """Give the node its time, and judge."""
        assert self.ends and self.mishap
        for wakes in _WAKES:
            result = self.boot(wakes)
            self.boots += result.run.boots
            if "boot_limit" in result.run.names():
                return Outcome([f"stuck: {self._state()} after {self.boots} boots", *self.wrong])
            left = self._left()
            if not self.now.state.retained and self.now.state.reports and not left:
                break
        state = self.now.state
        found, not_whole = self.ends.judge(self.now.image, state.reports, self.scenario.fuid)
        if not_whole:
            # The report has come: what ran before it is told.
            self.wrong = [text for text in self.wrong if not text.startswith("ran on")]
        if self.boots > MOST_BOOTS:
            found.append(f"stuck: it took {self.boots} boots")
        if self._state():
            found.insert(0, f"stuck: {self._state()}")
        if state.retained:
            found.append("request left: it is still retained")
        if left:
            found.append("left in /.ota: " + ", ".join(left[:5]))
        found += self._floor_is_wrong()
        # Rather the end than what came before it: it names the kind of failure.
        self.wrong = found + self.wrong + self._next_is_wrong()
        return Outcome(self.wrong, not_whole)

    def _left(self) -> list[str]:
        left = self.judge.leftovers(self.now.image)
        assert self.mishap
        # The folder itself stays on a full flash, until there is room again.
        return [] if self.mishap.fills and left == [OWN] else left

    def _state(self) -> str:
        return self.judge.file(self.now.image, "/.ota/state").decode("latin-1")

    def _floor_is_wrong(self) -> list[str]:
        floor = self.judge.floor(self.now.image)
        start, _ = self.bench.flashed(self.scenario)
        if floor in (self.judge.floor(start.image), self.scenario.floor):
            return []
        if self.scenario.config.get("require_signature") and floor == b"7":
            return []  # of the package: power failed in the confirm
        return [f"floor: {floor!r}"]

    def _next_is_wrong(self) -> list[str]:
        """Ask for one further package: the next thing that a node is for."""
        assert self.mishap
        bench, before = self.bench, self.scenario
        for name in ("AT", "DO", "ON_TRIAL"):
            bench.node.environ.pop(name, None)
        image = self.now.image
        if self.mishap.fills:
            image = bench.change(image, mishaps.CLEAR)
        tree = self.dimensions.tree(before, image)
        package = {"main.py": main_py(3)}
        path = self.mishap.path
        if self._can_be_written(path, tree):
            package[path[1:]] = b"what comes next\n"
        if before.config.get("require_signature"):
            package = signing.sign(package, 1, 8)
        following = dataclasses.replace(
            before,
            package=package,
            kind="tar",
            deleted=(),
            spoil=False,
            fuid=_NEXT,
            floor=b"8" if before.config.get("require_signature") else before.floor,
        )
        now = Snapshot(image, State(following.request))
        files = {p: c for p, c in tree.items() if isinstance(c, bytes) and not is_own(p)}
        wanted = following.new_tree(files)
        for wakes in _NEXT_WAKES:
            result = bench.boot(
                following,
                now,
                wakes,
                which=lambda _image: "new",
                max_boots=MOST_BOOTS,
                may_go_on=True,
            )
            now = result.after
            left = self.judge.leftovers(now.image)
            if not now.state.retained and not left:
                break
        found = self.judge.everything(now.image)
        good = b'[{"n":"e","v":1},{"n":"i","vs":"%s"}' % _NEXT.encode()
        reports = now.state.reports
        if isinstance(found, str):
            return [f"wedge: {found}"]
        if not reports or not reports[-1].startswith(good) or now.state.retained:
            return [f"wedge: the next package ends with {reports[-1:]}"]
        ended = {p: c for p, c in found.items() if isinstance(c, bytes) and not is_own(p)}
        if ended != wanted or left:
            wrong = [p for p in {*ended, *wanted} if ended.get(p) != wanted.get(p)]
            return [f"wedge: the next package is not whole: {sorted(wrong + left)[:4]}"]
        return []

    @staticmethod
    def _can_be_written(path: str, tree: Node) -> bool:
        if not path or is_own(path) or path.startswith("/ota") or path.endswith((".py", ".mpy")):
            return False
        return tree.get(path) != FOLDER and not any(
            isinstance(tree.get(folder), bytes) for folder in mishaps.parents(path)
        )
