"""``--try IMG``: a package is installed on a virtual node before anybody sees it."""

from __future__ import annotations

import json
import re
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from host_sim.console import Console
from host_sim.node import flash
from host_sim.node.node import Node, Run
from host_sim.sample import CONTROL_CHANNEL, DEVICE_ID, DEVICE_KEY, write_tree
from insigh_ota.package.errors import PackageError

#: Runs in the place of main.py, before the install and after it; main.py itself runs at the end.
_CHECK = """
import gc
execfile("/boot.py")
import ota

gc.collect()
_begin = gc.mem_alloc()
_most = _calls = 0


def look(step, value):
    global _most, _calls
    often = step in ("bytes", "file")
    _calls += 1
    if not often or _calls % 8 == 0:
        gc.collect()
        _most = max(_most, gc.mem_alloc() - _begin)
    if not often:
        print("@", step, value)
        print("@ heap", _most)


agent = ota.Agent(ota.load_config(), look)
outcome = agent.check()
print("@ end", outcome, agent.reason)
"""
_FLOOR = "/ota.sequence"
_ANCHOR = "/try~ca.der"
_IDS = ("device_id", "device_key", "control_channel")
#: Who a node is whose image does not say so.
_STAND_IN = dict(zip(_IDS, (DEVICE_ID, DEVICE_KEY, CONTROL_CHANNEL), strict=True))
_CONFIG = "/ota.json"
#: How long the application runs at most; many have no end.
_RUN_S = 10


@dataclass
class Cost:
    """What the whole update took, from the request to the confirm.

    `fetched` is in bytes of the package, `heap` in bytes beyond what was in use before; `seconds`
    are this machine's; `blocks_before` and `blocks_after` are free blocks of 4096 bytes,
    `floor_before` and `floor_after` the sequence numbers below which the node takes nothing.
    `notes` say what was not as on the node, and how its main.py ran, a line each.
    """

    fetched: int
    prog_bytes: int
    erases: int
    heap: int
    seconds: float
    blocks_before: int
    blocks_after: int
    floor_before: str
    floor_after: str
    changed: bool
    notes: list[str] = field(default_factory=list)


def attempt(package: bytes, image: Path, *, signed: bool = False) -> Cost:
    """Install a package on a copy of a node's flash image, up to the confirm.

    Raises PackageError with the node's own reason when that is not how it ends.
    """
    blocks = flash.image_blocks(image)
    tree = flash.read_tree(image)
    config = _config(tree, image)
    notes = []
    if _CONFIG not in tree:
        notes.append(f"{image} has no {_CONFIG}: a stand-in without keys was used")
    if signed and not config.get("keys"):
        notes.append(f"the signature was not checked: the node of {image} has no keys")
    name = "package.tar.gz" if package[:1] == b"\x1f" else "package.tar"
    with (
        tempfile.TemporaryDirectory(prefix="package-") as scratch,
        Console(Path(scratch) / "console") as console,
    ):
        ids = [config[key] for key in _IDS]
        console.add_device(*ids)
        config["server"] = f"localhost:{console.ports.https}"
        # Its broker sends what is retained before it answers a ping: nothing to wait for.
        mqtt = {"host": "localhost", "port": console.ports.mqtt, "tls": False, "grace_ms": 50}
        config["mqtt"] = config.get("mqtt", {}) | mqtt
        # Beside the node's own: the package may bring others in their place.
        anchors = config.get("ca", "/ca.der")
        config["ca"] = [*([anchors] if isinstance(anchors, str) else anchors), _ANCHOR]
        tree[_ANCHOR] = console.ca_der.read_bytes()
        tree[_CONFIG] = json.dumps(config).encode()
        root = write_tree(
            {path[1:]: content for path, content in tree.items()}, Path(scratch, "r")
        )
        copy = Path(scratch) / "copy.img"
        flash.build(root, copy, blocks=blocks, agent=False)
        console.request(ids[0], console.add_package(package, name).fuid)
        begin = time.monotonic()
        run = Node(copy).exec(_CHECK, timeout_s=600)
        seconds = time.monotonic() - begin
        reports = [report.as_json() for report in console.reports(ids[0])]
        _judge(run, reports)
        fetched = sum(download.bytes_sent for download in console.downloads)
        cost = _cost(run, seconds, fetched, Node(copy), tree.get(_FLOOR, b"0"))
        cost.notes = [*notes, _application(copy)]
        return cost


def new_node(folder: Path, modulus: bytes | None = None) -> Path:
    """The flash image of a node in `folder` that has the agent alone, and one key if given."""
    config: dict[str, object] = dict(_STAND_IN)
    tree: dict[str, bytes] = {}
    if modulus:
        config |= {"keys": ["/try.key"], "require_signature": True}
        tree["try.key"] = modulus
    tree["ota.json"] = json.dumps(config).encode()
    image = folder / "new.img"
    flash.build(write_tree(tree, folder / "new"), image, mpy=True)
    return image


def _application(image: Path) -> str:
    """Run the node's own main.py after the update, and say how that went."""
    if "/main.py" not in flash.read_tree(image):
        return "main.py was not run: the node has none"
    run = Node(image).run(timeout_s=_RUN_S)
    if run.error:
        how = f"ended with {run.error} (the virtual node has no Wi-Fi and no sensors)"
    elif run.boots > 1:
        how = f"the node was reset {run.boots - 1} times"
    elif "timeout" in run.names():
        how = f"still ran after {_RUN_S} s"
    else:
        how = "ended without an error"
    return f"main.py was run afterwards, and {how}"


def _config(tree: dict[str, bytes], image: Path) -> dict:
    if "/boot.py" not in tree or not any(path.startswith(("/ota/", "/lib/ota/")) for path in tree):
        raise PackageError(f"{image} holds no agent: make it with insigh-ota flash build")
    if "/.ota/state" in tree:
        raise PackageError(
            f"{image} is in the middle of an update: boot it until that is confirmed"
        )
    if _CONFIG not in tree:
        return dict(_STAND_IN)
    try:
        config = json.loads(tree[_CONFIG])
        if all(isinstance(config[key], str) for key in _IDS):
            return config
    except (KeyError, TypeError, ValueError):
        pass
    raise PackageError(
        f"{image} has an {_CONFIG} without {', '.join(_IDS)}: put a right ota.json into the "
        "folder of `flash build --root` (`insigh-ota provision` writes one, as provision.json), "
        "or none"
    )


def _judge(run: Run, reports: list[dict]) -> None:
    """Raise PackageError unless the node installed, came back and confirmed."""
    ends = re.findall(r"^@ end (\S+) (.*)$", run.output, re.MULTILINE)
    if reports and reports[-1]["e"] == 1 and ends and ends[-1][0] in ("confirmed", "installed"):
        return
    reason = next((str(r["m"]) for r in reversed(reports) if r["e"] == 2), None)
    if not reason and ends:
        reason = f"{ends[-1][0]}, {ends[-1][1]}"
    error = f" ({run.error})" if run.error else ""
    raise PackageError(f"the virtual node did not take it: {reason or 'no end'}{error}")


def _cost(run: Run, seconds: float, fetched: int, node: Node, floor: bytes) -> Cost:
    free = [int(number) for number in re.findall(r"^@ space (\d+)$", run.output, re.MULTILINE)]
    heap = max(int(number) for number in re.findall(r"^@ heap (\d+)$", run.output, re.MULTILINE))
    after = node.exec("import os\nprint('@ free', os.statvfs('/')[3])")
    return Cost(
        fetched=fetched,
        prog_bytes=run.prog_bytes,
        erases=run.erases,
        heap=heap,
        seconds=seconds,
        blocks_before=free[0],
        blocks_after=int(re.search(r"@ free (\d+)", after.output)[1]),
        floor_before=floor.decode(),
        floor_after=flash.read_tree(node.image).get(_FLOOR, b"0").decode(),
        changed="reset" in run.names(),
    )
