"""Signed packages through the agent on littlefs in RAM: what it stages, installs and keeps."""

import gc
import json
from binascii import hexlify

import check
import ramflash
import staging_probe
import vfs
from staging_probe import Reset, ota, recovery, transaction


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
            self._load(bytes(self._device._data))
            try:
                check.boot(recovery)
            except Reset:
                self.boot()

    def stage(self, content):
        """Stage a package as check() does. Returns what waits in /.ota then, None if refused."""
        agent = ota.agent.Agent(self._config, _silent, lambda url: staging_probe.Body(content))
        agent.approach()
        try:
            ota.arrival.stage(agent, ota.request.Request("fa8884d2", ".tar", len(content)))
            found = ramflash.tree("/.ota", None)
            # The head tells how much memory it took, which is not the same each time.
            journal = found["/.ota/journal"]
            found["/.ota/journal"] = journal[journal.index(b"\n") : -5]
            return found
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
        for end in self._cuts(self._arm_and_wake):
            if end:
                print(json.dumps(end[0]))
                return
            now = _text("/ota.sequence"), transaction.in_transaction()
            woken = self.wake()
            then = _text("/ota.sequence"), transaction.in_transaction()
            print(json.dumps([now, woken[0], then, self.row(woken)["changes"]]))

    def cut_the_install(self, content):
        """Let power fail at each operation from the commit on; what waits then is damaged.

        Prints, for each cut, how many members were waiting, of which the last is damaged, and the
        row of the wake behind the boot. Prints how it ends without a cut last.
        """
        for end in self._cuts(lambda arm: self.request(content, "commit", arm)):
            if end:
                print(json.dumps(end[0]))
                return
            waiting = []
            if recovery.read_state():
                for kind, place, _, sum_, _ in recovery.lines("/.ota/journal"):
                    if kind in "ar" and sum_ != b"-" and recovery.exists(place):
                        waiting.append(place)
            if waiting:
                with open(waiting[-1], "rb") as file:
                    damaged = bytearray(file.read())
                damaged[-1] ^= 1
                ramflash.write(waiting[-1], damaged)
            print(json.dumps([len(waiting), self.row(self.wake())]))

    def _arm_and_wake(self, arm):
        self.boot()
        arm()
        return self._check(b"", b"")

    def _cuts(self, run):
        """Yield None for each cut, with flash as it is then; at last what run returned.

        run: called with a function that it has to call where the operations begin to count. What
        it does after a cut is forgotten. What a cut tears is another test's.
        """
        begin = bytes(self._device._data)
        device, left = self._device, [None]

        def look(operation):
            if operation == cut:
                left[0] = bytes(device._data)

        def arm():
            device.operations, device.fail = 0, look

        cut = 0
        while True:
            cut += 1
            left[0] = None
            gc.collect()
            self._load(begin)
            end = run(arm)
            device.fail = None
            if not left[0]:
                yield end
                return
            self._load(left[0])
            yield None

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
        if transaction.in_transaction():
            return
        if ramflash.tree() != self._here:
            self.outside = False
        if recovery.exists("/.ota"):
            found = ramflash.tree("/.ota", None)
            self._staged = {k[6:]: _hex(found[k]) for k in found if found[k] is not None}


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
        elif what == "cut_the_install":
            node.cut_the_install(read(rest[0]))
            continue
        elif what == "put":
            ramflash.write(rest[0], rest[1])
        elif what == "restore":
            node.restore()
        print(json.dumps(node.row(end)))


def _cut():
    raise Cut
