"""A mixed fleet: nodes of several releases, and one package: each fetches what it lacks of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from host_sim import sample
from host_sim.campaigns import campaign
from host_sim.campaigns.fleet.crew import Crew
from host_sim.campaigns.fleet.member import Member, digest, main_py
from host_sim.node import flash
from insigh_ota.package import archive, delta, index, since
from insigh_ota.package.build import build
from insigh_ota.package.sources import Selection

#: The page with the table, and the table's name there.
PAGE, PLACE = "patches.md", "mixed fleet"
#: So many bytes more than its layout says a node may fetch: a connection that breaks on a busy
#: machine costs what was under way, and a node asks for at most so much at first.
ALLOWED = index.FIRST

_BLOCKS = 1024
_RETRY_S = 20
_WINDOW = 13


@dataclass
class Share:
    """The nodes of one release. `differ`: files that it lacks; `asked`: bytes by the layout."""

    release: str
    differ: int
    asked: int
    members: list[Member]
    fetched: list[int] = field(default_factory=list)
    """Bytes of bodies that each node was sent."""


@dataclass
class Result:
    """What was seen. `wrong` is empty when all was as it has to be."""

    shares: list[Share]
    files: int
    size: int
    """Of the package, both."""
    wrong: list[str] = field(default_factory=list)

    def table(self) -> str:
        """By release, in Markdown."""
        rows: list[tuple[object, ...]] = []
        for share in self.shares:
            mean = sum(share.fetched) / max(1, len(share.fetched))
            most = max(share.fetched, default=0)
            counts = len(share.members), share.differ, share.asked, round(mean), most
            rows.append((share.release, *(f"{count:,}" for count in counts)))
        rows.append(("the whole package", "", f"{self.files:,}", f"{self.size:,}", "", ""))
        head = "a node of, nodes, files that differ, bytes to fetch, fetched on average, at most"
        return campaign.table(head, rows)


class Mixed(Crew):
    """So many nodes, about as many of each release of the sample application.

    The newest release is requested; some nodes have it already.
    """

    def __init__(self, nodes: int, tell: Callable[[str], object] = lambda _text: None) -> None:
        super().__init__([Member(n, False) for n in range(nodes)], tell)

    def run(self) -> Result:
        """Connect, ask, wait until all have ended, and look at what has become of them."""
        self._connect()
        began, _ = self._ask()
        self._all("report", began, "reported")
        if not self._counts["failed"]:
            # New code is confirmed in a contact of its own; and until a contact has ended,
            # something is left to do on flash.
            self._all("contact", began, "ended their contact")
        self._tell(f"all have ended, {time.monotonic() - began:.1f} s")
        result = Result(self._shares, len(self._new), len(self._archive))
        result.wrong += self._wrong()
        return result

    def _build(self) -> tuple[bytes, str, list[tuple[Path, list[Member]]]]:
        releases = [
            delta.Release(f"v{n}", tree | {"main.py": main_py(n)})
            for n, tree in enumerate(sample.releases(), 1)
        ]
        *past, newest = releases
        selection = Selection(newest.files, deleted=since.gone(past, newest.files))
        package = build(selection, window=_WINDOW, releases=past)
        found = archive.read(package)
        self._new = dict(found.files)
        layout = delta.check(package, found.manifest)
        images = []
        self._shares = []
        for n, release in enumerate(releases):
            members = self._members[n :: len(releases)]
            differ = len(delta.differing(self._new, release.files))
            asked = sum(map(len, layout.wanted(self._new, release.files)))
            self._shares.append(Share(release.name, differ, asked, members))
            image = self._image(release.name, release.files, blocks=_BLOCKS, retry_s=_RETRY_S)
            images.append((image, members))
        # A node that has always had the newest one has just that.
        return package, digest(*flash.read_all(images[-1][0])), images

    def _wrong(self) -> list[str]:
        wrong = super()._wrong()
        # All requests have ended by now.
        sent = Counter[str | None]()
        for download in self._console.downloads:
            sent[download.device_id] += download.bytes_sent
        for share in self._shares:
            share.fetched = [sent[member.device_id] for member in share.members]
            for member, fetched in zip(share.members, share.fetched, strict=True):
                if fetched > share.asked + ALLOWED:
                    wrong.append(
                        f"node {member.number} of {share.release} fetched {fetched} bytes, "
                        f"{share.asked} by the layout"
                    )
        return wrong
