"""What the adapter waits for at a modem's wire: how long, and who feeds the watchdog meanwhile."""

from __future__ import annotations

from host_sim.node.node import run_code
from tests.conftest import FIRMWARE
from tests.insighio.fleet import ADAPTER, FIELD

SCRIPT = """
from ota_insighio import channel, channel_modem, modem_file

class Clock:
    now = fed = longest = 0
    def ticks_ms(self): return self.now
    def ticks_add(self, at, ms): return at + ms
    def ticks_diff(self, at, other): return at - other
    def sleep_ms(self, ms): self.now += ms

def feed():
    clock.longest = max(clock.longest, clock.now - clock.fed)
    clock.fed = clock.now

clock = Clock()
channel.time = channel_modem.time = modem_file.time = clock

class Wire:
    # What comes, and when.
    def __init__(self): self.due = []
    def say(self, at_ms, data): self.due.append((clock.now + at_ms, data))
    def any(self): return len(self.due[0][1]) if self.due and self.due[0][0] <= clock.now else 0
    def readline(self): return self.due.pop(0)[1]
    def readinto(self, view):
        data = self.due.pop(0)[1]
        view[: len(data)] = data
        return len(data)
    def write(self, data): return len(data)

class Driver:
    answer = True, []
    def __init__(self): self.uart = Wire()
    def send_at_cmd(self, text, *_):
        while self.uart.any(): self.uart.readline()  # as the field's does
        return self.answer

driver = Driver()

class Client:
    modem_instance = driver

wire = driver.uart
channel = channel_modem.ModemChannel(Client, {"control_channel": "c", "device_id": "d"}, feed)
channel.attach()

def tried(call, *args):
    begin = clock.now
    try:
        call(*args)
        told = "done"
    except OSError:
        told = "failed"
    feed()
    print(told, "after", (clock.now - begin + 500) // 1000, "s,", clock.longest < 1000)
"""


def on_node(code: str) -> list[str]:
    run = run_code(SCRIPT + code, path=[FIRMWARE, ADAPTER, FIELD])
    return run.output.splitlines()


AGAIN = """
driver.answer = True, ["OK", "+QMTSUB: 1,1,1"]
for at in range(%d):
    wire.say(10000 * at + 9000, b"+QMTSUB: 1,1,1\\r\\n")
wire.say(25000, b"+QMTSUB: 1,1,0,1\\r\\n")
tried(channel.ask_for_all)
"""


def test_a_modem_that_subscribes_once_more() -> None:
    assert on_node(AGAIN % 2) == ["done after 25 s, True"]


def test_a_modem_that_subscribes_for_ever() -> None:
    assert on_node(AGAIN % 1000) == ["failed after 60 s, True"]


FILE = """
class File(modem_file.ModemFile):
    def __init__(self): self._channel, self._handle, self._at = channel, "1", 0
file = File()
view = memoryview(bytearray(100))
"""


def test_lines_that_are_not_the_one_do_not_begin_the_wait_anew() -> None:
    code = "for n in range(50): wire.say(2000 * n + 1000, b'+QIURC: 1\\r\\n')\n"
    assert on_node(FILE + code + "tried(file._read, view)") == ["failed after 3 s, True"]


def test_bytes_that_do_not_come() -> None:
    code = "wire.say(2900, b'CONNECT 100\\r\\n')\nwire.say(5000, b'half')\n"
    assert on_node(FILE + code + "tried(file._read, view)") == ["failed after 6 s, True"]


def test_a_request_that_is_half_there_when_a_command_begins() -> None:
    code = """
wire.say(0, b'+QMTRECV: 1,0,"channels/c/messages/d/ota","[')
wire.say(40, b'1]"')
wire.say(60, b'\\r\\n')
channel.command("AT")
print(channel._heard)
wire.say(0, b"half a line, and no more")
tried(channel.command, "AT")
"""
    assert on_node(code) == ["[b'[1]']", "done after 1 s, True"]
