"""A whole node in one process: the real agent on littlefs in RAM, all but network and radio.

The agent's files lie on that littlefs, so that it loads and forgets its modules as it does on a
board; a reset is a fresh mount, boot.py, and the next check.
"""

import io
import os
import sys
import time

import counted_flash
import vfs

import __main__

_IDS = {"device_id": "d", "device_key": "k", "control_channel": "c"}


def config(more):
    """A configuration with further keys."""
    made = dict(_IDS)
    made.update(more)
    return made


class Reset(BaseException):
    """The node has reset."""


class _Machine:
    PWRON_RESET = 1
    HARD_RESET = 2
    DEEPSLEEP_RESET = 4
    SOFT_RESET = 5
    cause = 1

    class Timer:
        """Never fires."""

        def __init__(self, number):
            pass

        def init(self, period=0, callback=None):
            """As on an ESP32."""

    class WDT:
        """Never bites."""

        def __init__(self, timeout=0):
            pass

        def feed(self):
            """As on an ESP32."""

    def reset_cause(self):
        return self.cause

    def reset(self):
        raise Reset


class _Control:
    """A control channel on which one request waits, or none; its broker takes every clear."""

    topic = b"topic"
    skipped = 0
    sure = True

    def __init__(self, request):
        self.retained = self.request = request
        self.bad = self.link = self.echo = self.learned = None
        self.client = self
        self.cb = self.on_message

    def connect(self, patient=False):
        self.link = self
        self.request = self.retained
        try:
            os.stat("/.ota")
            return True
        except OSError:
            return False

    def pending(self):
        return self.request

    def fence(self):
        pass

    def on_message(self, topic, payload):
        self.retained = self.request = None

    def set_callback(self, callback):
        self.cb = callback

    def ask(self, name, topic, payload, retain, _):
        if retain:
            self.cb(topic, payload)

    def close(self):
        self.link = None


class Body:
    """A response, urequests-shaped, whose content is in memory."""

    status_code = 200

    def __init__(self, content):
        # Without a copy of it, and without an object for each read, which would be counted.
        self.raw = io.BytesIO(content)

    def close(self):
        """Nothing."""


class Node:
    """A node with the agent and `files` ({absolute path: bytes}) on `blocks` blocks of flash.

    storage: mounts another file system in place of that on the counted flash, which begins with
    what is there. kind: of the package that waits.
    """

    kind = ".tar"

    def __init__(self, agent_files, files, blocks, storage=counted_flash):
        sys.modules["machine"] = self.machine = _Machine()
        self._storage = storage
        self.flash = storage.mount_fresh(blocks)
        sys.path[:] = ("", "/lib")
        for name in agent_files:
            counted_flash.write("/" + name, agent_files[name])
        for path in files:
            counted_flash.write(path, files[path])
        # Costs that every package has, not this one: littlefs looks for free blocks at first use.
        os.statvfs("/")
        self._boot()

    def _boot(self):
        # In fresh names, as at power-up; the agent looks for one of them.
        names = {}
        execfile("/boot.py", names)  # noqa: F821 - a builtin of MicroPython
        __main__._trial = names["_trial"]

    def transport(self, package):
        """What the agent downloads with: from memory. None for its own HTTPS."""
        return lambda url: Body(package)

    def agent(self, config, progress, package):
        """The Agent that checks."""
        import ota

        return ota.Agent(config, progress or _silent, self.transport(package))

    def check(self, package=None, progress=None, config=_IDS):
        """One check with this package waiting; "reset" where it ends in a reset."""
        from ota.request import Request
        from ota.wire import Limits

        request = Request("fa8884d2", self.kind, len(package)) if package is not None else None
        agent = self.agent(config, progress, package)

        def approach():
            agent.limits = Limits(20000, 900000)
            agent.control = _Control(request)

        agent.approach = approach
        try:
            outcome = agent.check()
        except Reset:
            outcome = "reset"
        if agent.reason:
            print("reason:", agent.reason)
        return outcome

    def reboot(self):
        """A reset: fresh mount, no module of the agent in memory, boot.py."""
        vfs.umount("/")
        for name in list(sys.modules):
            if name.split(".")[0] == "ota":
                del sys.modules[name]
        self._storage.mount(self.flash)
        self.machine.cause = 2
        self._boot()

    def update(self, package, config=_IDS):
        """Stage, install, reset, confirm. {step: [bytes programmed, erases]} and other counts.

        `us`: from the moment at which the package is asked for to the end of the install; of that
        `collecting` for collections, each of which walks through flash, as it is in this heap.
        """
        import ota

        counts = {}
        collecting = 0
        drop = ota.drop
        before = self.flash.counts()
        began = ended = 0
        journal = 0

        def note(step):
            now = self.flash.counts()
            counts[step] = [now[0] - before[0], now[1] - before[1]]

        def on_progress(step, value):
            nonlocal began, ended, journal
            if step == "download":
                began = time.ticks_us()
            elif step == "commit":
                journal = os.stat("/.ota/journal")[6]
                note("staged")
            elif step == "install":
                ended = time.ticks_us()
                note("installed")

        def timed_drop(*names):
            nonlocal collecting
            start = time.ticks_us()
            drop(*names)
            if began and not ended:
                collecting += time.ticks_diff(time.ticks_us(), start)

        ota.drop = timed_drop
        outcome = self.check(package, on_progress, config)
        counts["collecting"] = collecting
        counts["us"] = time.ticks_diff(ended or began, began)
        counts["end"] = outcome
        counts["journal"] = journal
        note("cycle")
        if outcome == "reset" and config is _IDS:
            self.reboot()
            counts["end"] = self.check()
            note("cycle")
        return counts


def floor(files, blocks, base):
    """The bare loop: each file written straight from memory. Counts, as Node.update()'s."""
    flash = counted_flash.mount_fresh(blocks)
    for path in base:
        counted_flash.write(path, base[path])
    os.statvfs("/")
    before = flash.counts()
    reads = flash.reads
    began = time.ticks_us()
    known = set()
    for path in files:
        folder = path[: path.rfind("/")]
        if folder in known:
            with open(path, "wb") as file:
                file.write(files[path])
        else:
            counted_flash.write(path, files[path])
            known.add(folder)
    us = time.ticks_diff(time.ticks_us(), began)
    now = flash.counts()
    cycle = [now[0] - before[0], now[1] - before[1]]
    return {"cycle": cycle, "us": us, "reads": flash.reads - reads}


def _silent(step, value):
    pass
