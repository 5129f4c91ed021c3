"""The console's command line: lists, requests to many, waiting, cancelling, tables of devices."""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from host_sim.console import Console, Device
from host_sim.console.cli import console as console_group
from host_sim.console.control import ControlServer
from host_sim.console.mqtt_client import MqttClient
from host_sim.console.registry import Registry
from host_sim.errors import SimError
from tests.busy import factor
from tests.host_sim.test_files import full

ROOT = Path(__file__).resolve().parents[2]
KEY, CHANNEL = "key", "channel"
FUID, OTHER = "00000001", "00000002"

Run = Callable[..., list[str]]


def cli_run(words: list[str]) -> int:
    """The command line in this process; raises SimError."""
    try:
        code = console_group.main(words, prog_name="console", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return code if isinstance(code, int) else 0


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    with Console(tmp_path / "console") as console, ControlServer(console):
        console.add_devices([(device, KEY, CHANNEL) for device in ("a", "b", "c")])
        console.add_package(bytes(1000), "x.tar", fuid=FUID)
        console.add_package(bytes(2000), "y y.tar.gz", fuid=OTHER)
        yield console


@pytest.fixture
def run(console: Console, capsys: pytest.CaptureFixture[str]) -> Run:
    """One command; the lines that it printed."""

    def run(*words: str, code: int = 0, errors: bool = False) -> list[str]:
        capsys.readouterr()
        assert cli_run(["--dir", str(console.directory), *words]) == code
        said = capsys.readouterr()
        return (said.err if errors else said.out).splitlines()

    return run


def report(console: Console, device: str, e: int, m: str | None = None, fuid: str = FUID) -> None:
    pack: list[dict] = [{"n": "e", "v": e}, {"n": "i", "vs": fuid}]
    pack += [{"n": "m", "vs": m}] if m is not None else []
    with MqttClient("127.0.0.1", console.ports.mqtt, device, KEY) as node:
        node.publish(console.topic(device), b"", retain=True)
        node.publish(console.topic(device), json.dumps(pack).encode())


def when_asked(console: Console, *ends: tuple[str, int, str | None]) -> threading.Thread:
    """Once all are asked each of these reports."""

    def answer() -> None:
        ids = {device for device, _, _ in ends}
        asked = lambda: all(console.view(i).state == "requested" for i in ids)  # noqa: E731
        assert console.wait_for(asked, 60)
        for end in ends:
            report(console, *end)

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def test_list(console: Console, run: Run) -> None:
    console.request("b", FUID)
    report(console, "b", 2, "\x1b[2Jnot enough space\n")
    console.reports("b")
    console.request("c", FUID)
    head, *rows = run("list")
    assert head.split()[:4] == ["ID", "STATE", "FOR", "PACKAGE"]
    assert head.split()[4:] == ["RUNS", "HEARD", "ATTEMPTS", "MESSAGE"]
    assert [row.split()[:2] for row in rows] == [
        ["a", "idle"],
        ["b", "failed"],
        ["c", "requested"],
    ]
    assert rows[1].endswith("\\x1b[2Jnot enough space\\n")
    assert len({row.index(FUID) for row in rows[1:]} | {head.index("PACKAGE")}) == 1
    views = [json.loads(line) for line in run("list", "--json")]
    assert [(v["id"], v["state"]) for v in views] == [
        ("a", "idle"), ("b", "failed"), ("c", "requested"),
    ]  # fmt: skip
    (row,) = run("list", "--state", "requested", "--json")
    assert json.loads(row)["id"] == "c"


def test_status_in_words(console: Console, run: Run) -> None:
    assert "  heard     never" in run("status", "a", "--words")
    console.request("a", FUID)
    report(console, "a", 2, "\x9b2J\u202e")
    lines = run("status", "a", "--words")
    assert lines[0] == "a"
    assert lines[1] == "  state     failed: \\x9b2J\\u202e"
    assert lines[-1].endswith(f" failed {FUID} \\x9b2J\\u202e")
    (line,) = run("status", "a")
    assert line.isprintable()
    status = json.loads(line)
    assert status["reports"] == [{"e": 2, "i": FUID, "m": "\x9b2J\u202e"}]
    assert (status["retained"], status["state"]) == (None, "failed")


def test_half_a_character_does_not_break_the_line(console: Console, run: Run) -> None:
    report(console, "a", 2, "\ud800")
    console.reports("a")
    for words in (["status", "a"], ["status", "a", "--words"], ["list"], ["list", "--json"]):
        assert all(line.isprintable() for line in run(*words))


def test_request_some_or_all(console: Console, run: Run) -> None:
    message = [console.request_payload(FUID)]
    assert run("request", "a", "b", "a", FUID) == message
    assert [view.state for view in console.views()] == ["requested", "requested", "idle"]
    assert run("request", "--all", OTHER) == [console.request_payload(OTHER)]
    assert {view.fuid for view in console.views()} == {OTHER}
    (line,) = run("cancel", "a", "b")
    assert json.loads(line) == {"cancelled": ["a", "b"], "not_asked": []}
    (line,) = run("cancel", "--all")
    assert json.loads(line) == {"cancelled": ["c"], "not_asked": []}
    (line,) = run("cancel", "c")
    assert json.loads(line) == {"cancelled": [], "not_asked": ["c"]}
    assert [console.retained(device) for device in "abc"] == [None] * 3


@pytest.mark.parametrize(
    "words",
    [
        ("request", FUID),
        ("request", "--all", "a", FUID),
        ("request", "--all"),
        ("request", "a", FUID, "--timeout", "1"),
        ("request", "a", FUID, "--wait", "--timeout", "x"),
        ("cancel",),
        ("cancel", "--all", "a"),
        ("device", "add", "x", KEY),
        ("device", "add"),
        ("device", "add", "x", KEY, CHANNEL, "--file", "x.csv"),
        ("device", "remove"),
        ("list", "--state", "nonsense"),
        ("nonsense",),
    ],
)
def test_what_makes_no_sense(console: Console, run: Run, words: tuple[str, ...]) -> None:
    said = run(*words, code=2, errors=True)
    assert said[-1].startswith("Error: ")
    assert {view.state for view in console.views()} == {"idle"}


def test_wait_until_all_have_it(console: Console, run: Run) -> None:
    nodes = when_asked(console, ("a", 1, None), ("b", 1, None))
    message, *lines = run("request", "a", "b", FUID, "--wait", "--timeout", "20")
    nodes.join()
    assert message == console.request_payload(FUID)
    assert [line.split("  ", 1)[1] for line in lines if line.split()[2] == "a"][-1] == (
        "a  installed on trial"
    )
    assert {line.split()[2] for line in lines} == {"a", "b"}


def test_wait_when_one_fails(console: Console, run: Run) -> None:
    nodes = when_asked(console, ("a", 1, None), ("b", 2, "no\n"), ("c", 2, "rolled back: damaged"))
    lines = run("request", "--all", FUID, "--wait", "--json", code=1)[1:]
    nodes.join()
    last = {view["id"]: view for view in map(json.loads, lines)}
    assert {i: view["state"] for i, view in last.items()} == {
        "a": "installed on trial", "b": "failed", "c": "rolled back",
    }  # fmt: skip
    assert last["b"]["message"] == "no\\n"
    assert all(abs(view["time"] - time.time()) < 60 for view in last.values())


def test_wait_until_the_time_is_over(console: Console, run: Run) -> None:
    nodes = when_asked(console, ("a", 1, None))
    limit = f"{2 * factor():.1f}"
    said = run("request", "a", "b", FUID, "--wait", "--timeout", limit, code=3, errors=True)
    nodes.join()
    assert said == ["1 succeeded, 0 failed, 1 have not ended"]
    begin = time.monotonic()
    run("request", "b", FUID, "--wait", "--timeout", "0", code=3)
    assert time.monotonic() - begin < 2 * factor()


def test_waiting_ends_when_somebody_else_decides(console: Console, run: Run) -> None:
    def decide() -> None:
        asked = lambda: all(view.state == "requested" for view in console.views())  # noqa: E731
        assert console.wait_for(asked, 60)
        console.cancel(["a"])
        console.request("b", OTHER)
        console.remove_devices(["c"])

    thread = threading.Thread(target=decide)
    thread.start()
    lines = run("request", "--all", FUID, "--wait", "--timeout", "30", code=1)[1:]
    thread.join()
    last = {line.split("  ")[1]: line.split("  ")[2:] for line in lines}
    assert last["a"] == ["idle", "cancelled"]
    assert last["b"] == ["requested", f"asked for {OTHER} meanwhile"]
    assert last["c"] in (["failed", "removed"], ["idle", "cancelled"])  # one after the other


def test_what_was_before_does_not_count(console: Console, run: Run) -> None:
    """The same package once more: its first end is not the second one's."""
    report(console, "a", 1)
    console.reports("a")
    assert console.view("a").state == "installed on trial"
    run("request", "a", FUID, "--wait", "--timeout", "0.3", code=3)


def test_devices(console: Console, run: Run, tmp_path: Path) -> None:
    assert run("device", "add", "d", KEY, CHANNEL, "--board", "esp32 s3") == []
    assert run("device", "list") == [
        "ID  CHANNEL  BOARD",
        "a   channel  -",
        "b   channel  -",
        "c   channel  -",
        "d   channel  esp32 s3",
    ]
    devices = [json.loads(line) for line in run("device", "list", "--json")]
    assert devices[3] == {"id": "d", "channel": CHANNEL, "board": "esp32 s3"}
    assert run("device", "remove", "a", "d", "a") == []
    assert [device.device_id for device in console.devices()] == ["b", "c"]
    with pytest.raises(SimError, match="'x' is not known"):
        run("device", "remove", "b", "x")


def test_packages(console: Console, run: Run, tmp_path: Path) -> None:
    head, *rows = run("package", "list")
    assert head.split() == ["FUID", "SIZE", "ADDED", "NAME"]
    assert [row.split()[:2] for row in rows] == [[FUID, "1000"], [OTHER, "2000"]]
    assert rows[1].endswith("y y.tar.gz")
    packages = [json.loads(line) for line in run("package", "list", "--json")]
    assert packages[1].pop("added") == pytest.approx(time.time(), abs=60)
    assert packages[1] == {"fuid": OTHER, "name": "y y.tar.gz", "type": ".tar.gz", "size": 2000}
    assert run("package", "remove", FUID) == []
    with pytest.raises(SimError, match="is not known"):
        run("package", "remove", FUID)


@pytest.mark.parametrize(
    "text",
    [
        "id,key,channel\nx,k 1,ch\ny,k2,ch\n",
        "\ufeffx,k 1,ch\r\n\r\ny,k2,ch",
        'Board,Channel,ID,more,Key\n,ch,x,,k 1\n,"ch",y,,"k2"\n',
        "device_id,key,channel\nx,k 1,ch\ny,k2,ch\n",
        "x,k 1,ch,\ny,k2,ch,\n",
    ],
)
def test_a_table_of_devices(console: Console, run: Run, tmp_path: Path, text: str) -> None:
    table = tmp_path / "my <devices>.csv"
    table.write_text(text, encoding="utf-8")
    (line,) = run("device", "add", "--file", str(table))
    assert json.loads(line) == {"devices": 2}
    devices = {d.device_id: (d.key, d.channel, d.board) for d in console.devices()}
    assert (devices["x"], devices["y"]) == (("k 1", "ch", None), ("k2", "ch", None))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "there is no device in it"),
        ("id,key,channel\n", "there is no device in it"),
        ("x,k,ch\nx,k,ch\n", "line 2: device 'x' stands in line 1 already"),
        ("x,k,ch\na b,k,ch\n", "line 2: device id 'a b': must be"),
        ("x,k,ch\ny,k\n", "line 2: must be id,key,channel"),
        ("x,,ch\n", "line 1: device key: must be"),
        ('x,"k,ch\n', "line 1: unexpected end of data"),
        ("id,device_key,channel\nx,k,ch\n", "line 1: no column key in its first line"),
        ("id,key,control_channel\nx,k,ch\n", "line 1: no column channel in its"),
        ("device_id,id,key,channel\nx,7,k,ch\n", "line 1: both id and device_id name a column"),
        ("board,id\n,x\n", "line 1: no column key, channel in its"),
        ("x" * 1025 + ",k,ch\n", "line 1: device id .*: it is longer than 1024 bytes"),
        ("x,k," + "c" * 70_000, "line 1: control channel .*: it is longer than 1024 bytes"),
        ("x," + "k" * 1025 + ",ch\n", "line 1: device key: must be printable text of 1 to 1024"),
        ("x,k,ch\na,another,ch\n", "'a' is there already, with another key or channel"),
        (b"\xff\xfe\x00", "is no text in UTF-8"),
        (None, "No such file"),
    ],
)
def test_a_table_that_is_none(
    console: Console, run: Run, tmp_path: Path, text: str | bytes | None, told: str
) -> None:
    table = tmp_path / "devices.csv"
    if text is not None:
        table.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(SimError, match=told):
        run("device", "add", "--file", str(table))
    assert [device.device_id for device in console.devices()] == ["a", "b", "c"]


def test_ctrl_c_while_it_waits(console: Console) -> None:
    words = ["--dir", str(console.directory), "request", "a", FUID, "--wait"]
    code = (
        "import sys; from host_sim import ctrl_c; from host_sim.command import run; "
        "from host_sim.console.cli import console; "
        "sys.exit(ctrl_c.run(lambda: run(console, program='console')))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert console.wait_for(lambda: console.view("a").state == "requested", 60)
        assert process.stdout is not None
        assert process.stdout.readline() and "requested" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, said) == (130, "stopped\n")


def test_who_goes_away_before_the_answer(
    console: Console, capfd: pytest.CaptureFixture[str]
) -> None:
    address = json.loads((console.directory / "control.json").read_text())
    message = {"token": address["token"], "operation": "views", "arguments": []}
    message["arguments"] = [console.last_event, 0.5]
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", address["port"])) as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            link.sendall(json.dumps(message).encode() + b"\n")
    time.sleep(1)
    assert capfd.readouterr().err == ""


def test_the_console_ends_while_it_is_waited_for(tmp_path: Path) -> None:
    errors: list[SimError] = []

    def wait() -> None:
        try:
            cli_run(["--dir", str(tmp_path), "request", "a", FUID, "--wait"])
        except SimError as error:
            errors.append(error)

    with Console(tmp_path) as console, ControlServer(console):
        console.add_device("a", KEY, CHANNEL)
        console.add_package(bytes(10), "x.tar", fuid=FUID)
        thread = threading.Thread(target=wait)
        thread.start()
        assert console.wait_for(lambda: console.view("a").state == "requested", 60)
    thread.join(60)
    assert len(errors) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no console is running in"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "no console is running in"),
        (b"\xff\xfe\n", "no console is running in"),
        (b"[1]\n", "no console is running in"),
        (b"{}\n", "no console is running in"),
        (b'{"error": 7}\n', "no console is running in"),
        (b'{"id": null, "result": null, "error": [1]}\n', "no console is running in"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "no console is running in"),
        (b"[" * 100_000 + b"\n", "no console is running in"),
        (b"", "broke off: no whole answer"),
        (b'{"result": 1', "broke off: no whole answer"),
    ],
)
def test_a_killed_consoles_port_belongs_to_another_program(
    tmp_path: Path, answer: bytes, words: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def other() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=other, daemon=True)
        thread.start()
        address = {"port": server.getsockname()[1], "token": "left"}
        (tmp_path / "control.json").write_text(json.dumps(address))
        with pytest.raises(SimError, match=words):
            cli_run(["--dir", str(tmp_path), "list"])
        thread.join(10)


@pytest.mark.parametrize(
    "left",
    [
        "",
        "[]",
        "{}",
        '{"port": 70000, "token": ""}',
        '{"port": [], "token": ""}',
        "[" * 100_000,
    ],
    ids=str,
)
def test_a_consoles_address_that_is_none(tmp_path: Path, left: str) -> None:
    (tmp_path / "control.json").write_text(left)
    with pytest.raises(SimError, match="no console is running in"):
        cli_run(["--dir", str(tmp_path), "list"])


def test_where_its_address_can_not_be_written_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "control.json").mkdir()
    with (
        Console(tmp_path) as console,
        pytest.raises(SimError, match=r"control\.json can not be written"),
        ControlServer(console),
    ):
        pass
    # One that goes on would keep the process from its end.
    assert "console-control" not in [thread.name for thread in threading.enumerate()]


# -- the registry on disk ------------------------------------------------------------------------


def test_many_devices_one_by_one_write_little(tmp_path: Path) -> None:
    written = 0
    registry = Registry(tmp_path)
    before = -1
    for number in range(2000):
        registry.add_device(f"d{number:04}", KEY, CHANNEL)
        stat = (tmp_path / "state.json").stat()
        if stat.st_ino != before:
            before, written = stat.st_ino, written + stat.st_size
    whole = (tmp_path / "state.json").stat().st_size
    assert written < 12 * whole
    registry.remove_devices(["d0000"])
    again = Registry(tmp_path)
    assert {d.device_id for d in again.devices()} == {f"d{n:04}" for n in range(1, 2000)}
    for file in ("state.json", "state.log"):
        assert (tmp_path / file).stat().st_mode & 0o777 == 0o600


def test_a_crash_while_the_log_is_written(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.add_devices([Device(f"d{number}", KEY, CHANNEL) for number in range(100)])
    registry.add_device("late", KEY, CHANNEL)
    registry.add_device("later", KEY, CHANNEL)
    log = tmp_path / "state.log"
    whole = log.read_bytes()
    for length in range(len(whole)):
        log.write_bytes(whole[:length])
        known = {device.device_id for device in Registry(tmp_path).devices()}
        assert len(known) == 100 + max(0, whole[:length].count(b"\n") - 1)
    # Cut off, then gone on with.
    log.write_bytes(whole[:-5])
    registry = Registry(tmp_path)
    registry.add_device("new", KEY, CHANNEL)
    assert {"late", "new"} < {device.device_id for device in Registry(tmp_path).devices()}
    log.write_text("nonsense\n")
    with pytest.raises(SimError, match="damaged"):
        Registry(tmp_path)


def test_a_crash_between_a_new_state_and_the_end_of_its_log(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.add_devices([Device(f"d{number}", KEY, CHANNEL) for number in range(100)])
    registry.add_device("d1", "old key", CHANNEL)
    registry.remove_devices(["d2"])
    log = (tmp_path / "state.log").read_bytes()
    registry.add_devices([Device(f"d{number}", "new key", CHANNEL) for number in range(100)])
    (tmp_path / "state.log").write_bytes(log)
    assert Registry(tmp_path).device("d2").key == Registry(tmp_path).device("d1").key == "new key"
    registry = Registry(tmp_path)
    registry.add_device("new", KEY, CHANNEL)
    assert len(Registry(tmp_path).devices()) == 101


def test_a_full_disk_behind_the_log(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.add_devices([Device(f"d{number}", KEY, CHANNEL) for number in range(100)])
    registry.add_device("late", KEY, CHANNEL)
    before = (tmp_path / "state.log").read_bytes()
    with full(), pytest.raises(SimError, match=r"state\.log can not be written: File too large"):
        registry.add_device("x" * 200, KEY, CHANNEL)
    assert (tmp_path / "state.log").read_bytes() == before
    assert len(registry.devices()) == len(Registry(tmp_path).devices()) == 101
