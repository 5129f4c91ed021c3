"""The packages of a life, good ones and each kind of bad one."""

from __future__ import annotations

import functools
import gzip
import io
import json
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from host_sim import sample, signing
from host_sim.node.flash_rules import BLOCK

# Every version begins by telling the bench that it runs, and does what the bench answers.
_TELL = """\
import os
import socket

def tell(text):
    s = socket.socket()
    s.connect(socket.getaddrinfo("127.0.0.1", int(os.getenv("STORY_PORT")))[0][-1])
    s.write(text + "\\n")
    answer = s.read()
    s.close()
    exec(answer)

tell("runs %d")
"""
# The agent as it is, over a transport without TLS that is told its ports.
_CHECK = """\
import machine
import ota

class Response:
    status_code = 200

    def __init__(self, url):
        self.raw = socket.socket()
        self.raw.connect(socket.getaddrinfo("127.0.0.1", int(os.getenv("PACKAGE_PORT")))[0][-1])
        self.raw.write(url.split("fuid=")[1].split("&")[0] + "\\n")

    def close(self):
        self.raw.close()

def progress(step, value):
    if step not in ("bytes", "space") and os.getenv("STEPS"):
        tell("step " + step)

config = ota.load_config()
config["mqtt"]["port"] = int(os.getenv("MQTT_PORT"))
agent = ota.Agent(config, progress=progress, open_stream=Response)
outcome = agent.check()
if agent.reason:
    print("reason:", agent.reason)
print("check:", outcome)
machine.deepsleep(1000)
"""
_CRASH = "1 / 0\n"
_RESET = "import machine\nmachine.reset()\n"
_HANG = "tell('hangs')\nprint('hangs')\nwhile True:\n    time.sleep_ms(1)\n"
_TAILS = {
    "crashes": _CRASH,
    "resets": _RESET,
    "resets softly": "import machine\nmachine.soft_reset()\n",
    "hangs": "import time\n" + _HANG,
    "takes the timers and hangs": "import machine\nimport time\nfor n in range(4):\n"
    "    machine.Timer(n).init(period=100000000, callback=print)\n"
    "    machine.Timer(n).deinit()\n" + _HANG,
    "never reaches its channel": _CHECK.replace('int(os.getenv("MQTT_PORT"))', "1"),
    "never tries its channel": "import machine\nmachine.deepsleep(86400000)\n",
    "fills flash": _CRASH,
    "leaves obstacles": _CRASH,
    "removes files": _RESET,
    "renames files": _CRASH,
    "destroys what was kept": _CRASH,
    "removes the agent": _CRASH,
}
#: What has to be undone in any case.
BAD = (
    *_TAILS,
    "does not compile",
    "its boot.py crashes",
    "its agent can not stage",
    "deletes the agent",
)
#: What must be refused.
REFUSED = ("damaged", "has no end")
#: What may go well or not; but the node must live on.
DOUBTFUL = ("shadows",)
#: What bad code does to files when it runs.
MISCHIEF = (
    "fills flash",
    "leaves obstacles",
    "removes files",
    "renames files",
    "destroys what was kept",
    "removes the agent",
)


def main_py(number: int, manner: str = "good") -> bytes:
    """The `main.py` of version `number`."""
    if manner == "does not compile":
        return b"def (:  # %d\n" % number
    return (_TELL % number + _TAILS.get(manner, _CHECK)).encode()


@dataclass(frozen=True, eq=False)
class Package:
    """One package; `manner` is "good" or one of those above."""

    number: int
    manner: str
    kind: str
    tree: sample.Tree = field(repr=False)
    folders: tuple[str, ...] = ()
    """Folders that it brings with nothing in them."""
    deleted: tuple[str, ...] = ()
    signed: bool = False
    with_folders: bool = True

    @property
    def fuid(self) -> str:
        """Its file id."""
        return f"package{self.number}"

    @functools.cached_property
    def archive(self) -> bytes:
        """Its bytes."""
        tree = self.tree
        if self.signed:
            tree = signing.sign(tree, 1, self.number, self.deleted)
        data = _tar(tree, self.folders, self.with_folders)
        if self.manner == "has no end":
            while data.endswith(bytes(512)):
                data = data[:-512]
            return data
        if self.kind == "tar.gz":
            data = gzip.compress(data, 9, mtime=0)
        elif self.kind == "microfreezer":
            stream = zlib.compress(data, 1)
            data = b"\x1f\x8b\x08" + bytes(5) + stream + zlib.crc32(stream).to_bytes(4, "big")
        if self.manner == "damaged":
            # In the trailer of a compressed one, in a header of a plain one.
            at = 120 if self.kind == "tar" else len(data) - 3
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        return data

    @property
    def request(self) -> bytes:
        """The retained message."""
        pack = [
            {"n": "e", "v": 0},
            {"n": "i", "vs": self.fuid},
            {"n": "t", "vs": ".tar" if self.kind == "tar" else ".tar.gz"},
            {"n": "s", "v": len(self.archive)},
        ]
        return json.dumps(pack, separators=(",", ":")).encode()

    @property
    def blocks(self) -> int:
        """About so many blocks it takes."""
        return sum(len(content) // BLOCK + 1 for content in self.tree.values())

    def __str__(self) -> str:
        what = f"{self.kind}, {self.manner}" + ", signed" * self.signed
        names = [f"{name} ({len(content)})" for name, content in self.tree.items()]
        names += [f"{name}/" for name in self.folders]
        names += [f"not {name}" for name in self.deleted]
        return f"package {self.number}: {what}: {', '.join(names)}"


def _tar(tree: sample.Tree, folders: tuple[str, ...], with_folders: bool) -> bytes:
    data = sample.tar(tree, with_folders=with_folders)
    if not folders:
        return data
    out = io.BytesIO(data)
    with tarfile.open(fileobj=out, mode="a", format=tarfile.PAX_FORMAT) as archive:
        for folder in folders:
            for path in [*reversed(PurePosixPath(folder).parents), PurePosixPath(folder)][1:]:
                entry = tarfile.TarInfo(path.as_posix())
                entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, 1.5
                archive.addfile(entry)
    return out.getvalue()
