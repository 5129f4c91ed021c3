"""The matrix: brokers, plain and with TLS, each with some nodes and their stories."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import re
import statistics
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from host_sim import ctrl_c, sample
from host_sim.campaigns.brokers.story import TREE, Counts, Plan, Story
from host_sim.console import Console
from host_sim.console.aedes_broker import find_aedes
from host_sim.console.process_broker import find_program
from host_sim.errors import SimError
from host_sim.node import flash

_BROKERS = (
    "mosquitto",
    "amqtt",
    "nats",
    "rabbitmq",
    "aedes",
    "aedes-20",
    "aedes-100",
    "aedes-500",
    "aedes-2000",
)

# An idle check that listens for longer than this, and than twice the usual, is a patient one.
_LONG_MS = 1000
_BUILDING = threading.Lock()


@dataclass(frozen=True)
class Cell:
    """One broker, reached one way."""

    broker: str
    tls: bool

    def __str__(self) -> str:
        return self.broker + ("/tls" if self.tls else "/plain")

    @property
    def kind(self) -> str:
        """What the console calls it: one nats-server speaks either TLS or not."""
        return "nats-tls" if (self.broker, self.tls) == ("nats", True) else self.broker


CELLS = tuple(Cell(broker, tls) for broker in _BROKERS for tls in (False, True))


def choose(names: Iterable[str]) -> list[Cell]:
    """Cells by their names, or all of a broker's; every cell for no name."""
    chosen: list[Cell] = []
    for name in names:
        found = [cell for cell in CELLS if name in (str(cell), cell.broker)]
        if not found:
            raise SimError(f"no cell {name!r}: choose from {', '.join(map(str, CELLS))}")
        chosen += found
    return chosen or list(CELLS)


@dataclass
class Result:
    """A cell's nodes, together."""

    cell: Cell
    counts: Counts = field(default_factory=Counts)
    mishaps: list[str] = field(default_factory=list)
    """What was wrong, each with the cell and the node."""

    def row(self) -> str:
        """As a row of the table, below `HEAD`."""
        counts = self.counts
        idles = counts.idles
        waited = sorted(each.waited_ms for each in idles)
        long_ms = max(_LONG_MS, 2 * statistics.median(waited)) if waited else 0
        turns = sorted(each.turns for each in idles)
        kinds = Counter(kind for kind, _ in counts.wrong)
        cells = [
            str(self.cell).replace("/plain", "").replace("/tls", ", TLS"),
            f"{len(counts.wakes)} of {counts.requests}",
            str(max(counts.wakes, default="")),
            str(counts.cancels),
            str(counts.replaces),
            str(counts.updates),
            ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())) or "0",
            str(int(statistics.median(turns))) if turns else "",
            f"{statistics.median(waited):.0f}" if waited else "",
            f"{waited[-1]:.0f}" if waited else "",
            f"{sum(each > long_ms for each in waited)} of {len(waited)}",
        ]
        return f"| {' | '.join(cells)} |"


HEAD = (
    "| broker | heard | most wakes | cancelled | replaced | updates | wrong | round trips "
    "| listened on, ms | at most | patient |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def run_cell(
    cell: Cell,
    nodes: int,
    plan: Plan,
    config: dict | None = None,
    further: Callable[[], object] = lambda: None,
) -> Result:
    """Run the stories of `nodes` nodes. config: what `/ota.json` says beside what it has to.

    `further` is called after each step of a node.
    """
    result = Result(cell)
    try:
        _run(result, nodes, plan, config or {}, further)
    except SimError as error:  # the other cells go on
        result.counts.wrong.append(("broken off", str(error)))
        result.mishaps.append(f"{cell}: broken off: {error}")
    return result


def _run(
    result: Result, nodes: int, plan: Plan, config: dict, further: Callable[[], object]
) -> None:
    cell = result.cell
    with contextlib.ExitStack() as stack:
        # A file for each node's flash.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=ctrl_c.memory())))
        console = stack.enter_context(Console(folder / "console", broker=cell.kind))
        image = _image(console, folder, cell, config)
        stories = [
            Story(number, console, image, plan, cell.tls, further) for number in range(nodes)
        ]
        console.add_devices(
            (story.member.device_id, story.member.key, story.member.channel) for story in stories
        )
        for story in stories:
            story.start()
        for story in stories:
            story.join()
            _add(result.counts, story.counts)
            for kind, words in story.counts.wrong:
                result.mishaps.append(f"{cell}, {story.name}: {kind}: {words}")


def versions(cells: Iterable[Cell]) -> str:
    """Of the brokers, as they say themselves."""
    said = {name: version(name) for name in (cell.broker.partition("-")[0] for cell in cells)}
    return ", ".join(f"{name} {number}" for name, number in said.items())


def version(broker: str) -> str:
    """A broker's version."""
    if broker == "amqtt":
        return importlib.metadata.version("amqtt")
    if broker == "aedes":
        folder = find_aedes()
        assert folder is not None
        return json.loads((folder / "node_modules/aedes/package.json").read_text())["version"]
    if broker == "rabbitmq":
        (plugin,) = Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*")
        return plugin.name.partition("-")[2]
    program = find_program("nats-server" if broker == "nats" else broker)
    assert program is not None
    option = "--version" if broker == "nats" else "-h"  # mosquitto tells it with its help
    said = subprocess.run([program, option], capture_output=True, text=True, check=False)
    (number,) = re.findall(r"\d+\.\d+\.\d+", said.stdout)[:1]
    return number


def _add(total: Counts, counts: Counts) -> None:
    total.requests += counts.requests
    total.wakes += counts.wakes
    total.cancels += counts.cancels
    total.replaces += counts.replaces
    total.updates += counts.updates
    total.idles += counts.idles
    total.wrong += counts.wrong


def _image(console: Console, folder: Path, cell: Cell, config: dict) -> Path:
    """The flash that all nodes begin with; who they are is in their environment."""
    root = sample.write_tree(TREE, folder / "root")
    (root / "ca.der").write_bytes(console.ca_der.read_bytes())
    mqtt = {"host": "localhost", "tls": cell.tls} | config.pop("mqtt", {})
    ids = dict.fromkeys(("device_id", "device_key", "control_channel"), "0")
    (root / "ota.json").write_text(json.dumps(ids | {"server": "x", "mqtt": mqtt} | config))
    image = folder / "node.img"
    # One cell at a time: CPython 3.11 does not parse on two threads.
    with _BUILDING:
        flash.build(root, image, mpy=True, blocks=128)
    return image
