"""One node at a shared console, with links of its own to broker and package server."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from host_sim import sample
from host_sim.console import Console
from host_sim.console.journal import Report
from host_sim.link import Link
from host_sim.node import flash
from host_sim.node.agent_code import compile_agent
from host_sim.node.flash import FIRMWARE
from host_sim.node.node import Event, Node, Run

NOT_CLEARED = "installed, but the request could not be cleared"
OLD = {"main.py": sample.main_py(1), "data/kept.bin": b"kept" * 200}


def compile_firmware(folder: Path, firmware: Path = FIRMWARE) -> Path:
    """The agent as it is flashed, compiled once for many nodes."""
    for source in sorted(firmware.rglob("*.py")):
        name = source.relative_to(firmware)
        if name.name == "boot.py":
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
        else:
            compile_agent(source, (folder / name).with_suffix(".mpy"), str(name))
    return folder


@dataclass
class Wake:
    """What a run of a lane's node came to."""

    run: Run
    seconds: float
    """From power-up to the last sleep."""
    reports: list[Report]

    @property
    def ends_asleep(self) -> bool:
        """Whether it ended as a node should end."""
        return self.run.exit_code == 0 and self.run.names()[-2] == "sleep"


class Lane:
    """A context manager: a device that the console knows, and its node.

    `mqtt` and `https` are the links it goes through; keys of `config` replace those of its
    `/ota.json`. `main` is its application. `mqtt_port` stands in for the broker's own port.
    """

    def __init__(
        self,
        console: Console,
        firmware: Path,
        folder: Path,
        *,
        main: bytes = OLD["main.py"],
        config: dict | None = None,
        tls: bool = False,
        mqtt_port: int | None = None,
    ) -> None:
        self.console = console
        self._folder = folder
        self._firmware = firmware
        self._main = main
        self._tls = tls
        self._more = config or {}
        broker_port = (console.ports.mqtts or 0) if tls else console.ports.mqtt
        self.mqtt = Link("127.0.0.1", mqtt_port or broker_port)
        self.https = Link("127.0.0.1", console.ports.https)
        self.device_id = str(uuid.uuid4())

    def __enter__(self) -> Lane:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.mqtt)
            stack.enter_context(self.https)
            self._flash()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _flash(self) -> None:
        console = self.console
        key, channel = str(uuid.uuid4()), str(uuid.uuid4())
        console.add_device(self.device_id, key, channel)
        config = {
            "device_id": self.device_id,
            "device_key": key,
            "control_channel": channel,
            "server": f"localhost:{self.https.port}",
            "mqtt": {
                "host": "localhost",
                "port": self.mqtt.port,
                "tls": self._tls,
                "grace_ms": 50,
            },
        }
        tree = OLD | {"main.py": self._main, "ca.der": console.ca_der.read_bytes()}
        tree["ota.json"] = json.dumps(config | self._more).encode()
        root = sample.write_tree(tree, self._folder / "root")
        self.node = Node(self._folder / "node.img")
        flash.build(root, self.node.image, firmware=self._firmware)
        self._flashed = self.node.image.read_bytes()
        self.files = flash.read_tree(self.node.image)

    def begin(self, fuid: str) -> None:
        """The node as it was flashed, and a request for this package."""
        self.mqtt.profile = self.https.profile = ""
        self.node.image.write_bytes(self._flashed)
        self.console.request(self.device_id, fuid)
        self._before = len(self.console.reports(self.device_id))

    def run(self, on_event: Callable[[Event], object] | None = None, **options) -> Wake:
        """Power the node up; `options` are those of `Node.run`."""
        began = slept = time.monotonic()

        def note(event: Event) -> None:
            nonlocal slept
            slept = time.monotonic()
            if on_event:
                on_event(event)

        run = self.node.run(on_event=note, **options)
        return Wake(run, slept - began, self.console.reports(self.device_id)[self._before :])

    def wrong_end(self, wake: Wake, fuid: str, package: sample.Tree) -> list[str]:
        """What is wrong with a node that should have taken the package by now."""
        wrong = []
        if not wake.ends_asleep:
            wrong.append(f"does not sleep: {wake.run.events[-2]}")
        if "Traceback" in wake.run.output or wake.run.nor_violations:
            wrong.append("traceback, or flash programmed twice")
        new = self.files | {f"/{name}": content for name, content in package.items()}
        if flash.read_tree(self.node.image) != new:
            wrong.append("the new tree is not in place, or something is left in /.ota")
        if self.console.retained(self.device_id):
            wrong.append("the request is still retained")
        ends = {(report.e, report.i, report.m) for report in wake.reports}
        # A link that breaks at the clear looks as a broker that refuses it.
        if ends not in ({(1, fuid, None)}, {(1, fuid, NOT_CLEARED)}):
            wrong.append(f"reports {[report.as_json() for report in wake.reports]}")
        return wrong
