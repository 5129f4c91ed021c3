"""Two layouts of the agent, each updated to the other over the air.

The old one is a release of which all modules stand flat in `firmware/ota`, with the first version
of the journal and a boot.py of that time. Git has it: nothing of it is kept beside today's.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
from binascii import crc32
from dataclasses import replace
from pathlib import Path

from host_sim import signing
from host_sim.campaigns.powercut.scenarios import BAD_MAIN, Scenario, main_py
from host_sim.errors import SimError
from host_sim.node.agent_code import compile_all
from host_sim.sample import Tree, write_tree

#: The commit of the old layout: 32 modules, the journal's first version, the boot.py before
#: today's. There may be nodes with it.
RELEASE = "df8ef16"
#: The first commit of the project.
_FIRST = "3891691"
#: What the names of these scenarios begin with.
PREFIX = "layout"
_ROOT = Path(__file__).parents[3]
_BLOCKS = 256
_RECOVERY = "ota/recovery"

#: What the old recovery does not know: today's small files end in a check sum, and a trial that
#: today's agent has opened is confirmed in its own way (install/transaction.py).
BRIDGE = b"""

_load, _confirm = load, confirm


def load(name):
    text = _load(name)
    if text and text[0] == "\\n":
        text = text.split("\\n")[1].rpartition(" ")[0]
    return text


def confirm():
    left = sys.modules.get(_COUNTED)
    if type(left) is not list or (load("state") or "")[:11] != \'[2, "trial"\':
        return _confirm()
    import json

    with open(_JOURNAL) as file:
        head = json.loads(file.readline())
    if not head[6]:
        save("report", "1 " + head[1])
    if head[9] is not None:
        save("verified", str(head[9]))
        keep_sequence()
    os.remove(_STATE)
    left[:2] = 1 << 29, float("inf")  # the deadline: its ticks, and the clock
    discard()
    return True
"""


def missing() -> str:
    """Why the release can not be had from here, or "" where it can."""
    try:
        found = _git("cat-file", "-t", RELEASE).stdout.strip() == b"commit"
    except OSError as error:
        return f"there is no git: {error.strerror}"
    return "" if found else f"no commit {RELEASE} here: that takes a full clone, with its history"


def has_history() -> bool:
    """Whether this is a clone with the project's history, from its first commit on."""
    return _git("cat-file", "-t", _FIRST).stdout.strip() == b"commit"


def release_firmware(folder: Path) -> Path:
    """The folder `firmware` of the release, written into `folder`."""
    why = missing()
    if why:
        raise SimError(why)
    archive = _git("archive", RELEASE, "firmware").stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in filter(tarfile.TarInfo.isfile, tar):
            file = tar.extractfile(member)
            assert file
            path = folder / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.read())
    return folder / "firmware"


def _git(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", str(_ROOT), *words], capture_output=True, check=False)


def sources(firmware: Path) -> Tree:
    """The modules of an agent, without boot.py."""
    files = sorted((firmware / "ota").rglob("*.py"))
    return {file.relative_to(firmware).as_posix(): file.read_bytes() for file in files}


def compiled(firmware: Path, scratch: Path) -> Tree:
    """The same as .mpy."""
    compile_all(firmware, scratch)
    files = sorted((scratch / "ota").rglob("*.mpy"))
    return {file.relative_to(scratch).as_posix(): file.read_bytes() for file in files}


def way_back(agent: Tree) -> Tree:
    """The old agent's sources as a node with today's takes them back for good.

    Today's boot.py and recovery drive the trial, and stay. So the old recovery is given what it
    has to know of them.
    """
    return sealed(agent | {_RECOVERY + ".py": agent[_RECOVERY + ".py"] + BRIDGE})


def sealed(agent: Tree) -> Tree:
    """An agent whose recovery ends in its own CRC-32.

    The old agent copies that module, as it is, to /.ota. Today's boot.py takes no copy with
    another end; it would go on with the module in /ota, which may be the new one already.
    """
    name = next(name for name in agent if name.startswith(_RECOVERY + "."))
    content = agent[name]
    for number in range(1000):
        # Source has to stay source, so the four bytes are a comment that can be read.
        end = b"\n#%d " % number
        sum_ = crc32(content + end).to_bytes(4, "little")
        if all(32 < byte < 127 for byte in sum_):
            return agent | {name: content + end + sum_}
    raise AssertionError("no number fits")


def layouts(scratch: Path, firmware: Path) -> dict[str, Scenario]:
    """The scenarios by name. `scratch`: a folder for temporary files; `firmware`: today's."""
    old = release_firmware(scratch / "release")
    boot_py = {"boot.py": (firmware / "boot.py").read_bytes()}
    after: Tree = {"boot.py": (old / "boot.py").read_bytes(), "boot_user.py": boot_py["boot.py"]}
    gone = tuple(sorted(sources(old).keys() - sources(firmware).keys()))
    v1, v2 = {"main.py": main_py(1)}, {"main.py": main_py(2)}
    key: Tree = {"ota.key1": signing.modulus(1), "ota.sequence": b"6"}
    good = [
        Scenario(
            "layout",
            "from the flat layout, .mpy to .mpy; the old modules stay",
            v1,
            v2 | boot_py | compiled(firmware, scratch / "today"),
            firmware=old,
            foreign_boot=True,
        ),
        Scenario(
            "layout-next",
            "the next package, on a node that has come from the flat layout",
            v1 | after | {"lib/kept.txt": b"old"},
            v2 | {"lib/kept.txt": b"new", "lib/more/new.txt": b"new"},
            firmware=firmware,
        ),
        Scenario(
            "layout-signed",
            "the same, .py to .py, signed; the old modules are deleted",
            v1 | key,
            signing.sign(v2 | sources(firmware), 1, 7, gone),
            mpy=False,
            config={"keys": ["/ota.key1"], "require_signature": True},
            deleted=gone,
            floor=b"7",
            firmware=old,
        ),
        Scenario(
            "layout-back",
            "back to the flat layout, .mpy to .py; today's folders stay",
            v1,
            v2 | way_back(sources(old)),
            firmware=firmware,
        ),
        Scenario(
            "layout-again",
            "to today's again, .py to .mpy, on a node that has gone back",
            v1 | way_back(sources(old)) | boot_py,
            v2 | compiled(firmware, scratch / "today"),
            firmware=old,
        ),
    ]
    every = []
    for scenario in good:
        scenario = replace(scenario, blocks=_BLOCKS)
        every += [scenario, _undone(scenario)]
    return {scenario.name: scenario for scenario in every}


def _undone(good: Scenario) -> Scenario:
    """The same with a version that ends at once: after 3 boots it is rolled back."""
    package = good.package | {"main.py": BAD_MAIN}
    if good.floor:
        package.pop(signing.MANIFEST)
        package = signing.sign(package, 1, 7, good.deleted)
    return replace(
        good.rolled_back(),
        name=good.name + "-undone",
        what=good.what + "; rolled back after 3 bad boots",
        package=package,
        config=good.config | {"trial_deadline_s": 60},
        floor=b"6" if good.floor else b"",
    )


if __name__ == "__main__":
    # The agent for the way back, into the folder of a package (docs/deploying.md).
    with tempfile.TemporaryDirectory() as folder:
        back = way_back(sources(release_firmware(Path(folder))))
    write_tree(back, Path(sys.argv[1]))
