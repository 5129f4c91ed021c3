"""How long a node waits after a failure: drawn at random, more each time, kept across sleeps."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import pytest

from host_sim.console.process_broker import reserved
from host_sim.node.node import Node, run_code
from tests.conftest import FIRMWARE, MakeSite

MARK, OLD_MARK = b"ota\x02", b"ota\x01"
# What is known of the broker, after all else: nothing.
NOTHING = bytes(3)
MAIN = """
import machine
import ota

agent = ota.Agent(ota.load_config(), progress=lambda *_: None)
print("check:", agent.check(), agent.retry_ms())
machine.deepsleep(1000)
"""


def stored(memory: bytes) -> bytes:
    """RTC memory as the node was left with it, without the simulator's length."""
    return memory[2 : 2 + int.from_bytes(memory[:2], "little")]


def put(node: Node, memory: bytes) -> None:
    """What stands in RTC memory at the next run that is no power-on."""
    node.rtc_memory = len(memory).to_bytes(2, "little") + memory


def kept(failures: int, noted: bytes = b"", learned: bytes = NOTHING) -> bytes:
    """What the agent keeps there."""
    return MARK + bytes([failures]) + noted + learned


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port at which nobody listens, nor will."""
    with reserved() as port:
        yield port


# -- remembered ----------------------------------------------------------------------------------


def test_failures_are_counted_across_sleeps_without_a_write_to_flash(
    make_site: MakeSite, closed_port: int
):
    site = make_site({"main.py": MAIN.encode()}, config={"retry_s": 1})
    port = site.config["mqtt"]["port"]
    site.configure(mqtt={"port": closed_port})
    run = site.run(wakes=3)
    assert run.output.count("check: later") == 3
    assert stored(site.node.rtc_memory) == kept(3)
    assert run.ops == 0
    run = site.run(wakes=9, cause="deepsleep")
    assert stored(site.node.rtc_memory) == kept(12)
    assert run.ops == 0

    # One success, and it begins again at none; so does a node that has been without power.
    failing = site.image.read_bytes()
    site.configure(mqtt={"port": port})
    run = site.run(wakes=2, cause="deepsleep")
    assert run.output.count("check: idle") == 2
    assert run.ops == 0
    assert stored(site.node.rtc_memory) == kept(0)
    site.image.write_bytes(failing)
    site.run(wakes=2)
    assert stored(site.node.rtc_memory) == kept(2)


def test_it_stops_counting_at_the_end_of_its_byte(make_site: MakeSite, closed_port: int):
    site = make_site({"main.py": MAIN.encode()}, config={"mqtt": {"port": closed_port}})
    put(site.node, kept(254))
    site.run(wakes=3, cause="deepsleep")
    assert stored(site.node.rtc_memory) == kept(255)


@pytest.mark.few(3)
@pytest.mark.parametrize(
    "theirs",
    [
        b"theirs",
        b"\0",
        b"ota",
        MARK,
        MARK + b"\1\1",
        MARK + bytes(1),
        MARK + bytes(5),
        MARK + bytes(9),
        OLD_MARK + bytes(4),
        OLD_MARK + bytes(8),
        b"ota\3" + bytes(4),
        b"OTA\2\1abcdefg",
        bytes(2048),
    ],
    ids=lambda memory: f"{len(memory)} {memory[:6]!r}",
)
def test_what_an_application_keeps_there_stays(make_site: MakeSite, theirs: bytes):
    """Then the count is kept in RAM, for as long as the node does not sleep."""
    code = """
import ota
from ota.backoff import note, pause_ms, remember, seen

for _ in range(3):
    remember(True)
print("longest:", max([pause_ms(1) for _ in range(200)]))
note(b"abcd")
print("seen:", seen(b"abcd"), seen(b"abce"))
remember(False)
print("longest:", max([pause_ms(1) for _ in range(200)]))
"""
    site = make_site()
    put(site.node, theirs)
    run = site.node.exec(code, cause="deepsleep")
    assert stored(site.node.rtc_memory) == theirs
    assert "seen: True False\n" in run.output
    longest = [line for line in run.output.splitlines() if line.startswith("longest")]
    thrice, once = (int(line.split()[1]) for line in longest)
    assert 2000 < thrice <= 4000
    assert 500 < once <= 1000
    assert run.ops == 0


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("ours", "count"),
    [(b"", 0), (kept(0), 0), (kept(7), 7), (OLD_MARK + b"\7", 7), (OLD_MARK + b"\7abcd", 7)],
    ids=repr,
)
def test_empty_memory_and_our_own_is_used(make_site: MakeSite, ours: bytes, count: int):
    """Also an earlier agent's: else an update would leave the node with none until power-off."""
    site = make_site()
    put(site.node, ours)
    # An application that asks for pauses takes part; else nothing is put into empty memory.
    code = "from ota.backoff import pause_ms, remember\nremember(True)\npause_ms(1)\n"
    site.node.exec(code, cause="deepsleep")
    noted = ours[5:] if ours[:4] == OLD_MARK else b""
    assert stored(site.node.rtc_memory) == kept(count + 1, noted)


def test_what_has_been_refused_is_known_after_a_sleep(make_site: MakeSite):
    """It stands between the count and what is known of the broker, and none harms the others."""
    site = make_site()
    code = """
from ota.backoff import note, pause_ms, remember, seen
remember(True)
print(seen(b"abcd"), seen(b"wxyz"), seen(bytes(4)), DO)
"""
    for count, noted, learned in (
        (None, b"", NOTHING),
        (2, b"", NOTHING),
        (0, b"abcd", b"\x03\x00\x97"),
        (2, b"abcd", NOTHING),
        (2, b"wxyz", b"\x05\x00\x01"),
    ):
        before = b"" if count is None else kept(count, noted, learned)
        count = (count or 0) + 1
        for do, after in (
            ("None", before and kept(count, noted, learned)),
            ("pause_ms(1) < 0", kept(count, noted, learned)),
            ("note(b'abcd')", kept(count, b"abcd", learned)),
            ("note(b'wxyz')", kept(count, b"wxyz", learned)),
        ):
            put(site.node, before)
            run = site.node.exec(code.replace("DO", do), cause="deepsleep")
            known = f"{noted == b'abcd'} {noted == b'wxyz'} False "
            assert run.output.startswith(known), (before, do, run.output)
            assert run.ops == 0
            assert stored(site.node.rtc_memory) == after, (before, do)


def test_the_same_mark_is_not_written_twice():
    """An ESP32's RTC memory does not wear, but an application may watch it."""
    code = """
import sys
class Rtc:
    kept, writes = b"", 0
    def memory(self, new=None):
        if new is None:
            return Rtc.kept
        Rtc.kept = new
        Rtc.writes += 1
class machine:
    RTC = Rtc
sys.modules["machine"] = machine
from ota.backoff import note, seen
for mark in (b"abcd", b"abcd", b"wxyz", b"wxyz"):
    note(mark)
    print(Rtc.writes, Rtc.kept, seen(mark))
"""
    lines = run_code(code, path=[FIRMWARE]).output.splitlines()
    assert lines == [
        "1 b'ota\\x02\\x00abcd\\x00\\x00\\x00' True",
        "1 b'ota\\x02\\x00abcd\\x00\\x00\\x00' True",
        "2 b'ota\\x02\\x00wxyz\\x00\\x00\\x00' True",
        "2 b'ota\\x02\\x00wxyz\\x00\\x00\\x00' True",
    ]


def test_memory_that_nobody_asked_for_stays_empty(make_site: MakeSite):
    """An application may look there whether it has left itself something."""
    site = make_site()
    site.node.exec("from ota.backoff import remember\nremember(True)\n", cause="deepsleep")
    assert not stored(site.node.rtc_memory)


# -- drawn ---------------------------------------------------------------------------------------

DRAWS = """
import json
from ota.backoff import remember, pause_ms

for failures in range(12):
    print(json.dumps([pause_ms(BASE) for _ in range(COUNT)]))
    remember(True)
"""
BINS, COUNT = 16, 1600
# time.ticks_add() of a 32-bit MicroPython raises OverflowError from 2 ** 29 on.
LONGEST_MS = (1 << 29) - 1
# Chi-square with 15 degrees of freedom is above this once in ten million draws of a fair die.
FAIR = 62.0


@pytest.mark.few(1)
@pytest.mark.parametrize("base_s", [1, 60, 86400])
def test_the_whole_pause_is_drawn_and_doubles_six_times(base_s: int):
    """Full jitter: every part of the window is as likely; after none and one failure alike."""
    code = DRAWS.replace("BASE", str(base_s)).replace("COUNT", str(COUNT))
    result = run_code(code, path=[FIRMWARE])
    rows = [json.loads(line) for line in result.output.splitlines()]
    assert len(rows) == 12, result.output
    for failures, pauses in enumerate(rows):
        longest = min(base_s * 1000 << min(max(failures - 1, 0), 6), LONGEST_MS)
        assert min(pauses) >= 0
        assert max(pauses) <= longest
        counts = [0] * BINS
        for pause in pauses:
            counts[min(pause * BINS // longest, BINS - 1)] += 1
        expected = COUNT / BINS
        chi_square = sum((n - expected) ** 2 for n in counts) / expected
        assert chi_square < FAIR, (failures, counts)


def test_two_nodes_that_fail_together_do_not_come_back_together():
    """What is drawn differs from node to node, though all of them started alike."""
    code = "from ota.backoff import pause_ms\nprint([pause_ms(60) for _ in range(4)])\n"
    drawn = {run_code(code, path=[FIRMWARE]).output for _ in range(8)}
    assert len(drawn) == 8


def test_the_spread_of_many_nodes_grows_with_the_pause():
    """The most that come in any one second, of 2,000 that lost their broker at one moment."""
    code = DRAWS.replace("BASE", "60").replace("COUNT", "2000").replace("range(12)", "range(3)")
    rows = [json.loads(line) for line in run_code(code, path=[FIRMWARE]).output.splitlines()]
    peaks = []
    for pauses in rows[1:]:
        by_second: dict[int, int] = {}
        for pause in pauses:
            by_second[pause // 1000] = by_second.get(pause // 1000, 0) + 1
        peaks.append(max(by_second.values()))
    for peak, mean in zip(peaks, (2000 / 60, 2000 / 120), strict=True):
        assert peak < mean + 6 * math.sqrt(mean), peaks
