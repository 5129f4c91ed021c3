"""What is in use on 32-bit words, step by step, in MicroPython's own releases (docs/limits.md).

Their heap grows by itself, so a least heap can not be had there. Each figure is a run of its own,
which ends where it is taken (host_sim/releases/instances.mjs tells why). What stands in for flash,
sockets and TLS is in RAM before the first one, and so is `umqtt.simple`, which firmware has
frozen.

The collector takes each word of the interpreter's stack for a reference, and some are what earlier
calls have left there; which ones is a matter of time. So the least of several runs is the figure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from host_sim import sample
from host_sim.bench.heap import Bench
from host_sim.errors import SimError
from host_sim.node.session import Run
from host_sim.releases.node import Interpreter, ReleaseNode
from host_sim.sample import DEVICE_ID, Tree
from host_sim.site import Site

#: The release whose figures are held by a test.
GUARDED = "1.28.0"
#: Of the sample application; what is in use does not depend on how many there are.
_MEMBERS = 24
_SCRIPT = """\
import gc
from _host import ask
step, left = %r, %d
def look(name, value=None):
    global left
    if name == step:
        left -= 1
        if not left:
            ask(8)
execfile("/boot.py")
look("start")
import ota
look("import")
agent = ota.Agent(ota.load_config(), look)
outcome = agent.check()
del agent
look("end")
raise ValueError(outcome)
"""
_START, _IMPORT, _IDLE = "start", "after `import ota`", "after an idle check"
_STEPS = ("request", "space", "download", "commit", "install", "report")


@dataclass
class _Place:
    """Where a figure is taken: at the n-th time that this step is told."""

    name: str
    step: str
    n: int = 1


def places(form: str) -> Iterator[_Place]:
    """All that are looked at in a cycle."""
    # Where the last but one member arrives: all that is loaded late is there.
    middle = _Place(f"{form}: while members arrive", "file", _MEMBERS - 1)
    if form != ".tar":
        yield middle
        return
    for step in _STEPS:
        yield _Place(f".tar: {step}", step)
        if step == "download":
            yield middle
    yield _Place(".tar: confirm, in the next boot", "confirm")


def packages() -> tuple[Tree, dict[str, bytes]]:
    """(what is on the node, its package as .tar and as .tar.gz with both windows)."""
    tree = {name: content for name, content in sample.application().items() if name != "main.py"}
    old = {name: tree[name] for name in list(tree)[:_MEMBERS]}
    new = {name: content + b"# changed\n" for name, content in old.items()}
    forms = {
        ".tar": sample.tar(new),
        ".tar.gz, window of 8 KB": sample.tar_gz_window(new, 13),
        ".tar.gz, window of 32 KB": sample.tar_gz(new),
    }
    return old, forms


def measure(
    bench: Bench, release: str, tries: int = 3, enough: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Bytes in use by what they are in use for; all but the first are above the first.

    tries: runs for each; enough: figures below which nobody needs to try for less.
    """
    old, forms = packages()
    site = bench.site("only_check", "check()", old)
    with Interpreter(release) as interpreter:
        watch = _Watch(site, ReleaseNode(site.image, interpreter))

        def least(place: _Place, fuid: str | None = None) -> int:
            lowest = 1 << 30
            for _ in range(tries):
                lowest = min(lowest, watch.used(place, fuid) - found.get(_START, 0))
                if lowest <= (enough or {}).get(place.name, 0):
                    break
            return lowest

        found: dict[str, int] = {}
        for place in _Place(_START, "start"), _Place(_IMPORT, "import"), _Place(_IDLE, "end"):
            found[place.name] = least(place)
        for form, data in forms.items():
            name = "p.tar" if form == ".tar" else "p.tar.gz"
            fuid = bench.console.add_package(data, name).fuid
            for place in places(form):
                found[place.name] = least(place, fuid)
    return found


class _Watch:
    def __init__(self, site: Site, node: ReleaseNode) -> None:
        self._console, self._node = site.console, node
        self._image = site.image.read_bytes()

    def used(self, place: _Place, fuid: str | None = None) -> int:
        """What is in use at a place, from the same flash each time."""
        self._node.image.write_bytes(self._image)
        if not fuid:
            self._console.clear(DEVICE_ID)
            return self._look(place)
        self._console.request(DEVICE_ID, fuid)
        if place.step != "confirm":
            return self._look(place)
        self._node.run(code=_SCRIPT % ("", 0), max_boots=1, timeout_s=120)
        return self._look(place, "reset")

    def _look(self, place: _Place, cause: str = "power_on") -> int:
        code = _SCRIPT % (place.step, place.n)
        run: Run = self._node.run(code=code, cause=cause, timeout_s=120)
        event = run.events[-1]
        if event["event"] != "used":
            raise SimError(f"bench: no {place.step} came: {run.output[-400:]}")
        return int(str(event["bytes"]))
