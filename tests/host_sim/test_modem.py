"""The modem at the node's UART: it answers as the real one, and does the work behind it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from host_sim.console import Console
from host_sim.modem import Modem
from host_sim.node import flash
from host_sim.node.node import Node
from host_sim.sample import CONTROL_CHANNEL, DEVICE_ID, DEVICE_KEY
from tests.busy import factor

TOPIC = f"channels/{CONTROL_CHANNEL}/messages/{DEVICE_ID}"
#: What each script on the node begins with: `at` returns all lines up to one with `end` in it.
BEGIN = """
import time, machine
from utime import ticks_ms, ticks_diff, sleep_ms

uart = machine.UART(2, 115200, tx=16, rx=17)
uart.init(115200, bits=8, parity=None, stop=1, tx=16, rx=17, timeout=500, timeout_char=100)

def passed():
    return ticks_diff(ticks_ms(), began)

def lines(end="OK", timeout=60000):
    start, heard = ticks_ms(), []
    while ticks_diff(ticks_ms(), start) < timeout:
        if uart.any():
            line = uart.readline().strip().decode()
            if line:
                heard.append(line)
            if line.startswith(end) or "ERROR" in line:
                break
        sleep_ms(5)
    return heard

def at(command, end="OK", timeout=60000):
    while uart.any():
        uart.read()
    uart.write(command + "\\r\\n")
    return lines(end, timeout)

began = ticks_ms()
at("ATE0")
"""
ONLINE = """
at("AT+CREG=2")
while "+CREG: 2,1" not in at("AT+CREG?")[0]:
    sleep_ms(100)
at("AT+CGACT=1,1")
at("AT+QIACT=1")
"""
CONNECT = (
    ONLINE
    + f"""
at('AT+QMTOPEN=1,"127.0.0.1",%d', "+QMTOPEN")
print(at('AT+QMTCONN=1,"node","{DEVICE_ID}","{DEVICE_KEY}"', "+QMTCONN"))
"""
)

RunCode = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> RunCode:
    """Run code on a node at a modem, and return what it printed."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "main.py").write_text("pass")
    flash.build(tmp_path / "root", tmp_path / "node.img", agent=False)

    def call(modem: Modem, code: str, **options) -> str:
        node = Node(tmp_path / "node.img", uarts={2: modem.port})
        done = node.exec(BEGIN + code, **({"timeout_s": 100} | options))
        assert done.error is None, done.output
        assert "Traceback" not in done.output, done.output
        return done.output

    return call


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    with Console(tmp_path / "console") as made:
        made.add_device(DEVICE_ID, DEVICE_KEY, CONTROL_CHANNEL)
        yield made


def test_it_tells_who_it_is(run: RunCode) -> None:
    with Modem() as modem:
        output = run(modem, 'print(at("ATI")); print(at("AT+CGMM")); print(at("AT+NONSENSE"))')
    assert "['Quectel', 'BG600L-M3', 'Revision: BG600LM3LAR02A02', 'OK']" in output
    assert "['ERROR']" in output


def test_a_registration_of_310_seconds_takes_none_of_ours(run: RunCode) -> None:
    begin = time.monotonic()
    with Modem(registration_s=310) as modem:
        output = run(modem, ONLINE + "print('after', passed() // 1000)")
    assert "after 309" in output  # the boot took one of them
    assert time.monotonic() - begin < 25 * factor()


def test_equal_runs_take_equal_times(run: RunCode) -> None:
    taken = set()
    for _ in range(2):
        with Modem(registration_s=20) as modem:
            taken.add(run(modem, ONLINE + "print('after', passed(), ticks_ms() > 0)"))
    assert len(taken) == 1


def test_virtual_time_feeds_and_bites(run: RunCode) -> None:
    code = """
w = machine.WDT(timeout=5000)
for n in range(40):
    sleep_ms(1000); w.feed()
print("fed for 40 s")
sleep_ms(4000)
print("still here")
sleep_ms(4000)
print("dead")
"""
    with Modem() as modem:
        output = run(modem, code, max_boots=1)
    assert "still here" in output
    assert "dead" not in output


def test_timers_fire_while_time_jumps(run: RunCode) -> None:
    code = """
fired = []
machine.Timer(0).init(mode=machine.Timer.PERIODIC, period=1000, callback=lambda t: fired.append(1))
sleep_ms(10500)
machine.Timer(0).deinit()
print("fired", len(fired))
"""
    with Modem() as modem:
        assert "fired 10" in run(modem, code)


def test_mqtt_goes_to_the_real_broker(run: RunCode, console: Console) -> None:
    fuid = console.add_package(b"x" * 99, "p.tar").fuid
    console.request(DEVICE_ID, fuid)
    code = f"""
print(at('AT+QMTSUB=1,5,"{TOPIC}/#",1', "+QMTRECV", 5000)[-1])
print(at('AT+QMTUNS=1,5,"{TOPIC}/#"', "+QMTUNS"))
print(at('AT+QMTPUB=1,7,1,0,"{TOPIC}/ota"', ">"))
uart.write('[{{"n":"e","v":1}},{{"n":"i","vs":"{fuid}"}}]\\x1a')
print(lines("+QMTPUB"))
print(at("AT+QMTCONN?"), at('AT+QMTOPEN=1,"127.0.0.1",1', "+QMTOPEN"))
print(at("AT+QMTDISC=1", "+QMTDISC"))
"""
    with Modem() as modem:
        output = run(modem, CONNECT % console.ports.mqtt + code)
    assert "'+QMTCONN: 1,0,0'" in output
    assert f'"{TOPIC}/ota","[{{"n":"e","v":0}}' in output
    assert "['OK', '+QMTUNS: 1,5,0']" in output
    assert "['OK', '+QMTPUB: 1,7,0']" in output
    assert "['+QMTCONN: 1,3', 'OK'] ['OK', '+QMTOPEN: 1,2']" in output
    assert "['OK', '+QMTDISC: 1,0']" in output
    (report,) = console.wait_for_report(DEVICE_ID)
    assert report.as_json() == {"e": 1, "i": fuid, "m": None}


def test_nothing_waits_is_five_virtual_seconds(run: RunCode, console: Console) -> None:
    code = f"""
start = ticks_ms()
print(at('AT+QMTSUB=1,5,"{TOPIC}/#",1', "+QMTRECV", 5000))
print("listened", ticks_diff(ticks_ms(), start) // 100)
"""
    with Modem() as modem:
        output = run(modem, CONNECT % console.ports.mqtt + code)
    assert "['OK', '+QMTSUB: 1,5,0,1']\nlistened 50" in output


def test_a_wrong_key_is_refused(run: RunCode, console: Console) -> None:
    code = CONNECT.replace(DEVICE_KEY, "wrong") % console.ports.mqtt
    with Modem() as modem:
        output = run(modem, code + "print(at('AT+QMTSUB=1,5,\"a\",1'), at('AT+QMTOPEN?'))")
    assert "'+QMTCONN: 1,0,4'" in output or "'+QMTCONN: 1,0,5'" in output
    assert "['ERROR'] ['OK']" in output


GET = """
url = "%s"
at('AT+QHTTPCFG="contextid",1')
print(at("AT+QHTTPURL=%%d,80" %% len(url), "CONNECT"), at(url))
print(at("AT+QHTTPGET=80", "+QHTTPGET"))
print(at('AT+QHTTPREADFILE="pkg"', "+QHTTPREADFILE"))
print(at('AT+QFLST="pkg"'))
"""
READ = """
print(at('AT+QFOPEN="pkg",2'))
print(at('AT+QFSEEK=1,%d,0'))
uart.write("AT+QFREAD=1,%d\\r\\n")
print(lines("CONNECT"), uart.read(%d), lines())
print(at("AT+QFCLOSE=1"), at('AT+QFDEL="pkg"'), at('AT+QFDEL="pkg"'))
"""


def address(console: Console, content: bytes) -> str:
    fuid = console.add_package(content, "p.tar").fuid
    console.request(DEVICE_ID, fuid)
    return (
        f"https://localhost:{console.ports.https}/mf-rproxy/packages/download"
        f"?fuid={fuid}&did={DEVICE_ID}&dk={DEVICE_KEY}&cid={CONTROL_CHANNEL}"
    )


def test_a_file_over_https_and_in_pieces(run: RunCode, console: Console) -> None:
    content = bytes(range(256)) * 20
    with Modem(ca=console.ca_pem) as modem:
        output = run(modem, ONLINE + GET % address(console, content) + READ % (250, 20, 20))
    assert "['CONNECT'] ['OK']" in output
    assert "['OK', '+QHTTPGET: 0,200,5120']" in output
    assert "['OK', '+QHTTPREADFILE: 0']" in output
    assert "['+QFLST: \"pkg\",5120', 'OK']" in output
    assert f"['CONNECT 20'] {content[250:270]!r} ['OK']" in output
    assert "['OK'] ['OK'] ['+CME ERROR: 405']" in output
    assert not modem.files
    assert len(console.downloads) == 1


def test_a_server_that_is_not_trusted(run: RunCode, console: Console, tmp_path: Path) -> None:
    url = address(console, b"x" * 2000)
    authority = console.next_authority()
    for ca, want in ((authority.pem, "+QHTTPGET: 716"), (None, "+QHTTPGET: 0,200,2000")):
        with Modem(ca=ca) as modem:
            assert want in run(modem, ONLINE + GET % url)


def test_the_network_is_as_slow_as_it_is_told(run: RunCode, console: Console) -> None:
    code = ONLINE + "start = passed()\n" + GET % address(console, bytes(60_000))
    with Modem(bytes_per_s=6000, rtt_ms=0) as modem:
        output = run(modem, code + "print('took', (passed() - start) // 1000)")
    assert "took 10" in output


def test_the_uart_is_as_slow_as_it_is_told(run: RunCode) -> None:
    code = """
at('AT+QFOPEN="pkg",2')
start = passed()
uart.write("AT+QFREAD=1,6000\\r\\n")
print(lines("CONNECT"), len(uart.read(6000)), lines())
print("took", (passed() - start) // 100)
"""
    with Modem(uart_bytes_per_s=6000) as modem:
        modem.files["pkg"] = bytes(6000)
        output = run(modem, code)
    assert "['CONNECT 6000'] 6000 ['OK']\ntook 10" in output
    assert modem.line.lost == 0


def test_a_full_receive_buffer_loses_bytes(run: RunCode) -> None:
    code = """
at('AT+QFOPEN="pkg",2')
uart.write("AT+QFREAD=1,1000\\r\\n")
sleep_ms(500)
print("got", len(uart.read()))
at("AT+QFCLOSE=1")
"""
    with Modem() as modem:
        modem.files["pkg"] = bytes(1000)
        assert "got 384" in run(modem, code)
        assert modem.line.lost > 600
        wide = "uart.init(115200, rxbuf=2048, timeout=100)" + code.replace("D=1", "D=2")
        assert "got 1022" in run(modem, wide)  # and CONNECT 1000, and OK


def test_power_off_is_silence_until_the_next_boot(run: RunCode) -> None:
    code = """
print(at("AT+QPOWD", "POWERED DOWN"))
sleep_ms(1000)
print(at("AT", timeout=1000))
"""
    with Modem() as modem:
        modem.files["kept"] = b"x"
        assert "['OK', 'POWERED DOWN']\n[]" in run(modem, code)
        # The first ATE0 comes while it starts, and so it echoes.
        assert "['AT', 'OK']" in run(modem, 'print(at("AT"))')
        assert modem.files == {"kept": b"x"}
        assert 0 < modem.powered_ms < modem.now


def test_the_power_key(run: RunCode) -> None:
    code = """
print(at("AT", timeout=1000))
key = machine.Pin(21, machine.Pin.OUT)
key.on(); sleep_ms(800); key.off()
print(lines("APP RDY", 10000))
"""
    with Modem(power_key=21, is_on=False) as modem:
        assert "[]\n['APP RDY']" in run(modem, code)


@pytest.mark.parametrize(
    ("what", "want"),
    [
        ("ERROR", "['ERROR']"),
        ("+CME ERROR: 3", "['+CME ERROR: 3']"),
        ("NO CARRIER", "['NO CARRIER']"),
        ("silence", "[]"),
        ("reset", "['APP RDY']"),
        ("pdpdeact", """['+QIURC: "pdpdeact",1', 'ERROR']"""),
    ],
)
def test_faults(run: RunCode, what: str, want: str) -> None:
    """The second of three commands; before and after it all is well."""
    code = "for n in range(3): print(n, at('AT+CSQ', timeout=4000))"
    with Modem() as modem:
        modem.fail("AT+CSQ", what, first=2)
        output = run(modem, code)
    assert "0 ['+CSQ: 20,99', 'OK']" in output
    assert f"1 {want}" in output
    assert "+CSQ: 20,99', 'OK']" in output.partition("\n2 ")[2]


def test_a_lost_context_ends_mqtt(run: RunCode, console: Console) -> None:
    with Modem() as modem:
        modem.fail("AT+CSQ", "pdpdeact")
        code = CONNECT % console.ports.mqtt + "print(at('AT+CSQ'), at('AT+QMTCONN?'))"
        output = run(modem, code + "\nprint(at('AT+QMTOPEN=1,\"127.0.0.1\",1', '+QMTOPEN'))")
    assert """['+QMTSTAT: 1,1', '+QIURC: "pdpdeact",1', 'ERROR'] ['OK']""" in output
    assert "['OK', '+QMTOPEN: 1,3']" in output


def test_a_reset_in_between_keeps_only_the_files(run: RunCode, console: Console) -> None:
    code = GET % address(console, b"x" * 3000)
    code += "print(lines('APP RDY', 9000), at('ATE0'), at('AT+QFLST'))"
    with Modem() as modem:
        modem.files["old"] = b"stale"
        modem.fail("AT+QHTTPGET", "reset")
        output = run(modem, ONLINE + code.replace('"+QHTTPGET"', '"+QHTTPGET", 1000'))
    assert "['+QFLST: \"old\",5', 'OK']" in output
    assert not console.downloads


def test_a_page_in_the_place_of_the_package(run: RunCode, console: Console) -> None:
    with Modem() as modem:
        modem.fail("AT+QHTTPGET", 504)
        output = run(modem, ONLINE + GET % address(console, b"x" * 3000))
    assert "+QHTTPGET: 0,504," in output
    assert b"504" in modem.files["pkg"]


def test_a_truncated_read(run: RunCode) -> None:
    code = """
at('AT+QFOPEN="pkg",2')
for n in range(2):
    uart.write("AT+QFREAD=1,100\\r\\n")
    print(lines("CONNECT"), len(uart.read(100)), lines(timeout=1000))
"""
    with Modem() as modem:
        modem.files["pkg"] = bytes(300)
        modem.fail("AT+QFREAD", "truncate")
        output = run(modem, code)
    assert "['CONNECT 100'] 50 []\n['CONNECT 100'] 100 ['OK']" in output


def test_a_node_without_a_modem_has_its_own_time(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    flash.build(tmp_path / "root", tmp_path / "node.img", agent=False)
    begin = time.monotonic()
    Node(tmp_path / "node.img").exec("import time; time.sleep_ms(300)", timeout_s=10)
    assert time.monotonic() - begin > 0.3
