"""The console's page, of a real console and virtual nodes in the middle of updates."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from host_sim import sample
from host_sim.console import Console
from host_sim.errors import SimError
from host_sim.node import flash
from host_sim.node.node import Node
from host_sim.web import WebServer
from insigh_ota.package.build import build
from insigh_ota.package.sources import Selection

_IDS = [f"{place}-{n}" for place in ("cellar", "field", "greenhouse", "silo") for n in (1, 2, 3)]
_KEY, _CHANNEL = "a-key-of-the-pictures", "a-channel-of-the-pictures"
#: Bytes a second: the pictures show downloads under way.
_SLOW, _QUICK = 3_000, 200_000
_WAIT_S = 90
#: Long enough for what is requested right before the pictures not to be overdue in them.
_OVERDUE_S = 30
_BROKEN = b"print('version 3 runs')\nraise RuntimeError('broken')\n"


def make(folder: Path) -> list[Path]:
    """Make page-*.png there. Raises SimError without chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SimError("chromium is not installed: Debian's package chromium")
    with (
        tempfile.TemporaryDirectory() as scratch,
        Console(Path(scratch) / "console", overdue_s=_OVERDUE_S) as console,
        WebServer(console) as web,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        nodes = _Nodes(Path(scratch), console)
        try:
            nodes.prepare()
            return [_shoot(browser, web.url, folder / name, **how) for name, how in _SHOTS.items()]
        finally:
            nodes.end()
            browser.close()


#: width and height in CSS pixels; `inspect`: with the newest package open.
_SHOTS: dict[str, dict] = {
    "page-1280.png": {"width": 1280, "height": 860},
    "page-1280-dark.png": {"width": 1280, "height": 860, "scheme": "dark"},
    "page-400.png": {"width": 400, "height": 860},
    "page-400-inspect.png": {"width": 400, "height": 860, "inspect": True},
}


class _Nodes:
    """Twelve devices: some have their end behind them, some download, some are never heard of."""

    def __init__(self, scratch: Path, console: Console) -> None:
        self._scratch = scratch
        self._console = console
        self._running: list[tuple[Node, threading.Thread]] = []

    def prepare(self) -> None:
        """Bring each device to where the pictures show it."""
        console = self._console
        console.add_devices([(each, _KEY, _CHANNEL) for each in _IDS])
        self._images = self._scratch / "images"
        self._images.mkdir()
        tree = {name: content for name, content in sample.application().items() if "app" in name}
        bad = console.add_package(_package(tree, 3, _BROKEN), "app-3.tar.gz").fuid
        good = console.add_package(_package(tree, 2, sample.main_py(2)), "app-2.tar.gz").fuid
        # These are asked first, and nothing hears them: overdue after a moment.
        console.request_many(_IDS[9:10], good)
        console.faults.drip = _QUICK
        console.request_many(_IDS[0:3], good)
        console.request_many(_IDS[3:4], bad)
        self._run(_IDS[0:4])
        self._until(lambda: self._states(_IDS[0:4]) <= {"installed on trial", "rolled back"})
        self._join()
        self._until(lambda: self._states(_IDS[9:10]) == {"overdue"})
        console.faults.drip = _SLOW
        console.request_many(_IDS[4:9], good)
        for device_id in _IDS[4:7]:
            self._run([device_id])
            time.sleep(1.5)
        self._until(lambda: self._states(_IDS[4:7]) == {"downloading"})
        self._until(lambda: min(console.view(each).percent or 0 for each in _IDS[4:7]) > 4)

    def _states(self, ids: list[str]) -> set[str]:
        return {self._console.view(each).state for each in ids}

    def _until(self, reached: Callable[[], bool]) -> None:
        if not _wait(reached):
            states = {each: self._console.view(each).words for each in _IDS}
            raise SimError(f"the virtual nodes do not come so far: {states}")

    def _run(self, ids: list[str]) -> None:
        for device_id in ids:
            node = Node(self._image(device_id))
            thread = threading.Thread(target=node.run)
            self._running.append((node, thread))
            thread.start()

    def _join(self) -> None:
        for _, thread in self._running:
            thread.join()
        self._running.clear()

    def end(self) -> None:
        """Cut the power of those that still run."""
        for node, thread in self._running:
            while thread.is_alive():
                node.cut_power()
                thread.join(0.05)

    def _image(self, device_id: str) -> Path:
        root = self._scratch / "roots" / device_id
        console = self._console
        sample.write_tree({"main.py": sample.main_py(1)}, root)
        (root / "ca.der").write_bytes(console.ca_der.read_bytes())
        (root / "ota.json").write_text(_config(device_id, console))
        image = self._images / f"{device_id}.img"
        flash.build(root, image, mpy=True, blocks=1024, agent=True)
        return image


def _config(device_id: str, console: Console) -> str:
    return json.dumps(
        {
            "device_id": device_id,
            "device_key": _KEY,
            "control_channel": _CHANNEL,
            "server": f"localhost:{console.ports.https}",
            "mqtt": {
                "host": "localhost",
                "port": console.ports.mqtt,
                "tls": False,
                "grace_ms": 50,
            },
        }
    )


def _package(tree: sample.Tree, version: int, main: bytes) -> bytes:
    return build(Selection(tree | {"main.py": main}), sequence=version, window=13)


def _wait(reached: Callable[[], bool]) -> bool:
    end = time.monotonic() + _WAIT_S
    while not reached():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _shoot(
    browser: Browser,
    url: str,
    path: Path,
    *,
    width: int,
    height: int,
    scheme: str = "light",
    inspect: bool = False,
) -> Path:
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        timezone_id="UTC",
        locale="en-GB",
    )
    page = context.new_page()
    page.goto(url)
    page.get_by_role("button", name=f"all {len(_IDS)}").wait_for()
    page.locator("#timeline li").first.wait_for()
    page.get_by_label(f"Select {_IDS[-2]}").check()
    if inspect:
        page.get_by_role("button", name="Inspect app-2.tar.gz").click()
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)
    page.screenshot(path=path)
    context.close()
    return path
