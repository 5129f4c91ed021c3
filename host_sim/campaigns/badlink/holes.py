"""Links that fall silent at each step of a cycle: how long a node stays awake for it."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from host_sim import sample
from host_sim.campaigns.badlink.lane import Lane, Wake, compile_firmware
from host_sim.campaigns.badlink.parts import Outcome
from host_sim.campaigns.badlink.steps import DNS_S, HANG, HOLES, MAIN, Hole
from host_sim.console import Console
from host_sim.errors import SimError
from host_sim.link import Link
from host_sim.link.wiretap import Wiretap
from host_sim.node.flash import FIRMWARE

#: What a node may need beside its waits: booting, unpacking, and a busy machine.
SLACK_S = 2.5
PACKAGE = {"data/new.bin": random.Random(5).randbytes(60_000)}


class BlackHoles:
    """The link falls silent at each step, without and with a watchdog of twice `timeout_s`.

    Where that is a period that may be configured, it is, and `timeout_s` follows from it.
    """

    lanes = 6

    def __init__(self, timeout_s: int = 5, firmware: Path = FIRMWARE) -> None:
        self._source = firmware
        self._timeout_s = timeout_s
        self._cycle_s = 6 * timeout_s
        self.name = "holes"
        self.what = f"the link falls silent, timeout_s {timeout_s}"

    def __enter__(self) -> BlackHoles:
        with contextlib.ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self._firmware = compile_firmware(self._folder / "firmware", self._source)
            self._numbers = itertools.count()
            self._offsets = self._learn_offsets()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def cases(self) -> list[str]:
        """Such as `suback` and `suback.watchdog`."""
        return [name + more for name in HOLES for more in ("", ".watchdog")]

    def open_lane(self, stack: contextlib.ExitStack) -> Callable[[str], Outcome]:
        """Nothing is shared: each case has a console of its own."""
        return self.run

    def run(self, case: str) -> Outcome:
        """One hole, and the wakes after it, in which the link works."""
        name, _, watchdog = case.partition(".")
        hole = HOLES[name]
        with contextlib.ExitStack() as stack:
            console, lane, fuid = self._place(stack, hole, watchdog=bool(watchdog))
            with self._link_down(console, lane, hole):
                wake = lane.run(timeout_s=120)
            wrong = self._judge(hole, wake)
            console.faults.clear()
            lane.mqtt.profile = lane.https.profile = ""
            # The last one may have to see that a request which was not cleared at once is gone.
            after = lane.run(cause="deepsleep", wakes=3, timeout_s=120)
            wrong += lane.wrong_end(after, fuid, PACKAGE)
        slow = "; ".join(self._too_slow(hole, wake))
        return Outcome(f"{self.name}/{case}", tuple(wrong), slow, wake.seconds)

    def hang(self) -> Wake:
        """A port whose call blocks for ever, and a watchdog; up to its first reset."""
        with contextlib.ExitStack() as stack:
            _, lane, _ = self._place(stack, Hole("", "", fake=HANG % 1), watchdog=True)
            return lane.run(timeout_s=60, stop=lambda event: event["event"] == "wdt")

    def summary(self, outcomes: list[Outcome]) -> str:
        """A table row for each hole: its limit, and the longest that the node was awake."""
        rows = [f"| the link falls silent at | limit | is, in s | awake, in s |\n|{'---|' * 4}"]
        for name, hole in HOLES.items():
            times = [o.seconds for o in outcomes if o.case.split("/")[1].split(".")[0] == name]
            limit_s = self._limit_s(hole)
            if times:
                rows.append(f"| {hole.what} | {hole.limit} | {limit_s:g} | {max(times):.1f} |")
        return "\n".join(rows)

    def _place(
        self,
        stack: contextlib.ExitStack,
        hole: Hole,
        *,
        watchdog: bool = False,
        port: Callable[[Console], int] | None = None,
    ) -> tuple[Console, Lane, str]:
        """A console with a request for the node of a lane."""
        folder = self._folder / str(next(self._numbers))
        console = stack.enter_context(Console(folder / "console"))
        period_s = 2 * self._timeout_s if watchdog else 0
        config = {"timeout_s": self._timeout_s, "cycle_s": self._cycle_s}
        if period_s >= 25:  # the least that a configuration may say
            config |= {"timeout_s": 20, "watchdog_s": period_s}
        lane = Lane(
            console,
            self._firmware,
            folder,
            main=(MAIN % (DNS_S, hole.fake, period_s)).encode(),
            config=config,
            tls=hole.tls,
            mqtt_port=port(console) if port else None,
        )
        stack.enter_context(lane)
        fuid = console.add_package(sample.tar(PACKAGE), "p.tar").fuid
        lane.begin(fuid)
        return console, lane, fuid

    @contextlib.contextmanager
    def _link_down(self, console: Console, lane: Lane, hole: Hole) -> Iterator[None]:
        """While it lasts, the link is as the hole says."""
        console.faults = hole.faults(self._timeout_s)
        link: Link = getattr(lane, hole.link)
        at = self._offsets[hole.at] if isinstance(hole.at, str) else hole.at
        words = {"at": at, "drip": self._timeout_s * 250}
        link.profile = hole.profile.format(**words)
        over = threading.Event()

        def close_the_door() -> None:
            while not over.is_set():
                if link.wait_for(lambda: link.delivered("down") >= at, 0.1):
                    link.profile = hole.then.format(**words)
                    return

        thread = threading.Thread(target=close_the_door)
        if hole.then:
            thread.start()
        try:
            yield
        finally:
            over.set()
            if hole.then:
                thread.join()

    def _judge(self, hole: Hole, wake: Wake) -> list[str]:
        """What is wrong with the wake in which the link was silent."""
        output, wrong = wake.run.output, []
        if not wake.ends_asleep:
            wrong.append(f"does not sleep: {wake.run.events[-2]}")
        if hole.reason not in output:
            wrong.append(f"another reason: {output[-300:]!r}")
        if wake.seconds < hole.limit.least * self._timeout_s:
            wrong.append(f"awake for {wake.seconds:.1f} s only: was there a hole?")
        return wrong

    def _too_slow(self, hole: Hole, wake: Wake) -> list[str]:
        """What took longer than it may, by the clock on the wall."""
        slow = []
        limit_s = self._limit_s(hole)
        if wake.seconds > limit_s + SLACK_S:
            slow.append(f"awake for {wake.seconds:.1f} s, limit {limit_s:.1f} s")
        if "wdt" in wake.run.names():
            slow.append("the watchdog reset it")
        found = re.findall(r"longest: (\d+)", wake.run.output)
        longest = max(map(int, found), default=0)
        if longest > 1000 * max(self._timeout_s, DNS_S) + 800:
            slow.append(f"the watchdog was not fed for {longest} ms")
        return slow

    def _limit_s(self, hole: Hole) -> float:
        return hole.limit.seconds(self._timeout_s, self._cycle_s)

    def _learn_offsets(self) -> dict[str, int]:
        """What has come down before each packet of an update without faults."""
        with contextlib.ExitStack() as stack:

            def tapped(console: Console) -> int:
                self._tap = stack.enter_context(Wiretap(console.ports.mqtt))
                return self._tap.port

            _, lane, fuid = self._place(stack, Hole("", ""), port=tapped)
            wrong = lane.wrong_end(lane.run(), fuid, PACKAGE)
            if wrong:
                raise SimError(f"the cycle goes wrong without a fault: {'; '.join(wrong)}")
            packets = self._tap.packets
        offsets, down = {}, 0
        for packet in packets:
            if packet.direction == "down":
                name = packet.type.lower()
                if name == "publish" and packet.retain:
                    offsets.setdefault("retained", down + packet.length // 2)
                offsets.setdefault(name, down)
                down += packet.length
            elif packet.type == "PUBLISH":
                offsets["report" if packet.payload else "clear"] = down
        return offsets
