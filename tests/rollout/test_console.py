"""On the simulated console: the same rollout by way of its control port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from host_sim import ctrl_c
from host_sim.console.control import ControlServer
from insigh_ota.rollout.cli import rollout
from insigh_ota.rollout.records import Phase
from tests.brokers import require_mosquitto
from tests.rollout.hand import Hall, events, hall
from tests.rollout.test_mqtt import Played

pytestmark = pytest.mark.timeout(120)


class Room(Hall):
    """As over MQTT, with `--dir`."""

    def run(self, *more: str) -> Result:
        words = ["--dir", str(self.console.directory), "--state", str(self.state), "--json"]
        words += ["--look-every", "0.1s", "--settle", "0s", *more]
        return CliRunner().invoke(rollout, words)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    require_mosquitto()
    monkeypatch.setattr(ctrl_c, "gently", lambda end: None)
    with hall(tmp_path, 4) as found:
        found.__class__ = Room
        assert isinstance(found, Room)
        package = found.folder / "package.tar"
        package.write_bytes(b"12345")
        found.console.add_package(package, fuid="fa8884d2")
        with ControlServer(found.console):
            yield found


def done(one: str) -> str:
    return '[{"n":"e","v":1},{"n":"i","vs":"fa8884d2"}]'


def test_all_end_well(room: Room):
    with Played(room, done) as played:
        result = room.run("--fuid", "fa8884d2")
    assert result.exit_code == 0, result.output
    assert events(result)[-1]["good"] == 4 and sorted(played.asked) == room.ids


def test_a_failure_stops_and_withdraws(room: Room):
    boards = room.folder / "boards.csv"
    boards.write_text("id,board\nn0,a\nn1,b\nn2,a\nn3,b\n")

    bad = done("").replace("1}", '2},{"n":"m","vs":"rolled back: x"}')
    with Played(room, lambda one: bad if one in ("n0", "n2") else None):
        result = room.run("--fuid", "fa8884d2", "--devices", str(boards))
    assert result.exit_code == 1 and "rolled back: x" in room.load().why
    assert not any(map(room.retained, room.ids))
    assert Phase.FAILED in (room.phase("n0"), room.phase("n2"))


def test_the_file_is_added_once(room: Room):
    file = str(room.folder / "package.tar")
    before = len(room.console.packages())
    with Played(room, lambda one: None):
        first = room.run("--file", file, "--silence", "1s")
    assert first.exit_code == 1  # nobody answered
    assert len(room.console.packages()) == before + 1
    again = room.run("--file", file)
    assert again.exit_code == 1 and len(room.console.packages()) == before + 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--fuid", "00000000"), "has no package"),
        ((), "say --fuid"),
        (("--fuid", "fa8884d2", "--broker", "x"), "say --broker HOST"),
    ],
)
def test_one_line(room: Room, words: tuple[str, ...], says: str):
    assert says in str(room.run(*words).exception)
    assert not room.state.exists()


def test_a_console_that_is_not_there(room: Room, tmp_path: Path):
    result = CliRunner().invoke(
        rollout, ["--dir", str(tmp_path / "none"), "--state", str(room.state), "--fuid", "x"]
    )
    assert "no console is running" in str(result.exception)
