"""One package for a mixed fleet: whole files, and patches from what earlier releases have."""

from __future__ import annotations

import gzip
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from insigh_ota.package import archive, index, patches, paths, restarts
from insigh_ota.package.errors import PackageError
from insigh_ota.package.manifest import Manifest, parse

#: A patch of more than this part of its file, both packed, is left out: it saves too little.
_WORTH = 0.6
_TRIES = 8
#: Ranges that lie no farther apart are asked for as one: a request costs about as much.
NEAR = 512
#: A node fetches all of a package that is no larger, and of one of which it wants more files.
WHOLE, MOST = 16 * 1024, 256

#: By path: (what it begins with, patch) of each.
Patches = dict[str, list[tuple[bytes, bytes]]]


@dataclass
class Release:
    """What a node of it has, by path in the package."""

    name: str
    files: dict[str, bytes]


@dataclass
class Layout:
    """Where the parts of a package lie, in bytes of it: files in the manifest's order."""

    files: list[index.Patched] = field(default_factory=list)
    front: int = 0
    """So much a node asks for first: up to the end of the index."""
    end: int = 0
    """Where the archive's stream ends."""

    def wanted(self, new: dict[str, bytes], old: dict[str, bytes]) -> list[range]:
        """What a node fetches that has `old`; files that lie near come as one.

        All of it as one range where the package is small, or lacks many files.
        """
        borders = self.borders()
        size = self.end + archive.TRAILER
        if size <= WHOLE:
            return [range(size)]
        first = range(index.FIRST)
        if len(differing(new, old)) > MOST:
            return [first, range(size)]
        joins = False
        found = [first, range(self.front)]
        for each, path in zip(self.files, new, strict=True):
            has = _in_its_place(path, new[path], old)
            if has == new[path]:
                continue
            at = each.at if has is None else dict(each.patches).get(index.base(has), each.at)
            end = borders[bisect_right(borders, at)]
            whole = at == each.at
            if whole and joins and at <= found[-1].stop + NEAR:
                at = found.pop().start
            joins = whole
            found.append(range(at, end))
        return found

    def borders(self) -> list[int]:
        """Where something ends: where the next begins, or the archive's stream ends."""
        marks = {at for each in self.files for at in (each.at, *(at for _, at in each.patches))}
        return sorted(marks | {self.end})

    def patches(self) -> list[range]:
        """Where each patch lies."""
        borders = self.borders()
        starts = [at for each in self.files for _, at in each.patches]
        return [range(at, borders[bisect_right(borders, at)]) for at in starts]


def _in_its_place(path: str, content: bytes, old: dict[str, bytes]) -> bytes | None:
    """What a node that has `old` compares with the new content of a path.

    An application's own boot.py is there as /boot_user.py, behind ours: as it is, or not at all.
    """
    has = old.get(path)
    own = path == "boot.py" and b"recovery.boot()" not in content
    return None if own and has != content else has


def differing(new: dict[str, bytes], old: dict[str, bytes]) -> list[str]:
    """What a node lacks that has `old`, or has in another form."""
    return [path for path, content in new.items() if _in_its_place(path, content, old) != content]


def patches_for(new: dict[str, bytes], releases: list[Release]) -> Patches:
    """The patches for each file, from each other content that a release has in its place.

    Of what patches are small enough to be worth it, and for older agents to read past.
    """
    found: Patches = {}
    for path, content in new.items():
        most = len(zlib.compress(content, 9)) * _WORTH
        seen = {content}
        for release in releases:
            old = _in_its_place(path, content, release.files)
            if old is None or old in seen:
                continue
            seen.add(old)
            patch = patches.diff(old, content)
            if len(patch) <= index.LONGEST_CONTENT and len(zlib.compress(patch, 9)) < most:
                if patches.apply(old, patch, len(content)) != content:
                    raise PackageError(f"{path}: a patch makes something else, report this")
                found.setdefault(path, []).append((index.base(old), patch))
    return found


def build(
    manifest: Manifest,
    files: dict[str, bytes],
    window: int,
    found: Patches,
    releases: Sequence[Release] = (),
) -> tuple[bytes, Layout]:
    """The package with an index and these patches. Raises PackageError where that can not be.

    releases: where files that nodes of them need whole begin and end, others can be left out.
    """
    apart = _apart(files, found, releases)
    said = index.encode(manifest.encode(), [index.Patched() for _ in files], 0)
    for _ in range(_TRIES):
        raw, layout = _lay(manifest, files, window, found, said, apart)
        now = index.encode(manifest.encode(), layout.files, layout.end)
        if now == said:
            return raw, layout
        said = now
    raise PackageError("the index does not settle: use no --since, and report this")


def _apart(files: dict[str, bytes], found: Patches, releases: Sequence[Release]) -> set[str]:
    """In front of which files a row of those begins or ends that a release needs whole."""
    borders = set()
    for release in releases:
        before = False
        for path, content in files.items():
            has = _in_its_place(path, content, release.files)
            known = has is not None and index.base(has) in dict(found.get(path, ()))
            now = has != content and not known
            if now != before:
                borders.add(path)
            before = now
    return borders


def _lay(
    manifest: Manifest,
    files: dict[str, bytes],
    window: int,
    found: Patches,
    said: bytes,
    apart: set[str],
) -> tuple[bytes, Layout]:
    if len(said) > index.LONGEST_CONTENT:
        raise PackageError(
            f"the index has {len(said)} bytes, and older agents read {index.LONGEST_CONTENT} at "
            f"most: {'name fewer releases, or use --no-patches' if found else 'use no --since'}"
        )
    blocks = {
        path: index.comments(path, [patch for _, patch in found.get(path, ())]) for path in files
    }
    ((head, (inner,)),) = index.comments(paths.MANIFEST, [said])
    content, places = archive.lay(
        manifest, files, {path: [block for block, _ in of] for path, of in blocks.items()}, head
    )
    records = {
        path: [
            at + inner
            for at, (_, of) in zip(places[path], blocks[path], strict=False)
            for inner in of
        ]
        for path in files
    }
    start = places[""][0] + inner
    stored = range(start, start + int(content[start : start + 5].split()[0]))
    must = {at for path in files if blocks[path] for at in (*records[path], places[path][-1])}
    must |= {places[path][0] for path in apart | {next(iter(files))}}
    raw, points = restarts.compress_with_index(content, window, must, stored)
    # Where a node may begin to read headers, or a patch: not at a point inside a file.
    heads = {at for each in places.values() for at in each}.union(*records.values())
    points = [point for point in points if point.offset in heads]
    offsets = [point.offset for point in points]

    def spot(offset: int) -> int:
        return points[bisect_right(offsets, offset) - 1].at

    layout = Layout([], archive.front(raw), len(raw) - archive.TRAILER)
    for path in files:
        bases = [
            (base, spot(at))
            for (base, _), at in zip(found.get(path, ()), records[path], strict=True)
        ]
        layout.files.append(index.Patched(bases, spot(places[path][-1])))
    return raw, layout


@dataclass(frozen=True)
class _Member:
    """A member of a package: by which headers a node may come to it, and where its content ends.

    comments: those in front of it.
    """

    heads: list[int]
    end: int
    comments: list[tuple[range, bytes]]


def read(raw: bytes, manifest: bytes) -> Layout | None:
    """The layout that a package tells of; None where it has no index.

    manifest: the member. Raises PackageError for an index that is damaged.
    """
    return _read(raw, manifest, _members(gzip.decompress(raw))) if archive.front(raw) else None


def check(raw: bytes, manifest: bytes) -> Layout | None:
    """The same, where the index tells the truth about a package that archive.check() takes.

    Each place gives its file or its patch, before the next begins. Raises PackageError.
    """
    if not archive.front(raw):
        return None
    members = _members(gzip.decompress(raw))
    layout = _read(raw, manifest, members)
    comments = {place.start: said for each in members.values() for place, said in each.comments}
    points = {point.at: point.offset for point in restarts.points(raw, set(comments))}
    points[layout.end] = max(each.end for each in members.values())
    if layout.end != len(raw) - archive.TRAILER:
        raise PackageError("its index is of a package of another size")
    index_end = next(place.stop for each in members.values() for place, _ in each.comments)
    if len(zlib.decompressobj(-15).decompress(raw[archive.BEGIN : layout.front])) < index_end:
        raise PackageError(f"its index is not in its first {layout.front} bytes")
    listed = parse(manifest).files
    if len(listed) != len(layout.files):
        raise PackageError(f"its index has {len(layout.files)} files, its manifest {len(listed)}")
    heads = {at for each in members.values() for at in each.heads}
    borders = layout.borders()
    for each, (path, size, _) in zip(layout.files, listed, strict=True):
        begin, end = points.get(each.at), points.get(borders[bisect_right(borders, each.at)])
        if begin not in heads or begin > members[path].heads[-1]:
            raise PackageError(f"byte {each.at}, by its index, does not lead to {path}")
        if end is None or end < members[path].end:
            raise PackageError(f"{path} does not end where its index says")
        for _, at in each.patches:
            said = comments.get(points.get(at))
            if said is None:
                raise PackageError(f"byte {at}, by its index, is no patch for {path}")
            try:
                patches.check(said, size)
            except PackageError as error:
                raise PackageError(f"{path}: {error} (byte {at})") from error
    return layout


def _read(raw: bytes, manifest: bytes, members: dict[str, _Member]) -> Layout:
    said = next((said for each in members.values() for _, said in each.comments), None)
    if said is None:
        raise PackageError("its index is missing")
    files, end, of = index.decode(said)
    if of != zlib.crc32(manifest):
        raise PackageError("its index is another package's")
    return Layout(files, archive.front(raw), end)


def _members(content: bytes) -> dict[str, _Member]:
    """By name, in their order."""
    found = {}
    for member, heads in restarts.members(content):
        comments = [each for head in heads for each in index.records(content, head)]
        # Behind an extended header of its own a member has lost its name.
        own = next(n for n, head in enumerate(heads) if content[head + 156] != ord("g"))
        end = member.offset_data + member.size
        found[member.name] = _Member(heads[: own + 1], end, comments)
    return found
