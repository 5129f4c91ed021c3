"""A node with the field's firmware, as far as its updater goes, and a platform for it."""

from __future__ import annotations

import json
import shutil
import socketserver
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from host_sim.node import flash
from host_sim.node.node import Node, Run
from host_sim.sample import Tree, write_tree
from insigh_ota.package import insighio, migrate
from insigh_ota.package.migrate import Migration

STAND_INS = Path(__file__).parents[1] / "stand_ins"
FIELD = STAND_INS / "field_updater"
ARRIVE = insighio.ADAPTER / "ota_insighio/arrive.py"
FILE_ID = "fa8884d2"
DONE = {"e": 1, "i": FILE_ID}
SETTLED = "arrive: the migration is done\n"
BOOTED = "[boot] the field's boot.py runs"
FLAG = "/ota_applied_flag"


def tree_of(folder: Path) -> Tree:
    """All sources below a folder."""
    paths = sorted(folder.rglob("*.py"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


FIELD_TREE = tree_of(FIELD)
FIELD_OTA = FIELD_TREE[insighio.OTA]
FIELD_APPLY = FIELD_TREE[insighio.APPLY]


def adapter(folder: Path) -> Path:
    """The stand-in of the adapter, with the arrive.py of this checkout."""
    shutil.copytree(STAND_INS / "adapter", folder)
    shutil.copy(ARRIVE, folder / "ota_insighio")
    return folder


def migration(folder: Path, **options) -> Migration:
    """The package for the node here."""
    trusted = ("ca.der", b"\x30trusted")
    return migrate.make(FIELD_OTA, trusted, [], adapter=adapter(folder / "adapter"), **options)


@dataclass
class Platform:
    """What is retained for the node, and what it has reported. A line on a socket, an answer."""

    package: bytes
    retained: bytes = b""
    reports: list[dict] = field(default_factory=list)
    downloads: int = 0
    hear: Callable[[str], object] = str
    """Called with each line before it has an effect; False: it has none."""

    def __enter__(self) -> Platform:
        platform = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                line = self.rfile.readline().decode().strip()
                if platform.hear(line) is False:
                    return
                what, _, more = line.partition(" ")
                self.wfile.write(platform.answer(what, more))

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.port = self._server.server_address[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def ask(self, size: int | None = None, kind: str = ".tar") -> None:
        """Request the package, or pretend that one of this size is there."""
        rows = [{"n": "e", "v": 0}, {"n": "i", "vs": FILE_ID}, {"n": "t", "vs": kind}]
        rows.append({"n": "s", "v": len(self.package) if size is None else size})
        self.retained = json.dumps(rows).encode()

    def answer(self, what: str, more: str) -> bytes:
        """What the node gets for a line."""
        if what == "get":
            return self.retained
        if what == "clear":
            self.retained = b""
        elif what == "report":
            self.reports.append(
                {row["n"]: row.get("v", row.get("vs")) for row in json.loads(more)}
            )
        elif what == "package":
            self.downloads += 1
            return self.package
        return b""


class FieldNode:
    """A virtual node with the field's firmware; `tree` is beside or in place of its files."""

    def __init__(
        self,
        folder: Path,
        platform: Platform,
        tree: dict[str, bytes | None] | None = None,
        *,
        blocks: int = 256,
        frozen: Path | None = None,
    ) -> None:
        self.image, self.platform = folder / "node.img", platform
        files = {k: v for k, v in (FIELD_TREE | (tree or {})).items() if v is not None}
        flash.build(write_tree(files, folder / "root"), self.image, blocks=blocks, agent=False)
        self.before = self.files()
        self.node = Node(
            self.image, mtime=False, environ={"PLATFORM": str(platform.port)}, frozen=frozen
        )

    def run(self, **options) -> Run:
        """Power it up."""
        return self.node.run(timeout_s=60, **options)

    def files(self) -> Tree:
        """Every file on flash now."""
        return flash.read_tree(self.image)

    def save(self) -> tuple[bytes, bytes, list[dict]]:
        """All that a later load() needs: flash and platform."""
        return self.image.read_bytes(), self.platform.retained, list(self.platform.reports)

    def load(self, saved: tuple[bytes, bytes, list[dict]]) -> None:
        """As it was then."""
        self.image.write_bytes(saved[0])
        self.platform.retained, self.platform.reports = saved[1], list(saved[2])


def migrated(before: Tree, package: Migration, flag: bool = True) -> Tree:
    """What is on flash after the migration of a node with a boot.py and nothing odd."""
    after = before | {f"/{path}": content for path, content in package.files.items()}
    waiting = [path for path in after if path.startswith("/ota_insighio/arrival/")]
    ours = {path.rpartition("/")[2]: after.pop(path) for path in waiting}
    after["/boot_user.py"], after["/boot.py"] = before["/boot.py"], ours["boot.py"]
    after["/" + insighio.APP + "field_apply_ota.py"] = before["/" + insighio.APPLY]
    after["/" + insighio.APPLY] = ours["apply_ota.py"]
    return after | ({"/ota_applied_flag": b"done"} if flag else {})


def is_reset(event: dict) -> bool:
    return event["event"] == "reset"


def first_half(node: FieldNode) -> int:
    """The field's updater does its part, up to the reset. Returns its flash operations."""
    run = node.run(stop=is_reset)
    assert run.names() == ["boot", "reset", "flash"], run.output
    return run.ops


def wrong(node: FieldNode, package: Migration, runs: list[Run]) -> list[str]:
    """What is not as it has to be at the end, a line each; the last run went on to its end."""
    found = []
    output = "".join(run.output for run in runs)
    names = runs[-1].names()
    if "exit" in names or "timeout" in names or names[-2] != "sleep":
        found.append(f"the node does not run: {names[-4:]}")
    if output.count("main runs") > output.count(BOOTED):
        found.append("a boot without the field's boot.py")
    if "Traceback" in runs[-1].output:
        found.append("an error after the power came back")
    files = node.files()
    files.pop(FLAG, None)  # the field's, which it writes at the very last
    expected = migrated(node.before, package, flag=False)
    if {path for path in files if files[path] != expected.get(path)}:
        found.append("files that do not belong there")
    if expected.keys() - files.keys():
        found.append("files are missing")
    if node.platform.retained:
        found.append("the request is still there")
    if not node.platform.reports or any(each != DONE for each in node.platform.reports):
        found.append(f"reported {node.platform.reports}")
    return found


def cut_at(node: FieldNode, package: Migration, op: int, torn: str, second: int = 0) -> list[str]:
    """Power fails at an operation, and, `second` operations into what follows, again."""
    runs = [node.run(wakes=3, cut=op, torn=torn)]
    if runs[0].exit_code != 3:
        return ["power did not fail"]
    if second:
        runs.append(node.run(wakes=3, cut=second, torn=torn))
    runs.append(node.run(wakes=3))
    return wrong(node, package, runs)


def sweep(node: FieldNode, package: Migration, cases: list[tuple]) -> list[str]:
    """Each case from here, and what was wrong."""
    saved, found = node.save(), []
    for case in cases:
        node.load(saved)
        found += [f"cut {case}: {each}" for each in cut_at(node, package, *case)]
    return found
