"""One node at one console: what the demo and the end-to-end tests both begin with."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from host_sim.console import Console
from host_sim.link import Link, Profile
from host_sim.node import flash
from host_sim.node.agent_code import compile_all
from host_sim.node.node import Node, Run
from host_sim.node.romfs import build as build_romfs
from host_sim.sample import CONTROL_CHANNEL, DEVICE_ID, DEVICE_KEY, Tree, main_py, write_tree


def freeze_agent(folder: Path, source: Path = flash.FIRMWARE) -> None:
    """Compile the agent into `folder`, for Node(frozen=folder)."""
    compile_all(source, folder)


class Site:
    """A console that knows one device, and that device as a virtual node.

    `tree` is the application on its flash (default: a `main.py` of version 1), with `extra`
    beside it. Keys of `config` replace those of the node's `/ota.json`. With `lib` the agent lives
    in `/lib/ota` instead of `/ota`; with `frozen` it is in the firmware, with `romfs` in its
    ROMFS, and flash has nothing of it but boot.py. Without `agent` flash has of it what `tree`
    has. `node` are more options of Node, such as its chip. `link` is what the link between the two
    is like (see `host_sim.link`), `mqtt_link` and `https_link` what it is like for one of them;
    the links end with `close`, or with the `with` that the site is used in.
    """

    mqtt_link: Link | None
    https_link: Link | None

    def __init__(
        self,
        folder: Path,
        console: Console,
        tree: Tree | None = None,
        *,
        tls: bool = False,
        mpy: bool = True,
        lib: bool = False,
        frozen: bool = False,
        romfs: bool = False,
        agent: bool = True,
        blocks: int = 512,
        heap: str | None = None,
        node: dict | None = None,
        config: dict | None = None,
        extra: Tree | None = None,
        link: Profile | str | None = None,
        mqtt_link: Profile | str | None = None,
        https_link: Profile | str | None = None,
    ) -> None:
        self.console = console
        self.image = folder / "node.img"
        console.add_device(DEVICE_ID, DEVICE_KEY, CONTROL_CHANNEL)
        self._links = contextlib.ExitStack()
        mqtt_link = link if mqtt_link is None else mqtt_link
        https_link = link if https_link is None else https_link
        mqtt_port = console.ports.mqtts if tls else console.ports.mqtt
        self.mqtt_link, mqtt_port = self._put_link(mqtt_link, mqtt_port)
        self.https_link, https_port = self._put_link(https_link, console.ports.https)
        self.config = {
            "device_id": DEVICE_ID,
            "device_key": DEVICE_KEY,
            "control_channel": CONTROL_CHANNEL,
            "server": f"localhost:{https_port}",
            # Its brokers send what is retained before they answer a ping, and nobody is to sit
            # through the patience that a node has with others.
            "mqtt": {"host": "localhost", "port": mqtt_port, "tls": tls, "grace_ms": 50},
        }
        self._set(config or {})
        self._mpy, self._blocks = mpy, blocks
        tree = {"main.py": main_py(1)} if tree is None else tree
        self._root = write_tree(tree | (extra or {}), folder / "root")
        (self._root / "ca.der").write_bytes(console.ca_der.read_bytes())
        (self._root / "ca.pem").write_bytes(console.ca_pem.read_bytes())
        if lib:
            self._move_agent()
        self._agent_on_flash = agent and not (lib or frozen or romfs)
        more = dict(node or {})
        if frozen:
            freeze_agent(folder / "frozen")
            more["frozen"] = folder / "frozen"
        if romfs:
            (folder / "rom.romfs").write_bytes(build_romfs(flash.FIRMWARE))
            more["romfs"] = folder / "rom.romfs"
        if (frozen or romfs) and not (self._root / "boot.py").exists():
            (self._root / "boot.py").write_bytes((flash.FIRMWARE / "boot.py").read_bytes())
        self.node = Node(self.image, heap=heap, **more)
        self._build()

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the links, if there are any."""
        self._links.close()

    def _put_link(
        self, profile: Profile | str | None, port: int | None
    ) -> tuple[Link | None, int | None]:
        """A link before the port, if one is wanted, and the port to connect to."""
        if profile is None or port is None:
            return None, port
        link = self._links.enter_context(Link("127.0.0.1", port, profile))
        return link, link.port

    def configure(self, **config: object) -> None:
        """Flash the node anew, as it was at the start, with other values in `/ota.json`."""
        self._set(config)
        self._build()

    def _set(self, config: dict) -> None:
        for key, value in config.items():
            if key == "mqtt":
                self.config["mqtt"] |= value
            else:
                self.config[key] = value

    def _build(self) -> None:
        (self._root / "ota.json").write_text(json.dumps(self.config))
        flash.build(
            self._root,
            self.image,
            mpy=self._mpy,
            blocks=self._blocks,
            agent=self._agent_on_flash,
        )
        # Everything on flash at the start, by absolute path: the agent's files as well.
        self.files = flash.read_tree(self.image)
        self.folders = flash.read_folders(self.image)

    def _move_agent(self) -> None:
        """Lay the agent down below `/lib` as part of the application."""
        flash.build(None, self.image, mpy=self._mpy)
        for name, content in flash.read_tree(self.image).items():
            place = name if name == "/boot.py" else "/lib" + name
            write_tree({place[1:]: content}, self._root)

    def ask(self, package: bytes, name: str = "package.tar.gz") -> str:
        """Store a package and request it for the node. Returns its file id."""
        fuid = self.console.add_package(package, name).fuid
        self.console.request(DEVICE_ID, fuid)
        return fuid

    def run(self, **options) -> Run:
        """Power the node up."""
        return self.node.run(**options)

    def flash_files(self) -> Tree:
        """Every file on flash now, read by littlefs-python."""
        return flash.read_tree(self.image)

    def flash_folders(self) -> list[str]:
        """Every folder on flash now."""
        return flash.read_folders(self.image)

    def retained(self) -> bytes | None:
        """What a new subscriber would be told is retained for the node."""
        return self.console.retained(DEVICE_ID)

    def reports(self) -> list[dict]:
        """The node's reports so far."""
        return [report.as_json() for report in self.console.reports(DEVICE_ID)]
