"""When attempts at a package end: by their number, by bytes, by days."""

import struct
from binascii import crc32

import check
import ramflash
import whole_agent  # noqa: F401 - before the flash that it is on is gone
from ota.errors import Refused
from ota.install import attempt, transaction
from ota.request import Request

DAY = 86400
CONFIG = {"max_attempts": 3, "max_fetched": 3, "max_days": 30}
SIZE = 100_000


class Clock:
    now = 1_000_000

    def time(self):
        return self.now


class Node:
    """As much of an Agent as counting needs."""

    def __init__(self):
        ramflash.mount(32)
        self.config = dict(CONFIG)
        self.stat = None
        self.fetched = 0
        self.clock = attempt.time = Clock()
        self.request = Request("fa8884d2", ".tar", SIZE)

    def feed(self, *_):
        pass

    def begin(self, after_s=0):
        """One more attempt, so long after the last one."""
        self.clock.now += after_s
        return attempt.count_attempt(self, self.request)

    def brings(self, staged, fetched):
        """What a wake leaves that has staged and fetched so many bytes, in all."""
        ramflash.write("/.ota/journal", b'[2, "%s", 3]\n' % self.request.file_id)
        data = struct.pack("<11I", staged, 0, 0, 0, 0, 0, 0, fetched, 0, 0, 0) + b"\0"
        ramflash.write("/.ota/mark", data + crc32(data).to_bytes(4, "little"))


def ends(node, text, after_s=0):
    check.raises(Refused, text, node.begin, after_s)


def test_attempts_without_progress():
    node = Node()
    check.equal([node.begin(), node.begin(), node.begin()], [False, False, True])
    ends(node, "interrupted 3 times")


def test_progress_begins_anew():
    node = Node()
    for wake in range(1, 20):
        check.equal(node.begin(), False)
        node.brings(wake * 1000, wake * 1100)
    check.equal([node.begin(), node.begin(), node.begin()], [False, False, True])
    ends(node, "interrupted 3 times")


def test_bytes():
    node = Node()
    node.begin()
    node.brings(1000, 3 * SIZE - 1)
    node.begin()
    check.equal(node.fetched, 3 * SIZE - 1)
    node.brings(2000, 3 * SIZE)
    ends(node, "not whole after 300000 bytes")


def test_days():
    node = Node()
    for wake in range(31):
        node.begin(DAY if wake else 0)
        node.brings(1000 + wake, 1100 + wake)
    ends(node, "not whole after 30 days", 1)


def test_a_clock_that_was_set_takes_no_days():
    # From 2000 to now, as the first connection of many nodes does it, and back without a battery.
    for jump in (26 * 365 * DAY, -26 * 365 * DAY):
        node = Node()
        node.clock.now += 27 * 365 * DAY
        node.begin()
        node.brings(1000, 1100)
        node.begin(jump)
        node.brings(2000, 2200)
        for wake in range(29):
            node.begin(DAY)
            node.brings(3000 + wake, 3300 + wake)
        ends(node, "not whole after 30 days", 2 * DAY)


def test_a_clock_that_jumps_at_each_wake_ends_as_well():
    # Each costs an hour.
    node = Node()
    node.clock.now += 27 * 365 * DAY
    wakes = 0
    try:
        while wakes < 30 * 24 + 2:
            node.begin(60 * DAY * (-1) ** wakes)
            node.brings(1000 + wakes, 1100 + wakes)
            wakes += 1
    except Refused as error:
        check.equal(str(error), "can not download: not whole after 30 days")
    check.equal(wakes >= 30 * 24 - 2, True)
    check.equal(wakes <= 30 * 24 + 1, True)


def test_another_request_begins_anew():
    node = Node()
    node.begin()
    node.brings(1000, 2 * SIZE)
    node.begin(29 * DAY)
    node.request = Request("0a8884d2", ".tar", SIZE)
    check.equal(node.begin(2 * DAY), False)
    check.equal(node.fetched, 0)
    check.equal(transaction.read_mark(), None)


def test_another_package_under_the_same_id_begins_anew():
    node = Node()
    node.begin()
    node.brings(1000, 2 * SIZE)
    check.equal(transaction.kept(node.request), 1000)
    node.request = Request(node.request.file_id, ".tar", SIZE // 2)
    check.equal(transaction.kept(node.request), 0)
    check.equal(node.begin(), False)
    check.equal(node.fetched, 0)
    check.equal(transaction.read_mark(), None)


def test_what_an_older_agent_has_counted_goes_on():
    node = Node()
    node.begin()
    node.brings(1000, 1100)
    fields = transaction.load("attempts").split(" ")
    transaction.save("attempts", " ".join(fields[:3]))
    check.equal([node.begin() for _ in range(2)], [False, True])
    ends(node, "interrupted 3 times")


def test_what_a_server_says_passes_with_progress():
    node = Node()
    node.begin()
    check.equal(attempt.was_told("can not download: 404 no such package"), False)
    node.begin()
    check.equal(attempt.was_told("can not download: 404 no such package"), True)
    node.brings(1000, 1100)
    node.begin()
    check.equal(attempt.was_told("can not download: 404 no such package"), False)
    node.brings(1000, 1100)  # nothing more than before
    node.begin()
    check.equal(attempt.was_told("can not download: 404 no such package"), True)


def test_what_a_server_says_passes_where_nothing_stays():
    node = Node()
    for fetched in (20_000, 60_000):  # each wake has brought more than all before
        node.begin()
        check.equal(attempt.was_told("can not download: 404 no such package"), False)
        node.begin()
        node.brings(0, fetched)
        attempt.note(node.request)
    node.begin()
    check.equal(attempt.was_told("can not download: 404 no such package"), False)
    node.begin()
    check.equal(attempt.was_told("can not download: 404 no such package"), True)


def test_a_damaged_package_does_not_pass():
    node = Node()
    node.begin()
    check.equal(attempt.was_told("can not apply: bad archive"), False)
    node.brings(1000, 1100)
    node.begin()
    check.equal(attempt.was_told("can not apply: bad archive"), True)


check.run(globals())
