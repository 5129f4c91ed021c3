"""A platform and a node on the bench: goes through a schedule of wakes, and judges each."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import re
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from host_sim import ctrl_c, sample
from host_sim.campaigns import campaign
from host_sim.campaigns.lives import trees
from host_sim.campaigns.lives.model import Act, code
from host_sim.campaigns.plain import PlainPlatform
from host_sim.campaigns.powercut.platform import State
from host_sim.campaigns.wakes.schedule import (
    KINDS,
    PATCHES,
    Package,
    Schedule,
    Trouble,
    Wake,
    make,
    year,
)
from host_sim.console.faults import Faults, in_turn
from host_sim.console.journal import Download
from host_sim.errors import SimError
from host_sim.node import flash
from host_sim.node.node import Node, Run
from insigh_ota.package import index

_TIMEOUT_S = 60
#: What may be lost with each interruption.
LOST = 16 * 1024
#: A budget is looked at between two reads.
READ = 1024
#: How many good wakes it takes to come to an end, and one more in which there is nothing to do.
GOOD_WAKES = 4
#: What is on flash from the commit on.
_ENDING = {"/.ota/state", "/.ota/report", "/.ota/owed", "/.ota/done"}
_AWAY = Faults(status=503, times=1000)


@dataclass
class Outcome(campaign.Outcome):
    """What a schedule came to, and what was fetched in it."""

    size: int = 0
    fetched: int = 0
    interruptions: int = 0
    resumed: int = 0
    """Wakes that went on where one before had ended."""
    kinds: Counter[str] = field(default_factory=Counter)


@dataclass
class Tally(campaign.Tally):
    """What a number of schedules came to."""

    what = "schedules"

    fetched: int = 0
    size: int = 0
    interruptions: int = 0
    resumed: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: campaign.Outcome) -> None:
        """Count one in."""
        super().add(outcome)
        assert isinstance(outcome, Outcome)
        self.kinds += outcome.kinds
        self.fetched += outcome.fetched
        self.size += outcome.size
        self.interruptions += outcome.interruptions
        self.resumed += outcome.resumed

    def rows(self) -> list[tuple[str, str]]:
        """The result, as the table has it."""
        kinds = ", ".join(f"{n:,} {name}" for name, n in self.kinds.most_common())
        again = (self.fetched - self.size) / max(self.interruptions, 1)
        return [
            *super().rows(),
            ("in them", kinds),
            ("wakes that went on where one before had ended", f"{self.resumed:,}"),
            ("interruptions of what nothing spoilt", f"{self.interruptions:,}"),
            ("fetched again after each of them", f"{again:,.0f} bytes"),
        ]


@dataclass
class Account:
    """What was fetched for one request."""

    package: Package
    wanted: int
    """So much a node fetches that is not disturbed."""
    fetched: int = 0
    bodies: int = 0
    spoilt: int = 0
    """What had come when it was spoilt: that may all have to come again."""

    @property
    def interruptions(self) -> int:
        """So many answers ended before the package did, since then."""
        return max(0, self.bodies - 1)

    @property
    def most(self) -> int:
        """So many bytes, and no more."""
        return self.spoilt + self.wanted + LOST * self.interruptions

    def spoil(self) -> None:
        """What has come is worth nothing any more."""
        self.spoilt, self.bodies = self.fetched, 0


class Bench:
    """A context manager; one schedule after the other."""

    def __init__(self, firmware: Path = flash.FIRMWARE) -> None:
        self.firmware = firmware

    def __enter__(self) -> Bench:
        with contextlib.ExitStack() as stack:
            # In memory where there is such a place.
            scratch = tempfile.TemporaryDirectory(dir=ctrl_c.memory())
            self._folder = Path(stack.enter_context(scratch))
            self.platform = stack.enter_context(PlainPlatform(self._folder / "server"))
            self.image = self._folder / "node.img"
            # Compiled once, not for each schedule.
            flash.build(None, self.image, mpy=True, firmware=self.firmware)
            flash.extract(self.image, self._folder / "compiled")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self, schedule: Schedule) -> Node:
        """The node of a schedule as it was flashed, and a platform that wants nothing."""
        root = sample.write_tree(schedule.old, self._folder / "root")
        flash.build(root, self.image, blocks=schedule.blocks, firmware=self._folder / "compiled")
        shutil.rmtree(root)
        self.platform.begin(State(), b"")
        self.platform.faults = Faults()
        return Node(self.image, mtime=False, rtc=True)

    def run(self, seed: int) -> Outcome:
        """Go through the schedule of a seed."""
        return self.play(make(seed))

    def play(self, schedule: Schedule) -> Outcome:
        """Go through it."""
        performance = Performance(self, schedule)
        try:
            return performance.run()
        except SimError as error:  # an image that does not mount, say
            return performance.ended([f"can not be judged: {error}"])


def _is_whole(download: Download, following: Download, came: int) -> bool:
    """Whether all has come that was wanted of a range: another one is asked for next.

    came: so many bytes of it the node has counted.
    """
    first, last = (download.range or "bytes=0-").removeprefix("bytes=").split("-")
    at, end = (following.range or "bytes=0-").removeprefix("bytes=").split("-")
    if download.status != 206 or not (last or end):
        return False
    if last == str(index.FIRST - 1):  # the beginning, behind which more of it is asked for
        return last != end
    if last and came == int(last) - int(first) + 1:
        # All has come; where some of it is asked for again, a reset came before it was staged.
        return first == "0" or int(at) > int(last)
    if end:
        return last != end and int(at) > int(first)
    return int(at) > int(last)  # else it goes on inside of that


class Performance:
    """One schedule."""

    def __init__(self, bench: Bench, schedule: Schedule) -> None:
        self._bench = bench
        self._schedule = schedule
        self._platform = bench.platform
        self._node = bench.begin(schedule)
        self._chance = random.Random(f"{schedule.seed} troubles")
        self._outcome = Outcome(schedule.seed, [])
        self._wrong = self._outcome.wrong
        self._story = [str(schedule)]
        self._package = schedule.package
        self._accounts: list[Account] = []
        self._faults = Faults()  # those of the server that last
        self._began_anew = False  # nothing of what comes in a wake is of use in the next
        self._dropped: set[str] = set()
        self._downloads = len(self._platform.journal.downloads())
        self._old = self._tree()
        self._platform.on_connect = self._look

    def run(self) -> Outcome:
        """All wakes, a good end, and the judgement."""
        outcome, schedule = self._outcome, self._schedule
        began = time.monotonic()
        self._store(self._package)
        self._ask(self._package)
        last = None
        for number, wake in enumerate(schedule.wakes, 1):
            self._trouble(number)
            last = self._one(f"wake {number}", wake, last)
            if self._wrong:
                break
        else:
            after = len(schedule.wakes) + 1
            for number in range(after, max([after, *(t.before for t in schedule.troubles)]) + 1):
                self._trouble(number)
            self._end_well(last)
            if not self._wrong:
                self._judge()
        if not schedule.troubles and not self._began_anew:
            (account,) = self._accounts
            outcome.size, outcome.fetched = account.wanted, account.fetched
            outcome.interruptions = account.interruptions
        outcome.seconds = time.monotonic() - began
        return self.ended([])

    def ended(self, wrong: list[str]) -> Outcome:
        """What it came to."""
        outcome, schedule = self._outcome, self._schedule
        outcome.wrong += wrong
        outcome.wakes = sum(line.startswith("== ") for line in self._story)
        outcome.kinds.update([self._package.kind, *({t.what for t in schedule.troubles})])
        outcome.kinds["signed"] += self._package.signed
        outcome.kinds.update(f"ends by {wake.end}" for wake in schedule.wakes)
        outcome.story = "\n".join(self._story)
        return outcome

    # -- the platform's side ---------------------------------------------------------------------

    def _wanted(self, package: Package) -> int:
        if self._began_anew:
            return index.FIRST + len(package.archive)
        return sum(map(len, package.wanted(self._old)))

    def _store(self, package: Package) -> None:
        self._package = package
        self._platform.store(package.fuid, package.extension, package.archive)
        self._began_anew |= package.kind == KINDS[2]

    def _ask(self, package: Package) -> None:
        self._accounts.append(Account(package, self._wanted(package)))
        self._platform.retain(package.request)

    def _trouble(self, number: int) -> None:
        for trouble in self._schedule.troubles:
            due = trouble.before == number or (trouble.lasts and trouble.before < number)
            if due and self._stands(trouble):
                self._story.append(f"-- {trouble.what}")
                self._do(trouble.what, trouble.code)

    def _stands(self, trouble: Trouble) -> bool:
        """Whether there is still something to disturb: nothing is committed, nothing is owed."""
        if trouble.what == "clock":
            return True
        files = flash.read_all(self._node.image)[0]
        if _ENDING & files.keys() or self._platform.state.reports:
            return False
        if trouble.what == "asked again":
            return self._package.fuid in self._dropped
        return bool(self._platform.state.retained)

    def _do(self, what: str, code: str) -> None:
        package, account = self._package, self._accounts[-1]
        if what in ("another package", "lies", "another length"):
            self._store(package.other(what == "another length"))
            self._faults.if_range_ignored = what == "lies"
            if what != "another length":
                account.package = self._package
        elif what == "another tag":
            self._platform.packages.tag(package.fuid, '"another"')
        elif what in ("no tag", "weak tag"):
            self._faults.etag = "" if what == "no tag" else 'W/"weak"'
            self._began_anew = True
        elif what == "no range":
            self._faults.range_taken_as = ""
            self._began_anew = True
        elif what == "clock":
            self._node.clock_ahead = year(self._chance) - time.time()
            return
        elif what == "flip":
            self._flip()
        elif what == "application":
            self._act(code or self._drawn())
        else:
            self._order(what)
            return
        account.spoil()
        # Of more than was wanted before, perhaps: an application has changed what patches need.
        account.wanted = self._wanted(account.package)

    def _order(self, what: str) -> None:
        """The platform has changed its mind."""
        if what in ("replaced", "withdrawn"):
            self._dropped.add(self._package.fuid)
            self._platform.retain(b"")
        if what == "replaced":
            self._store(self._schedule.next)
            self._ask(self._package)
        elif what == "asked again":
            self._dropped.clear()
            self._ask(self._package)
            # What was staged may or may not have been removed.
            self._accounts[-2:] = [self._accounts[-1]]

    # -- what happens to flash between two wakes -------------------------------------------------

    def _flip(self) -> None:
        files, _ = flash.read_all(self._node.image)
        staged = {p: c for p, c in files.items() if p.startswith("/.ota/") and c}
        if not staged:
            return
        for _ in range(self._chance.choice((1, 1, 1, 3))):
            path = self._chance.choice(sorted(staged))
            at = self._chance.randrange(len(staged[path]))
            byte = staged[path][at] ^ 1 << self._chance.randrange(8)
            self._story.append(f"   in {path}, byte {at} of {len(staged[path])}")
            self._write(
                f"with open({path!r}, 'r+b') as f:\n f.seek({at})\n f.write(bytes([{byte}]))\n"
            )

    def _act(self, code: str) -> None:
        self._write("import os\n" + code)
        self._old = self._tree()

    def _drawn(self) -> str:
        """What the application does, somewhere where the package goes."""
        chance, there = self._chance, self._old
        paths = ["/" + name for name in self._package.tree if name != "main.py"]
        path = chance.choice(paths)
        acts: list[Act] = []
        if trees.is_file(there, path):
            acts = chance.choice(([("write", path)], [("remove", path)]))
        elif path not in there and trees.is_folder({**there, "": None}, path.rpartition("/")[0]):
            acts = chance.choice(([("write", path)], [("mkdir", path)]))
        self._story.append(f"   application: {acts}")
        return code(acts)

    def _write(self, text: str) -> None:
        ahead, memory = self._node.clock_ahead, self._node.rtc_memory
        run = self._node.exec(text, cause="deepsleep")
        self._node.clock_ahead, self._node.rtc_memory = ahead, memory
        if run.error:
            self._wrong.append(f"the bench itself failed: {run.error}")

    # -- wakes -----------------------------------------------------------------------------------

    def _one(self, name: str, wake: Wake, last: Run | None) -> Run:
        """One wake, and how it ends."""
        self._story.append(f"== {name}: {wake}")
        platform, budget = self._platform, 0
        options: dict = {}
        bodies = 1  # so many answers are expected at most that end early
        link = self._faults
        # Of a .tar.gz the first part is asked for by itself, and comes whole as a rule.
        whole = self._package.extension == "tar.gz"
        if self._package.kind == PATCHES:
            whole += (wake.at or sum(wake.cuts)) % 7
        if wake.end == "link" and self._package.kind == PATCHES:
            cut = dataclasses.replace(link, truncate_at=wake.at % (1500 if whole % 2 else 9000))
            link = in_turn(dataclasses.replace(link, times=whole), cut, _AWAY)
        elif wake.end == "link":
            bodies += whole
            cut = dataclasses.replace(link, truncate_at=wake.at, times=bodies)
            link = in_turn(cut, _AWAY)
        elif wake.end == "cuts":
            bodies = len(wake.cuts) + (self._package.extension == "tar.gz")
            cut = dataclasses.replace(link, cut_at=list(wake.cuts), times=len(wake.cuts) + whole)
            link = in_turn(cut, _AWAY)
        elif wake.end == "budget":
            budget = wake.at
        elif wake.end == "power":
            options = {"cut": wake.at, "torn": wake.torn, "seed": self._schedule.seed}
        platform.faults = dataclasses.replace(link)
        self._node.environ = {
            "MQTT_PORT": str(platform.mqtt_port),
            "HTTPS_PORT": str(platform.https_port),
            "LIMITS": json.dumps(self._schedule.limits),
            "BUDGET": str(budget),
        }
        if wake.end == "reset":
            bodies = 2
            self._node.environ["RESET_AT"] = str(wake.at)
        cut_before = last is None or "power_cut" in last.names()
        cause = "power_on" if cut_before else "deepsleep"
        run = self._node.run(wakes=1, timeout_s=_TIMEOUT_S, cause=cause, **options)
        self._outcome.boots += run.boots
        self._outcome.power_cuts += "power_cut" in run.names()
        self._count(run, wake, bodies)
        if "power_cut" not in run.names():  # the next boot ends an install
            self._look()
        return run

    def _count(self, run: Run, wake: Wake, expected: int) -> None:
        """Add up what was fetched, and tell the rest."""
        account = self._accounts[-1]
        came_of: list[int] = []  # of each body, as the node has counted
        for line in re.findall(r"^(?:\(|\+\d+)$", run.output, re.MULTILINE):
            if line == "(":
                came_of.append(0)
            else:
                came_of[-1] += int(line)
        came = sum(came_of)
        account.fetched += came
        downloads = self._platform.journal.downloads()[self._downloads :]
        self._downloads += len(downloads)
        # Not a range that has come, where another one follows.
        answers = [d for d in downloads if d.status in (200, 206)]
        whole = zip(answers, answers[1:], came_of, strict=False)
        bodies = len(came_of) - sum(_is_whole(*each) for each in whole)
        account.bodies += bodies
        output = re.sub(r"^(\+\d+|\()\r?\n", "", run.output, flags=re.MULTILINE)
        names = run.names()
        self._story.append(f"   {' '.join(names)}; {run.ops} operations, {came:,} bytes")
        self._story += [f"   | {line}" for line in output.strip().splitlines()]
        self._story += [f"   {d.range or 'all'}: {d.status}" for d in downloads]
        first = downloads[0] if downloads else None
        later = first and first.range and not first.range.startswith("bytes=0-")
        self._outcome.resumed += bool(later and first.status == 206)
        wrong, troubled = self._wrong, bool(self._schedule.troubles)
        if bodies > expected + 2 * troubled:
            wrong.append(f"{bodies} answers with a body in a wake of {expected}")
        if wake.end == "budget" and came > wake.at + READ:
            wrong.append(f"more than its budget: {came} of {wake.at} bytes")
        if self._began_anew and wake.end != "nothing":
            account.spoil()
        if account.fetched > account.most:
            wrong.append(
                f"fetched too much: {account.fetched} bytes, {account.most} at most after "
                f"{account.interruptions} interruptions"
            )
        # But for the first part of one: nothing comes twice.
        ignored = later and first.status == 200 and bodies
        if ignored and self._faults.range_taken_as == "" and "Range" not in output:
            wrong.append("a server without Range, and no word of it")
        if run.nor_violations:
            wrong.append("programmed over bytes that were not erased")
        for name in ("timeout", "boot_limit", "wdt", "repl"):
            if name in names:
                wrong.append(f"{name}: {output[-200:]!r}")
        if "Traceback" in output:
            wrong.append("traceback: " + " ".join(output.split("Traceback")[1].split())[:300])

    def _end_well(self, last: Run | None) -> None:
        """Good wakes until there is nothing left to do."""
        for number in range(1, GOOD_WAKES + 2):
            last = self._one(f"good wake {number}", Wake(), last)
            if self._wrong:
                return
            if last.output.rstrip().endswith(" idle") and not last.ops:
                return
        self._wrong.append(f"not at rest after {GOOD_WAKES} good wakes: {last.output[-200:]!r}")

    # -- the judgement ---------------------------------------------------------------------------

    def _tree(self) -> trees.Tree:
        return trees.of_flash(*flash.read_all(self._node.image))

    def _rights(self) -> dict[str, trees.Tree]:
        """Which trees may be seen."""
        rights = {"old": self._old}
        for account in self._accounts:
            for tree in list(rights.values()):
                new = trees.apply(tree, account.package)
                if new is not None:
                    rights[f"package {account.package.number}, {len(rights)}"] = new
        return rights

    def _look(self) -> None:
        now, rights = self._tree(), self._rights()
        if now not in rights.values() and not self._wrong:
            self._wrong.append(f"mixed tree: differs from {trees.difference(now, rights)}")

    def _judge(self) -> None:
        """All is over: the end that each request has to have, and nothing left behind."""
        wrong, schedule = self._wrong, self._schedule
        files, folders = flash.read_all(self._node.image)
        left = [p for p in (*files, *folders) if p == "/.ota" or p.startswith("/.ota/")]
        if left:
            wrong.append("left behind: " + ", ".join(left[:6]))
        if self._platform.state.retained:
            wrong.append(f"still retained: {self._platform.state.retained!r}")
        heard: dict[str, list[tuple[int, str]]] = {a.package.fuid: [] for a in self._accounts}
        for payload in self._platform.state.reports:
            pack = {e["n"]: e.get("v", e.get("vs")) for e in json.loads(payload)}
            end = pack["e"], pack.get("m", "")
            if pack["i"] not in heard:
                wrong.append(f"report of what nobody asked for: {payload!r}")
            elif end not in heard[pack["i"]] or not self._outcome.power_cuts:
                heard[pack["i"]].append(end)  # power may fail before it is known to be heard
        expected = self._old
        for account in self._accounts:
            events = [e for e, _ in heard[account.package.fuid]]
            new = trees.apply(expected, account.package)
            if events == [1] and new is not None and not schedule.given_up:
                expected, end, right = new, "applied", True
            elif account.package.fuid in self._dropped:
                end, right = "none", events == []
            else:
                may_end = new is None or schedule.given_up or schedule.has("another length")
                end, right = "refused", events == [2] and may_end
            self._outcome.ends[end] += 1
            if not right:
                ends = heard[account.package.fuid]
                wrong.append(f"another end: package {account.package.number} {ends}")
        if not wrong and self._tree() != expected:
            wrong.append(f"another tree: {trees.difference(self._tree(), {'right': expected})}")
