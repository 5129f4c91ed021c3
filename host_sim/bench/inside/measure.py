"""What the host asks for: each function prints one line of JSON."""

import gc
import io
import json
import os
import sys
import time

import one_node


def _load(folder):
    """{absolute path: bytes} of a bundle made by the host, and of the agent beside it."""
    with open(folder + "/index.json") as file:
        index = json.load(file)
    found = {}
    for name in index:
        bundle = {}
        with open(folder + "/" + name, "rb") as file:
            for path, size in index[name]:
                bundle[path] = file.read(size)
        found[name] = bundle
    return found


def traffic(folder, blocks):
    """Flash traffic and time of one update of `package`, and of the floor."""
    bundles = _load(folder)
    floor = one_node.floor(bundles["floor"], blocks, bundles["live"])
    gc.collect()
    node = one_node.Node(bundles["agent"], bundles["live"], blocks)
    counts = node.update(bundles["package"][""])
    print(json.dumps({"floor": floor, "agent": counts}))


def fetched(folder, blocks):
    """As traffic(), over the agent's own HTTPS; `fetched`: bytes of the package that came."""
    import on_chip
    import programs

    bundles = _load(folder)
    with open(folder + "/package", "rb") as file:  # behind the mount it can not be found
        floor = one_node.floor(bundles["floor"], blocks, bundles["live"])
        gc.collect()
        server = on_chip.Ranges(file, len(bundles["package"][""]))
        on_chip.install(server)
        node = on_chip.RangesNode(bundles["agent"], bundles["live"], blocks)
        programmed = programs.watch(node.flash)
        counts = node.update(bundles["package"][""])
    found = {"floor": floor, "agent": counts, "fetched": server.sent, "by": programmed.found}
    print(json.dumps(found))


def patched(files, cases, rounds):
    """Microseconds of making files by patches, and of copying them: on_chip.patched_us()."""
    import on_chip

    on_chip.patched_us(files, cases, rounds)


def wear(folder, blocks, updates):
    """Erases by block after so many updates, packages taking turns, and of as many idle wakes."""
    bundles = _load(folder)
    node = one_node.Node(bundles["agent"], bundles["live"], blocks)
    node.flash.erased = [0] * blocks
    packages = [bundles["odd"][""], bundles["even"][""]]
    ends = {}
    for n in range(updates):
        end = node.update(packages[n % 2])["end"]
        ends[end] = ends.get(end, 0) + 1
    before = node.flash.operations
    for _ in range(updates):
        node.check()
    idle = node.flash.operations - before
    print(json.dumps({"erased": node.flash.erased, "ends": ends, "idle": idle}))


class _Counting:
    """A file system that counts what is asked of it."""

    def __init__(self, filesystem):
        self._filesystem = filesystem
        self.calls = []

    def mount(self, readonly, mkfs):
        self._filesystem.mount(readonly, mkfs)

    def umount(self):
        self._filesystem.umount()

    def __getattr__(self, name):
        method = getattr(self._filesystem, name)

        def call(*args):
            self.calls.append(name + " " + str(args[0] if args else ""))
            return method(*args)

        return call


def boot_calls(folder):
    """File system calls of boot.py on an idle node, and of an idle check."""
    import vfs

    bundles = _load(folder)
    node = one_node.Node(bundles["agent"], {}, 80)
    vfs.umount("/")
    counting = _Counting(vfs.VfsLfs2(node.flash))
    vfs.mount(counting, "/")
    os.chdir("/")
    with open("/boot.py") as file:
        code = compile(file.read(), "/boot.py", "exec")
    counting.calls.clear()
    exec(code, {})
    boot = list(counting.calls)
    node.check()
    counting.calls.clear()
    before = node.flash.operations
    node.check()
    check = list(counting.calls)
    print(json.dumps({"boot": boot, "check": check, "writes": node.flash.operations - before}))


def growth_of_loops(folder):
    """Heap growth, in bytes, over 1 MB through each inner loop, without a collection."""
    from ota.package.archive import open_archive
    from ota.tarfile_lite import TarReader

    bundles = _load(folder)
    result = {}
    for name in ("tar", "tar.gz"):
        source = io.BytesIO(bundles[name][""])
        reader = TarReader(open_archive(source))
        reader.next()
        buffer = bytearray(1024)
        reader.readinto(buffer, 1024)
        gc.collect()
        gc.disable()
        at = source.tell()
        before = gc.mem_alloc()
        total = 0
        for _ in range(1024):
            total += reader.readinto(buffer, 1024)
        result[name] = [gc.mem_alloc() - before, total, source.tell() - at]
        gc.enable()
        gc.collect()
    print(json.dumps(result))


def inflating(folder):
    """Microseconds of a bare DeflateIO loop over the package in memory."""
    import deflate

    content = _load(folder)["package"][""]
    print(json.dumps(_inflate(deflate, content)))


def _inflate(deflate, content):
    gc.collect()
    buffer = bytearray(1024)
    began = time.ticks_us()
    stream = deflate.DeflateIO(io.BytesIO(content), deflate.GZIP)
    while stream.readinto(buffer):
        pass
    return time.ticks_diff(time.ticks_us(), began)


def speed(folder, blocks, rounds):
    """Microseconds of [update, floor, bare inflating, collecting], `rounds` times in turns.

    The last is part of the first.
    """
    import deflate

    bundles = _load(folder)
    content = bundles["package"][""]
    packed = bytes(content[:2]) == b"\x1f\x8b"
    result = []
    for _ in range(rounds):
        gc.collect()
        floor = one_node.floor(bundles["floor"], blocks, bundles["live"])["us"]
        bare = _inflate(deflate, content) if packed else 0
        gc.collect()
        node = one_node.Node(bundles["agent"], bundles["live"], blocks)
        counts = node.update(content)
        _forget()
        result.append([counts["us"], floor, bare, counts["collecting"]])
        del node
    print(json.dumps(result))


def stretches(folder, blocks, rounds):
    """Microseconds and reads of flash of each stretch of an update, the best of so many rounds.

    Between the steps that an agent tells: {"download-file": [us, reads], …}, where "file" is the
    first and "bytes" the last; "floor", and "archive": reading the package without any flash.
    """
    bundles = _load(folder)
    content = bundles["package"][""]
    best = {}

    def note(name, us, reads):
        if name not in best or us < best[name][0]:
            best[name] = [us, reads]

    for _ in range(rounds):
        gc.collect()
        floor = one_node.floor(bundles["floor"], blocks, bundles["live"])
        note("floor", floor["us"], floor["reads"])
        gc.collect()
        node = one_node.Node(bundles["agent"], bundles["live"], blocks)
        marks = {}

        def on_progress(step, value, node=node, marks=marks):
            if step != "file" or step not in marks:
                marks[step] = time.ticks_us(), node.flash.reads

        node.check(content, on_progress)
        steps = ("download", "file", "bytes", "commit", "install")
        for n, first in enumerate(steps[:-1]):
            second = steps[n + 1]
            us = time.ticks_diff(marks[second][0], marks[first][0])
            note(first + "-" + second, us, marks[second][1] - marks[first][1])
        note("archive", _read_archive(content), 0)
        _forget()
        del node
    print(json.dumps(best))


def _read_archive(content):
    from ota.package.archive import open_archive
    from ota.tarfile_lite import TarReader

    gc.collect()
    buffer = bytearray(1024)
    began = time.ticks_us()
    reader = TarReader(open_archive(io.BytesIO(content)))
    while reader.next():
        while reader.readinto(buffer, 1024):
            pass
    return time.ticks_diff(time.ticks_us(), began)


def signed(folder, blocks, rounds):
    """What a signature costs: `rounds` times [unsigned, signed, SHA-256 of the payload], in turns.

    And of the manifest alone: [microseconds to receive and verify, bytes of garbage], and of the
    signature alone.
    """
    import hashlib

    bundles = _load(folder)
    times = []
    for _ in range(rounds):
        row = []
        for name in ("package", "signed"):
            gc.collect()
            node = one_node.Node(bundles["agent"], bundles["live"], blocks)
            keys = {"keys": ["/ota.key1"], "require_signature": name == "signed"}
            counts = node.update(bundles[name][""], one_node.config(keys))
            if counts["end"] != "reset":
                raise ValueError(counts["end"])
            row.append(counts["us"])
            _forget()
            del node
        began = time.ticks_us()
        for path in bundles["floor"]:
            hashlib.sha256(bundles["floor"][path]).digest()
        row.append(time.ticks_diff(time.ticks_us(), began))
        times.append(row)
    one_node.Node(bundles["agent"], bundles["live"], blocks)  # its flash has the keys
    result = {"times": times, "manifest": _receive(bundles["manifest"][""])}
    print(json.dumps(result))


def _receive(content):
    from ota.package.manifest import receive
    from ota.package.signature import verify

    keys = ["/ota.key1"]
    buffer = bytearray(512)
    source = io.BytesIO(content)
    figures = []
    with open(keys[0], "rb") as file:
        modulus = file.read()
    for call in (
        lambda: receive(source, len(content), "/manifest", keys, buffer, gc.isenabled),
        lambda: verify(modulus, bytes(32), bytes(383) + b"\x02"),
    ):
        gc.collect()
        gc.disable()
        before = gc.mem_alloc()
        began = time.ticks_us()
        call()
        figures.append(time.ticks_diff(time.ticks_us(), began))
        figures.append(gc.mem_alloc() - before)
        gc.enable()
    return figures


def _forget():
    for name in list(sys.modules):
        if name.split(".")[0] == "ota":
            del sys.modules[name]


class _Profiling(_Counting):
    """A file system that adds up the reads of flash that each kind of call takes."""

    def __init__(self, filesystem, flash, step):
        super().__init__(filesystem)
        self._flash = flash
        self._step = step
        self.reads = {}

    def __getattr__(self, name):
        method = getattr(self._filesystem, name)

        def call(*args):
            before = self._flash.reads
            try:
                return method(*args)
            finally:
                where = "/.ota" if str(args[0] if args else "").startswith("/.ota") else "the tree"
                row = self.reads.setdefault((self._step[0], name, where), [0, 0])
                row[0] += 1
                row[1] += self._flash.reads - before

        return call


def profile(folder, blocks):
    """Reads of flash: of the floor, of an update in all, and of the latter by kind of call.

    Only from the moment at which the package is asked for to the end of the install. What is not
    in the list is reading, writing and closing open files, and loading code.
    """
    import vfs

    bundles = _load(folder)
    floor = one_node.floor(bundles["floor"], blocks, bundles["live"])["reads"]
    node = one_node.Node(bundles["agent"], bundles["live"], blocks)
    step = [None]
    vfs.umount("/")
    counting = _Profiling(vfs.VfsLfs2(node.flash), node.flash, step)
    vfs.mount(counting, "/")
    os.chdir("/")
    marks = []

    def on_progress(name, value):
        if name == "download":
            step[0] = "stage"
        elif name == "commit":
            step[0] = "install"
        elif name == "install":
            step[0] = None
        else:
            return
        marks.append(node.flash.reads)

    node.check(bundles["package"][""], on_progress)
    rows = [list(key) + counting.reads[key] for key in counting.reads if key[0]]
    print(json.dumps({"floor": floor, "all": marks[-1] - marks[0], "rows": rows}))


def ram(names):
    """{module: bytes of heap} that importing each module of the agent takes, one after another."""
    result = {}
    for name in names:
        gc.collect()
        before = gc.mem_alloc()
        __import__("ota." + name)
        gc.collect()
        result[name] = gc.mem_alloc() - before
    print(json.dumps(result))
