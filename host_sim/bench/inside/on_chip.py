"""An update, or the bare download, on a folder of the host, for callgrind to count.

The calls of a file system are then the system's, which are not counted, as on a chip they are
littlefs and waiting for flash. HTTPS runs without TLS: its answer lies in a file.
"""

import gc
import json
import os
import sys

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


class _Network:
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


class _Package:
    """All that is asked of it: its size."""

    def __init__(self, size):
        self._size = size

    def __len__(self):
        return self._size


class _Node(one_node.Node):
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


def _install_network(answer):
    network = _Network(answer)
    for name in "socket", "select", "ssl":
        sys.modules[name] = network


def update(root, answer, size):
    """A whole update, from the check to the confirm after the reset. Prints how it ended.

    root: a folder with the agent; answer: a file with what the server sends, size: of that the
    package. Then the names of the stretches which were counted, as JSON.
    """
    stretches = []

    def progress(step, value):
        if step in _BEFORE:
            mark()
            stretches.append(_BEFORE[step])

    with open(answer, "rb") as file:
        _install_network(file)
        node = _Node({}, {}, 0, Folder(root))
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
