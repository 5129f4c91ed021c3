"""`insigh-ota`: its help, errors, JSON and completion; and the older names of its commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import click
import pytest

from host_sim import command
from host_sim.board.board import Board
from host_sim.cli import simulator
from host_sim.command import NO_SIMULATOR, Output
from host_sim.node import flash
from host_sim.node.node import run_code
from insigh_ota import agent_config, places
from insigh_ota.commands import PROGRAM, insigh_ota, main
from insigh_ota.deploy.cli import boards
from insigh_ota.deploy.status import _config
from tests.command_lines import parse

ROOT = Path(__file__).parents[2]
NAMES = list(insigh_ota.entries)
#: What takes its time to import.
HEAVY = {"rich", "cryptography", "littlefs", "mpremote", "amqtt", "paho", "starlette", "serial"}


def run(*words: object, env: dict[str, str] | None = None, cwd: Path = ROOT, given: str = ""):
    """`insigh-ota` as a process."""
    return subprocess.run(
        [sys.executable, "-m", "insigh_ota", *map(str, words)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | (env or {}),
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )


def find(group: command.Lazy, name: str) -> click.Command:
    found = group.get_command(click.Context(group), name)
    assert found is not None
    return found


@pytest.mark.check
def test_version_and_help(capsys: pytest.CaptureFixture):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"insigh-ota {places.version()}\n"
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    for name, entry in insigh_ota.entries.items():
        assert f"  {name} " in told
        assert entry.help in " ".join(told.split())
    for title in ("Look:", "Packages:", "Boards:", "Virtual nodes:"):
        assert f"\n{title}\n" in told
    assert main([]) == 2  # the help, on stderr
    assert "Boards:" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_a_help(name: str, capsys: pytest.CaptureFixture):
    for option in ("--help", "-h"):
        assert main([name, option]) == 0
        assert capsys.readouterr().out.startswith(f"Usage: insigh-ota {name} ")


@pytest.mark.parametrize("name", NAMES)
def test_each_command_is_defined_once(name: str):
    """Whatever it is called by, it is the same object."""
    for group in (simulator, boards):
        if name in group.entries:
            assert find(group, name) is find(insigh_ota, name)


@pytest.mark.parametrize("name", simulator.entries)
def test_every_campaign_loads(name: str):
    assert find(simulator, name).name in (name, "flash-group", "flash")


@pytest.mark.parametrize(
    "words",
    [["--version"], ["--help"], ["nope"], ["package", "--help"], ["completion", "bash"]],
)
def test_what_is_quick_imports_little(words: list[str]):
    """So it takes no half of a second, on any machine."""
    code = "import sys\nfrom insigh_ota.commands import main\nmain(sys.argv[1:])\n"
    code += "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("words", "count", "says"),
    [
        (["nope"], 0, "no such command 'nope'"),
        (["deploy", "--prot", "x"], 1, "no such option '--prot'"),
        (["deploy", "--boot", "x"], 1, "'x' is not one of 'keep', 'replace'"),
        (["deploy", "--port"], 1, "option '--port' requires an argument"),
        (["romfs", "--json=3"], 1, "option '--json' does not take a value"),
        (["flash", "build"], 2, "missing option '--out'"),
        (["flash", "build", "--out", "a", "--blocks", "x"], 2, "'x' is not a valid integer"),
        (["package", "inspect"], 2, "missing argument 'FILE'"),
        (["package", "build", "--out"], 2, "option '--out' requires an argument"),
        (["package", "build", "", "--out", "a.tar"], 2, "no name given"),
        (
            ["package", "build", "a", "--out", "a.tar", "--key", "k", "--sign-command", "c"],
            2,
            "one of",
        ),
        (["console", "device", "add", "--file"], 3, "option '--file' requires an argument"),
        (["ca", "--host", "a", "--file", "b"], 1, "give one of them"),
        (["powercut", "--depth", "4"], 1, "'4' is not one of '1', '2', '3'"),
        (["completion", "tcsh"], 1, "is not one of 'bash', 'zsh', 'fish'"),
    ],
)
def test_wrong_usage(words: list[str], count: int, says: str, capsys: pytest.CaptureFixture):
    """One line, which names the command (so many of the words) and where its help is."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    place = " ".join(["insigh-ota", *words[:count]])
    assert re.fullmatch(rf"{place}: [^\n]+(; s| S)ee {place} --help\n", err)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["package", "inspect", "none.tar"], "inspect: none.tar can not be read: "),
        (["node", "no\nne.img"], "node: no flash image no\nne.img: "),
        (["deploy", "--port", "/dev/none"], "deploy: /dev/none is no port"),
        (["ca"], "ca: which trust anchor? Say --host"),
        (["console", "status", "x"], "console: --dir DIR is missing"),
    ],
)
def test_expected_errors(
    words: list[str],
    line: str,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert (out, err.startswith(line)) == ("", True), err


@pytest.mark.parametrize("name", ["demo", "flash", "node", "board", "powercut"])
def test_without_the_simulator(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.delenv("MICROPYTHON", raising=False)
    monkeypatch.setattr(command, "_SIMULATOR", ("no_such_module", "littlefs"))
    assert main([name, "--help"]) == 2
    assert capsys.readouterr() == ("", f"{name}: {NO_SIMULATOR}\n")


def test_what_needs_no_simulator(tmp_path: Path):
    """Packaging and deploying, where none of its modules can be imported."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app/main.py").write_text("print(1)\n")
    code = "import sys\nfor name in ('littlefs', 'micropython_run', 'pypi_simple'):\n"
    code += " sys.modules[name] = None\nfrom insigh_ota.commands import main\n"
    code += "import importlib.util as u\nreal = u.find_spec\n"
    code += "u.find_spec = lambda n, p=None: real(n, p) if n != 'micropython_run' else None\n"
    code += "sys.exit(main(sys.argv[1:]))"

    def insigh(*words: str, code_: int = 0, given: str = "") -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code_, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    build = ("package", "build", "app", "--out", "p.tar.gz")
    assert "1 files" in insigh(*build, "--compile", "*.py", "--minify", "*")
    assert "main.py" in insigh("package", "inspect", "p.tar.gz")
    assert f"--try {NO_SIMULATOR}" in insigh(*build, "--try", "x.img", code_=2)
    (tmp_path / "app/bad.py").write_text("def (")
    assert "bad.py does not compile" in insigh(*build, code_=2)
    who = ("provision", "--id", "a", "--channel", "b")
    assert "is written" in insigh(*who, given="key\n")
    assert "not written: server is not host" in insigh(*who, "--server", "a b", code_=2)
    assert "deploy: /dev/none is no port" in insigh("deploy", "--port", "/dev/none", code_=2)
    assert "agent 0." in insigh("romfs")


CONFIGS = [
    {},
    [],
    None,
    "x",
    {"device_id": "a"},
    {"device_id": "a", "device_key": "k", "control_channel": "c"},
    {"device_id": "a/b", "device_key": "k", "control_channel": "c"},
    {"device_id": "ä", "device_key": "k", "control_channel": "c", "server": "h:0"},
    {"device_id": "a", "device_key": "k", "control_channel": "c", "server": "[::1]:1"},
    {"device_id": "a", "device_key": "k", "control_channel": "c", "mqtt": []},
    {"device_id": "a", "device_key": "k", "control_channel": "c", "mqtt": {"tls": False}},
    {"device_id": "a", "device_key": "k", "control_channel": "c", "mqtt": {"port": True}},
    {"device_id": "a", "device_key": "k", "control_channel": "c", "mqtt": {"prot": 1}},
    {"device_id": "a", "device_key": "k", "control_channel": "c", "ca": ["/a", "b"]},
    {"device_id": "a", "device_key": "k", "control_channel": "c", "trial_boots": 0},
    {"device_id": "a", "device_key": "k" * 200, "control_channel": "c"},
    {"device_id": "a", "device_key": "k", "control_channel": "c", "require_signature": True},
    {"device_id": 1, "device_key": "k", "control_channel": "c"},
]


def test_a_configuration_is_judged_as_on_a_node():
    """Python runs the agent's own check, and comes to what MicroPython comes to."""
    code = f"""
import json
from ota.config import complete
for text in {[json.dumps(each) for each in CONFIGS]!r}:
    try:
        print(json.dumps(complete(json.loads(text))))
    except Exception as error:
        print(error)
"""
    told = run_code(code, path=[places.FIRMWARE]).output.splitlines()
    assert len(told) == len(CONFIGS)
    for given, said in zip(CONFIGS, told, strict=True):
        try:
            assert agent_config.complete(given) == json.loads(said)
        except agent_config.ConfigError as error:
            assert said == f"bad configuration: {error}"
    assert "micropython" not in sys.modules
    with pytest.raises(agent_config.ConfigError, match="not JSON"):
        agent_config.parse(b"[" * 100_000)


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_of_packages(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a pp").mkdir()
    name = "ü [red]<script>.txt"
    (tmp_path / "a pp" / name).write_text("x")
    (tmp_path / "a pp/main.py").write_text("print(1)\n")

    def told(*words: str) -> dict:
        assert main([*words, "--json"]) == 0
        out, err = capsys.readouterr()
        assert err
        (found,) = lines(out)
        return found

    key = told("package", "keygen", "k")
    assert Path(key["secret"]).is_file()
    sign = ("--key", "k.pem", "--sequence", "3")
    made = told("package", "build", "a pp", "--out", "p.tar.gz", "--since", "a pp", *sign)
    assert made["bytes"] == Path("p.tar.gz").stat().st_size
    assert (made["files"], made["key"], made["tried"]) == (2, key["key"], None)
    assert made["releases"] == [{"release": "a pp", "files": 0, "bytes": made["bytes"]}]
    found = told("package", "inspect", "p.tar.gz")
    assert {each["path"] for each in found["files"]} == {name, "main.py"}
    assert (found["sequence"], found["signed"], found["key"]) == (3, True, key["key"])
    good = told("package", "verify", "p.tar.gz", "--key", "k.pub")
    assert good == {"good": True, "sequence": 3, "key": key["key"], "files": 2}


@pytest.mark.slow
def test_json_of_a_board(tmp_path: Path, capsys: pytest.CaptureFixture):
    config = {"device_id": "a", "device_key": "k", "control_channel": "c", "server": "h"}
    (tmp_path / "who.json").write_text(json.dumps(config))
    with Board(tmp_path / "board.img", blocks=256) as board:

        def told(*words: str) -> dict:
            assert main([*words, "--port", board.port, "--json"]) == 0
            (found,) = lines(capsys.readouterr().out)
            return found

        assert told("status")["agent"] is None
        done = told("deploy", "--provision", str(tmp_path / "who.json"))
        assert (done["agent"], done["anchored"]) == (places.version(), False)
        assert done["copied"] > 30
        found = told("status")
    assert (found["agent"], found["boot"]) == (places.version(), "ours")
    assert (found["server"], found["mqtt"]["tls"]) == ("h", True)
    assert found["update"]["state"] == "idle"
    listed = tmp_path / "board.img"
    assert main(["flash", "ls", str(listed), "--json"]) == 0
    paths = {each["path"]: each["bytes"] for each in lines(capsys.readouterr().out)}
    assert paths["/boot.py"] == (places.FIRMWARE / "boot.py").stat().st_size
    assert paths == dict(flash.listing(listed))


def test_what_is_data_is_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture):
    """What a board or a person has named is shown as it is."""
    out = tmp_path / "[red]a[" / "b].romfs"
    out.parent.mkdir()
    assert main(["romfs", "--out", str(out)]) == 0
    assert f"{out}: " in capsys.readouterr().out
    said = "bad configuration: unknown key [/]"
    Output(False).terminal.print(_config(mock.Mock(), said))
    assert said in capsys.readouterr().out


def completed(*words: str) -> list[str]:
    """What bash would be offered for the last word."""
    env = {
        "_INSIGH_OTA_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join([PROGRAM, *words]),
        "COMP_CWORD": str(len(words)),
    }
    done = run(env=env)
    assert (done.returncode, done.stderr) == (0, "")
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


@pytest.mark.check
def test_completion():
    assert completed("pa") == ["package"]
    assert set(completed("")) == set(insigh_ota.entries)
    assert completed("package", "i") == ["inspect"]
    assert set(completed("deploy", "--bo")) == {"--boot"}
    assert completed("deploy", "--boot", "") == ["keep", "replace"]
    assert completed("completion", "z") == ["zsh"]


def test_the_script_of_completion():
    told = {shell: run("completion", shell) for shell in ("bash", "zsh", "fish")}
    for shell, done in told.items():
        assert (done.returncode, done.stderr) == (0, ""), shell
        assert f"_INSIGH_OTA_COMPLETE={shell}_complete" in done.stdout
    script = told["bash"].stdout + "\ncomplete -p insigh-ota\n"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert "insigh-ota" in done.stdout


def test_a_reader_that_goes_away():
    process = subprocess.Popen(
        [sys.executable, "-m", "insigh_ota", "--help"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1


_CHILD = """
import os, subprocess, sys
from host_sim import ctrl_c
child = "import os; print(os.open('opened', os.O_CREAT | os.O_RDWR) > 2, file=open('found', 'w'))"
sys.exit(ctrl_c.run(lambda: subprocess.call([sys.executable, "-c", child])))
"""


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams(tmp_path: Path, closed: str):
    """As a service starts it: no file of the command, or of its child, gets their numbers."""
    environ = os.environ | {"PYTHONPATH": str(ROOT)}

    def run(*words: object) -> subprocess.CompletedProcess:
        line = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, *words]
        done = subprocess.run(line, cwd=tmp_path, env=environ, capture_output=True, text=True)
        assert done.returncode == 0
        assert "Traceback" not in done.stderr
        return done

    done = run("-m", "insigh_ota", "package", "keygen", "key", "--json")
    assert "PRIVATE KEY" in (tmp_path / "key.pem").read_text()
    assert bool(done.stdout) == (closed in ("2>&-", "<&-"))
    run("-c", _CHILD)
    assert (tmp_path / "found").read_text() == "True\n"


def test_any_folder(tmp_path: Path):
    """The usual files are those of the folder that one is in."""
    done = run("provision", "--id", "a", "--channel", "b", cwd=tmp_path, given="key\n")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "provision.json").read_text())["device_id"] == "a"
    done = run("provision", cwd=tmp_path / ".")
    assert (done.returncode, done.stderr) == (0, "")  # keeps what is there


def test_where_caches_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "base"))
    assert places.cache("x") == Path(sys.prefix) / "x"
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert places.cache("x").is_relative_to(tmp_path)
    assert places.cache("x").name == "x"


@pytest.mark.parametrize("name", NAMES)
def test_options_can_be_parsed_without_running(name: str):
    """`tests.command_lines.parse`, with which pages are checked, runs nothing."""
    with pytest.raises((click.UsageError, click.exceptions.Exit)):
        parse(insigh_ota, [name, "--help"])
