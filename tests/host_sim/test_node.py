"""The virtual node: boots, resets, sleep, timers, watchdog, and what the flash keeps."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from host_sim.errors import SimError
from host_sim.node import boot, flash, keys, process
from host_sim.node.node import SIM_HEAP, Node, run_code
from tests.busy import factor
from tests.processes import lives

PROJECT = Path(__file__).parents[2]
MakeNode = Callable[..., Node]


@pytest.fixture
def make(tmp_path: Path) -> MakeNode:
    def make_node(heap: str | None = None, **files: str) -> Node:
        """``main="…"`` becomes /main.py; no stock modules, so no download."""
        root = tmp_path / "root"
        root.mkdir(exist_ok=True)
        for name, text in files.items():
            (root / f"{name}.py").write_text(textwrap.dedent(text))
        flash.build(root, tmp_path / "node.img", blocks=32, agent=False)
        return Node(tmp_path / "node.img", heap=heap, stock=False)

    return make_node


def tree(node: Node) -> dict[str, bytes]:
    return flash.read_tree(node.image)


# What runs at power-up


def test_reads_and_writes_images_of_the_oracle(make: MakeNode) -> None:
    main = """
        import os
        os.mkdir('/d')
        with open('/d/x', 'wb') as f: f.write(bytes(9000))
        print(7)
    """
    node = make(main=main)
    run = node.run()
    assert (run.output, run.exit_code, run.error) == ("7\n", 0, None)
    assert tree(node)["/d/x"] == bytes(9000)
    assert (run.names(), run.boots) == (["boot", "repl", "exit", "flash"], 1)


def test_the_node_sees_only_its_flash(make: MakeNode) -> None:
    code = """
        import os, sys
        print(sys.path, os.listdir('/'), os.getcwd(), sys.argv, dir(), os.statvfs('/')[:3])
        print(sorted(n for n in ('/.late', '/tmp', '/dev') if exists(n)))
    """
    exists = "import os\ndef exists(n):\n try: return os.stat(n)\n except OSError: pass\n"
    seen = make(extra="x").exec(exists + textwrap.dedent(code)).output
    assert seen.startswith("['', '.frozen', '/lib'] ['extra.py'] / [] [")
    assert "_s" not in seen
    assert seen.endswith("(4096, 4096, 32)\n[]\n")


def test_boot_then_main_in_one_namespace(make: MakeNode) -> None:
    node = make(boot="print(__name__, __file__)\nx = 1", main="print(x, __file__)")
    assert node.run().output == "__main__ boot.py\n1 main.py\n"


def test_boot_that_raises_stops_main(make: MakeNode) -> None:
    run = make(boot="print('b')\n1/0", main="print('m')").run()
    assert run.output.startswith("b\nTraceback")
    assert "m\n" not in run.output.splitlines(keepends=True)
    assert (run.exit_code, run.error) == (1, "ZeroDivisionError: divide by zero")
    assert run.events[-2] == {"event": "exit", "error": "ZeroDivisionError: divide by zero"}


@pytest.mark.parametrize("main", ["def", "raise ValueError('x: y')", "import nothing"])
def test_main_that_raises(make: MakeNode, main: str) -> None:
    run = make(main=main).run()
    assert run.exit_code == 1
    assert run.error.split(":")[0] in ("SyntaxError", "ValueError", "ImportError")


def test_system_exit_is_a_soft_reset(make: MakeNode) -> None:
    main = """
        import machine
        if machine.reset_cause() == machine.SOFT_RESET: print('again')
        else: raise SystemExit
    """
    run = make(main=main).run()
    assert run.output == "again\n"
    assert [e.get("cause") for e in run.events if e["event"] == "boot"] == ["power_on", "soft"]


def test_unformatted_flash(make: MakeNode) -> None:
    node = make()
    node.image.write_bytes(b"\xff" * 4096 * 8)
    run = node.run()
    assert run.exit_code == 1 and "does not mount" in run.error
    assert node.image.read_bytes() == b"\xff" * 4096 * 8


def test_clear_errors(tmp_path: Path, make: MakeNode) -> None:
    with pytest.raises(SimError, match="no flash image"):
        Node(tmp_path / "none.img", stock=False).run()
    node = make()
    with pytest.raises(SimError, match="torn kind"):
        node.run(torn="odd")
    with pytest.raises(SimError, match="EODD"):
        node.run(fail=(1, "EODD"))
    with pytest.raises(SimError, match="counts from 1"):
        node.run(cut=0)
    with pytest.raises(SimError, match="heap"):
        Node(node.image, heap="96 KB", stock=False).run()


# Resets, sleep, wakes


STORY = """
    import machine
    try: n = int(open('n').read())
    except OSError: n = 0
    with open('n', 'w') as f: f.write(str(n + 1))
    print(n, machine.reset_cause(), machine.wake_reason())
    if n == 0: machine.reset()
    if n == 1: machine.deepsleep(5000)
    if n == 2: machine.soft_reset()
    machine.deepsleep()
"""


def test_resets_and_sleeps_are_followed(make: MakeNode) -> None:
    run = make(main=STORY).run(wakes=3)
    assert run.output == "0 1 0\n1 2 0\n2 4 4\n3 5 0\n4 4 4\n"
    assert run.events[:-1] == [
        {"event": "boot", "wake": 1, "cause": "power_on"},
        {"event": "reset"},
        {"event": "boot", "wake": 1, "cause": "hard"},
        {"event": "sleep", "ms": 5000},
        {"event": "boot", "wake": 2, "cause": "deepsleep"},
        {"event": "reset", "soft": True},
        {"event": "boot", "wake": 2, "cause": "soft"},
        {"event": "sleep", "ms": None},
        {"event": "boot", "wake": 3, "cause": "deepsleep"},
        {"event": "sleep", "ms": None},
    ]
    assert run.exit_code == 0


def test_one_wake_ends_at_its_sleep(make: MakeNode) -> None:
    run = make(main="import machine\nmachine.deepsleep(1)").run()
    assert (run.names(), run.exit_code) == (["boot", "sleep", "flash"], 0)


def test_endless_resets_are_bounded(make: MakeNode) -> None:
    run = make(main="import machine\nmachine.reset()").run(max_boots=5)
    assert (run.boots, run.exit_code) == (5, 1)
    assert run.events[-2] == {"event": "boot_limit", "boots": 5}


@pytest.mark.parametrize("end", ["machine.reset()", "machine.deepsleep(1)"])
def test_the_end_is_hard(make: MakeNode, end: str) -> None:
    main = f"""
        import machine, _thread
        def other():
            while True: pass
        _thread.start_new_thread(other, ())
        try: {end}
        except BaseException: open('except', 'w').close()
        finally: open('finally', 'w').close()
        open('after', 'w').close()
    """
    node = make(main=main)
    node.run(max_boots=1)
    assert set(tree(node)) == {"/main.py"}


def test_rtc_memory_survives_all_but_power_loss(make: MakeNode) -> None:
    main = """
        import machine
        m = machine.RTC().memory()
        print(len(m))
        machine.RTC().memory(m + b'x' * 300)
        if len(m) == 0: machine.reset()
        for i in range(3):
            with open('n', 'w') as f: f.write('n')
        machine.deepsleep(1)
    """
    node = make(main=main)
    assert node.run(wakes=3).output == "0\n300\n600\n900\n"
    assert node.run(cause="deepsleep").output == "1200\n"
    run = node.run(storm=1, max_boots=3)
    assert run.output.splitlines() == ["0", "300", "0"]


def test_each_boot_starts_with_empty_ram(make: MakeNode) -> None:
    run = make(
        boot="import sys\nprint('left' in sys.modules)\nsys.modules['left'] = 1",
        main="import machine\nmachine.deepsleep(1)",
    ).run(wakes=2)
    assert run.output == "False\nFalse\n"


# Timers and watchdog


def test_watchdog_in_a_busy_loop(make: MakeNode) -> None:
    main = """
        import machine, time
        if machine.reset_cause() == machine.WDT_RESET: machine.deepsleep(1)
        w = machine.WDT(timeout=1000)
        for i in range(70): time.sleep_ms(20); w.feed()
        print('fed')
        try:
            while True: pass
        finally: open('finally', 'w').close()
    """
    node = make(main=main)
    run = node.run()
    assert run.output == "fed\n"
    assert run.names() == ["boot", "wdt", "boot", "sleep", "flash"]
    assert "/finally" not in tree(node)


def test_watchdog_at_the_repl_takes_no_real_time(make: MakeNode) -> None:
    main = "import machine\nif machine.reset_cause() != 3: machine.WDT(timeout=600000)"
    run = make(main=main).run()
    assert run.names() == ["boot", "repl", "wdt", "boot", "repl", "exit", "flash"]


WAITS = {
    "busy": "while True: pass",
    "sleep": "time.sleep(30)",
    "socket": "s = socket.socket()\ns.bind(socket.getaddrinfo('127.0.0.1', 0)[0][-1])\n"
    "s.listen(1)\ns.accept()",
}


@pytest.mark.parametrize("wait", WAITS)
def test_timer_while_main_runs(make: MakeNode, wait: str) -> None:
    main = f"import machine, time, socket\n{TICKER}\n{WAITS[wait]}"
    run = make(main=main).run(timeout_s=25)
    assert run.output == "tick\ntick\ntick\n"
    assert run.names() == ["boot", "sleep", "flash"]


TICKER = """
n = 0
def tick(t):
    global n
    n += 1
    print("tick")
    if n == 3: machine.deepsleep(9)
timer = machine.Timer(1, mode=machine.Timer.PERIODIC, period=20, callback=tick)
"""


def test_timer_at_the_repl_takes_no_real_time(make: MakeNode) -> None:
    main = TICKER.replace("period=20", "period=3600000")
    began = time.monotonic()
    run = make(main="import machine\n" + main + "\n1/0").run()
    assert run.output.count("tick\n") == 3
    assert run.names() == ["boot", "repl", "sleep", "flash"]
    assert (run.error, run.exit_code) == ("ZeroDivisionError: divide by zero", 0)
    assert time.monotonic() - began < 5 * factor()


def test_a_node_that_is_killed_before_it_is_answered(
    make: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may cut its power at any moment."""
    call = boot.Boot._call

    def late(self: boot.Boot) -> None:
        node.cut_power()
        while lives(self.pid):
            time.sleep(0.01)
        call(self)

    monkeypatch.setattr(boot.Boot, "_call", late)
    node = make(main=f"import machine\n{TICKER}\nwhile True: pass")
    assert node.run().names() == ["boot", "power_cut", "flash"]


def test_timer_rules(make: MakeNode) -> None:
    main = """
        import machine
        T = machine.Timer
        def say(what): return lambda t: print(what)
        T(0).init(mode=T.ONE_SHOT, period=50, callback=say('void'))
        T(0).init(mode=T.ONE_SHOT, period=4000, callback=say('second'))
        T(1).init(mode=T.ONE_SHOT, period=2000, callback=say('first'))
        T(2).init(period=1000, callback=say('gone')); T(2).deinit()
        def bad(t): raise ValueError('in a callback')
        T(3).init(mode=T.ONE_SHOT, period=3000, callback=bad)
        try: T(4)
        except ValueError as e: print(e)
    """
    run = make(main=main).run()
    assert [line for line in run.output.splitlines() if line[0] != " "] == [
        "invalid Timer number",
        "first",
        "Traceback (most recent call last):",
        "ValueError: in a callback",
        "second",
    ]
    assert run.exit_code == 0


def test_timer_feeds_the_watchdog_at_the_repl(make: MakeNode) -> None:
    main = """
        import machine
        if machine.reset_cause() == 3: machine.deepsleep(1)
        w = machine.WDT(timeout=1000)
        n = 0
        def feed(t):
            global n
            n += 1
            if n < 5: machine.WDT(timeout=1000)
        machine.Timer(0, period=700, callback=feed)
    """
    run = make(main=main + "\n").run()
    assert run.names() == ["boot", "repl", "wdt", "boot", "sleep", "flash"]


def test_idle_periodic_timer_ends(make: MakeNode) -> None:
    main = "import machine\nmachine.Timer(0, period=1000, callback=lambda t: None)"
    assert make(main=main).run().names() == ["boot", "repl", "exit", "flash"]


def test_real_time_limit(make: MakeNode) -> None:
    run = make(main="while True: pass").run(timeout_s=0.3)
    assert run.names() == ["boot", "timeout", "flash"]
    assert run.exit_code == 1


# Heap


def test_heap_option(make: MakeNode) -> None:
    code = "try: bytearray({}); print('fits')\nexcept MemoryError: print('no')"
    assert make("64K").exec(code.format(50_000)).output == "fits\n"
    assert make("64K").exec(code.format(80_000)).output == "no\n"


def test_the_simulator_takes_no_heap_of_the_application(make: MakeNode) -> None:
    code = "import gc\ngc.collect()\nprint(gc.mem_free())"
    bare = run_code(code, heap="64K").output
    node = make("64K").exec(code).output
    assert abs(int(bare) - int(node)) < 2048, (bare, node)
    assert SIM_HEAP <= 8192


# Stock modules


def test_stock_modules_appear_when_used(tmp_path: Path, make: MakeNode) -> None:
    stock = tmp_path / "stock"
    (stock / "umqtt").mkdir(parents=True)
    (stock / "umqtt/simple.py").write_text("class MQTTClient: where = 'stock'")
    image = make(x="").image
    code = """
        import os, sys, ussl, ssl
        print(ussl.wrap_socket is ssl.wrap_socket)
        import umqtt.simple
        print(umqtt.simple.MQTTClient.where)
        from umqtt.simple import MQTTClient
        from urequests import get
        import machine
        print(os.listdir('/'), sys.path, machine.Timer.PERIODIC)
    """
    run = Node(image, stock=stock).exec(textwrap.dedent(code))
    assert run.output == "True\nstock\n['x.py'] ['', '.frozen', '/lib'] 1\n"
    own = "import os\nos.mkdir('umqtt')\nwith open('umqtt/simple.py', 'w') as f:\n"
    own += " f.write('class MQTTClient: where = 7')\n"
    own += "from umqtt.simple import MQTTClient\nprint(MQTTClient.where)"
    assert Node(image, stock=stock).exec(own).output == "7\n"
    run = Node(image, stock=False).exec("os = 1\nimport umqtt.robust")
    assert run.error.startswith("ImportError")


# A keyboard

HOOKED = {
    "boot": """
        import sys
        path = sys.path[:]
        sys.path[:] = ()
        import micropython
        try:
            print('a')
            print('b')
        finally:
            print('c')
        micropython.kbd_intr(-1)
        print('d')
        micropython.kbd_intr(3)
        sys.path[:] = path
    """,
    "main": """
        import machine, lib
        print(machine.reset_cause())
        lib.write()
        machine.deepsleep(1)
    """,
    "lib": """
        'A docstring.'
        from micropython import const
        _N = const(2)
        def write():
            'And another.'
            for n in range(_N):
                with open('f', 'w') as f:
                    f.write('x')
                print(n)
    """,
}
HOOKS = 16  # of boot.py and main.py; those of lib have no numbers


@pytest.fixture
def hooked(make: MakeNode) -> Node:
    texts = {name: textwrap.dedent(text).encode() for name, text in HOOKED.items()}
    files = {name: keys.instrument(text, name != "lib") for name, text in texts.items()}
    node = make(**{name: text.decode() for name, text in files.items()})
    node.hooks = True
    return node


def test_hooks_change_nothing(hooked: Node) -> None:
    run = hooked.run()
    assert (run.output, run.hooks) == ("a\nb\nc\nd\n1\n0\n1\n", HOOKS)
    assert run.names() == ["boot", "sleep", "flash"]


def test_ctrl_c_at_every_hook(hooked: Node) -> None:
    seen = set()
    for number in range(1, HOOKS + 1):
        run = hooked.run(interrupt=(number, "ctrl_c"))
        if "interrupt" not in run.names():  # switched off there
            assert run.output.startswith("a\nb\nc\nd\n1\n0\n1\n")
            seen.add("off")
            continue
        assert run.error == "KeyboardInterrupt"
        assert run.names()[:3] == ["boot", "interrupt", "repl"]
        printed = run.output.partition("Traceback")[0]
        seen.add(printed)
        for then, cause in (("soft_reset", "soft"), ("reset", "power_on")):
            run = hooked.run(interrupt=(number, "ctrl_c"), then=then)
            assert run.output.endswith("d\n5\n0\n1\n" if cause == "soft" else "d\n1\n0\n1\n")
            assert [e["cause"] for e in run.events if e["event"] == "boot"] == ["power_on", cause]
            assert run.exit_code == 0
    everything = ["a\n", "b\n", "c\n", "d\n", "1\n", "0\n1\n"]
    places = {"".join(everything[:n]) for n in (0, 2, 3, 4, 5, 6)}
    assert seen == places | {"c\n", "a\nc\n", "off"}


def test_ctrl_c_twice(hooked: Node) -> None:
    kept = {
        hooked.run(interrupt=(n, "ctrl_c_twice")).output.partition("T")[0] for n in range(6, 9)
    }
    assert kept == {"", "a\n", "a\nb\n"}  # not even the finally runs


def test_soft_reset_at_every_hook(hooked: Node) -> None:
    for number in range(1, HOOKS + 1):
        run = hooked.run(interrupt=(number, "soft_reset"))
        assert run.names() == ["boot", "interrupt", "reset", "boot", "sleep", "flash"]
        assert run.output.endswith("a\nb\nc\nd\n5\n0\n1\n")


def test_a_key_during_an_operation(hooked: Node) -> None:
    image = hooked.image.read_bytes()
    operations = hooked.run().ops
    seen = set()
    for number in range(1, operations + 1):
        hooked.image.write_bytes(image)
        run = hooked.run(interrupt_op=(number, "ctrl_c"), then="soft_reset")
        assert run.names() == ["boot", "interrupt", "repl", "reset", "boot", "sleep", "flash"]
        seen.add(run.output.partition("Traceback")[0])
    assert seen == {"a\nb\nc\nd\n1\n", "a\nb\nc\nd\n1\n0\n"}


def test_keys_that_there_are_not(hooked: Node) -> None:
    for options in ({"interrupt": (0, "ctrl_c")}, {"interrupt_op": (1, "x")}, {"then": "shout"}):
        with pytest.raises(SimError):
            hooked.run(**options)


# Options of a run


def test_stop_and_on_event(make: MakeNode) -> None:
    seen = []
    run = make(main="import machine\nmachine.reset()").run(
        on_event=seen.append, stop=lambda e: e.get("cause") == "hard"
    )
    assert run.names() == ["boot", "reset", "boot", "stopped", "flash"]
    assert seen == run.events and run.exit_code == 0


def test_log_gets_output_as_it_comes(make: MakeNode) -> None:
    node = make(main="print('a')\nprint('ü')")
    pieces = []
    node.log = pieces.append
    assert node.run().output == "".join(pieces) == "a\nü\n"


def test_nothing_is_left_running(make: MakeNode) -> None:
    make(main="while True: pass").run(timeout_s=0.1)
    node = make(main="import machine\nmachine.reset()")
    node.run(max_boots=3)
    server = process._get_server().process.pid
    listed = subprocess.run(["ps", "-eo", "ppid"], capture_output=True, text=True, check=True)
    assert str(server) not in listed.stdout.split()
    process.close()
    assert node.run(max_boots=1).boots == 1


def test_run_code(tmp_path: Path) -> None:
    (tmp_path / "thing.py").write_text("x = 41")
    result = run_code("import thing\nprint(thing.x + 1)", path=[tmp_path])
    assert (result.output, result.exit_code, result.error) == ("42\n", 0, None)
    result = run_code("raise ValueError('no')")
    assert (result.exit_code, result.error) == (1, "ValueError: no")
    result = run_code("import os\nprint(os.getcwd())", cwd=tmp_path)
    assert result.output == f"{tmp_path}\n"
    assert "timeout" in run_code("while True: pass", timeout_s=0.2).output


def test_an_answer_that_nobody_has_read_is_not_the_next_one():
    """Ctrl-C, or a time limit, between the question and its answer."""
    assert run_code("print(1)").output == "1\n"
    server = process._get_server()

    class Interrupted(socket.socket):
        def recv(self, *_: int) -> bytes:
            raise KeyboardInterrupt

    real = server.channel
    server.channel = Interrupted(fileno=os.dup(real.fileno()))
    with pytest.raises(KeyboardInterrupt):
        run_code("print(2)")
    server.channel.close()
    server.channel = real
    assert run_code("print(3)").output == "3\n"


def test_command_line(make: MakeNode) -> None:
    program = "import sys;from host_sim.__main__ import main;sys.exit(main())"

    def command(*arguments: str) -> subprocess.CompletedProcess:
        # No stock modules in a test without network: the default is not what is tested here.
        quick = "import host_sim.node.node as n;n.Node.__init__.__kwdefaults__['stock']=False;"
        line = [sys.executable, "-c", quick + program, "node", str(node.image), *arguments]
        return subprocess.run(line, cwd=PROJECT, capture_output=True, text=True, check=False)

    main = """
        import machine
        print('hello')
        with open('x', 'w') as f: f.write('y')
        machine.reset()
    """
    node = make(main=main)
    done = command("--cut", "3", "--heap", "96K")
    assert done.returncode == 3, done.stderr
    assert done.stderr == "hello\nhello\n"
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[0] == {"event": "boot", "wake": 1, "cause": "power_on"}
    assert events[1] == {"event": "reset"}
    assert events[3] == {"event": "power_cut", "op": 3}
    assert events[-1]["event"] == "flash" and events[-1]["ops"] == 3
    assert command("--fail", "1:EIO").returncode == 1
    frozen = node.image.parent / "frozen"
    frozen.mkdir()
    (frozen / "main.py").write_text("import os\nprint(os.listdir())")
    assert command("--frozen", str(frozen)).stderr == "['main.py', 'x']\n"
    node = make(main="import machine\nmachine.deepsleep(1000)")
    done = command("--wakes", "2")
    assert done.returncode == 0
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == [
        "boot",
        "sleep",
        "boot",
        "sleep",
        "flash",
    ]


def test_another_interpreter_that_is_none_is_told(tmp_path, monkeypatch):
    for wrong in (tmp_path, tmp_path / "nothing"):
        monkeypatch.setenv("MICROPYTHON", str(wrong))
        with pytest.raises(SimError, match=r"MICROPYTHON=.*: no program that can run"):
            process.program()


def test_another_interpreter_is_started(tmp_path):
    """A shell script in its place: what starts nodes hands it their arguments."""
    other = tmp_path / "other"
    other.write_text('#!/bin/sh\necho "$0 got $*"\n')
    other.chmod(0o755)
    script = "from host_sim.node.node import run_code; print(run_code('1', heap='64K').output)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"MICROPYTHON": str(other)},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "got -X heapsize=65536 -c" in done.stdout
