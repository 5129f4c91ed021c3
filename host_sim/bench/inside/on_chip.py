"""An update, or the bare download, on a folder of the host, for callgrind to count.

The calls of a file system are then the system's, which are not counted, as on a chip they are
littlefs and waiting for flash. HTTPS runs without TLS: its answer lies in a file.
"""

import gc
import io
import json
import os
import sys
import time

import bare_minimum
import one_node
import vfs

#: What has been done when an agent tells of a step.
_BEFORE = {
    "download": "request, space",
    "commit": "download and staging",
    "install": "commit and install",
}
#: What the counter ends a stretch at: nothing else here calls it.
mark = gc.isenabled


class Folder:
    """A file system in a folder of the host, and what mounts it in the place of counted_flash."""

    def __init__(self, path):
        posix = vfs.VfsPosix(path)
        for name in "open stat statvfs ilistdir mkdir remove rmdir chdir getcwd".split():
            setattr(self, name, getattr(posix, name))
        self._rename = posix.rename

    def rename(self, old, new):
        """As VfsPosix's, which has room for one absolute path: that of the folder is current."""
        self._rename(old[1:], new[1:])

    def mount(self, *_):
        """Of a file system: nothing. Else mount it as a boot does."""
        if len(_) == 1:
            vfs.mount(self, "/")
            os.chdir("/")

    def umount(self):
        """Nothing."""

    def mount_fresh(self, _):
        """Mount it with what it has."""
        vfs.umount("/")
        self.mount(self)
        return self


class LiveFolder(Folder):
    """One whose files are looked at: their mode is only what they are, as on littlefs."""

    def __init__(self, path):
        super().__init__(path)
        stat = self.stat
        self.stat = lambda path: (stat(path)[0] & 0xF000,) + stat(path)[1:]


class _Socket:
    """A socket from whose other end an answer comes, with or without the "TLS" below."""

    def __init__(self, answer):
        answer.seek(0)
        self.readinto = answer.readinto
        self.readline = answer.readline

    def write(self, data):
        return len(data)

    def settimeout(self, _):
        pass

    setblocking = connect = settimeout

    def setsockopt(self, *_):
        pass

    def close(self):
        pass


class Network:
    """The modules `socket`, `select` and `ssl`."""

    SOCK_STREAM = POLLIN = PROTOCOL_TLS_CLIENT = CERT_REQUIRED = POLLOUT = 1

    def __init__(self, answer):
        self._answer = answer

    def getaddrinfo(self, host, port, *_):
        return ((1, 1, 0, host, (host, port)),)

    def socket(self, *_):
        return _Socket(self._answer)

    def poll(self):
        return self

    SSLContext = lambda self, _: self  # noqa: E731

    def register(self, *_):
        pass

    def load_verify_locations(self, cadata):
        pass

    def wrap_socket(self, sock, **_):
        return sock


class Ranges(Network):
    """The same, of a server that knows Range: file has the package, of so many bytes.

    `sent`: how many bytes of it have been asked for.
    """

    def __init__(self, file, size):
        self.file = file
        self.size = size
        self.sent = 0

    def socket(self, *_):
        return _RangedSocket(self)


class _RangedSocket(_Socket):
    def __init__(self, server):
        self._server = server
        self._asked = b""

    def write(self, data):
        self._asked += data
        if self._asked.endswith(b"\r\n\r\n"):
            self._answer(self._asked.partition(b"Range: bytes=")[2])
            self._asked = b""
        return len(data)

    def _answer(self, asked):
        server = self._server
        first, _, last = asked.partition(b"\r\n")[0].partition(b"-")
        start = int(first or 0)
        stop = min(int(last or server.size) + bool(last), server.size)
        lines = [b"HTTP/1.1 206 So" if asked else b"HTTP/1.1 200 OK", b'ETag: "0123456789abcdef"']
        lines.append(b"Content-Length: %d" % (stop - start))
        if asked:
            lines.append(b"Content-Range: bytes %d-%d/%d" % (start, stop - 1, server.size))
        self._head = io.BytesIO(b"\r\n".join(lines) + b"\r\n\r\n")
        server.file.seek(start)
        server.sent += stop - start

    def readinto(self, buffer):
        # Nobody asks for more than the answer's length.
        return self._head.readinto(buffer) or self._server.file.readinto(buffer)


class _Package:
    """All that is asked of it: its size."""

    def __init__(self, size):
        self._size = size

    def __len__(self):
        return self._size


class Node(one_node.Node):
    """A node that asks for the package over the agent's own HTTPS."""

    def agent(self, config, progress, package):
        """One as most applications have it: no transport of theirs, and no hook."""
        import ota

        agent = ota.Agent(config)
        tell = agent.progress

        def told(step, value):
            if progress:
                progress(step, value)
            tell(step, value)

        agent.progress = told
        return agent


class RangesNode(Node):
    """One that gets a .tar.gz, of which it may want parts."""

    kind = ".tar.gz"


def install(network):
    """Put it in the place of the interpreter's modules."""
    for name in "socket", "select", "ssl":
        sys.modules[name] = network


def update(root, answer, size):
    """A whole update, from the check to the confirm after the reset. Prints how it ended.

    root: a folder with the agent; answer: a file with what the server sends, size: of that the
    package. Then the names of the stretches which were counted, as JSON.
    """
    with open(answer, "rb") as file:
        _update(Network(file), Node, Folder(root), size)


def update_by_ranges(root, package, size):
    """The same with the package in a file, from a server that knows Range.

    How it ended is followed by how many bytes were sent.
    """
    with open(package, "rb") as file:
        _update(Ranges(file, size), RangesNode, LiveFolder(root), size)


def _update(network, kind, folder, size):
    stretches = []

    def progress(step, value):
        if step in _BEFORE:
            mark()
            stretches.append(_BEFORE[step])

    install(network)
    node = kind({}, {}, 0, folder)
    stretches.append("start")
    mark()
    ends = [node.check(_Package(size), progress)]
    mark()
    stretches.append("report and reset")
    node.reboot()
    mark()
    stretches.append("boot on trial")
    ends.append(node.check())
    mark()
    stretches.append("rehearsal and confirm")
    if kind is RangesNode:
        ends.append(network.sent)
    print(json.dumps([ends, stretches]))


def floor(root, answer, head, window_bits):
    """The bare loop of bare_minimum.py over the same package, which follows so long a head."""
    with open(answer, "rb") as file:
        file.seek(head)
        Folder(root).mount_fresh(0)
        mark()
        bare_minimum.unpack(file, window_bits)
        mark()
    print(json.dumps([["done"], ["start", "floor"]]))


def patched(agent, files, cases):
    """Make files by patches, and copy as many bytes; prints the stretches, as above.

    agent: a folder with its modules; files: has (an old file, a patch, what comes out) one after
    the other, cases: the lengths of each.
    """
    sys.path.append(agent)
    stretches = ["start"]
    with open(files, "rb") as file:
        for number, lengths in enumerate(cases):
            if number:
                stretches.append("loading %d" % number)
            make, copy = _both(*[file.read(length) for length in lengths])
            gc.collect()
            mark()
            make()
            mark()
            copy()
            mark()
            stretches += ["patched %d" % number, "copied %d" % number]
    print(json.dumps([["done"], stretches]))


def patched_us(files, cases, rounds):
    """The same by the clock: prints [µs with patches, µs of copying], the least of all rounds."""
    sums = [0, 0]
    with open(files, "rb") as file:
        for lengths in cases:
            parts = [file.read(length) for length in lengths]
            best = [1 << 30, 1 << 30]
            for _ in range(rounds):
                gc.collect()
                for number, call in enumerate(_both(*parts)):
                    began = time.ticks_us()
                    call()
                    best[number] = min(best[number], time.ticks_diff(time.ticks_us(), began))
            for number in range(2):
                sums[number] += best[number]
    print(json.dumps(sums))


def _both(old, patch, new):
    """What makes a file by a patch, and what copies it, in pieces as staging takes them."""
    from ota.package.wanted import Patched

    made = Patched(io.BytesIO(patch), len(patch), io.BytesIO(old), "/x", len(new))
    source = io.BytesIO(new)
    buffer = bytearray(2048)

    def make():
        while made.readinto(buffer, 2048):
            pass

    def copy():
        while source.readinto(buffer):
            pass

    return make, copy
