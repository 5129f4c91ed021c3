"""One member of an archive, or its end, as the judge looks at it."""

from __future__ import annotations

from functools import cached_property

from tests.package.archives import raw
from tests.package.archives.raw import Raw
from tests.package.archives.readers import Entry, Reading, clean


class Case:
    """One member of an archive, or its end. entry: CPython's view, None where it has none."""

    def __init__(self, reading: Reading, at: int) -> None:
        self.reading = reading
        self.entry: Entry | None = reading.entries[at] if at < len(reading.entries) else None
        self.start = self.entry.start if self.entry else reading.end

    @cached_property
    def raw(self) -> Raw:
        """The blocks of the member."""
        return raw.member_at(self.reading.plain, self.start)

    @property
    def rest(self) -> bytes:
        """The archive behind the extended headers."""
        return self.reading.plain[self.raw.start :]

    @cached_property
    def is_member(self) -> bool:
        """False at an end, and at a damaged header."""
        return raw.sound_sum(self.raw.header)

    @cached_property
    def short_name(self) -> bytes:
        """The name in the header itself, with the prefix where a POSIX header has one."""
        header = self.raw.header
        name = header[:100].split(b"\0")[0]
        if header[257:263] == b"ustar\0" and header[345]:
            name = header[345:500].split(b"\0")[0] + b"/" + name
        return name

    @cached_property
    def name(self) -> bytes:
        """The name in force, as the archive spells it: a slash at its end included."""
        for kind, content in self.raw.extensions:
            if kind == b"L":
                return content.split(b"\0")[0]
        path = self.in_force("path")
        return path.encode("utf-8", "surrogateescape") if path else self.short_name

    @property
    def path(self) -> str:
        """Where the name leads, `..` resolved."""
        return clean(self.name.decode("utf-8", "surrogateescape"))

    @property
    def parts(self) -> list[bytes]:
        return self.name.split(b"/")

    @property
    def size(self) -> int | None:
        """The size in force."""
        size = self.in_force("size")
        return int(size) if size and size.isdigit() else raw.number(self.raw.header, 124, 12)

    @property
    def is_folder_to_cpython(self) -> bool:
        """The short name ends in a slash, as folders of v7; but the extended one does not."""
        short = self.raw.header[:100].split(b"\0")[0]
        return self.raw.kind == b"\0" and short.endswith(b"/") and not self.name.endswith(b"/")

    def in_force(self, key: str) -> str | None:
        """A PAX value for this member, its own or a global one."""
        own = self.values(key.encode())
        if own:
            return own[-1].decode("utf-8", "surrogateescape")
        return self.entry.info.pax_headers.get(key) if self.entry else None

    def values(self, key: bytes, kinds: bytes = b"xg") -> list[bytes]:
        """All values of this key in the extended headers right before the member."""
        return [value for found, value in self.raw.records(kinds) if found == key]
