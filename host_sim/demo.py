"""`demo`: the whole story, live: a console, a node with version 1, a request, version 2 runs."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from rich.console import Console as Terminal
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn
from rich.progress import TransferSpeedColumn as Speed

from host_sim import sample
from host_sim.console import Console
from host_sim.node.node import Event
from host_sim.sample import DEVICE_ID
from host_sim.site import Site

# What the demo's node runs: it tells every step in a line of its own, for the bars.
_MAIN = """\
import machine
import ota

print("version %d runs")

def tell(step, value):
    print("@", step, value)

agent = ota.Agent(ota.load_config(), progress=tell)
print("check:", agent.check())
machine.deepsleep(60_000)
"""

# About what a good cellular link gives; the bars would not be seen otherwise.
_LINK_BYTES_PER_S = 100_000

# The application fills most of 2 MB, and its old files stay until the new ones are confirmed.
_BLOCKS = 1024

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


class _Story:
    """Turns what the node says and does into a timeline with two bars."""

    def __init__(self, terminal: Terminal, bars: Progress, files: int) -> None:
        self.seen: list[str] = []
        self._terminal = terminal
        self._bars = bars
        self._rest = ""
        self._begin = time.monotonic()
        self._bytes: TaskID | None = None
        self._files = bars.add_task("files", total=files, visible=False)

    def tell(self, text: str, style: str = "") -> None:
        """One line of the timeline."""
        elapsed = time.monotonic() - self._begin
        self._terminal.print(f"[dim]{elapsed:6.2f} s[/]  {text}", style=style, highlight=False)

    def hear(self, text: str) -> None:
        """The node's output, in pieces as they come."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.startswith("@ "):
                _, step, value = (line + "  ").split(" ", 2)
                self._step(step, value.strip())
            elif line.strip():
                self.seen.append(line)
                self.tell(f"node says: [bold]{line}[/]", "green")

    def follow(self, event: Event) -> None:
        """A boot, a reset, a sleep."""
        if event["event"] == "boot":
            self.tell(f"the node boots ({event['cause']})", "cyan")
        elif event["event"] == "sleep":
            self.tell("the node sleeps", "cyan")

    def _step(self, step: str, value: str) -> None:
        if step == "bytes" and self._bytes is not None:
            self._bars.update(self._bytes, completed=int(value))
        elif step == "file":
            self._bars.update(self._files, advance=1, visible=True)
        elif step in _STEPS:
            self.seen.append(step)
            self.tell(f"{_STEPS[step]} {value}".replace("[", r"\["))
            if step == "download":
                self._bytes = self._bars.add_task("download", total=int(value))


def run(terminal: Terminal, broker: str) -> int:
    """Show the update. Exit code 0 only when all of it was seen on both sides."""
    old = sample.application() | {"main.py": (_MAIN % 1).encode()}
    new, package = sample.next_version(old)
    new["main.py"] = package["main.py"] = (_MAIN % 2).encode()
    changed = sum(old.get(name) != content for name, content in package.items())
    columns = (TextColumn("{task.description:>8}"), BarColumn(), DownloadColumn(), Speed())
    with (
        tempfile.TemporaryDirectory() as scratch,
        Progress(*columns, console=terminal, transient=True) as bars,
        Console(Path(scratch) / "console", broker=broker) as console,
    ):
        story = _Story(terminal, bars, changed)
        story.tell(f"a console with a broker ({broker}), an HTTPS server and a fresh CA is up")
        site = Site(Path(scratch), console, old, tls=True, blocks=_BLOCKS)
        site.node.log = story.hear
        console.faults.drip = _LINK_BYTES_PER_S
        story.tell(f"a node with version 1 on littlefs: {len(site.files)} files, 4 MB of flash")
        first = site.run(on_event=story.follow)
        fuid = site.ask(sample.tar_gz(package))
        story.tell(f"the operator requests package {fuid}: {len(package)} files", "yellow")
        second = site.run(on_event=story.follow)
        wrong = _judge(site, fuid, new, story.seen)
        if first.exit_code or second.exit_code:
            wrong.append("the application ended in an error")
        for message in console.messages(DEVICE_ID)[1:]:
            shown = message.payload.decode() or "(empty: the request is cleared)"
            story.tell("console heard: " + shown.replace("[", r"\["), "yellow")
        amount = second.prog_bytes
        story.tell(f"flash: {amount} bytes programmed, {second.erases} blocks erased")
    for each in wrong:
        terminal.print(f"NOT SEEN: {each}", style="bold red")
    if not wrong:
        terminal.print("The node updated itself from version 1 to version 2.", style="bold green")
    return 1 if wrong else 0


def _judge(site: Site, fuid: str, new: sample.Tree, seen: list[str]) -> list[str]:
    """What should have been seen and was not."""
    payloads = [m.payload for m in site.console.messages(DEVICE_ID)]
    report = f'[{{"n":"e","v":1}},{{"n":"i","vs":"{fuid}"}}]'.encode()
    expected = site.files | {"/" + name: content for name, content in new.items()}
    checks = {
        "version 2 running after the install": "version 2 runs" in seen[seen.index("install") :]
        if "install" in seen
        else False,
        "version 2 confirmed": "confirm" in seen,
        "e:1 at the console, after the clear": payloads[-2:] == [b"", report],
        "nothing retained": site.retained() is None,
        "flash equal to version 2, byte for byte": site.flash_files() == expected,
    }
    return [name for name, ok in checks.items() if not ok]


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the `demo` command."""
    parser = subparsers.add_parser("demo", help="the whole story, live")
    parser.add_argument("--broker", default="amqtt", choices=("amqtt", "mosquitto"))
    parser.set_defaults(run=_command)


def _command(arguments: argparse.Namespace) -> int:
    return run(Terminal(), arguments.broker)
