"""A package server inside MicroPython, below the agent's HTTPS, and what a node makes of it."""

import gc
import json
import os

import ramflash
import signed_probe
import staging_probe
from staging_probe import Reset, ota, recovery, transaction

_PAYLOAD = '[{"n":"e","v":0},{"n":"i","vs":"fa8884d2"},{"n":"t","vs":".tar.gz"},{"n":"s","v":%d}]'
_ETAG = '"v1"'


class Server:
    """Has one package, and does wrong what `rules` say.

    rules: (first request, behind the last one, {what: …}) of each; see `_answer`. `asked` has
    (what of Range, status) of each request, `received` how many bytes of bodies were read.
    """

    def __init__(self):
        self.content = b""
        self.begin(())

    def begin(self, rules):
        """Forget what was asked, and go by these rules."""
        self.rules = rules
        self.asked = []
        self.received = self.opened = self.open = self.most = 0

    # In the place of ota.trust.secured(), ota.dial.dial() and ota.https.Wire.

    def secured(self, config, limits):
        return _Wire(self)

    def wire(self, limits, least=0):
        return _Wire(self)

    def dial(self, *arguments):
        pass

    def trust(self, *arguments):
        pass

    def answer(self, request):
        """(head, body, whether the connection ends behind it)."""
        number = len(self.asked)
        rule = {}
        for first, last, each in self.rules:
            if first <= number < last:
                rule = each
        asked = None
        path = request.split(b" ")[1]
        same = True
        for line in request.split(b"\r\n"):
            if line.startswith(b"Range: bytes="):
                asked = line[13:]
            if line.startswith(b"If-Range: "):
                same = line[10:] == rule.get("known", _ETAG).encode()
        etag = rule.get("etag", _ETAG)
        protocol = rule.get("protocol", "HTTP/1.1")
        if rule.get("redirect") and not path.startswith(b"/stored"):
            head = "%s 302 Found\r\nLocation: %s%d\r\nContent-Length: 0\r\n\r\n"
            self.asked.append((asked and asked.decode(), 302))
            return (head % (protocol, rule["redirect"], number)).encode(), b"", False
        content = rule.get("content", self.content)
        first, behind, status = 0, len(content), 200
        if rule.get("range", True) and asked and same:
            first, _, last = asked.partition(b"-")
            first, status = int(first), 206
            behind = min(int(last) + 1, behind) if last else behind
            if first >= behind:
                status = 416
        status = rule.get("status", status)
        self.asked.append((asked and asked.decode(), status))
        body = bytes(content[first:behind]) if status in (200, 206) else b"no"
        lines = ["%s %d So" % (protocol, status)]
        if etag:
            lines.append("ETag: " + etag)
        if status == 206:
            a, b, c = rule.get("shift", (0, 0, 0))
            said = "bytes %d-%d/%d" % (first + a, behind - 1 + b, len(content) + c)
            said = rule.get("content_range", said)
            if said:
                lines.append("Content-Range: " + said)
        body = body[: len(body) + rule.get("short", 0)] + rule.get("more", b"")
        length = rule.get("length", len(body))
        close = rule.get("close", protocol == "HTTP/1.0")
        if rule.get("chunked"):
            lines.append("Transfer-Encoding: chunked")
            whole, body = body, b""
            for at in range(0, len(whole), 1000):
                piece = whole[at : at + 1000]
                body += b"%x\r\n%s\r\n" % (len(piece), piece)
            body += b"0\r\n\r\n"
        elif length is not None:
            lines.append("Content-Length: %d" % length)
        if close and protocol == "HTTP/1.1" and not rule.get("unsaid"):
            lines.append("Connection: close")
        lines += rule.get("lines", ())
        if "cut" in rule:
            body, close = body[: rule["cut"]], True
        return "\r\n".join(lines).encode() + b"\r\n\r\n", body, close


class _Wire:
    def __init__(self, server):
        self._server = server
        self._sent = b""
        self._out = []
        self._ends = self._closed = False
        server.opened += 1
        server.open += 1
        server.most = max(server.most, server.open)

    def send(self, data):
        if self._ends:
            return  # nobody hears it
        self._sent += data
        if self._sent.endswith(b"\r\n\r\n"):
            head, body, self._ends = self._server.answer(self._sent)
            self._sent = b""
            self._out += [[memoryview(head), False], [memoryview(body), True]]

    def receive(self, buffer):
        while self._out:
            part, counts = self._out[0]
            if not len(part):
                self._out.pop(0)
                continue
            n = min(len(buffer), len(part), 700)
            buffer[:n] = part[:n]
            self._out[0][0] = part[n:]
            if counts:
                self._server.received += n
            return n
        if self._ends:
            return 0
        raise OSError(110)

    def close(self):
        self._server.open -= not self._closed
        self._closed = True


class Node(signed_probe.Node):
    """A node whose packages come from a Server."""

    def __init__(self, files, config, blocks=64):
        super().__init__(files, config, blocks)
        self.server = Server()
        ota.trust.secured, ota.trust.trust = self.server.secured, self.server.trust
        ota.dial.dial, ota.https.Wire = self.server.dial, self.server.wire
        for module in ota.fetch, ota.download:
            module.time = self  # nobody waits

    def restore(self):
        """As in staging_probe, but littlefs calls the device less often, which takes the time."""
        self._load(self._image)

    def _load(self, image):
        super()._load(image)
        self.read_in_large_pieces()

    def sleep_ms(self, ms):
        """Stands in for time.sleep_ms()."""

    def request(self, content, at=None, act=None):
        """As in signed_probe; the request may announce another size: (content, size)."""
        size = len(content)
        if type(content) is tuple:
            content, size = content
        self.server.content = content
        self._at, self._act = at, act
        return self._check((_PAYLOAD % size).encode(), content)

    def again(self):
        """Another wake with what is requested."""
        return self._check(None, None)

    def _check(self, payload, content):
        if payload == b"":  # a trial, which asks for nothing
            return super()._check(payload, content)
        if payload is not None:
            ota.control.Control.payload = payload
            ota.control.Control.published = []
            self._steps, self._staged = [], {}
            self.outside = True
            self.least_free = staging_probe.free()
            self._here = ramflash.tree()
        agent = ota.agent.Agent(self._config, self._see)
        try:
            end = agent.check()
        except Reset:
            end = "reset"
        return end, agent.reason, ota.control.Control.published

    def staged_now(self, size):
        """Stage what the server has. {path: content} that would be then, or a str: why not."""
        agent = ota.agent.Agent(self._config, _silent)
        agent.approach()
        request = ota.request.Request("fa8884d2", ".tar.gz", size)
        try:
            ota.arrival.stage(agent, request)
            return becomes()
        except ota.errors.OtaError as error:
            return type(error).__name__ + " " + str(error)
        finally:
            self._discard()


def becomes():
    """{path: content or None} of the live tree when the journal in /.ota is carried out."""
    found = ramflash.tree()
    changes = {}
    for kind, place, _, _, path in recovery.lines("/.ota/journal"):
        if kind == "m":
            changes[path] = None
        elif kind == "d":
            found.pop(path)
        elif kind in "ar":
            with open(place, "rb") as file:
                changes[path] = file.read()
    found.update(changes)
    return found


def _silent(step, value):
    pass


def run(node, bundle, cases):
    """Try each case, (length of the package, size or None, rules, wakes, config), one JSON each.

    The row has, beside what row() says, what was asked, and how many bytes came.
    """
    for length, size, rules, wakes, config in cases:
        gc.collect()
        content = bundle.read(length)
        before = node._config
        node._config = dict(before)
        node._config.update(config)
        node.server.begin(rules)
        end = node.request((content, length if size is None else size))
        told = [end[0]]
        reasons = [end[1]]
        for _ in range(wakes):
            if end[0] != "later":
                break
            end = node.again()
            told.append(end[0])
            reasons.append(end[1])
        if end[0] == "reset":
            staged = end
            end = node.wake()
            told.append(end[0])
            del staged
        left = sorted(ramflash.tree("/.ota", None)) if recovery.exists("/.ota") else []
        row = node.row(end)
        row.pop("staged")
        row.update({"ends": told, "reasons": reasons, "left": left, "asked": node.server.asked})
        row.update({"received": node.server.received, "opened": node.server.opened})
        row.update(
            {
                "open": node.server.open,
                "most": node.server.most,
                "state": transaction.in_transaction(),
            }
        )
        print(json.dumps(row))
        node._config = before
        node.restore()


def flips(node, bundle, size, bits, new):
    """Flip each of these bits of a package, one at a time, and let the agent stage it.

    Prints, for each, a digit: 0 refused, 1 what comes is the new tree, 2 otherwise, 3 later. new:
    {path: content} of that.
    """
    content = bytearray(bundle.read(size))
    node.server.content = content
    transaction.save("attempts", "fa8884d2 1")
    found = ""
    for bit in bits:
        content[bit >> 3] ^= 1 << (bit & 7)
        found += _judged(node, size, new)
        content[bit >> 3] ^= 1 << (bit & 7)
    print(json.dumps([found]))


def old_flips(node, bundle, size, bits, new):
    """The same, but with the bits of what is on flash: (path, which)."""
    node.server.content = bundle.read(size)
    transaction.save("attempts", "fa8884d2 1")
    found = ""
    for path, bit in bits:
        content = bytearray(node.before[path])
        content[bit >> 3] ^= 1 << (bit & 7)
        ramflash.write(path, content)
        found += _judged(node, size, new)
        ramflash.write(path, node.before[path])
    print(json.dumps([found]))


def late_flips(node, bundle, size, bits, new):
    """The same, but when the agent has looked at all of it. bit: None removes the file."""
    content = bundle.read(size)
    found = ""
    for path, bit in bits:
        changed = bit is not None and bytearray(node.before[path])
        if changed:
            changed[bit >> 3] ^= 1 << (bit & 7)
        node.server.begin(())
        # With the first file that is staged.
        end = node.request(content, "file", lambda: _write(path, changed))  # noqa: B023
        for _ in range(3):
            if end[0] == "later":
                end = node.again()
        if end[0] == "reset":
            node.boot()
        here = ramflash.tree()
        right = all(here.get(each) == new[each] for each in new)
        refused = end[0] == "failed" and here.get(path) == changed and not _litter()
        found += "1" if right else "0" if refused else "2"
        node.restore()
    print(json.dumps([found]))


def _write(path, content):
    if content:
        ramflash.write(path, content)
    else:
        os.remove(path)


def _litter():
    return recovery.exists("/.ota")


def _judged(node, size, new):
    node.server.begin(())
    became = node.staged_now(size)
    if type(became) is str:
        kind = became.split(" ")[0]
        return "0" if kind == "Refused" else "3" if kind == "Transient" else "2"
    return "1" if all(became.get(path) == new[path] for path in new) else "2"
