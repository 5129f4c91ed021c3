"""What there is to do on a board, decided from what it has; no board needed here."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass, field

from insigh_ota.deploy import firmware
from insigh_ota.deploy.errors import DeployError
from insigh_ota.deploy.firmware import digest

#: Where the agent may live; first where Python looks first.
PLACES = ("/ota", "/lib/ota")
#: Modules of earlier agents, of which all were in one folder.
_EARLIER = frozenset(
    [
        "admission",
        "anchors",
        "archive",
        "body",
        "ending",
        "inflate",
        "journal",
        "kept",
        "manifest",
        "places",
        "rehearsal",
        "report",
        "signature",
        "signed",
        "space",
        "staging",
        "transaction",
        "trouble",
        "vetting",
    ]
)
#: Files of ours in the root.
ROOT_FILES = ("/boot.py", "/boot_user.py", "/ota.json")
#: Blocks beside the files' own: folders, and what littlefs needs to work.
_SPARE_BLOCKS = 12
#: Of an open update, as its state says.
PHASES = ("commit", "trial", "back")
#: What an ESP32's flash erases at a time, and the block of its littlefs.
ERASE_BLOCK = 4096
#: littlefs keeps pointers at the begin of each block of a file.
_POINTERS = 40


@dataclass
class Found:
    """What the probe found; `files` are ``(size, sha256)`` by absolute path."""

    machine: str
    version: list
    mpy: int
    fat: bool
    block: int
    free: int
    ca: list[str]  # paths of the trust anchors
    state: str | None  # base64
    boot: str | None  # base64
    files: dict[str, list]
    sector: int | None = None  # bytes in a block of an ESP32's flash, as its firmware takes it
    started: bool = False  # our boot.py has run
    printed: list[str] = field(default_factory=list)  # by help("modules")

    def frozen(self, name: str) -> bool:
        """True when a module of this name is frozen into the firmware, or built in."""
        return any(name in line.split() for line in self.printed)

    @property
    def frozen_boot(self) -> bool:
        """True when a boot.py that is not ours runs in place of the one on flash."""
        return self.frozen("boot") and not self.started

    def folder(self, place: str) -> list[str]:
        """Names of the files in a place of the agent, without what is aside."""
        folders = agent_folders(place)
        names = [path[len(place) + 1 :] for path in self.files if _parent(path) in folders]
        return [name for name in names if not name.endswith("~")]

    @property
    def anchored(self) -> bool:
        """True when one of the trust anchors is there: a node needs no more."""
        return any(path in self.files for path in self.ca)

    def has(self, path: str, content: bytes) -> bool:
        """True when the file is there and is the same."""
        return path in self.files and self.files[path][1] == digest(content)


@dataclass
class Plan:
    """What to do: files to move into place, in order, and those that go."""

    place: str
    content: dict[str, bytes] = field(default_factory=dict)  # all that is to be there afterwards
    moved: list[str] = field(default_factory=list)  # of these the ones that are not there yet
    copied: list[str] = field(default_factory=list)  # of these the ones that are not even aside
    litter: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    keep_boot: bool = False
    boot: str = ""  # what becomes of boot.py, for people

    @property
    def nothing(self) -> bool:
        """True when all is there already."""
        return not (self.moved or self.stale or self.litter)


def agent_folders(*places: str) -> list[str]:
    """Each place with the folders that the agent has in it, the outer ones first."""
    inner = ["", *(f"/{name}" for name in firmware.folders())]
    return [place + name for place in places for name in inner]


def probe_arguments() -> dict:
    """For ``device/probe.py``."""
    return {"folders": agent_folders(*PLACES), "paths": list(ROOT_FILES)}


def check_flash(found: Found) -> None:
    """Refuse a flash on which the agent's promises would not hold."""
    if found.sector not in (None, ERASE_BLOCK):
        raise DeployError(
            f"the board's firmware takes its flash in blocks of {found.sector} bytes, on which "
            "littlefs does not work: put another firmware on it (docs/deploying.md, “A board with "
            "FAT”)"
        )
    if found.fat:
        raise DeployError(
            "the board's flash is FAT, which a power cut can break: format it as littlefs first "
            "(docs/deploying.md, “A board with FAT”)"
        )
    if found.block != ERASE_BLOCK:
        raise DeployError(
            f"the board's littlefs has blocks of {found.block} bytes, the agent counts on the "
            f"{ERASE_BLOCK} of an ESP32"
        )


def phase(found: Found) -> str | None:
    """commit, trial or back while an update is open, None when none is.

    "unknown" when it is an agent of another version that has opened it.
    """
    if found.state is None:
        return None
    text = base64.b64decode(found.state)
    if text.startswith(b"1 "):  # the first version's, which has no check sum
        fields = text.decode(errors="replace").split(" ")
        return fields[1] if fields[1] in PHASES else "unknown"
    for line in text.split(b"\n"):
        state, _, check_sum = line.rpartition(b" ")
        if check_sum == b"%08x" % zlib.crc32(state):
            return json.loads(state)[1] if state.startswith(b"[2,") else "unknown"
    return "back"  # damaged: the next boot rolls it back


def check_firmware(found: Found, told: dict) -> None:
    """Refuse where an agent in the firmware would not be the one that runs; `told`: by itself."""
    for place in PLACES:
        if found.folder(place):
            raise DeployError(
                f"an agent is on flash, in {place}, where an update would bring another one: take "
                "it away first, with insigh-ota undeploy"
            )
    if "error" in told:
        raise DeployError(f"the board's firmware has no agent that loads: {told['error']}")


def check_transaction(found: Found, keep_trial: bool) -> None:
    """Refuse to change the agent in the middle of an update."""
    now = phase(found)
    if now in ("commit", "back"):
        raise DeployError("the node is in the middle of an update: reset it, then repeat")
    if now and not keep_trial:
        raise DeployError(
            "the node has an update on trial: let it run until it has confirmed (insigh-ota "
            "status), or keep what it installed with --trial keep (make: TRIAL=keep)"
        )


def place_of(found: Found) -> str:
    """The folder that the agent goes to: where one is, else /ota."""
    taken = [place for place in PLACES if found.folder(place)]
    for place in taken:
        foreign = foreign_package(found.folder(place))
        if foreign:
            raise DeployError(
                f"{place} is another package of that name ({foreign}): remove or rename it first"
            )
    return taken[0] if taken else PLACES[0]


def foreign_package(names: list[str]) -> str | None:
    """A file that shows that a folder ``ota`` is not our agent, or None."""
    stems = {name.rpartition(".")[0] for name in names if name.endswith((".py", ".mpy"))}
    if "recovery" in stems:
        return None  # of any version
    strangers = sorted(stems - set(firmware.modules()) - _EARLIER)
    return strangers[0] if strangers else None


def boot_kind(found: Found) -> str:
    """Whose /boot.py it is.

    "none", "stock" (new firmware's), "ours", "ours extended", "other version", or "foreign".
    """
    if "/boot.py" not in found.files:
        return "none"
    text = base64.b64decode(found.boot or "")
    code = _code(text)
    if not code:
        return "stock"  # all comments
    ours = _code(firmware.boot())
    if code == ours:
        return "ours"
    if code[: len(ours)] == ours:
        return "ours extended"
    if b"recovery.boot()" in text and b'"/.ota/state"' in text:
        return "other version"
    return "foreign"


def _code(text: bytes) -> list[bytes]:
    lines = [line.rstrip() for line in text.splitlines()]
    return [line for line in lines if line and not line.lstrip().startswith(b"#")]


def make(
    found: Found,
    agent: dict[str, bytes],
    config: bytes | None,
    boot: str | None = None,
) -> Plan:
    """What to do so that `agent` and our boot.py run, with `config` as /ota.json (None: as it is).

    `agent`: its files; none where it lies in the firmware, which an empty folder would hide.
    `boot`: what to do with a foreign boot.py, "keep" or "replace".
    """
    plan = Plan(place_of(found))
    for name, content in agent.items():
        plan.content[f"{plan.place}/{name}"] = content
    if config is not None:
        plan.content["/ota.json"] = config
    _plan_boot(plan, found, boot)
    for path in found.files:
        if path.endswith("~"):
            final = path[:-1]
            if final not in plan.content or not found.has(path, plan.content[final]):
                plan.litter.append(path)  # of an earlier attempt
        elif (
            _parent(path) in agent_folders(*PLACES)
            and path not in plan.content
            and is_module(path)
        ):
            # The other form of a module, one of an older version, or of a copy that nothing loads.
            plan.stale.append(path)
    plan.moved = [path for path in plan.content if not found.has(path, plan.content[path])]
    plan.copied = [p for p in plan.moved if not found.has(p + "~", plan.content[p])]
    if agent:
        plan.folders = ["/lib"] * plan.place.startswith("/lib/") + agent_folders(plan.place)
    check_space(plan, found)
    return plan


def _plan_boot(plan: Plan, found: Found, boot: str | None) -> None:
    if found.frozen_boot and boot != "keep":
        raise DeployError(
            "a boot.py is frozen into the board's firmware and runs in place of ours, so that "
            "nothing brings a failed update back: put another firmware on it, or say --boot keep "
            "if that is meant"
        )
    kind = boot_kind(found)
    plan.boot = {
        "none": "ours",
        "stock": "ours, in place of the firmware's empty one",
        "ours": "ours",
        "other version": "ours, in place of another version",
    }.get(kind, "")
    if not plan.boot:
        whose = "has lines of your own after ours" if kind == "ours extended" else "is not ours"
        if boot is None:
            raise DeployError(
                f"/boot.py on the board {whose}: say --boot keep (it becomes /boot_user.py, which "
                "ours runs last) or --boot replace (make: BOOT=)"
            )
        if boot == "keep":
            _keep_boot(plan, found, kind)
        else:
            plan.boot = "ours; the foreign one is gone"
    plan.content["/boot.py"] = firmware.boot()


def _keep_boot(plan: Plan, found: Found, kind: str) -> None:
    if kind == "ours extended":
        raise DeployError(
            "/boot.py on the board begins with ours: move your own lines to /boot_user.py, which "
            "ours runs last, then repeat"
        )
    before = found.files.get("/boot_user.py")
    if before and before[1] != found.files["/boot.py"][1]:
        raise DeployError(
            "the board has a /boot_user.py already: put the two into one, then repeat with "
            "BOOT=replace"
        )
    plan.keep_boot = True
    plan.boot = "ours; the foreign one is /boot_user.py, which ours runs last"


def check_space(plan: Plan, found: Found) -> None:
    """Refuse when new and old files do not fit side by side, as they do for a moment."""
    blocks = sum(blocks_of(len(plan.content[path]), found.block) for path in plan.copied)
    if plan.keep_boot:
        blocks += blocks_of(found.files["/boot.py"][0], found.block)
    blocks += _SPARE_BLOCKS if blocks else 0
    back = sum(blocks_of(found.files[path][0], found.block) for path in plan.litter)
    need, have = blocks * found.block, found.free + back * found.block
    if need > have:
        raise DeployError(
            f"not enough space: copying needs {need >> 10} KB free, the board has {have >> 10} KB"
        )


def blocks_of(size: int, block: int) -> int:
    """How many blocks of littlefs a file takes at most."""
    return max(1, -(-size // (block - _POINTERS)))


def is_module(path: str) -> bool:
    """True for code, in either form."""
    return path.endswith((".py", ".mpy"))


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
