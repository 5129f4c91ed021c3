"""The nodes of a fleet, and the process that runs a share of them."""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
import threading
import time
import uuid
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event as StopEvent
from pathlib import Path

from host_sim.link import Link
from host_sim.node import flash
from host_sim.node.node import Event, Node
from host_sim.sample import Tree

_TIMEOUT_S = 3600.0

# What every node runs; version and identity aside they are all the same.
_MAIN = """\
import os
import ota

class Told(ota.Agent):
    def act(self, *arguments):  # of contact(), and for what is heard while it listens
        outcome = super().act(*arguments)
        print("@contact", outcome)
        return outcome

config = ota.load_config()
config["device_id"], config["device_key"] = os.getenv("DEVICE_ID"), os.getenv("DEVICE_KEY")
config["control_channel"] = os.getenv("CONTROL_CHANNEL")
config["server"] = "localhost:" + os.getenv("HTTPS_PORT")
config["mqtt"]["port"] = int(os.getenv("MQTT_PORT"))
VERSION = %d
Told(config, lambda step, value: step in ("bytes", "file") or print("@" + step, value)).serve()
"""


def main_py(version: int) -> bytes:
    """The `main.py` of a fleet's node."""
    return (_MAIN % version).encode()


@dataclass(frozen=True)
class Member:
    """One node. `cut`: its links break now and then."""

    number: int
    cut: bool

    def _id(self, what: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{what} {self.number}"))

    @property
    def device_id(self) -> str:
        """Its device id."""
        return self._id("device")

    @property
    def key(self) -> str:
        """Its device key."""
        return self._id("key")

    @property
    def channel(self) -> str:
        """Its control channel."""
        return self._id("channel")

    def profiles(self, size: int) -> tuple[str, str]:
        """What its links to the broker and to the package server are like. size: the package's."""
        if not self.cut:
            return "", ""
        chance = random.Random(self.number)
        places = sorted(chance.sample(range(1000, 1000 + size), 3))
        kinds = chance.choices(("", "reset:"), k=3)
        https = ",".join(f"cut={k}{p}" for k, p in zip(kinds, places, strict=True))
        # Behind CONNECT and SUBSCRIBE, where the clear and the report go.
        return f"cut=up:{chance.randrange(300, 900)},cut={chance.randrange(20, 500)}", https


@dataclass(frozen=True)
class Job:
    """What a process needs to run its share."""

    members: list[Member]
    image: Path
    folder: Path
    mqtt_port: int
    https_port: int
    size: int


@dataclass(frozen=True)
class News:
    """Something that happened to a node. `t` is time.monotonic()."""

    t: float
    number: int
    what: str
    """A step of the agent, "contact", an event of the node, or "flash" with its digest at last."""
    value: str = ""


def digest(files: Tree, folders: list[str]) -> str:
    """A tree in short.

    Without what a node remembers of a request whose clear nobody has acknowledged: a later
    contact forgets it.
    """
    if "/.ota/done" in files:
        files = {name: content for name, content in files.items() if name != "/.ota/done"}
        folders = [name for name in folders if name != "/.ota"]
    tree = hashlib.sha256(repr(sorted(folders)).encode())
    for name, content in sorted(files.items()):
        tree.update(repr((name, content)).encode())
    return tree.hexdigest()


def work(job: Job, news: Queue[News], stop: StopEvent) -> None:
    """Run the nodes of a job until `stop` is set, and tell their news and their flash at last."""
    with contextlib.ExitStack() as stack:
        threads = [_NodeThread(member, job, news, stack) for member in job.members]
        for thread in threads:
            thread.start()
        stop.wait()
        for thread in threads:
            thread.end()
        for thread in threads:
            files, folders = flash.read_all(thread.node.image)
            number = thread.member.number
            news.put(News(time.monotonic(), number, "flash", digest(files, folders)))
            thread.node.image.unlink()


class _NodeThread(threading.Thread):
    def __init__(
        self, member: Member, job: Job, news: Queue[News], stack: contextlib.ExitStack
    ) -> None:
        super().__init__(name=f"node {member.number}", daemon=True)
        self.member = member
        self._news = news
        self._rest = ""
        image = job.folder / f"node{member.number}.img"
        shutil.copyfile(job.image, image)
        ports = []
        for port, profile in zip(
            (job.mqtt_port, job.https_port), member.profiles(job.size), strict=True
        ):
            if profile:
                link = stack.enter_context(Link("127.0.0.1", port, profile))
                port = link.port
            ports.append(str(port))
        environ = {
            "DEVICE_ID": member.device_id,
            "DEVICE_KEY": member.key,
            "CONTROL_CHANNEL": member.channel,
            "MQTT_PORT": ports[0],
            "HTTPS_PORT": ports[1],
        }
        self.node = Node(image, environ=environ, log=self._hear, mtime=False)

    def run(self) -> None:
        self.node.run(timeout_s=_TIMEOUT_S, on_event=self._follow)

    def end(self) -> None:
        """Cut its power."""
        while self.is_alive():
            self.node.cut_power()
            self.join(0.05)

    def _tell(self, what: str, value: str = "") -> None:
        self._news.put(News(time.monotonic(), self.member.number, what, value))

    def _follow(self, event: Event) -> None:
        self._tell(str(event["event"]), str(event.get("error") or ""))

    def _hear(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.startswith("@"):
                what, _, value = line[1:].partition(" ")
                self._tell(what, value)
            elif line:
                self._tell("said", line)
