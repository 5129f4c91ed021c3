"""Signed packages at the edges: watchdogs, keys, names of builtins, what others left behind."""

from __future__ import annotations

from pathlib import Path

from host_sim import sample
from tests import signing
from tests.package.signed.node import FILES, LENIENT, follow, on_flash, refused
from tests.package.signed.packages import A, by_hand, package, root


def test_a_key_is_replaced_by_a_key_only(agent: Path, tmp_path: Path):
    """Nobody could ever mend a node that has lost its last one, and no trial would tell."""
    pem = b"-----BEGIN PUBLIC KEY-----\n" * 10
    for name in ("a.pub", "b.pub"):
        cases = [
            (by_hand({name: content}), f"manifest: /{name} would hold no key")
            for content in (
                b"",
                pem,
                signing.key(2).modulus + b"\n",
                bytes(384),
                signing.key(2).modulus[::-1][:383] + b"\2",
                b"\x7f" + signing.key(2).modulus[1:],
            )
        ]
        deleted = by_hand(A, deleted=("lib/driver.py", name))
        cases.append((deleted, f"manifest: /{name} is a key: bring another in its place"))
        refused(agent, tmp_path, cases)


_HUNGER = """
import json


class Dog:
    def __init__(self):
        self.read = self.longest = 0

    def feed(self):
        self.longest, self.read = max(self.longest, self.read), 0


def watched(device, block, buffer, offset=0):
    dog.read += len(buffer)
    read(device, block, buffer, offset)


dog = Dog()
device = type(node._device)
read, device.readblocks = device.readblocks, watched
node.restore()
made = signed_probe.ota.agent.Agent
signed_probe.ota.agent.Agent = lambda *arguments: made(*arguments, watchdog=dog)
end = node.request(bundle.read())[0]
print(json.dumps([end, dog.longest]))
"""


def test_no_file_is_too_large_for_the_watchdog(compiled: Path, tmp_path: Path):
    """What is read of flash between two feedings does not grow with a file."""
    content = package({"large.bin": bytes(range(256)) * 1200}, sequence=2)
    ((end, longest),) = follow(compiled, tmp_path, [("take", content)], code=_HUNGER, blocks=200)
    assert end == "reset"
    assert longest < 100_000


def test_no_list_of_deletions_is_too_long_for_the_watchdog(compiled: Path, tmp_path: Path):
    gone = tuple(f"none{n}.py" for n in range(2000))
    content = package({"lib/new.py": b"new = 1\n"}, deleted=gone, sequence=2)
    ((end, longest),) = follow(compiled, tmp_path, [("take", content)], code=_HUNGER)
    assert end == "reset"
    assert longest < 100_000


def test_what_nothing_runs_may_go(agent: Path, tmp_path: Path):
    """A /main.mpy that somebody left there neither keeps a new main.py out nor has to stay."""
    files = FILES | {"/main.mpy": b"M\x06\x00\x1f"}
    steps = [
        ("take", package(A)),
        ("restore",),
        ("take", sample.tar(A)),
        ("restore",),
        ("take", by_hand({}, deleted=("main.mpy",))),
    ]
    rows = follow(agent, tmp_path, steps, files=files, **LENIENT)
    for row in rows[::2]:
        assert row["end"] == "confirmed", row["reason"]
        assert on_flash(row)["/main.mpy"] is None
    brought = by_hand({"main.mpy": b"M\x06\x00\x1f"})
    (row,) = refused(agent, tmp_path, [(brought, "can not apply: nothing runs")])
    assert set(row["staged"]) == {"attempts", "journal", "manifest"}


def test_whatever_lies_in_the_agents_folder_goes(agent: Path, tmp_path: Path):
    """Of another version of the agent, say, which arranged it in another way."""
    steps = [
        ("put", "/.ota/5/sub/deeper/x", b"1"),
        ("put", "/.ota/5/y", b"1"),
        ("put", "/.ota/new/3", b"1"),
        ("take", package(A)),
    ]
    *_, row = follow(agent, tmp_path, steps)
    assert row["end"] == "confirmed", row["reason"]
    assert on_flash(row) == root(A) | {"/ota.sequence": b"1"}


# -- what the new version brings --------------------------------------------------------------

_AS_BUILTIN = """
import sys
sys.path[:] = ["/"]
builtin = sys.modules["machine"]
row = node.row(node.request(bundle.read(), "install", lambda: sys.modules.pop("machine")))
sys.modules["machine"] = builtin
print(json.dumps([row, node.row(node.wake())]))
"""


def test_a_module_named_like_a_builtin_does_not_prevent_the_reset(agent: Path, tmp_path: Path):
    """Builtin modules are not among sys.modules: each import asks flash for such a file first."""
    content = package({"machine.py": b"raise ValueError\n"}, sequence=2)
    code = "import json\n" + _AS_BUILTIN
    ((request, wake),) = follow(agent, tmp_path, [("take", content)], code=code)
    assert request["end"] == "reset"
    assert wake["end"] == "confirmed"
