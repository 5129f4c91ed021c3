"""The board: unmodified mpremote works on the virtual node, which lives like a real one."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import json
import math
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mpremote.transport_serial import SerialTransport

from host_sim import files
from host_sim.board import Board
from host_sim.board.wire import MOST_PENDING
from host_sim.errors import SimError
from host_sim.node import flash
from insigh_ota.deploy import remote
from insigh_ota.deploy.errors import DeployError
from tests.busy import factor
from tests.ports import Line, mpremote
from tests.processes import descendants, lives

PROJECT = Path(__file__).parents[2]
MakeBoard = Callable[..., Board]
BLOCKS = 64


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeBoard]:
    boards: list[Board] = []

    def make_board(image: Path | None = None, **options: object) -> Board:
        """A running board; without `image`, of the files given: ``main="…"`` is /main.py."""
        files = {name: options.pop(name) for name in ("boot", "main") if name in options}
        if image is None:
            image = tmp_path / f"flash{len(boards)}.img"
            root = tmp_path / f"root{len(boards)}"
            root.mkdir()
            for name, text in files.items():
                (root / f"{name}.py").write_text(textwrap.dedent(str(text)))
            if files:
                flash.build(root, image, blocks=BLOCKS, agent=False)
        board = Board(image, blocks=BLOCKS, **options)
        boards.append(board)
        return board.__enter__()

    yield make_board
    for board in boards:
        board.__exit__()


def causes(board: Board) -> list[object]:
    """Why it has booted so far."""
    return [event["cause"] for event in board.events if event["event"] == "boot"]


def at_prompt(board: Board) -> bool:
    return board.events[-1:] == [{"event": "repl"}]


def asleep(board: Board, ms: int | None = 3_600_000) -> bool:
    return board.events[-1:] == [{"event": "sleep", "ms": ms}]


def wait_for(condition: Callable[[], object], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# What mpremote does


@pytest.mark.slow
def test_files(make: MakeBoard, tmp_path: Path) -> None:
    port = make().port
    content = bytes(range(256)) * 20
    (tmp_path / "x").write_bytes(content)
    output = mpremote(
        port, "mkdir", "d", "+", "cp", str(tmp_path / "x"), ":d/x", "+", "sha256sum", "d/x",
        "+", "ls", "d", "+", "cp", ":d/x", str(tmp_path / "back"), "+", "df",
    )  # fmt: skip
    assert hashlib.sha256(content).hexdigest() in output
    assert "5120 x" in output
    assert re.search(rf"VfsLfs2> +{BLOCKS * 4096} ", output)
    assert (tmp_path / "back").read_bytes() == content
    mpremote(port, "rm", "d/x", "+", "rmdir", "d")
    assert mpremote(port, "ls").split() == ["ls", ":", "139", "boot.py"]
    assert mpremote(port, "cat", "boot.py").startswith("# This file is executed on every boot")
    assert "No such file" in mpremote(port, "cat", "none", ok=False)


def test_recursive_copies(make: MakeBoard, tmp_path: Path) -> None:
    board = make()
    sources = {"a.py": b"1\n", "sub/b.py": b"# x\n" * 300, "sub/deep/c": bytes(range(256))}
    for name, content in sources.items():
        (tmp_path / "pkg" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pkg" / name).write_bytes(content)
    mpremote(board.port, "cp", "-r", str(tmp_path / "pkg"), ":")
    tree = flash.read_tree(board.image)
    assert {name[5:]: tree[name] for name in tree if name[:5] == "/pkg/"} == sources
    (tmp_path / "back").mkdir()
    mpremote(board.port, "cp", "-r", ":pkg", str(tmp_path / "back"), "+", "rm", "-r", "pkg")
    for name, content in sources.items():
        assert (tmp_path / "back/pkg" / name).read_bytes() == content
    assert list(flash.read_tree(board.image)) == ["/boot.py"]


def test_programs(make: MakeBoard, tmp_path: Path) -> None:
    port = make().port
    assert mpremote(port, "exec", "print('Ω', 6 * 7)") == "Ω 42\n"
    assert mpremote(port, "eval", "1 + 1") == "2\n"
    assert "ZeroDivisionError" in mpremote(port, "exec", "1/0", ok=False)
    (tmp_path / "p.py").write_text("import sys\nprint(sys.path, sys.argv)\n" + "#" * 20_000)
    assert mpremote(port, "run", str(tmp_path / "p.py")) == "['', '.frozen', '/lib'] []\n"
    long = mpremote(port, "exec", "for i in range(4000): print('%05d' % i)")
    assert long.split() == [f"{i:05}" for i in range(4000)]


def test_resume_keeps_what_a_soft_reset_forgets(make: MakeBoard) -> None:
    board = make()
    mpremote(board.port, "exec", "x = 1")
    assert mpremote(board.port, "resume", "exec", "print(x)") == "1\n"
    assert "NameError" in mpremote(board.port, "exec", "print(x)", ok=False)
    assert causes(board) == ["power_on", "soft", "soft"]


def test_raw_paste(make: MakeBoard) -> None:
    transport = SerialTransport(make().port, timeout=1)
    transport.enter_raw_repl()
    assert transport.exec("print(1)") == b"1\r\n"
    assert transport.use_raw_paste  # mpremote switches it off when the board refuses
    transport.close()


def test_mip_installs_from_an_index(make: MakeBoard, tmp_path: Path) -> None:
    web, content = tmp_path / "web", b"x = 5\n"
    name = hashlib.sha256(content).hexdigest()[:8]
    index = {f"package/{kind}/thing/latest.json" for kind in ("6", "py")}
    files = {path: json.dumps({"version": "1", "hashes": [["p/m.py", name]]}) for path in index}
    for path, text in (files | {f"file/{name[:2]}/{name}": content.decode()}).items():
        (web / path).parent.mkdir(parents=True, exist_ok=True)
        (web / path).write_text(text)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(web))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        board = make()
        assert "Done" in mpremote(board.port, "mip", "install", "--index", url, "thing")
        assert "Exists: /lib/p/m.py" in mpremote(
            board.port, "mip", "install", "--index", url, "thing"
        )
        server.shutdown()
    assert mpremote(board.port, "exec", "import p.m; print(p.m.x)") == "5\n"
    assert flash.read_tree(board.image)["/lib/p/m.py"] == content


def test_the_repl_of_mpremote(make: MakeBoard) -> None:
    """A person at `mpremote repl`: Ctrl-C, Ctrl-D, paste mode, and out."""
    board = make()
    ours, theirs = pty.openpty()
    person = subprocess.Popen(
        [sys.executable, "-m", "mpremote", "connect", board.port, "repl"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)

    def see(end: str) -> str:
        text = ""
        while end not in text:
            text += os.read(ours, 4096).decode()
        return text

    see("exit this shell")
    os.write(ours, b"\r")
    see(">>> ")
    # Ctrl-C comes when the loop runs, Ctrl-D when the prompt is back: a busy machine is late.
    os.write(ours, b"for i in range(2**30): i or print('lo' + 'op')\r\r")
    see("loop")
    os.write(ours, b"\x03")
    see("KeyboardInterrupt")
    os.write(ours, b"\x05")
    see("paste mode")
    os.write(ours, b"def f():\r    return 6 * 7\r\rprint('f', f())\r\x04")
    if ">>> " not in see("f 42").rpartition("f 42")[2]:
        see(">>> ")
    os.write(ours, b"\x04")
    assert 'Type "help()"' in see(">>> ")
    os.write(ours, b"f\r")
    see("NameError")
    os.write(ours, b"\x1d")
    assert person.wait(60) == 0
    os.close(ours)
    assert causes(board) == ["power_on", "soft"]


# How a board boots


def test_output_of_boot_and_main_on_the_wire(make: MakeBoard) -> None:
    board = make(boot="print('boot\\n.')", main="print('main')\nx = 3")
    wait_for(lambda: at_prompt(board))
    with Line(board.port) as line:
        line.type("\r\x04")
        seen = line.until('Type "help()" for more information.\r\n>>> ')
        assert "MPY: soft reboot\r\nboot\r\n.\r\nmain\r\nMicroPython " in seen
        line.type("x\r")
        assert line.until(">>> ") == "x\r\n3\r\n>>> "


def test_what_stops_main(make: MakeBoard) -> None:
    """A boot.py that raises, and a soft reset out of the raw REPL."""
    board = make(boot="print('boot')", main="print('main')")
    wait_for(lambda: at_prompt(board))
    with Line(board.port) as line:
        line.type("\r\x01")
        line.until("raw REPL; CTRL-B to exit\r\n>")
        line.type("\x04")
        seen = line.until("raw REPL; CTRL-B to exit\r\n>")
        assert seen == "OK\r\nMPY: soft reboot\r\nboot\r\nraw REPL; CTRL-B to exit\r\n>"
        line.type("import machine; machine.soft_reset()\x04")
        assert "boot\r\nraw REPL" in line.until("CTRL-B to exit\r\n>")
        line.type("f = open('boot.py', 'w'); f.write('1/0'); f.close()\x04\x02")
        line.until("\r\n>>> ")
        line.type("\x04")
        seen = line.until(">>> ")
    assert "ZeroDivisionError" in seen
    assert "main" not in seen


def test_main_that_raises_leaves_the_repl(make: MakeBoard) -> None:
    board = make(main="import machine\nprint(machine.reset_cause())\n1/0")
    wait_for(lambda: at_prompt(board))
    with Line(board.port) as line:
        line.type("import machine; machine.reset()\r")
        seen = line.until("2\r\nTraceback")
        line.until("ZeroDivisionError")
        line.until(">>> ")
    assert "MPY: soft reboot" not in seen
    assert causes(board) == ["power_on", "hard"]


def test_ctrl_c_stops_main(make: MakeBoard) -> None:
    board = make(main="print('begin')\nwhile True: pass")
    with Line(board.port) as line:
        line.type("\x03")
        assert "KeyboardInterrupt" in line.until(">>> ")
    assert mpremote(board.port, "exec", "print(1)") == "1\n"


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("raise SystemExit", "soft"),
        ("machine.reset()", "hard"),
        ("machine.WDT(timeout=50)\n while True: pass", "wdt"),
        ("machine.deepsleep(10)", "deepsleep"),
    ],
)
def test_reset_causes(make: MakeBoard, code: str, cause: str) -> None:
    main = f"""\
import machine
with open("causes", "a") as f: f.write(str(machine.reset_cause()))
if machine.reset_cause() == machine.PWRON_RESET:
 {code}
"""
    board = make(main=main)
    numbers = {"soft": "5", "hard": "2", "wdt": "3", "deepsleep": "4"}
    wait_for(lambda: causes(board) == ["power_on", cause])
    assert mpremote(board.port, "resume", "cat", "causes") == "1" + numbers[cause]


def test_mpremote_reset_is_a_hard_one(make: MakeBoard) -> None:
    board = make(main="import machine\nmachine.RTC().memory(b'kept')")
    mpremote(board.port, "reset")
    wait_for(lambda: causes(board) == ["power_on", "soft", "hard"])
    code = "import machine; print(machine.reset_cause(), machine.RTC().memory())"
    assert mpremote(board.port, "resume", "exec", code) == "2 b'kept'\n"
    assert mpremote(board.port, "soft-reset", "resume", "exec", code) == "5 b'kept'\n"


def test_timers_fire_at_the_prompt(make: MakeBoard) -> None:
    board = make()
    code = "import machine; machine.Timer(0, mode=0, period=200, callback=lambda t: %s)"
    with Line(board.port) as line:
        line.type(code % "print('tick', 7)" + "\r")
        line.until("tick 7")
        line.type(code % "machine.reset()" + "\r")
        wait_for(lambda: causes(board) == ["power_on", "hard"])


# Deep sleep

SLEEPER = """
import machine, os
print('awake', machine.reset_cause())
machine.deepsleep({ms})
"""


def test_deep_sleep_is_silent_and_ends_in_time(make: MakeBoard) -> None:
    times: dict[str, float] = {}  # of the last of each event
    board = make(
        main=SLEEPER.format(ms=700),
        report=lambda event: times.update({str(event["event"]): time.monotonic()}),
    )
    wait_for(lambda: times.get("boot", 0) > times.get("sleep", math.inf))
    assert 0.6 < times["boot"] - times["sleep"] < 3 * factor()
    assert causes(board) == ["power_on", "deepsleep"]


def test_somebody_at_the_port_wakes_it(make: MakeBoard) -> None:
    board = make(main=SLEEPER.format(ms=3_600_000))
    wait_for(lambda: asleep(board))
    with Line(board.port) as line:
        line.until("awake 1\r\n")  # as by the reset button
        wait_for(lambda: asleep(board))
        line.type("x")
        assert line.quiet(0.2) == ""
        line.type("\x03")
        assert "KeyboardInterrupt" in line.until(">>> ")  # woken, and held back from sleep
    assert causes(board) == ["power_on"] * 3


def test_mpremote_reaches_a_sleeping_board(make: MakeBoard) -> None:
    board = make(main=SLEEPER.format(ms=""))
    wait_for(lambda: asleep(board, None))
    assert mpremote(board.port, "ls").split()[-1] == "main.py"


def test_fast_boards_do_not_wait(make: MakeBoard) -> None:
    board = make(main=SLEEPER.format(ms=3_600_000), fast=True)
    wait_for(lambda: len(causes(board)) > 3)
    assert set(causes(board)[1:]) == {"deepsleep"}


# Flash


@contextlib.contextmanager
def program(*arguments: object) -> Iterator[subprocess.Popen]:
    """``python -m host_sim board …``; it is dead afterwards."""
    with subprocess.Popen(
        [sys.executable, "-m", "host_sim", "board", *map(str, arguments)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_flash_outlives_the_process(tmp_path: Path) -> None:
    """Ended the hard way, a board loses nothing that littlefs had synced."""
    image, link = tmp_path / "flash.img", tmp_path / "port"
    with program(image, "--blocks", 32, "--link", link) as board:
        ready = json.loads(board.stdout.readline())
        assert ready == {"event": "ready", "port": os.path.realpath(link), "new": True}
        code = "f = open('kept', 'w'); f.write('x' * 9000); f.close(); print(1)"
        mpremote(ready["port"], "exec", code)
        board.kill()
    with program(image, "--link", link) as board:
        assert json.loads(board.stdout.readline())["new"] is False
        assert mpremote(str(link), "cat", "kept") == "x" * 9000
        with pytest.raises(SimError, match="a node that runs already"):
            Board(image)
        board.send_signal(signal.SIGTERM)
        assert board.wait(60) == 0
        assert json.loads(board.stdout.read().splitlines()[-1])["event"] == "flash"
        assert not link.is_symlink()


def test_a_flash_is_of_one_node_at_a_time(tmp_path: Path) -> None:
    """Whoever comes second is told so, by whatever name; the first one goes on."""
    (tmp_path / "root").mkdir()
    image = tmp_path / "a b.img"
    flash.build(tmp_path / "root", image, blocks=BLOCKS, agent=False)
    (tmp_path / "link.img").symlink_to(image)
    before = image.stat().st_ino
    with Board(image, blocks=BLOCKS):
        for name in ("a b.img", "link.img"):
            for words in ("node", "board", "flash build --no-agent --root root --out"):
                done = subprocess.run(
                    [sys.executable, "-m", "host_sim", *words.split(), name],
                    cwd=tmp_path,
                    env=os.environ | {"PYTHONPATH": str(PROJECT)},
                    capture_output=True,
                    text=True,
                    timeout=60,
                    check=False,
                )
                assert (done.returncode, done.stdout) == (2, ""), (words, done)
                assert re.fullmatch(
                    rf".*{name} is the flash of a node that runs already: .*\n", done.stderr
                )
        assert image.stat().st_ino == before
    flash.build(tmp_path / "root", image, blocks=BLOCKS, agent=False)
    with flash.claimed(image), pytest.raises(SimError, match="a node that runs already"):
        Board(image)


def test_a_second_board_does_not_take_the_port_of_the_first(tmp_path: Path) -> None:
    link, second = tmp_path / "port", tmp_path / "2.img"
    with Board(tmp_path / "1.img", blocks=32, link=link) as board:
        with pytest.raises(SimError, match="port of a board that runs already: end that"):
            Board(second, blocks=32, link=link)
        assert not second.exists()  # else the next one would not take it for new
        assert os.path.realpath(link) == board.port
    assert not link.is_symlink()
    (tmp_path / "kept").write_bytes(b"mine")
    (tmp_path / "modem").symlink_to("/dev/ttyUSB0")  # not plugged in
    (tmp_path / "null").symlink_to("/dev/null")
    before = sorted(tmp_path.iterdir())
    for given, words in (
        ("kept", "is there already, and no board's"),
        ("modem", "is there already, and no board's"),
        ("null", "is there already, and no board's"),
        ("none/x", "can not be made: .*none is no folder"),
        ("kept/x", "can not be made: .*kept is no folder"),
        ("/", "is a folder: name a file in it"),
    ):
        with pytest.raises(SimError, match=words):
            Board(second, link=tmp_path / given)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "kept").read_bytes() == b"mine"
    assert str((tmp_path / "modem").readlink()) == "/dev/ttyUSB0"


@pytest.fixture
def terminal() -> Iterator[str]:
    """The name of a terminal that another program has."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    yield os.ttyname(theirs)
    os.set_blocking(ours, False)
    with contextlib.suppress(BlockingIOError):
        assert not os.read(ours, 100)  # nobody has typed at it
    os.close(ours)
    os.close(theirs)


def test_a_killed_board_leaves_nothing_that_stops_the_next(tmp_path: Path) -> None:
    """Not a node either that goes on and writes."""
    image, link = tmp_path / "1.img", tmp_path / "port"
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "main.py").write_text(
        "while True:\n f = open('/n', 'w')\n f.write('x' * 5000)\n f.close()"
    )
    flash.build(tmp_path / "root", image, blocks=BLOCKS, agent=False)
    with program(image, "--link", link) as board:
        port = json.loads(board.stdout.readline())["port"]
        wait_for(lambda: b"x" * 100 in image.read_bytes())  # main.py runs
        nodes = descendants(board.pid)
        board.kill()
    assert nodes
    wait_for(lambda: not any(map(lives, nodes)))  # a busy node would go on for ever
    assert str(link.readlink()) == port
    with program(image, "--link", link) as board:
        assert json.loads(board.stdout.readline())["new"] is False
        board.terminate()
        assert board.wait(60) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.img", "root"]


def test_another_program_has_the_terminal_of_a_killed_board(tmp_path: Path, terminal: str) -> None:
    """Its link is the next board's, and nobody types at that program."""
    image, link = tmp_path / "1.img", tmp_path / "port"
    for left in ("/dev/pts/none", terminal):
        link.symlink_to(left)
        (tmp_path / "port.lock").touch()
        with pytest.raises(DeployError, match="is what a killed board has left"):
            remote.Board(str(link))
        with Board(image, blocks=32, link=link) as board:
            assert os.path.realpath(link) == board.port
            assert remote.Board(str(link)).port == board.port
        assert [path.name for path in tmp_path.iterdir()] == ["1.img"]


def test_an_image_without_a_file_system_yet_is_new(tmp_path: Path) -> None:
    """Ctrl-C before the first boot leaves it; else no board would ever start on it."""
    image = tmp_path / "1.img"
    image.write_bytes(b"\xff" * 32 * flash.BLOCK)
    with Board(image) as board:
        assert board.fresh
        wait_for(lambda: at_prompt(board))
    assert list(flash.read_tree(image)) == ["/boot.py"]  # as on a new board


def test_a_link_to_a_terminal_that_is_no_boards(tmp_path: Path, terminal: str) -> None:
    image, link = tmp_path / "1.img", tmp_path / "port"
    link.symlink_to(terminal)
    with pytest.raises(SimError, match=r"is there already, and no board's: .*, or remove it"):
        Board(image, blocks=32, link=link)
    assert remote.Board(str(link)).port == str(link.readlink()) == terminal
    assert [path.name for path in tmp_path.iterdir()] == ["port"]


def test_a_lock_that_somebody_removed(tmp_path: Path) -> None:
    """The lock that is there next is another's, and stays."""
    path, lock = tmp_path / "a", tmp_path / "a.lock"
    with files.locked(path, "taken"):
        lock.unlink()
        with files.locked(path, "taken"):
            kept = contextlib.ExitStack()
            lock.unlink()
            kept.enter_context(files.locked(path, "taken"))
        with pytest.raises(SimError, match="taken"), files.locked(path, "taken"):
            pass
    assert lock.exists()
    kept.close()
    assert not lock.exists()
    lock.write_text("somebody's, of the same name")
    with files.locked(path, "taken"):
        pass
    assert lock.read_text() == "somebody's, of the same name"


def test_ctrl_c_never_breaks_a_write(make: MakeBoard) -> None:
    board = make()
    program = textwrap.dedent(
        """
        import os
        while True:
            with open('/a~', 'w') as f:
                for i in range(20): f.write('x' * 100)
            os.rename('/a~', '/a')
        """
    )
    transport = SerialTransport(board.port, timeout=1)
    transport.enter_raw_repl(soft_reset=False)
    # On a busy machine none of the others may come to its end.
    transport.exec(program.replace("while True", "for _ in range(1)"))
    for i in range(30):
        transport.exec_raw_no_follow(program)
        time.sleep(0.01 + i / 2000)
        transport.serial.write(b"\x03")
        assert b"KeyboardInterrupt" in transport.follow(60)[1]
    assert transport.exec("print(sorted(os.listdir('/'))[0])") == b"a\r\n"
    transport.close()
    assert flash.read_tree(board.image)["/a"] == b"x" * 2000
    assert causes(board) == ["power_on"]


def test_power_fails_at_an_operation(make: MakeBoard, tmp_path: Path) -> None:
    board = make()
    mpremote(board.port, "exec", "f = open('a', 'w'); f.write('1' * 5000); f.close()")
    board.__exit__()
    board = make(board.image, cut=20, torn="half")
    code = "while True:\n f = open('a', 'w')\n f.write('2' * 5000)\n f.close()"
    with Line(board.port) as line:
        line.type(f"\x01{code}\x04")
        wait_for(lambda: board.exit_code is not None)
    assert (board.exit_code, board.events[-1]) == (3, {"event": "power_cut", "op": 20})
    assert set(flash.read_tree(board.image)["/a"]) <= set(b"12")


@pytest.mark.slow
def test_fat(make: MakeBoard, tmp_path: Path) -> None:
    board = make(fat=True)
    (tmp_path / "x").write_bytes(b"y" * 10_000)
    mpremote(board.port, "cp", str(tmp_path / "x"), ":x")
    assert "VfsFat" in mpremote(board.port, "df")
    board.__exit__()
    assert mpremote(make(board.image, fat=True).port, "cat", "x") == "y" * 10_000


def test_a_flash_of_another_kind_is_one_clear_line(make: MakeBoard, tmp_path: Path) -> None:
    fat = make(fat=True)
    wait_for(lambda: at_prompt(fat))
    fat.__exit__()
    with pytest.raises(SimError, match=r"does not mount as littlefs: try with --fat$"):
        Board(fat.image).serve()
    (tmp_path / "odd").write_bytes(b"x" * 100)
    with pytest.raises(SimError, match="not whole blocks"):
        Board(tmp_path / "odd")


# What else is there


def test_the_network_is_the_hosts(make: MakeBoard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"""
import socket
from umqtt.simple import MQTTClient
s = socket.socket()
s.connect(socket.getaddrinfo('127.0.0.1', {server.getsockname()[1]})[0][-1])
s.write(b'hello')
"""
        mpremote(make().port, "exec", code)
        assert server.accept()[0].recv(5) == b"hello"


def test_a_small_heap(make: MakeBoard) -> None:
    board = make(heap="48K")
    assert mpremote(board.port, "exec", "print(len(bytearray(20_000)))") == "20000\n"
    assert "MemoryError" in mpremote(board.port, "exec", "bytearray(60_000)", ok=False)


def test_output_waits_for_a_slow_reader(make: MakeBoard) -> None:
    board = make()
    with Line(board.port) as line:
        line.type("for i in range(30000): print('%06d' % i)\r\r")
        wait_for(lambda: board.wire.full)
        time.sleep(0.5)
        assert len(board.wire.pending) < 2 * MOST_PENDING  # the node waits
        seen = line.until("029999\r\n")
    numbers = re.findall(r"^\d{6}", seen, re.MULTILINE)
    assert numbers == [f"{i:06}" for i in range(30_000)]
