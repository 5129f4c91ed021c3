# ruff: noqa: UP031 - MicroPython, as on the node
"""Reading an archive as the agent does, and watching it."""

from ota.download import Download
from ota.errors import Refused
from ota.package.archive import open_archive
from ota.request import Request
from ota.tarfile_lite import TarReader
from rules import Source, Violation, vetted

_CONFIG = {"server": "h", "device_id": "d", "device_key": "k", "control_channel": "c"}
_buffer = bytearray(600)


def read_headers(data, chance):
    """Walk through the archive with the reader alone; the content has to be the data's own."""
    source = Source(data, chance, chance.pick((4096, 4096, 512, 100)))
    # A name that is refused would hide what comes after it.
    strict = chance.one_in(2)
    return _walk(TarReader(source), chance, strict, data, source)


def read_archive(data, chance):
    """Do with the archive what the agent does with a download."""
    size = len(data)
    if chance.one_in(8):
        size = max(1, size + chance.below(9) - 4)
    source = Source(data, chance, chance.pick((1, 13, 1024, 4096, 4096)) if size < 3000 else 1400)
    download = Download(_CONFIG, Request("a", ".tar", size), None, _Answer(source), _ignore)
    archive = open_archive(download)
    reader = TarReader(archive)
    outcome = _walk(reader, chance, True, None, None)
    # The agent does not look further either, so the check sums must have been reached by now.
    if archive.readinto(_buffer, 256):
        raise Violation("the reader stops before the archive's end")
    download.end()
    if source.at != size or size != len(data):
        raise Violation("%d bytes announced, %d read, %d sent" % (size, source.at, len(data)))
    if reader.name is None:
        return "empty"
    return outcome


class _Answer:
    """What the agent gets from an integrator's transport for its URL."""

    def __init__(self, raw):
        self.status_code = 200
        self.raw = raw

    def __call__(self, url):
        return self

    def close(self):
        pass


def _ignore(count):
    pass


def _walk(reader, chance, strict, data, source):
    members = 0
    while reader.next():
        members += 1
        if type(reader.name) is not str or type(reader.size) is not int or reader.size < 0:
            raise Violation("name %r, size %r" % (reader.name, reader.size))
        if reader.is_folder and reader.size:
            raise Violation("a folder of %d bytes" % reader.size)
        try:
            vetted(reader.name)
        except Refused:
            if strict:
                raise
        _read_content(reader, chance, data, source)
    return "read" if members else "no member"


def _read_content(reader, chance, data, source):
    how = chance.below(4)
    if how == 0:
        return
    most = 600 if chance.one_in(2) else 1 + chance.below(600)
    total = 0
    start = source.at if source else 0
    while True:
        n = reader.readinto(_buffer, most)
        if type(n) is not int or n < 0 or n > most:
            raise Violation("%r bytes of %d" % (n, most))
        if not n:
            break
        if data and _buffer[:n] != data[start + total : start + total + n]:
            raise Violation("content that does not stand there, of %r" % reader.name)
        total += n
        if total > reader.size:
            raise Violation("content beyond the announced size, of %r" % reader.name)
        if how == 1 and chance.one_in(3):
            return
    if total != reader.size:
        raise Violation("content shorter than announced, of %r" % reader.name)
