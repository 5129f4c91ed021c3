"""Packages through the real agent on littlefs in RAM: all but the link and the control channel."""

import gc
import json
import os
import sys
import time

import ramflash
import vfs
from whole_agent import ota

recovery, transaction = ota.recovery, ota.install.transaction
CONFIG = {"device_id": "d", "device_key": "k", "control_channel": "c", "max_attempts": 1}


class Reset(BaseException):
    """The node resets: with a committed transaction, or after flash has failed."""


class _Machine:
    PWRON_RESET = 1
    DEEPSLEEP_RESET = 4
    SOFT_RESET = 5

    def reset_cause(self):
        return self.PWRON_RESET

    def reset(self):
        raise Reset


class _Control:
    """One request that waits, and what was published."""

    payload = b""
    published = []
    sure = True

    def __init__(self, config, limits, client=None, seen=None):
        self.request = self.bad = self.link = self.learned = self.echo = None
        self.topic = b"topic"
        # What the agent asks of a client of umqtt.simple, and of its connection.
        self.client = self
        self.cb = self.on_message
        self.skipped = 0

    def connect(self, patient=False):
        self.link = self
        self.on_message(self.topic, self.payload)
        return True

    def on_message(self, topic, payload):
        self.request, self.bad = ota.request.read(payload)

    def set_callback(self, callback):
        self.cb = callback

    def pending(self):
        return self.request or self.bad

    def fence(self):
        pass

    def call(self, function, *args):
        return function(*args)

    def readable(self, wait_ms):
        return False

    def ask(self, what, topic, payload, retained, qos):
        if payload:
            self.published.append(payload.decode())
        else:
            _Control.payload = b""
            self.cb(topic, payload)

    def close(self):
        self.link = None


class Body:
    """A response, urequests-shaped, that gives what it has: sometimes a byte, sometimes much."""

    status_code = 200

    def __init__(self, content, length=None):
        self.raw = self
        self.length = length
        self._content = memoryview(content)
        self._at = 0

    def readinto(self, buffer, n):
        n = min(n, 1 + self._at * 7 % 1500, len(self._content) - self._at)
        buffer[:n] = self._content[self._at : self._at + n]
        self._at += n
        return n

    def close(self):
        pass


class Node:
    """A node whose flash can be put back to how it was. files: {path: bytes}."""

    def __init__(self, files, blocks=64):
        sys.modules["machine"] = _Machine()
        ota.control.Control = _Control
        self._device = ramflash.mount(blocks)
        for path in sorted(files):
            ramflash.write(path, files[path])
        self._image = bytes(self._device._data)
        self.before = ramflash.tree(skip=None)
        self.free = free()
        self.least_free = self.free
        # Before anything is cleared away: what is there outside /.ota?
        self.outside = True
        self._discard = transaction.discard
        transaction.discard = self._look_and_discard
        self._open_archive = ota.package.archive.open_archive
        ota.package.archive.open_archive = self._open_watched

    def restore(self):
        """Put flash back to how it was, and mount it anew."""
        vfs.umount("/")
        self._device._data[:] = self._image
        vfs.mount(vfs.VfsLfs2(self._device), "/")

    def check(self, content, announced=None, length=None, protected=()):
        """One cycle of the agent with this body. Returns (its end, reason, what was published)."""
        size = len(content) if announced is None else announced
        fields = '{"n":"e","v":0},{"n":"i","vs":"fa8884d2"},{"n":"t","vs":".tar"}'
        _Control.payload = ('[%s,{"n":"s","v":%d}]' % (fields, size)).encode()
        _Control.published = []
        self.outside = True
        self.least_free = free()
        config = dict(CONFIG)
        config["protected"] = list(protected)
        agent = ota.agent.Agent(config, _silent, lambda url: Body(content, length))
        try:
            end = agent.check()
        except Reset:
            end = "reset"
        return end, agent.reason, _Control.published

    def _look_and_discard(self, moved=None, keep=None):
        self._look()
        self._discard(moved, keep)

    def _look(self):
        if not transaction.in_transaction():
            here = ramflash.tree()
            if here != self.before:
                self.outside = False
        self._sample()

    def _sample(self):
        self.least_free = min(self.least_free, free())

    def _open_watched(self, source, restart=None):
        return _Watched(self._open_archive(source, restart), self._sample)


class _Watched:
    """The archive's tar bytes, with a look at free flash now and then."""

    def __init__(self, archive, sample):
        self.window = archive.window
        self._archive = archive
        self._sample = sample
        self._reads = 0

    def readinto(self, buffer, n):
        self._reads += 1
        if not self._reads % 16:
            self._sample()
        return self._archive.readinto(buffer, n)

    def __getattr__(self, name):
        return getattr(self._archive, name)


def free():
    """Free blocks, as the agent counts them: statvfs() counts the two of a folder twice."""
    told = ota.package.vetting.free_blocks()
    return told if told > 20 else ota.package.vetting.free_blocks(2 * _folders("/.ota"))


def _folders(path):
    """How many folders are below path."""
    try:
        waiting = [path + "/" + entry[0] for entry in os.ilistdir(path) if entry[1] & 0x4000]
    except OSError:
        return 0
    number = 0
    while waiting:
        number += 1
        path = waiting.pop()
        waiting += [path + "/" + entry[0] for entry in os.ilistdir(path) if entry[1] & 0x4000]
    return number


def _silent(step, value):
    pass


def run_table(node, bundle, cases):
    """Try each case of the open file bundle, and print one line of JSON.

    A case is (length, bytes announced beyond it, server tells it, further protected paths).
    """
    for length, more, tells, protected in cases:
        gc.collect()
        content = bundle.read(length)
        began = time.ticks_ms()
        end, reason, published = node.check(
            content, length + more, length if tells else None, protected
        )
        after = ramflash.tree(skip=None)
        result = {
            "end": end,
            "reason": reason,
            "published": published,
            "ms": time.ticks_diff(time.ticks_ms(), began),
            "outside": node.outside,
            "untouched": after == node.before,
            "new": _new_files(node.before, after),
            "changed": [k for k in node.before if after.get(k) != node.before[k]],
            "state": transaction.in_transaction(),
            "free": [node.free, node.least_free, free()],
        }
        print(json.dumps(result))
        if not result["untouched"]:
            node.restore()


def _new_files(before, after):
    ours = "/.ota/"
    names = [k for k in after if k not in before and after[k] is not None]
    return sorted(k for k in names if not k.startswith(ours))


def read(content, announced):
    """As Agent._stage() reads a body, without flash. Returns (members, None) or (None, reason)."""
    members = []
    buffer = bytearray(1024)
    try:
        request = ota.request.Request("fa8884d2", ".tar", announced)
        limits = ota.wire.Limits(1000, 1000)
        config = ota.config.complete(CONFIG)
        body = ota.download.Download(config, request, limits, lambda url: Body(content), _count)
        reader = ota.tarfile_lite.TarReader(ota.package.archive.open_archive(body))
        while reader.next():
            got = b""
            while True:
                n = reader.readinto(buffer, 1024)
                if not n:
                    break
                got += buffer[:n]
            members.append((reader.name, reader.is_folder, got))
        body.end()
        if not members:
            return None, "it is empty"
    except ota.errors.OtaError as error:
        return None, str(error)
    return members, None


def _count(_):
    pass


def run_damage(node, content, damages):
    """Try each damaged form of content, a (position, its bytes, announced size), on the node.

    Prints one line of JSON for each that is installed, or is refused and leaves a trace: its
    position, what happened, and whether the node's files are those that the sound one leaves.
    Prints the number of refusals last. What the reader alone refuses goes no further, but for
    every sixteenth of it: staging would take minutes.
    """
    node.check(content)
    sound = ramflash.tree()
    node.restore()
    refused = 0
    for position, damaged, announced in damages:
        if position % 16 and read(damaged, announced)[0] is None:
            refused += 1
            continue
        end, reason, _ = node.check(damaged, announced)
        untouched = ramflash.tree(skip=None) == node.before
        if end == "failed" and untouched:
            refused += 1
            continue
        same = ramflash.tree() == sound
        print(json.dumps({"at": position, "end": end, "reason": reason, "same": same}))
        node.restore()
    print(json.dumps(refused))


def cuts(content):
    """Every beginning of content: announced as the whole, then as what it is."""
    for length in range(1, len(content)):
        yield length, content[:length], len(content)
        yield length, content[:length], length


def flips(content):
    """content with every single bit flipped, one at a time; the position is the bit's number."""
    damaged = bytearray(content)
    for position in range(8 * len(content)):
        damaged[position >> 3] ^= 1 << (position & 7)
        yield position, damaged, len(damaged)
        damaged[position >> 3] ^= 1 << (position & 7)
