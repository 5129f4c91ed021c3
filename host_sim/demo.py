"""`demo`: the whole story, live: a good update, a power cut, and a version that comes back."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import click
from rich.console import Console as Terminal
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from host_sim import sample
from host_sim.console import Console
from host_sim.node.node import Event
from host_sim.sample import DEVICE_ID, Tree
from host_sim.site import Site

# What the demo's node runs: it tells every step in a line of its own, for the bars.
_MAIN = """\
import machine
import ota
import time

print("version %d runs")

def tell(step, value):
    print("@", step, value)
    if step == "commit":
        time.sleep(1)  # for who wants to pull the plug now

agent = ota.Agent(ota.load_config(), progress=tell)
print("check:", agent.check())
machine.deepsleep(60_000)
"""

_BROKEN_MAIN = """\
print("version 3 runs")
raise RuntimeError("version 3 is broken")
"""

# About what a good cellular link gives; the bars would not be seen otherwise.
_LINK_BYTES_PER_S = 100_000

# The application fills most of 2 MB, and its old files stay until the new ones are confirmed.
_BLOCKS = 1024

# Somewhere in the middle of the install, which is more than 100 operations of flash.
_CUT = 60

_STEPS = {
    "request": "the node heard the request for file id",
    "space": "flash checked, free blocks:",
    "download": "verified HTTPS download begins, bytes:",
    "commit": "all verified and staged; committed, changed paths:",
    "install": "installed by renaming, paths:",
    "clear": "request cleared, file id",
    "report": "reported",
    "reset": "reset",
    "confirm": "the new version reached the control channel: confirmed",
    "failed": "failed:",
    "later": "left for a later wake:",
}


class Story:
    """Turns what the node says and does into a timeline with two bars."""

    def __init__(self, terminal: Terminal, bars: Progress) -> None:
        self.seen: list[str] = []
        self.heard = 0  # messages of the console that were told
        self.cut_at = ""  # the step at which the power is cut
        self._terminal = terminal
        self._bars = bars
        self._rest = ""
        self._begin = time.monotonic()
        self._tasks: dict[str, TaskID] = {}
        self._files = 0
        self._totals = {"files": 0, "bytes": 0}

    def follow(self, site: Site, **options: object) -> int:
        """Power the node up, and tell what it does; returns its exit code."""
        self._site = site
        site.node.log = self.hear
        return site.run(on_event=self._event, **options).exit_code

    def tell(self, text: str, style: str = "") -> None:
        """One line of the timeline."""
        elapsed = time.monotonic() - self._begin
        self._terminal.print(f"[dim]{elapsed:6.2f} s[/]  {text}", style=style, highlight=False)

    def expect(self, files: int) -> None:
        """A package with so many changed files is on its way."""
        self._totals["files"] = files
        for task in self._tasks.values():
            self._bars.remove_task(task)
        self._tasks.clear()

    def hear(self, text: str) -> None:
        """The node's output, in pieces as they come."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.startswith("@ "):
                _, step, value = (line + "  ").split(" ", 2)
                self._step(step, value.strip())
            elif line.strip() and not line.startswith(("Traceback", "  File")):
                self.seen.append(line.strip())
                self.tell(f"node says: [bold]{escape(line.strip())}[/]", "green")

    def _event(self, event: Event) -> None:
        what = event["event"]
        if what == "boot":
            self.tell(f"the node boots ({event['cause']})", "cyan")
        elif what == "sleep":
            self.tell("the node sleeps", "cyan")
        elif what == "power_cut":
            at = f"at operation {event['op']} of flash in this boot" if event["op"] else "now"
            self.seen.append("power cut")
            self.tell(f"[bold]the power fails {at}[/]", "red")

    def _step(self, step: str, value: str) -> None:
        if step == "bytes":
            self._show("bytes", int(value))
        elif step == "file":
            self._files += 1
            self._show("files", self._files)
        elif step in _STEPS:
            self.seen.append(step)
            text = report(value.encode()) if step == "report" else value
            self.tell(escape(f"{_STEPS[step]} {text}".strip()))
            if step == "download":
                self._files, self._totals["bytes"] = 0, int(value)
            if step == self.cut_at:
                self._site.node.cut_power()

    def _show(self, what: str, done: int) -> None:
        """A bar, such as `bytes ━━━━ 100,000 of 289,694 bytes  35%`."""
        total = self._totals[what]
        amount = f"{done:,} of {total:,} {what}"
        name = {"bytes": "download", "files": "staged"}[what]
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(name, total=total, amount=amount)
        self._bars.update(self._tasks[what], completed=done, amount=amount)


def report(payload: bytes) -> str:
    """What a node sent, in words: `e:1 for 4a977c46`."""
    if not payload:
        return "(empty: the request is cleared)"
    values = {each["n"]: each.get("v", each.get("vs")) for each in json.loads(payload)}
    reason = f", {values['m']}" if values.get("m") else ""
    return f"e:{values.get('e')} for {values.get('i')}{reason}"


def bars(terminal: Terminal) -> Progress:
    """How far a download and its staging are, below the timeline."""
    columns = (
        TextColumn("{task.description:>8}"),
        BarColumn(25),
        TextColumn("{task.fields[amount]}"),
        TaskProgressColumn(),
    )
    return Progress(*columns, console=terminal, transient=True)


def run(terminal: Terminal, broker: str) -> int:
    """Show all of it. Exit code 0 only when it was seen on both sides."""
    first = sample.application() | {"main.py": (_MAIN % 1).encode()}
    second, package = sample.next_version(first)
    second["main.py"] = package["main.py"] = (_MAIN % 2).encode()
    broken = sample.next_version(second, seed=3)[1] | {"main.py": _BROKEN_MAIN.encode()}
    with (
        tempfile.TemporaryDirectory() as scratch,
        bars(terminal) as shown,
        Console(Path(scratch) / "console", broker=broker) as console,
    ):
        story = Story(terminal, shown)
        story.tell(f"a console with a broker ({broker}), HTTPS and a fresh CA is up")
        site = Site(Path(scratch), console, first, tls=True, blocks=_BLOCKS)
        console.faults.drip = _LINK_BYTES_PER_S
        story.tell(f"a node with version 1 on littlefs: {len(site.files)} files, 4 MB of flash")
        wrong = _good_update(story, site, second, package, first)
        if not wrong:
            wrong = _broken_update(story, site, broken, second)
    for each in wrong:
        terminal.print(f"NOT SEEN: {each}", style="bold red")
    if not wrong:
        terminal.print(
            "The node updated itself from version 1 to version 2. Version 3 was broken:\n"
            "through two power cuts, the node came back to version 2 by itself.",
            style="bold green",
            highlight=False,
        )
    return 1 if wrong else 0


def _good_update(story: Story, site: Site, new: Tree, package: Tree, old: Tree) -> list[str]:
    """Version 1 to version 2. Returns what was not seen."""
    codes = [story.follow(site)]
    fuid = _ask(story, site, package, old)
    codes.append(story.follow(site))
    _tell_reports(story, site)
    installed = "install" in story.seen and story.seen.index("install")
    return _missing(
        {
            "version 2 running after the install": bool(installed)
            and "version 2 runs" in story.seen[installed:],
            "version 2 confirmed": "confirm" in story.seen,
            "e:1 at the console": site.reports() == [{"e": 1, "i": fuid, "m": None}],
            "nothing retained": site.retained() is None,
            "flash equal to version 2, byte for byte": _holds(site, new),
            "an application that ends without an error": codes == [0, 0],
        }
    )


def _broken_update(story: Story, site: Site, package: Tree, old: Tree) -> list[str]:
    """Version 2 to version 3 through two power cuts, and back. Returns what was not seen."""
    story.tell("[bold]version 3 is broken, and the power will fail while it is installed[/]")
    story.seen.clear()
    fuid = _ask(story, site, package, old)
    story.cut_at = "commit"
    story.follow(site)
    story.cut_at = ""
    story.follow(site, cut=_CUT)
    changed = {name: content for name, content in package.items() if old.get(name) != content}
    between = _count(site, changed)
    story.tell(f"a half-changed tree: {between} of {len(changed)} files are of version 3", "red")
    story.follow(site, stop=lambda event: event["event"] == "reset")
    after = _count(site, changed)
    story.tell(f"boot.py has finished the install: {after} of {len(changed)} files")
    code = story.follow(site, cause="hard")
    _tell_reports(story, site)
    reports = [each for each in site.reports() if each["i"] == fuid]
    return _missing(
        {
            "two power cuts": story.seen.count("power cut") == 2,
            "a tree between two versions": 0 < between < len(changed),
            "the install finished by boot.py": after == len(changed),
            "version 3 running after them": "version 3 runs" in story.seen,
            "version 2 back": "version 2 runs" in story.seen[-4:]
            and story.seen[-1] == "check: rolled_back"
            and code == 0,
            "e:2 at the console": bool(reports) and reports[-1]["e"] == 2 and reports[-1]["m"],
            "nothing retained": site.retained() is None,
            "flash equal to version 2 again": _holds(site, old),
        }
    )


def _ask(story: Story, site: Site, package: Tree, old: Tree) -> str:
    fuid = site.ask(sample.tar_gz(package))
    story.tell(f"the operator requests package {fuid}: {len(package)} files", "yellow")
    story.expect(sum(old.get(name) != content for name, content in package.items()))
    return fuid


def _tell_reports(story: Story, site: Site) -> None:
    """All that the console heard since it asked for this package."""
    messages = site.console.messages(DEVICE_ID)
    for message in messages[story.heard + 1 :]:  # the first one is the request
        story.tell("console heard: " + escape(report(message.payload)), "yellow")
    story.heard = len(messages)


def _count(site: Site, changed: Tree) -> int:
    """How many of these files are on flash."""
    files = site.flash_files()
    return sum(files.get("/" + name) == content for name, content in changed.items())


def _holds(site: Site, tree: Tree) -> bool:
    """Whether flash has this application, what it was made with, and nothing else."""
    return site.flash_files() == site.files | {"/" + name: tree[name] for name in tree}


def _missing(checks: dict[str, object]) -> list[str]:
    return [name for name, ok in checks.items() if not ok]


@click.command(
    help="The whole story, live: a good update, a power cut, and a version that comes back. Exit "
    "code 0 only if all of it was seen.",
)
@click.option("--broker", type=click.Choice(["amqtt", "mosquitto"]), default="amqtt")
def demo(broker: str) -> int:
    """`demo`."""
    return run(Terminal(), broker)
