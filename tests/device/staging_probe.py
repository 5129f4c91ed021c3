"""Packages through the real agent on littlefs in RAM: all but the link and the control channel."""

import gc
import json
import os
import sys
import time

import ramflash
import vfs

# Imported before the root becomes littlefs, on which the node's own modules do not lie.
import ota.agent
import ota.download
import ota.inflate
import ota.staging
from ota import recovery
from ota.control import parse

CONFIG = {"device_id": "d", "device_key": "k", "control_channel": "c", "max_attempts": 1}


class Reset(Exception):
    """The node resets: with a committed transaction, or after flash has failed."""


class _Machine:
    PWRON_RESET = 1
    DEEPSLEEP_RESET = 4

    def reset_cause(self):
        return self.PWRON_RESET

    def reset(self):
        raise Reset


class _Control:
    """One request that waits, and the reports that were sent."""

    payload = b""
    reports = []

    def __init__(self, config):
        self.request = self.bad = None

    def connect(self):
        self.request = parse(self.payload)

    def keep_alive(self):
        pass

    def finish(self, event, file_id, text, progress):
        self.reports.append((event, text))

    def close(self):
        pass


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
        ota.agent.Control = _Control
        self._device = ramflash.mount(blocks)
        for path in sorted(files):
            ramflash.write(path, files[path])
        self._image = bytes(self._device._data)
        self.before = ramflash.tree(skip=None)
        self.free = free()
        self.least_free = self.free
        # Before anything is cleared away: what is there outside /.ota?
        self.outside = True
        self._discard = recovery.discard
        recovery.discard = self._look_and_discard
        self._open_archive = ota.inflate.open_archive
        ota.inflate.open_archive = self._open_watched

    def restore(self):
        """Put flash back to how it was, and mount it anew."""
        vfs.umount("/")
        self._device._data[:] = self._image
        vfs.mount(vfs.VfsLfs2(self._device), "/")

    def check(self, content, announced=None, length=None):
        """One cycle of the agent with this body. Returns (how it ended, reason, reports)."""
        size = len(content) if announced is None else announced
        fields = '{"n":"e","v":0},{"n":"i","vs":"fa8884d2"},{"n":"t","vs":".tar"}'
        _Control.payload = ('[%s,{"n":"s","v":%d}]' % (fields, size)).encode()
        _Control.reports = []
        self.outside = True
        self.least_free = free()
        agent = ota.agent.Agent(CONFIG, _silent, lambda url: Body(content, length))
        try:
            end = agent.check()
        except Reset:
            end = "reset"
        return end, agent.reason, _Control.reports

    def _look_and_discard(self):
        self._look()
        self._discard()

    def _look(self):
        if not recovery.in_transaction():
            here = ramflash.tree()
            if here != self.before:
                self.outside = False
        self._sample()

    def _sample(self):
        self.least_free = min(self.least_free, free())

    def _open_watched(self, source):
        return _Watched(self._open_archive(source), self._sample)


class _Watched:
    """The archive's tar bytes, with a look at free flash now and then."""

    def __init__(self, archive, sample):
        self._archive = archive
        self._sample = sample
        self._reads = 0

    def readinto(self, buffer, n):
        self._reads += 1
        if not self._reads % 16:
            self._sample()
        return self._archive.readinto(buffer, n)


def free():
    """Free blocks, as the agent counts them."""
    return ota.staging.free_blocks()


def _silent(step, value):
    pass


def run_table(node, bundle, cases):
    """Try each case, (length, more announced, server tells length), of the open file bundle.

    Prints one line of JSON each.
    """
    for length, more, tells in cases:
        gc.collect()
        content = bundle.read(length)
        began = time.ticks_ms()
        end, reason, reports = node.check(content, length + more, length if tells else None)
        after = ramflash.tree(skip=None)
        result = {
            "end": end,
            "reason": reason,
            "reports": reports,
            "ms": time.ticks_diff(time.ticks_ms(), began),
            "outside": node.outside,
            "untouched": after == node.before,
            "new": {k: v for k, v in after.items() if k not in node.before and k[:5] != "/.ota"},
            "changed": [k for k in node.before if after.get(k) != node.before[k]],
            "state": recovery.in_transaction(),
            "free": [node.free, node.least_free, free()],
        }
        print(json.dumps(result))
        if not result["untouched"]:
            node.restore()
