"""Update cycles whose control channel is cut, or falls silent, at a byte of its stream."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

from host_sim import sample
from host_sim.campaigns.badlink.lane import Lane, compile_firmware
from host_sim.campaigns.badlink.parts import Outcome
from host_sim.console import Console
from host_sim.errors import SimError
from host_sim.link.wiretap import Packet, Wiretap
from host_sim.node.flash import FIRMWARE

STEP = 7
#: The wake in which the link fails, and two further ones.
WAKES = 3
TIMEOUT_S = 1
#: How it fails: the profile of the link for a byte of one direction.
WAYS = {"reset": "cut={direction}:reset:{at}", "silence": "hold={direction}:both:{at}"}
PACKAGE = {"main.py": sample.main_py(2), "lib/new.py": b"NEW = 1\n"}


class ControlChannel:
    """Every packet boundary and every 7th byte of the stream, both ways, as reset and silence."""

    lanes = 6

    def __init__(self, broker: str, firmware: Path = FIRMWARE) -> None:
        self._source = firmware
        self._broker = broker
        self.name = f"mqtt.{broker}"
        self.what = f"the control channel fails, {broker}"

    def __enter__(self) -> ControlChannel:
        with contextlib.ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            folder = self._folder / "console"
            self._console = stack.enter_context(Console(folder, broker=self._broker))
            self._firmware = compile_firmware(self._folder / "firmware", self._source)
            self.fuid = self._console.add_package(sample.tar(PACKAGE), "p.tar").fuid
            self._numbers = itertools.count()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def packets(self) -> list[Packet]:
        """Those of the whole cycle: request, report and trial, a connection each."""
        with contextlib.ExitStack() as stack:
            tap = stack.enter_context(Wiretap(self._console.ports.mqtt))
            lane = self.open(stack, tap.port)
            lane.begin(self.fuid)
            wrong = lane.wrong_end(lane.run(), self.fuid, PACKAGE)
            if wrong:
                raise SimError(f"the cycle goes wrong without a cut: {'; '.join(wrong)}")
            # The node is gone; its last word may still be on its way through the tap.
            tap.wait_for(lambda: tap.packets[-1].type == "DISCONNECT")
            return tap.packets

    def cases(self) -> list[str]:
        """Such as `down.reset.140`: behind that byte of what comes down, over connections."""
        packets = self.packets()
        found = []
        for direction in ("up", "down"):
            lengths = [p.length for p in packets if p.direction == direction]
            ends = list(itertools.accumulate(lengths))
            offsets = sorted({0, *ends, *range(STEP, ends[-1], STEP)})
            found += [f"{direction}.{way}.{at}" for at in offsets for way in WAYS]
        return found

    def open_lane(self, stack: contextlib.ExitStack) -> Callable[[str], Outcome]:
        """A device of its own at the common console."""
        lane = self.open(stack)

        def run(case: str) -> Outcome:
            direction, way, at = case.split(".")
            return self._run(lane, case, WAYS[way].format(direction=direction, at=at))

        return run

    def summary(self, outcomes: list[Outcome]) -> str:
        """Repeated reports and time."""
        repeated = sum(outcome.again for outcome in outcomes)
        longest = max((outcome.seconds for outcome in outcomes), default=0)
        return f"{repeated} reports came twice, three wakes took {longest:.1f} s at most"

    def open(self, stack: contextlib.ExitStack, port: int | None = None) -> Lane:
        """A new device; `port` stands in for the broker's own."""
        folder = self._folder / f"node{next(self._numbers)}"
        config = {"timeout_s": TIMEOUT_S}
        lane = Lane(self._console, self._firmware, folder, config=config, mqtt_port=port)
        return stack.enter_context(lane)

    def _run(self, lane: Lane, case: str, profile: str) -> Outcome:
        lane.begin(self.fuid)
        lane.mqtt.profile = profile
        wake = lane.run(wakes=WAKES, timeout_s=120)
        wrong = lane.wrong_end(wake, self.fuid, PACKAGE)
        if wake.run.names().count("sleep") != WAKES:
            wrong.append(f"{wake.run.names().count('sleep')} wakes instead of {WAKES}")
        repeated = len(wake.reports) - 1
        return Outcome(f"{self.name}/{case}", tuple(wrong), seconds=wake.seconds, again=repeated)
