"""Over a real mosquitto, with nodes that are played by hand: what is sent, and what is not."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from host_sim import ctrl_c
from host_sim.errors import SimError
from insigh_ota.rollout import mqtt
from insigh_ota.rollout.cli import rollout
from insigh_ota.rollout.devices import Device
from insigh_ota.rollout.records import Phase, Sign
from tests.brokers import require_mosquitto
from tests.rollout.hand import DONE, FUID, REQUEST, Hall, events, failed, hall, lasting, wait

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def no_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctrl_c, "gently", lambda end: None)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Hall]:
    require_mosquitto()
    with hall(tmp_path, 2) as found:
        yield found


class Played:
    """Plays every node in a thread: whoever is asked ends so."""

    def __init__(self, room: Hall, report: Callable[[str], str | None]) -> None:
        self._room, self._report = room, report
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.asked: list[str] = []

    def __enter__(self) -> Played:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.1):
            for one in self._room.ids:
                if one not in self.asked and self._room.retained(one) == REQUEST:
                    self.asked.append(one)
                    report = self._report(one)
                    if report is not None:
                        self._room.end(one, report)


class Process:
    """The command as a process, in which nothing is told beforehand."""

    def __init__(self, room: Hall, *more: str) -> None:
        words = [sys.executable, "-m", "insigh_ota", "rollout", *room.words(*more)]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def __enter__(self) -> subprocess.Popen:
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_all_end_well(two: Hall):
    with Played(two, lambda one: DONE) as played:
        result = two.run()
    assert result.exit_code == 0, result.output
    assert [e["event"] for e in events(result)] == ["begin", "step", "step", "done"]
    assert sorted(played.asked) == two.ids
    assert two.phase("n0") is two.phase("n1") is Phase.GOOD
    assert not any(record.session for record in two.load().records.values())
    text = two.state.read_text()
    assert "key-" not in text and two.state.stat().st_mode & 0o777 == 0o600


def test_one_failure_stops_and_nobody_else_is_asked(two: Hall):
    with Played(two, lambda one: failed("rolled back: \x1b[31m<script>\ud83d")) as played:
        result = two.run()
    assert result.exit_code == 1
    assert len(played.asked) == 1 and events(result)[-1]["failed"] == 1
    assert "rolled back" in two.load().why
    told = CliRunner().invoke(rollout, ["status", str(two.state)])
    assert "1 times: rolled back: ?[31m<script>" in told.output and "stopped" in told.output
    as_json = CliRunner().invoke(rollout, ["status", str(two.state), "--json"])
    assert json.loads(as_json.output)["failed"] == 1
    again = two.run()  # without --go-on it stays stopped
    assert again.exit_code == 1 and [e["event"] for e in events(again)] == ["stop", "stopped"]
    with Played(two, lambda one: DONE) as played:
        assert two.run("--go-on").exit_code == 0
    assert len(played.asked) == 1 and two.load().stage == "done"


def test_a_report_that_came_while_nobody_listened(two: Hall):
    with Process(two) as process:
        wait(lambda: any(map(two.retained, two.ids)))
        (first,) = filter(two.retained, two.ids)
        wait(lambda: two.phase(first) is Phase.ASKED)
        process.kill()
        process.wait()
    two.end(first, failed("rolled back: 3 boots without confirm"))
    result = two.run()
    assert result.exit_code == 1 and two.phase(first) is Phase.FAILED
    assert len(two.load().records) == 1


def test_a_request_that_was_sent_and_not_written_down(two: Hall):
    with Process(two) as process:
        wait(lambda: any(map(two.retained, two.ids)))
        (first,) = filter(two.retained, two.ids)
        wait(lambda: two.phase(first) is Phase.ASKED)
        process.kill()
        process.wait()
    # As if it had been killed between the sending and the next write.
    text = two.state.read_text()
    two.state.write_text(text.replace('["asked"', '["sending"'))
    two.end(first)
    seen: list[bytes] = []
    with two.node(first, lambda m: seen.append(m.payload)) as node:
        node.subscribe(two.console.topic(first), 1)
        with Played(two, lambda one: DONE):
            result = two.run()
    assert result.exit_code == 0 and REQUEST.encode() not in seen


def test_a_request_that_was_written_down_and_not_sent(two: Hall):
    with Process(two) as process:
        wait(lambda: any(map(two.retained, two.ids)))
        (first,) = filter(two.retained, two.ids)
        wait(lambda: two.phase(first) is Phase.ASKED)
        process.kill()
        process.wait()
    state = two.state.read_text()
    # Another session, in which nothing was ever sent.
    number = two.load().number
    two.state.write_text(state.replace('["asked"', '["due"').replace(number, number[::-1]))
    two.console.clear(first)
    with Played(two, lambda one: DONE) as played:
        result = two.run()
    assert result.exit_code == 0 and sorted(played.asked) == two.ids


def test_a_broker_that_forgot_all_is_not_asked_twice(two: Hall):
    with Process(two) as process:
        wait(lambda: any(map(two.retained, two.ids)))
        (first,) = filter(two.retained, two.ids)
        wait(lambda: two.phase(first) is Phase.ASKED)
        process.kill()
        process.wait()
    two.state.write_text(two.state.read_text().replace('["asked"', '["sending"'))
    with two.console.broker_down():
        pass
    result = two.run("--silence", "2s")
    assert result.exit_code == 1 and "fell silent" in two.load().why
    assert two.phase(first) is Phase.LOST and two.retained(first) is None


def test_somebody_elses_request_is_left_alone(two: Hall):
    other = REQUEST.replace(FUID, "other")
    for one in two.ids:
        two.console.request_raw(one, other)
    result = two.run()
    assert result.exit_code == 0 and events(result)[-1]["other"] == 2
    assert [two.retained(one) for one in two.ids] == [other, other]


def test_a_stop_withdraws_what_nobody_has_taken(tmp_path: Path):
    require_mosquitto()
    with hall(tmp_path, 4) as room:
        lines = room.csv.read_text().splitlines()
        room.csv.write_text(
            "\n".join(line.replace("esp32", f"b{n % 4}") for n, line in enumerate(lines))
        )
        with Played(room, lambda one: failed("rolled back") if one == "n2" else None):
            result = room.run()
        assert result.exit_code == 1
        assert events(result)[-1]["withdrawn"] == 3
        assert not any(map(room.retained, room.ids))


def test_a_stop_that_is_told_to_leave_them(tmp_path: Path):
    require_mosquitto()
    with hall(tmp_path, 2) as room:
        room.csv.write_text("n0,key-n0,c,a\nn1,key-n1,c,b\n")
        with Played(room, lambda one: failed("rolled back") if one == "n0" else None):
            assert room.run("--keep-requests").exit_code == 1
        assert room.retained("n1") == REQUEST
        cancelled = room.run("--cancel")
        assert cancelled.exit_code == 0 and room.retained("n1") is None
        assert room.load().stage == "cancelled"
        assert not any(record.session for record in room.load().records.values())


def test_a_node_that_committed_before_the_withdrawal(two: Hall):
    with Process(two) as process:
        wait(lambda: any(map(two.retained, two.ids)))
        (first,) = filter(two.retained, two.ids)
        wait(lambda: two.phase(first) is Phase.ASKED)
        process.kill()
        process.wait()
    two.state.write_text(two.state.read_text().replace('"running"', '"stopped"'))
    assert two.run("--cancel").exit_code == 0
    assert two.retained(first) is None


def test_wrong_credentials_of_one_device(tmp_path: Path):
    require_mosquitto()
    with hall(tmp_path, 3) as room:
        room.csv.write_text(room.csv.read_text().replace("key-n1", "wrong"))
        with Played(room, lambda one: DONE):
            result = room.run()
        assert result.exit_code == 0 and events(result)[-1]["failed"] == 1
        assert "the broker answers: Not authorized" in room.load().records["n1"].text


@pytest.mark.parametrize(("reports", "end"), [(True, "lost"), (False, "silent")])
def test_a_device_that_the_broker_refuses_from_now_on(tmp_path: Path, reports: bool, end: str):
    require_mosquitto()
    with (
        hall(tmp_path, 1) as room,
        Process(
            room, "--settle", lasting(4), "--silence", lasting(4), "--look-every", "1s"
        ) as process,
    ):
        wait(lambda: room.retained("n0"))
        if reports:
            room.end("n0")
            wait(lambda: room.phase("n0") is Phase.INSTALLED)
        room.console.add_device("n0", "another key", "c")
        out, _ = process.communicate(timeout=100)
        assert json.loads(out.splitlines()[-1])[end] == 1
        assert room.load().records["n0"].session is reports  # kept for --go-on


def test_a_node_that_sends_a_lot_takes_little_memory(two: Hall, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mqtt, "_MOST_MESSAGES", 5)
    host, _, port = two.broker.partition(":")
    device = Device("n0", "key-n0", "c")
    with (
        mqtt.Connection(mqtt.Broker(host, int(port)), device, "ro1n0") as connection,
        two.node("n0") as node,
    ):
        connection.subscribe()
        for payload in (bytes(1 << 20), *[b"x"] * 9):
            node.publish(device.topic("stat"), payload)
        assert connection.listen(FUID, 1.0) == []
        kept = [message.payload for message in connection._messages]
        assert len(kept) == 5 and max(map(len, kept)) < 100
        # The end of it is heard all the same, in this visit or the next one.
        connection.acknowledge()
        node.publish(device.topic("ota"), DONE.encode())
        assert connection.listen(FUID, 1.0) == [(Sign.APPLIED, "")]


def test_a_full_disk_behind_stdout_ends_no_rollout(two: Hall):
    with Played(two, lambda one: DONE), open("/dev/full", "w") as full:  # noqa: PTH123
        command = [sys.executable, "-m", "insigh_ota", "rollout", *two.words()]
        subprocess.run(command, stdout=full, stderr=subprocess.DEVNULL, timeout=60, check=False)
    assert two.load().stage == "done"


def test_installed_and_rolled_back_behind_it(two: Hall):
    def play(one: str) -> str:
        two.end(one, DONE)
        return failed("rolled back: 24 wakes without confirm")

    with Played(two, play):
        result = two.run("--settle", "20s")
    assert result.exit_code == 1 and events(result)[-1]["failed"] == 1


def test_the_request_of_a_node_that_broke_is_withdrawn(two: Hall):
    """With stat it is known to have begun; its request is still there."""

    def play(one: str) -> None:
        begun = REQUEST.encode()
        with two.node(one) as node:
            node.publish(two.console.topic(one, "stat"), begun)

    with Played(two, play) as played:
        result = two.run("--silence", lasting(2))
    assert result.exit_code == 1 and events(result)[-1]["lost"] == 1
    assert two.retained(played.asked[0]) is None


def test_silent_nodes_are_looked_at_and_left(two: Hall):
    with Played(two, lambda one: DONE if one == "n0" else None):
        result = two.run("--silence", lasting(2))
    assert result.exit_code == 0
    assert events(result)[-1]["silent"] == 1 and two.retained("n1") == REQUEST


def test_the_broker_goes_and_comes(two: Hall):
    with Process(two) as process:
        wait(lambda: any(map(two.retained, two.ids)))
        (first,) = filter(two.retained, two.ids)
        assert process.stdout is not None
        lines = iter(process.stdout.readline, b"")
        with two.console.broker_down():
            assert any(b'"away"' in line for line in lines)
        assert any(b'"back"' in line for line in lines)
        two.end(first)
        with Played(two, lambda one: DONE):
            assert process.wait(60) == 0
    assert two.load().away > 0


def test_tls(tmp_path: Path):
    require_mosquitto()
    with hall(tmp_path, 2) as room:
        ca = str(room.console.ca_pem)
        words = [word for word in room.words("--ca", ca) if word != "--plain"]
        words[words.index("--broker") + 1] = f"localhost:{room.console.ports.mqtts}"
        room.words = lambda *more: [*words, *more]  # type: ignore[method-assign]
        with Played(room, lambda one: DONE):
            assert room.run().exit_code == 0


# -- what is to be mended first ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("--broker", "127.0.0.1:1"), "no broker at 127.0.0.1:1: .*refused; nothing was sent"),
        (("--broker", "localhost:port"), "write HOST or HOST:PORT"),
        (("--fuid", "a/b"), "1 to 64 letters"),
        (("--devices", "none.csv"), "can not be read"),
        (("--file", "none.tar"), "can not be read"),
        (("--state", "none/state.json"), "none is no folder: make it first"),
        (("--go-on",), "nothing to go on with"),
        (("--go-on", "--cancel"), "not both"),
    ],
)
def test_one_line_and_nothing_is_sent(two: Hall, change: tuple[str, ...], says: str):
    result = two.run(*change)
    assert isinstance(result.exception, SimError)
    with pytest.raises(SimError, match=says):
        raise result.exception
    assert not two.state.exists() or not two.load().records


def test_a_board_for_each_device_is_a_mistake(two: Hall):
    """All of them would be asked in the first step."""
    two.csv.write_text("".join(f"n{n},key-n{n},c,serial{n}\n" for n in range(30)))
    result = two.run()
    assert "30 different boards among 30 devices" in str(result.exception)
    assert not two.state.exists() and not any(map(two.retained, two.ids))


def test_another_rollouts_state(two: Hall):
    with Played(two, lambda one: DONE):
        assert two.run().exit_code == 0
    for change, says in (
        (("--fuid", "other"), f"belongs to the package {FUID}"),
        (("--size", "6"), f"belongs to the package {FUID} of 5 bytes"),
        (("--seed", "other"), "another seed"),
        (("--broker", f"localhost:{two.console.ports.mqtt}"), "another broker"),
    ):
        assert says in str(two.run(*change).exception)
    two.csv.write_text("n0,key-n0,c,esp32\n")
    assert "other devices" in str(two.run().exception)


def test_two_at_once(two: Hall):
    with Process(two):
        wait(lambda: two.state.exists())
        assert "another rollout is at work" in str(two.run().exception)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"rollout": 1}', "null", "\x00" * 99])
def test_a_damaged_state_file(two: Hall, text: str):
    two.state.write_text(text)
    assert "is damaged" in str(two.run().exception)
    assert two.state.read_text() == text


def test_ctrl_c_is_one_line(two: Hall):
    import signal

    with Process(two) as process:
        wait(lambda: any(map(two.retained, two.ids)))
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=100)
    assert process.returncode == ctrl_c.EXIT_CODE
    assert b"Traceback" not in error and b'"running"' in out
    assert any(map(two.retained, two.ids))
