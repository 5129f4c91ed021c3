"""Chips as they are: what timers, watchdog, scheduler, sleep, resolver and flash do there."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from host_sim.errors import SimError
from host_sim.node import flash
from host_sim.node.node import Chip, Node
from host_sim.sample import write_tree
from tests import busy

MakeNode = Callable[..., Node]


@pytest.fixture
def make(tmp_path: Path) -> MakeNode:
    def make_node(main: str, **options) -> Node:
        text = "import machine, time\nT = machine.Timer\n" + textwrap.dedent(main)
        root = write_tree({"main.py": text.encode()}, tmp_path / "root")
        flash.build(root, tmp_path / "node.img", blocks=32, agent=False)
        return Node(tmp_path / "node.img", stock=False, **options)

    return make_node


def chip(name: str, release: str, **options) -> dict:
    return {"chip": Chip(name, release, **options)}


# Timers

ONE = """
    if machine.reset_cause() == 2: print('crashed'); machine.deepsleep(1)
    for number in NUMBERS:
        try: T(number).init(mode=T.ONE_SHOT, period=60000, callback=lambda t: print('fired'))
        except ValueError as error: print(error)
        except OSError as error: print('OSError')
"""


@pytest.mark.parametrize(
    ("name", "release", "number", "told"),
    [
        ("esp32", "1.28", 3, "fired"),
        ("esp32", "1.28", 4, "invalid Timer number"),
        ("esp32", "1.28", -1, "invalid Timer number"),
        ("esp32", "1.22", 4, "fired"),  # number 0 by another name
        ("s3", "1.29", 3, "fired"),
        ("c3", "1.22", 3, "crashed"),
        ("c3", "1.23", 1, "crashed"),
        ("c3", "1.24", -1, "crashed"),
        ("c3", "1.24", 2, "fired"),
        ("c3", "1.25", 1, "fired"),
        ("c3", "1.25", 2, "invalid Timer number"),
        ("c6", "1.24", 1, None),
        ("c6", "1.24", 2, "fired"),
        ("c6", "1.25", 1, "fired"),
        ("c6", "1.28", 3, "invalid Timer number"),
    ],
)
def test_timer_numbers(make: MakeNode, name: str, release: str, number: int, told: str | None):
    run = make(ONE.replace("NUMBERS", f"[{number}]"), chip=name, release=release).run()
    assert run.output == (f"{told}\n" if told else "")
    assert ("panic" in run.names()) == (told == "crashed")


def test_a_crash_is_the_end(make: MakeNode):
    main = """
        if machine.reset_cause() == 2: machine.deepsleep(1)
        try: T(3).init(period=1000, callback=print)
        finally: open('after', 'w').close()
    """
    node = make(main, chip="c3", release="1.23")
    run = node.run()
    assert run.names() == ["boot", "panic", "boot", "sleep", "flash"]
    assert list(flash.read_tree(node.image)) == ["/main.py"]


@pytest.mark.parametrize(
    ("name", "release", "factor"),
    [("c6", "1.24", 2), ("c6", "1.25", 2), ("c6", "1.26", 1), ("c3", "1.24", 1)],
)
def test_period(make: MakeNode, name: str, release: str, factor: int):
    # The watchdog's time is right: it says how long the timer took.
    for wdt, fires in ((590, True), (480, False)):
        main = f"""
            if machine.reset_cause() == 3: machine.deepsleep(1)
            machine.WDT(timeout={wdt} * 1000)
            T(0).init(mode=T.ONE_SHOT, period=550 * 1000 * {factor},
                      callback=lambda t: machine.reset())
        """
        run = make(main, chip=name, release=release).run(max_boots=2)
        assert (run.names()[2] == "reset") == fires, run.events


@pytest.mark.parametrize(
    ("release", "told"), [("1.22", "crashed"), ("1.28", "crashed"), ("1.29", "OSError")]
)
def test_no_interrupt_for_a_timer(make: MakeNode, release: str, told: str):
    options = chip("esp32", release, no_interrupts=True)
    run = make(ONE.replace("NUMBERS", "[0]"), **options).run()
    assert run.output == told + "\n"


def test_chips_that_there_are_not(make: MakeNode):
    for name, release in (("c9", "1.28"), ("esp32", "2.0"), ("esp32", "new"), ("c6", "1.23")):
        with pytest.raises(SimError):
            make("", chip=name, release=release)


# The scheduler


def test_a_callback_that_finds_the_queue_full(make: MakeNode):
    main = """
        T(0).init(mode=T.ONE_SHOT, period=1000, callback=lambda t: print('once'))
        n = 0
        def tick(t):
            global n
            n += 1
            print('tick')
            if n == 2: machine.deepsleep(1)
        T(1).init(period=2000, callback=tick)
    """
    run = make(main, **chip("esp32", "1.28", full_queue=1)).run()
    assert run.output == "tick\ntick\n"
    assert {"event": "callback_lost", "timer": 0} in run.events
    run = make(main, **chip("esp32", "1.28", full_queue=3)).run()
    assert run.output == "tick\ntick\n"
    assert run.names().count("callback_lost") == 3
    assert make(main).run().output == "once\ntick\ntick\n"


# The watchdog


def test_the_watchdog_goes_on_through_a_soft_reset(make: MakeNode):
    main = """
        cause = machine.reset_cause()
        print(cause)
        if cause == 1: machine.WDT(timeout=600000); machine.soft_reset()
        if cause == 3: machine.deepsleep(1)
    """
    run = make(main).run()
    assert run.output == "1\n5\n3\n"
    assert [name for name in run.names() if name != "boot"] == [
        "reset",
        "repl",
        "wdt",
        "sleep",
        "flash",
    ]
    again = make(main.replace("soft_reset", "reset")).run()
    assert again.output == "1\n2\n"  # no other reset leaves it


def test_a_second_watchdog_changes_the_period(make: MakeNode):
    main = """
        if machine.reset_cause() == 3: machine.deepsleep(1)
        first = machine.WDT(timeout=600000)
        machine.WDT(timeout=SECOND)
        T(0).init(mode=T.ONE_SHOT, period=400000, callback=lambda t: print('timer'))
    """
    assert make(main.replace("SECOND", "300000")).run().output == ""
    assert make(main.replace("SECOND", "500000")).run().output == "timer\n"


# Light sleep


def test_light_sleep_takes_no_real_time(make: MakeNode):
    main = """
        from time import time as early
        ms, us, s = time.ticks_ms(), time.ticks_us(), time.time()
        machine.lightsleep(3600000)
        import time as again
        print(time.ticks_diff(time.ticks_ms(), ms) // 60000, again is time,
              time.ticks_diff(time.ticks_us(), us) // 60000000, (time.time() - s) // 60)
        machine.lightsleep(60000)
        print((time.time() - s) // 60, time.sleep_ms(1), time.gmtime(0)[0],
              (time.mktime(time.localtime()) - int(s)) // 60)
    """
    began = time.monotonic()
    assert make(main).run().output == "60 True 60 60.0\n61.0 None 1970 61\n"
    assert time.monotonic() - began < 5 * busy.factor()


def test_timers_and_watchdog_stand_still_in_light_sleep(make: MakeNode):
    main = """
        if machine.reset_cause() == 3: machine.deepsleep(1)
        machine.WDT(timeout=50000)
        T(0).init(mode=T.ONE_SHOT, period=40000, callback=lambda t: print('timer'))
        for _ in range(10): machine.lightsleep(30000)
        print('awake')
    """
    run = make(main).run()
    assert run.output == "awake\ntimer\n"
    assert [e for e in run.names() if e != "boot"] == ["repl", "wdt", "sleep", "flash"]


# Clock and causes


def test_the_clock_goes_on_through_deep_sleep_not_power_off(make: MakeNode):
    main = """
        r = machine.RTC()
        print(time.gmtime()[:3], r.datetime()[:3], time.gmtime()[3])
        if machine.reset_cause() == 2: r.datetime((2026, 11, 25, 0, 10, 0, 0, 0))
        if machine.reset_cause() == 1: machine.lightsleep(3600000); machine.reset()
        machine.deepsleep(86400 * 1000 * 10)
    """
    node = make(main, rtc=True)
    assert node.run(wakes=3).output.splitlines() == [
        "(2000, 1, 1) (2000, 1, 1) 0",
        "(2000, 1, 1) (2000, 1, 1) 1",
        "(2026, 12, 5) (2026, 12, 5) 10",
        "(2026, 12, 15) (2026, 12, 15) 10",
    ]
    assert node.run(cause="deepsleep").output.startswith("(2026, 12, 25)")
    assert node.run().output.startswith("(2000, 1, 1)")


def test_a_usb_reset_has_no_cause(make: MakeNode):
    main = "print(machine.reset_cause(), len(machine.RTC().memory()))\nmachine.RTC().memory(b'x')"
    node = make(main)
    assert node.run().output == "1 0\n"
    run = node.run(cause="usb")
    assert run.output == "0 1\n"
    assert run.events[0] == {"event": "boot", "wake": 1, "cause": "usb"}


# Flash


@pytest.mark.parametrize("operation", range(1, 6))
def test_errors_of_flash_are_raised_through_littlefs(make: MakeNode, operation: int):
    main = """
        import os
        try:
            with open('x', 'w') as f: f.write('y' * 9000)
            os.rename('x', 'z')
        except OSError as error: print(error.args[0], error.errno)
    """
    node = make(main)
    assert node.run(fail=(operation, "ESP")).output == "-24577 -24577\n"
    assert node.run(fail=(operation, "ESP"), persistent=True).output.startswith("-24577")
    assert node.run(fail=(operation, "EIO")).output == "5 5\n"
    assert node.run().output == ""


# The resolver

RESOLVE = """
    import socket
    if machine.reset_cause() == 3: print('barked'); machine.deepsleep(1)
    before = time.ticks_ms()
    def told(t): print('timer')
    SETUP
    try: print(socket.getaddrinfo('localhost', 80)[0][-1][:0])
    except OSError as error: print(error)
    print(time.ticks_diff(time.ticks_ms(), before) // 1000)
    machine.deepsleep(1)
"""


@pytest.mark.parametrize(
    ("wdt", "told"), [(20000, "barked\n"), (30000, "-202\n21\n"), (None, "-202\n21\n")]
)
def test_a_resolver_that_blocks(make: MakeNode, wdt: int | None, told: str):
    main = RESOLVE.replace("SETUP", f"machine.WDT(timeout={wdt})" if wdt else "")
    began = time.monotonic()
    # The simulator's allowance: the node does not tell of every feed.
    assert (
        make(main, **chip("esp32", "1.28", dns_block_s=21 if wdt != 20000 else 23))
        .run(wakes=1)
        .output
        == told
    )
    assert time.monotonic() - began < 5 * busy.factor()


def test_callbacks_wait_for_the_resolver(make: MakeNode):
    setup = "T(0).init(period=1000, callback=told)\n    T(1).init(mode=T.ONE_SHOT, period=20500,"
    setup += " callback=told)"
    run = make(RESOLVE.replace("SETUP", setup), **chip("esp32", "1.28", dns_block_s=21)).run()
    # Of 21 callbacks 8 find a place, and the one-shot none.
    assert run.output.count("timer\n") == 8
    assert run.names().count("callback_lost") in (13, 14)
    assert {"event": "callback_lost", "timer": 1} in run.events


def test_a_resolver_that_answers_late_and_addresses_that_need_none(make: MakeNode):
    options = chip("esp32", "1.28", dns_block_s=7, dns_answers=True)
    node = make(RESOLVE.replace("SETUP", ""), **options)
    assert node.run().output.splitlines()[1] == "7"
    node = make(RESOLVE.replace("SETUP", "").replace("localhost", "127.0.0.1"), **options)
    assert node.run().output.splitlines()[1] == "0"
