"""What package/manifest.py makes of manifests, for the host to look at. Not a test itself."""

import gc
import json

from ota.errors import Refused
from ota.package import manifest


class Source:
    """Bytes, or an open file, as a member of an archive: never more than 100 at a time."""

    def __init__(self, content=b"", file=None):
        self._content = memoryview(content)
        self._file = file
        self._at = 0

    def readinto(self, buffer, n):
        n = min(n, 100)
        part = memoryview(buffer)[:n]
        if self._file:
            return self._file.readinto(part)
        n = min(n, len(self._content) - self._at)
        part[:n] = self._content[self._at : self._at + n]
        self._at += n
        return n


def nothing():
    pass


def receive(content, target, keys=(), size=None):
    """The reason of a refusal as str, or what the manifest says as a list."""
    size = len(content) if size is None else size
    try:
        got = manifest.receive(Source(content), size, target, keys, bytearray(256), nothing)
    except Refused as error:
        return str(error)
    return [got.sequence, got.board, got.mpy, got.requires, got.key, got.signed]


def cases(folder, count, keys=()):
    """One JSON line for each of the files `0`, `1`, … of the folder."""
    for number in range(count):
        with open("%s/%d" % (folder, number), "rb") as file:
            content = file.read()
        print(json.dumps(receive(content, folder + "/received", keys)))


def walk(path):
    """One JSON line: files and deletions of a manifest, or the reason of a refusal."""
    try:
        lines = manifest.Lines(path)
        files = []
        while True:
            found = lines.next_file()
            if not found:
                break
            name, size, digest = found
            files.append([name, size, digest.hex()])
        deletions = list(lines.deletions())
        signature = lines.signature()
        lines.close()
        print(json.dumps([files, deletions, signature and signature.hex()]))
    except Refused as error:
        print(json.dumps(str(error)))


def flips(path, target, keys):
    """Every bit of a manifest flipped, one at a time: how many, and how many were accepted."""
    with open(path, "rb") as file:
        content = bytearray(file.read())
    good = type(receive(content, target, keys)) is list
    accepted = 0
    for bit in range(len(content) * 8):
        content[bit >> 3] ^= 1 << (bit & 7)
        if type(receive(content, target, keys)) is list:
            accepted += 1
        content[bit >> 3] ^= 1 << (bit & 7)
    print(json.dumps([good, len(content) * 8, accepted]))


def prefixes(path, target):
    """Every manifest that ends early, and how many of them were accepted."""
    with open(path, "rb") as file:
        content = file.read()
    accepted = 0
    for size in range(len(content)):
        if type(receive(content[:size], target)) is list:
            accepted += 1
    print(json.dumps([len(content), accepted]))


def targets(rows):
    """One JSON line: for each (manifest's fields, board, floor) the reason, or None."""
    found = []
    for fields, board, floor in rows:
        given = manifest.Manifest()
        for name in fields:
            setattr(given, name, fields[name])
        try:
            manifest.check_target(given, board, floor)
            found.append(None)
        except Refused as error:
            found.append(str(error))
    print(json.dumps(found))


def memory(path, size, keys):
    """The most that is in use while a manifest is received on littlefs and walked, in bytes."""
    import ramflash
    from ota.package import signature  # noqa: F401 - while the host's files are in reach

    source = open(path, "rb")
    moduli = []
    for key in keys:
        with open(key, "rb") as file:
            moduli.append(file.read())
    ramflash.mount(140, ["ota.package.utf8"])
    for number, modulus in enumerate(moduli):
        ramflash.write("/%d.pub" % number, modulus)
    on_flash = ["/%d.pub" % number for number in range(len(moduli))]
    moduli = None
    calls = peak = 0

    def feed():
        nonlocal calls, peak
        calls += 1
        if calls % 20 == 0:
            gc.collect()
            peak = max(peak, gc.mem_alloc())

    buffer = bytearray(1024)
    got = manifest.receive(Source(file=source), size, "/manifest", on_flash, buffer, feed)
    lines = manifest.Lines("/manifest")
    count = 0
    while lines.next_file():
        count += 1
        feed()
    lines.close()
    print(json.dumps([got.signed, count, calls, peak]))
