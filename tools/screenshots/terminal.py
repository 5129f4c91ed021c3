"""Pictures of a terminal: real commands run, and what they print is drawn by rich and chromium."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console as Terminal
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from host_sim import files
from host_sim.console import Console
from host_sim.console.control import ControlServer
from host_sim.errors import SimError
from host_sim.node import flash
from host_sim.node.node import Node
from host_sim.sample import main_py, write_tree

COLUMNS = 110
#: Of one picture, in bytes, and pixels for each of the page's, the sharpest first.
MOST = 200_000
_SCALES = 2, 1.5, 1.25, 1
#: Dark, with enough contrast for each of the eight colours.
_THEME = TerminalTheme(
    (24, 26, 31),
    (222, 225, 230),
    [
        *((92, 99, 112), (240, 113, 120), (142, 202, 112), (229, 192, 123)),
        *((97, 175, 239), (198, 146, 233), (86, 200, 210), (222, 225, 230)),
    ],
)
_PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; display: inline-block; }}
main {{ background: {background}; color: {foreground}; border-radius: 8px; overflow: hidden; }}
header {{ padding: 9px 14px 0; height: 14px; font-size: 0; }}
i {{ display: inline-block; width: 11px; height: 11px; border-radius: 50%; margin-right: 7px; }}
pre {{ margin: 0; padding: 10px 18px 18px; font: 14px/1.45 "DejaVu Sans Mono", monospace; }}
</style><main><header><i style="background:#f07178"></i><i style="background:#e5c07b"></i><i
style="background:#8eca70"></i></header><pre>{code}</pre></main>"""
_DEVICES = ("greenhouse-1", "greenhouse-2", "pump-house")


def make(folder: Path) -> Iterator[Path]:
    """Write the pictures; yields each file."""
    with tempfile.TemporaryDirectory(prefix="screenshots-") as scratch:
        yield _draw(folder / "terminal-push.png", _push(Path(scratch)))
    yield _draw(folder / "terminal-demo.png", _demo())


def _demo() -> Text:
    """The second half of it: a broken version, and power cuts."""
    prompt, *lines = _typed("demo", cwd=Path.cwd()).split()
    begin = next(at for at, line in enumerate(lines) if "version 3 is broken" in line.plain)
    return Text("\n").join([prompt, Text("…"), *lines[begin:]])


def _push(scratch: Path) -> Text:
    """A new version for three nodes, and who has it afterwards."""
    write_tree({"main.py": main_py(2), "lib/pump.py": b"ON = 1\n"}, scratch / "my_node")
    with Console(scratch / "console") as console, ControlServer(console):
        nodes = [_node(console, device, scratch) for device in _DEVICES]
        for node in nodes:
            node.start()
        told = _typed("push my_node --dir console --all", cwd=scratch)
        for node in nodes:
            node.join()
        return told + Text("\n") + _typed("console --dir console list", cwd=scratch)


def _node(console: Console, device: str, scratch: Path) -> threading.Thread:
    """A node that sleeps until it is asked for something, then wakes."""
    console.add_device(device, "key", "farm")
    config = {
        "device_id": device,
        "device_key": "key",
        "control_channel": "farm",
        "server": f"localhost:{console.ports.https}",
        "mqtt": {"host": "localhost", "port": console.ports.mqtt, "tls": False},
    }
    tree = {
        "main.py": main_py(1),
        "ota.json": json.dumps(config).encode(),
        "ca.der": console.ca_der.read_bytes(),
    }
    image = scratch / f"{device}.img"
    flash.build(write_tree(tree, scratch / device), image, mpy=True)

    def live() -> None:
        if console.wait_for(lambda: console.view(device).state == "requested", 120):
            Node(image).run()

    return threading.Thread(target=live, daemon=True)


def _typed(words: str, cwd: Path) -> Text:
    """A command behind its prompt, and all that it prints. Raises SimError when it fails."""
    colours = {"FORCE_COLOR": "1", "TTY_INTERACTIVE": "0", "COLUMNS": str(COLUMNS)}
    done = subprocess.run(
        [sys.executable, "-m", "insigh_ota", *shlex.split(words)],
        cwd=cwd,
        env=os.environ | colours | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SimError(f"insigh-ota {words} ended with {done.returncode}: {done.stdout[-500:]}")
    prompt = Text.assemble(("$ ", "bold green"), (f"insigh-ota {words}\n", "bold"))
    return prompt + Text.from_ansi(done.stdout.rstrip())


def _draw(file: Path, text: Text) -> Path:
    """As a picture of a terminal."""
    terminal = Terminal(record=True, width=COLUMNS, file=io.StringIO(), highlight=False)
    terminal.print(text)
    page = terminal.export_html(theme=_THEME, code_format=_PAGE, inline_styles=True)
    program = shutil.which("chromium")
    if program is None:
        raise SimError("chromium is missing: on Debian, apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        with contextlib.closing(browser):
            for scale in _SCALES:
                tab = browser.new_page(device_scale_factor=scale)
                tab.set_content(page)
                picture = tab.locator("main").screenshot(omit_background=True)
                if len(picture) <= MOST:
                    files.write(file, picture)
                    return file
    raise SimError(f"{file.name} would have {len(picture)} bytes, more than {MOST}")
