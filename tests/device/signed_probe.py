"""Signed packages through the agent on littlefs in RAM: what it stages, installs and keeps."""

import gc
import json
import sys
from binascii import hexlify

import ramflash
import staging_probe
import vfs
from staging_probe import Reset, ota

recovery = ota.recovery


class Cut(BaseException):
    """The power fails."""


class Node(staging_probe.Node):
    """A node that takes one package after the other, boots in between, and tells what became.

    config: keys of /ota.json beside the ids.
    """

    def __init__(self, files, config, blocks=64):
        super().__init__(files, blocks)
        self._config = dict(staging_probe.CONFIG)
        # There is no timer here.
        self._config["trial_deadline_s"] = 0
        self._config.update(config)
        self._steps = []
        self._staged = {}
        self._at = self._act = None

    def take(self, content):
        """Request a package. When it was installed: boot, and check once more, which confirms."""
        end = self.request(content)
        return self.wake() if end[0] == "reset" else end

    def request(self, content, at=None, act=None):
        """Request a package. act: called once, when the agent is at this step or member."""
        fields = '{"n":"e","v":0},{"n":"i","vs":"fa8884d2"},{"n":"t","vs":".tar"}'
        payload = '[%s,{"n":"s","v":%d}]' % (fields, len(content))
        self._at, self._act = at, act
        return self._check(payload.encode(), content)

    def wake(self):
        """Boot, and check without a request."""
        self.boot()
        return self._check(b"", b"")

    def boot(self, times=1):
        """As boot.py does, so many times, with the resets that follow."""
        for _ in range(times):
            sys.modules.pop("ota.counted", None)
            self._load(bytes(self._device._data))
            try:
                recovery.boot()
            except Reset:
                self.boot()

    def stage(self, content):
        """Stage a package as check() does. Returns what waits in /.ota then, None if refused."""
        agent = ota.agent.Agent(self._config, _silent, lambda url: staging_probe.Body(content))
        agent.approach()
        try:
            ota.cycle._stage(agent, ota.request.Request("fa8884d2", ".tar", len(content)))
            return ramflash.tree("/.ota", None)
        except ota.errors.Refused:
            return None
        finally:
            self._discard()

    def row(self, end):
        """What there is to say after a step, for one line of JSON."""
        here = ramflash.tree(skip=None)
        old = self.before
        changes = {k: _hex(here[k]) for k in here if here[k] != old.get(k, 0)}
        changes.update({k: None for k in old if k not in here})
        outcome, reason, published = end
        row = {"end": outcome, "reason": reason, "published": published, "changes": changes}
        row.update({"steps": self._steps, "staged": self._staged, "outside": self.outside})
        row["least_free"] = self.least_free
        return row

    def cut_the_confirm(self):
        """Let power fail at each operation of the wake that confirms, then boot and check again.

        Prints, for each cut, what /ota.sequence holds and whether the trial is open just after it,
        and both after that next wake. Prints how it ends without a cut last.
        """
        begin = bytes(self._device._data)
        end, cut = None, 0
        while not end:
            cut += 1
            gc.collect()
            self._load(begin)
            self.boot()
            left = []
            end = self._wake_until(cut, left)
            if left:
                # Whatever is still open there may be closed one day: on another device.
                self._device = ramflash.mount(len(begin) // 4096)
                self._load(left[0])
                now = _text("/ota.sequence"), recovery.in_transaction()
                woken = self.wake()
                then = _text("/ota.sequence"), recovery.in_transaction()
                print(json.dumps([now, woken[0], then, self.row(woken)["changes"]]))
        print(json.dumps(end))

    def _wake_until(self, cut, left):
        """Check without a request until the operation `cut`; what flash is then goes to left."""
        device = self._device

        def fail(operation):
            if operation == cut:
                left.append(bytes(device._data))
                raise Cut

        device.operations, device.fail = 0, fail
        try:
            return self._check(b"", b"")[0]
        except Cut:
            return None
        finally:
            device.fail = None

    def read_in_large_pieces(self):
        """Let littlefs call the device less often, which takes most of the time."""
        vfs.umount("/")
        vfs.mount(vfs.VfsLfs2(self._device, readsize=1024, progsize=1024), "/")

    def _load(self, image):
        vfs.umount("/")
        self._device._data[:] = image
        vfs.mount(vfs.VfsLfs2(self._device), "/")

    def _check(self, payload, content):
        ota.control.Control.payload = payload
        ota.control.Control.published = []
        self._steps, self._staged = [], {}
        self.outside = True
        self.least_free = staging_probe.free()
        self._here = ramflash.tree()
        agent = ota.agent.Agent(self._config, self._see, lambda url: staging_probe.Body(content))
        try:
            end = agent.check()
        except Reset:
            end = "reset"
        return end, agent.reason, ota.control.Control.published

    def _see(self, step, value):
        if step != "bytes":
            self._steps.append(step)
        if self._act and self._at in (step, value):
            act, self._act = self._act, None
            act()

    def _look(self):
        self.least_free = min(self.least_free, staging_probe.free())
        if recovery.in_transaction():
            return
        if ramflash.tree() != self._here:
            self.outside = False
        if recovery.exists("/.ota"):
            found = ramflash.tree("/.ota", None)
            self._staged = {k[6:]: _hex(found[k]) for k in found if found[k] is not None}


def flips(node, bundle, size, bits):
    """Flip each of these bits of a package, one at a time, and let the agent stage it.

    Prints, for each, a digit: 0 refused, 1 staged as the sound package is, 2 otherwise.
    """
    _remember_verified()
    node.read_in_large_pieces()
    recovery.save("attempts", "fa8884d2 1")
    content = bytearray(bundle.read(size))
    sound = node.stage(content)
    found = ""
    for _ in _flipped(content, bits):
        staged = node.stage(content)
        found += "2" if staged and staged != sound else "1" if staged else "0"
    print(json.dumps([len(sound), found]))


def whole_flips(node, bundle, size, bits):
    """As flips(), through a whole check. A digit more: 3 refused, but something was staged."""
    content = bytearray(bundle.read(size))
    found = ""
    for _ in _flipped(content, bits):
        row = node.row(node.take(content))
        refused = row["end"] == "failed" and "commit" not in row["steps"]
        clean = row["outside"] and not row["changes"] and set(row["staged"]) <= _UNREAD
        found += "2" if not refused else "0" if clean else "3"
        if not refused:
            node.restore()
    print(json.dumps([0, found]))


# What is in /.ota before the first member of a package with a manifest is looked at.
_UNREAD = {"attempts", "manifest"}


def _flipped(content, bits):
    """Yield once for each bit, while it is flipped in content."""
    for bit in bits:
        content[bit >> 3] ^= 1 << (bit & 7)
        yield bit
        content[bit >> 3] ^= 1 << (bit & 7)


def _remember_verified():
    """Verify each signature once: it takes half the time, and the manifest does not change."""
    verify, known = ota.signature.verify, {}

    def remembered(*arguments):
        if arguments not in known:
            known[arguments] = verify(*arguments)
        return known[arguments]

    ota.signature.verify = remembered


def _hex(content):
    """JSON has no bytes."""
    return "folder" if content is None else hexlify(content).decode()


def _silent(step, value):
    pass


def _text(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None


def run(node, bundle, steps):
    """Do steps, (what, …), and print one line of JSON for each.

    bundle: an open file; a package is (where it begins there, its length).
    """

    def read(place):
        bundle.seek(place[0])
        return bundle.read(place[1])

    for what, *rest in steps:
        gc.collect()
        end = None, None, []
        if what == "take":
            end = node.take(read(rest[0]))
        elif what == "request":
            end = node.request(read(rest[0]))
        elif what == "cut":  # the power fails at a step
            place, at = rest
            try:
                end = node.request(read(place), at, _cut)
            except (Cut, Reset):
                pass
        elif what == "tamper":  # somebody writes to a file while the agent is at a step
            end = node.request(read(rest[0]), rest[1], lambda: ramflash.write(*rest[2:]))  # noqa: B023
        elif what == "wake":
            end = node.wake()
        elif what == "boot":
            node.boot(rest[0])
        elif what == "cut_the_confirm":
            node.cut_the_confirm()
            continue
        elif what == "put":
            ramflash.write(rest[0], rest[1])
        elif what == "restore":
            node.restore()
        print(json.dumps(node.row(end)))


def _cut():
    raise Cut
