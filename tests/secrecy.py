"""The search for the device key in everything that a node and its console give out."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from host_sim.node.flash_rules import BLOCK
from host_sim.node.node import Run
from host_sim.sample import DEVICE_KEY
from host_sim.site import Site

_KEY = DEVICE_KEY.encode()
# As it is, percent-encoded, without its hyphens, and a part long enough to be no accident.
_SHAPES = {_KEY, quote(DEVICE_KEY, safe="").encode(), _KEY.replace(b"-", b""), _KEY[9:28]}


def holds_key(data: bytes | str) -> bool:
    """True when the device key, or the middle of it, stands in data."""
    raw = data.encode() if isinstance(data, str) else data
    return any(shape in raw for shape in _SHAPES)


def blocks_with_key(image: Path) -> set[int]:
    """The flash blocks in which the key can be read, live or left over."""
    data = image.read_bytes()
    # A name may straddle two blocks that follow each other.
    return {
        n for n in range(len(data) // BLOCK) if holds_key(data[n * BLOCK : (n + 1) * BLOCK + 64])
    }


class WatchedSite(Site):
    """A Site that remembers everything its node gave out."""

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.runs: list[Run] = []
        self.plain_on_purpose = False

    def _build(self) -> None:
        super()._build()
        # /ota.json has to hold it; no other block may.
        self.key_blocks = blocks_with_key(self.image)

    def run(self, **options) -> Run:
        run = super().run(**options)
        self.runs.append(run)
        return run

    def leaks(self) -> list[str]:
        """Where the key was found though it must not be there."""
        found = []
        for run in self.runs:
            if holds_key(run.output):
                found.append("output of the node")
            if holds_key(repr(run.events)):
                found.append("events of the node")
        if blocks_with_key(self.image) - self.key_blocks:
            found.append("flash block")
        for name, content in self.flash_files().items():
            if name != "/ota.json" and holds_key(content):
                found.append(f"file {name}")
        console = self.console
        for message in console.messages(self.config["device_id"]):
            if holds_key(message.payload) or holds_key(message.topic):
                found.append("message")
        for what in (console.downloads, console.plain_requests, console.tls_failures):
            if holds_key(repr(what)):
                found.append("record of the console")
        if not self.plain_on_purpose and any(r.key_present for r in console.plain_requests):
            found.append("request without TLS")
        return found
