"""A rollout over a real broker in this process, with nodes that are played by hand."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from host_sim.console import Console
from host_sim.console.mqtt_client import MqttClient
from insigh_ota.rollout import state as states
from insigh_ota.rollout.cli import rollout
from insigh_ota.rollout.records import Phase
from insigh_ota.rollout.state import State
from tests.busy import factor

FUID = "fa8884d2"
REQUEST = (
    f'[{{"n":"e","v":0}},{{"n":"i","vs":"{FUID}"}},{{"n":"t","vs":".tar"}},{{"n":"s","v":5}}]'
)
DONE = f'[{{"n":"e","v":1}},{{"n":"i","vs":"{FUID}"}}]'


def failed(reason: str) -> str:
    """A report of it."""
    return f'[{{"n":"e","v":2}},{{"n":"i","vs":"{FUID}"}},{{"n":"m","vs":{json.dumps(reason)}}}]'


class Hall:
    """Console, mosquitto, and some devices `n0`, `n1` … of one board."""

    def __init__(self, folder: Path, console: Console, count: int) -> None:
        self.folder, self.console = folder, console
        self.ids = [f"n{n}" for n in range(count)]
        console.add_devices((one, f"key-{one}", "c") for one in self.ids)
        self.csv = folder / "devices.csv"
        with self.csv.open("w", newline="") as file:
            csv.writer(file).writerows((one, f"key-{one}", "c", "esp32") for one in self.ids)
        self.state = folder / "state.json"
        self.broker = f"127.0.0.1:{console.ports.mqtt}"

    def words(self, *more: str) -> list[str]:
        """A whole command line."""
        return [
            *("--state", str(self.state), "--devices", str(self.csv), "--broker", self.broker),
            *("--plain", "--fuid", FUID, "--type", ".tar", "--size", "5", "--json"),
            *("--look-every", "0.1s", "--silence", "60s", "--settle", "0s", *more),
        ]

    def run(self, *more: str) -> Result:
        """The command, in this thread."""
        return CliRunner().invoke(rollout, self.words(*more))

    def node(self, one: str, heard: Callable | None = None) -> contextlib.AbstractContextManager:
        """A connection as the node."""
        port = self.console.ports.mqtt
        assert port is not None
        return MqttClient("127.0.0.1", port, one, f"key-{one}", heard)

    def end(self, one: str, report: str = DONE) -> None:
        """Clear and report, as a node does."""
        with self.node(one) as client:
            client.publish(self.console.topic(one), b"", retain=True)
            client.publish(self.console.topic(one), report.encode())

    def retained(self, one: str) -> str | None:
        """What is on its topic."""
        payload = self.console.retained(one)
        return None if payload is None else payload.decode()

    def load(self) -> State:
        """The state file."""
        state = states.load(self.state)
        assert state is not None
        return state

    def phase(self, one: str) -> Phase | None:
        """What the state file has of it."""
        record = self.load().records.get(one)
        return None if record is None else record.phase


@contextlib.contextmanager
def hall(folder: Path, count: int, **options: Any) -> Iterator[Hall]:
    """Open one."""
    with Console(folder / "console", broker="mosquitto", **options) as console:
        yield Hall(folder, console, count)


def events(result: Result) -> list[dict[str, Any]]:
    """What the command told."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def lasting(seconds: float) -> str:
    """A time on the command line; on a busy machine nodes take longer to answer."""
    return f"{math.ceil(seconds * factor())}s"


def wait(there: Callable[[], bool], seconds: float = 60.0) -> None:
    """Until it holds."""
    give_up = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < give_up, "it did not come"
        time.sleep(0.05)
