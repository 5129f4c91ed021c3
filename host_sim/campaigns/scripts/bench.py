"""A console, two links and a node on the bench: runs a script and judges the end."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from host_sim import ctrl_c, sample
from host_sim.campaigns.campaign import Outcome
from host_sim.campaigns.scripts import script
from host_sim.campaigns.scripts.judge import Order, judge
from host_sim.campaigns.scripts.script import Script, Wake
from host_sim.campaigns.scripts.steps import Steps
from host_sim.console import Console, Faults
from host_sim.link import Link
from host_sim.node import flash
from host_sim.node.node import Event, Node, Run
from host_sim.sample import CONTROL_CHANNEL, DEVICE_ID, DEVICE_KEY

#: What a node may wait in a bad wake: for each move of the network, and for the contact, for the
#: download and for the report.
TIMEOUT_MS, CYCLE_S = 400, 2
#: In a good one nothing is to fail because this machine has something else to do.
GOOD_TIMEOUT_MS, GOOD_CYCLE_S = 10_000, 30
#: So long may a boot take in a bad wake: three times CYCLE_S, and what this machine needs.
BOOT_LIMIT_S = 3 * CYCLE_S + 6
WAKE_TIMEOUT_S = 60
#: How many good wakes it takes to come to an end, and one more in which there is nothing to do.
GOOD_WAKES = 2
TRIAL_WAKES = 4


class Bench:
    """A context manager: console, links and flashed nodes for one script after the other."""

    def __init__(self, broker: str = "mosquitto", firmware: Path = flash.FIRMWARE) -> None:
        self._broker = broker
        self._firmware = firmware

    def __enter__(self) -> Bench:
        logging.getLogger("littlefs").setLevel(logging.WARNING)
        with contextlib.ExitStack() as stack:
            # In memory where there is such a place.
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=ctrl_c.memory())))
            self.console = console = stack.enter_context(
                Console(folder / "console", broker=self._broker)
            )
            console.add_device(DEVICE_ID, DEVICE_KEY, CONTROL_CHANNEL)
            ports = console.ports
            self._links = {
                name: stack.enter_context(Link("127.0.0.1", port))
                for name, port in (
                    ("mqtt", ports.mqtt),
                    ("mqtts", ports.mqtts),
                    ("https", ports.https),
                )
            }
            self._steps = stack.enter_context(Steps())
            self._image = folder / "node.img"
            self._flashed = {
                (report, tls): self._flash(folder / f"root-{report}-{tls}", report, tls)
                for report in ("installed", "confirmed")
                for tls in (False, True)
            }
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _flash(self, root: Path, report: str, tls: bool) -> bytes:
        """The image of a node."""
        mqtt = self._links["mqtts" if tls else "mqtt"]
        config = {
            "device_id": DEVICE_ID,
            "device_key": DEVICE_KEY,
            "control_channel": CONTROL_CHANNEL,
            "server": f"localhost:{self._links['https'].port}",
            "mqtt": {"host": "localhost", "port": mqtt.port, "tls": tls, "grace_ms": 50},
            "report": report,
            "trial_wakes": TRIAL_WAKES,
            "trial_deadline_s": 60,
            "max_attempts": 3,
            "watchdog_s": 25,
        }
        tree = script.old_tree() | {
            "ota.json": json.dumps(config).encode(),
            "ca.der": self.console.ca_der.read_bytes(),
        }
        sample.write_tree(tree, root)
        flash.build(root, self._image, blocks=144, mpy=True, firmware=self._firmware)
        return self._image.read_bytes()

    def run(self, seed: int) -> Outcome:
        """Run the script of a seed."""
        return Performance(self, script.make(seed)).run()

    def begin(self, play: Script) -> Node:
        """The node of a script, on a flash of its own, and a platform that wants nothing."""
        self._image.write_bytes(self._flashed[play.report, play.tls])
        self.good_links()
        if self.console.retained(DEVICE_ID):
            self.console.clear(DEVICE_ID)  # an earlier script failed
        return Node(self._image, mtime=False)

    def links(self, play: Script, wake: Wake) -> None:
        """Links and server as in a bad wake."""
        self._links["mqtts" if play.tls else "mqtt"].profile = wake.mqtt
        self._links["https"].profile = wake.https
        self.console.faults = wake.server

    def good_links(self) -> None:
        """Nothing is wrong any more."""
        for link in self._links.values():
            link.profile = ""
        self.console.faults = Faults()

    @property
    def steps(self) -> Steps:
        """Where the node tells of its steps."""
        return self._steps


class Performance:
    """One script on a bench."""

    def __init__(self, bench: Bench, play: Script) -> None:
        self._bench = bench
        self._console = bench.console
        self._play = play
        self._node = bench.begin(play)
        self._old = flash.read_all(self._node.image)
        self._orders: list[Order] = []
        self._told = len(self._console.messages(DEVICE_ID))
        self._outcome = Outcome(play.seed, [])
        self._story = [str(play)]  # now: faults of the server are used up
        self._boot_began = 0.0

    def run(self) -> Outcome:
        """All wakes, bad and good, and the judgement."""
        outcome = self._outcome
        began = time.monotonic()
        self._ask()
        last = None
        for wake in self._play.wakes:
            last = self._bad_wake(wake, last)
        while len(self._orders) < len(self._play.packages):
            self._ask()
        self._bench.good_links()
        self._end_well(last)
        ends, wrong = judge(
            self._old,
            flash.read_all(self._node.image),
            self._orders,
            self._console.messages(DEVICE_ID)[self._told :],
            self._console.retained(DEVICE_ID),
        )
        outcome.wrong += wrong
        outcome.ends = Counter(end.name for end in ends)
        outcome.seconds = time.monotonic() - began
        outcome.story = "\n".join([*self._story, *(f"end: {end}" for end in ends)])
        return outcome

    def _ask(self) -> None:
        package = self._play.packages[len(self._orders)]
        fuid = self._console.add_package(package.archive(), package.name).fuid
        self._orders.append(Order(fuid, package))
        self._story.append(f"asked for {fuid}")
        self._console.request(DEVICE_ID, fuid)

    def _bad_wake(self, wake: Wake, last: Run | None) -> Run:
        steps: dict[str, Callable[[], object]] = {}
        if wake.asks == "before" or (
            wake.asks == "idle" and not self._console.retained(DEVICE_ID)
        ):
            self._ask()
        elif wake.asks:
            steps[wake.asks] = self._ask
        if wake.cut_at_step:
            steps[wake.cut_at_step] = self._both(steps.get(wake.cut_at_step))
        self._bench.links(self._play, wake)
        options: dict = {}
        if wake.cut:
            options |= {"cut": wake.cut[0], "torn": wake.cut[1], "seed": self._play.seed}
        if wake.fail:
            options |= {"fail": wake.fail, "persistent": wake.persistent}
        with self._bench.steps.waiting(steps) as port:
            environ = {"TIMEOUT_MS": str(TIMEOUT_MS), "CYCLE_S": str(CYCLE_S)}
            if steps:
                environ["STEP_PORT"] = str(port)
            run = self._wake(environ, wake.cause, last, BOOT_LIMIT_S, options)
        # Where flash fails boot.py may say that it could not count a boot, and lets main.py run.
        self._look_for_tracebacks(run, "OSError" if wake.fail else "")
        return run

    def _both(self, first: Callable[[], object] | None) -> Callable[[], None]:
        def act() -> None:
            if first:
                first()
            self._node.cut_power()

        return act

    def _end_well(self, last: Run | None) -> None:
        """Good wakes until there is nothing left to do."""
        environ = {"TIMEOUT_MS": str(GOOD_TIMEOUT_MS), "CYCLE_S": str(GOOD_CYCLE_S)}
        most = GOOD_WAKES
        for package in self._play.packages:
            if package.manner == "never connects":
                most += TRIAL_WAKES
        for _ in range(most + 1):
            last = self._wake(environ, "deepsleep", last, WAKE_TIMEOUT_S, {})
            self._look_for_tracebacks(last)
            if last.output.endswith("check: idle\n") and not last.ops:
                return
        self._outcome.wrong.append(f"not at rest after {most} good wakes: {last.output[-300:]!r}")

    def _wake(
        self, environ: dict, cause: str, last: Run | None, limit_s: float, options: dict
    ) -> Run:
        if last is None or "power_cut" in last.names():
            cause = "power_on"
        self._node.environ = environ
        outcome = self._outcome
        longest = 0.0

        def follow(event: Event) -> None:
            nonlocal longest
            now = time.monotonic()
            if event["event"] == "boot":
                self._boot_began = now
            elif event["event"] != "flash":
                longest = max(longest, now - self._boot_began)

        run = self._node.run(
            wakes=1, timeout_s=WAKE_TIMEOUT_S, cause=cause, on_event=follow, **options
        )
        outcome.wakes += 1
        outcome.boots += run.boots
        outcome.longest_boot_s = max(outcome.longest_boot_s, longest)
        names = run.names()
        outcome.power_cuts += "power_cut" in names
        self._story.append(f"-- wake {outcome.wakes}, {longest:.2f} s: {' '.join(names)}")
        self._story.append(run.output.strip())
        if longest > limit_s:
            outcome.wrong.append(f"a boot took {longest:.1f} s of {limit_s:.0f}")
        # At the REPL it is the deadline of a trial.
        unfed = any(pair[1] == "wdt" and pair[0] != "repl" for pair in itertools.pairwise(names))
        for name in ("wdt", "timeout", "boot_limit", "nor_violation"):
            if name in names and (name != "wdt" or unfed):
                outcome.wrong.append(f"{name} in wake {outcome.wakes}")
        return run

    def _look_for_tracebacks(self, run: Run, known: str = "") -> None:
        for traceback in run.output.split("Traceback")[1:]:
            errors = re.findall(r"^(\w+)(?::|$)", traceback, re.MULTILINE)
            if not {"ZeroDivisionError", "SyntaxError", known} & set(errors):
                wrong = "traceback: " + " ".join(traceback.split())[:300]
                self._outcome.wrong.append(wrong)
