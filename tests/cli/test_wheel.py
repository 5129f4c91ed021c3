"""The wheel: what is in it; and the command that it brings, in an empty virtual environment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from insigh_ota import places

ROOT = Path(__file__).parents[2]
NO_SIMULATOR = f"{places.NO_SIMULATOR}\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `pip install .` builds it, of an sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = folder.glob("*.whl")
    return found


def test_what_is_in_it(wheel: Path):
    assert wheel.name == f"insigh_ota-{places.version()}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
        metadata = content.read(f"insigh_ota-{places.version()}.dist-info/METADATA").decode()
    assert {name.partition("/")[0] for name in names} == {
        "host_sim",
        "insigh_ota",
        f"insigh_ota-{places.version()}.dist-info",
    }
    for folder, data in (("firmware", "firmware"), ("insighio/node", "insighio/node")):
        ours = {
            path.relative_to(ROOT / folder).as_posix()
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        place = f"insigh_ota/data/{data}/"
        assert {name.removeprefix(place) for name in names if name.startswith(place)} == ours
    for package in ("host_sim", "insigh_ota"):
        sources = {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / package).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert sources <= names
    needs = [line for line in metadata.splitlines() if line.startswith("Requires-Dist: ")]
    interpreter = [line for line in needs if "micropython" in line]
    assert len(interpreter) == 1
    assert "extra == 'sim'" in interpreter[0]


class Installed:
    """An environment of its own, and commands in another folder."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "venv/bin"
        self.folder = folder / "some where"
        self.folder.mkdir()
        venv.create(folder / "venv", with_pip=True)
        # Neither this checkout, nor the simulator of this environment.
        unwanted = ("PYTHONPATH", "MICROPYTHON", "VIRTUAL_ENV")
        self.env = {k: v for k, v in os.environ.items() if k not in unwanted}

    def pip(self, what: str) -> None:
        subprocess.run([self.bin / "pip", "install", "-q", what], env=self.env, check=True)

    def run(self, *words: str, code: int = 0, given: str = "") -> tuple[str, str]:
        done = subprocess.run(
            [self.bin / "insigh-ota", *words],
            cwd=self.folder,
            env=self.env,
            input=given,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout, done.stderr


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    found = Installed(tmp_path_factory.mktemp("installed"))
    found.pip(str(wheel))
    yield found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_without_the_simulator(installed: Installed):
    """Packaging, deploying and the console."""
    folder = installed.folder
    assert installed.run("--version") == (f"insigh-ota {places.version()}\n", "")
    assert "Boards:" in installed.run("--help")[0]
    for words in (["demo"], ["node", "a.img"], ["board", "a.img"], ["powercut"], ["flash", "ls"]):
        assert installed.run(*words, code=2) == ("", f"{words[0]}: {NO_SIMULATOR}")
    (folder / "app").mkdir()
    (folder / "app/main.py").write_text("print(1)\n")
    build = ("package", "build", "app", "--out", "p.tar.gz")
    assert installed.run(*build, "--try", "a.img", code=2)[1] == f"build: --try {NO_SIMULATOR}"
    installed.run("package", "keygen", "k")
    steps = ("--compile", "*.py", "--minify", "*", "--since", "app")
    installed.run(*build, "--key", "k.pem", "--sequence", "1", *steps)
    (told,) = installed.run("package", "inspect", "p.tar.gz", "--json")[0].splitlines()
    assert [each["path"] for each in json.loads(told)["files"]] == ["main.py"]
    installed.run("package", "verify", "p.tar.gz", "--key", "k.pub")
    installed.run("provision", "--id", "a", "--channel", "c", given="key\n")
    for command in ("deploy", "status", "undeploy"):
        told = installed.run(command, "--port", "/dev/none", code=2)[1]
        assert told.startswith(f"{command}: /dev/none is no port")
    # As far as one comes without a board: the image has the compiled agent.
    assert "agent 0." in installed.run("romfs", "--out", "ota.romfs")[0]
    assert "run it there" in installed.run("dist", code=2)[1]
    _console(installed)


def _console(installed: Installed) -> None:
    """It starts, stores a package, and publishes the request for it."""
    console = subprocess.Popen(
        [installed.bin / "insigh-ota", "console", "--dir", "platform"],
        cwd=installed.folder,
        env=installed.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert console.stdout
        assert json.loads(console.stdout.readline())["event"] == "ready"
        installed.run("console", "--dir", "platform", "device", "add", "a", "key", "c")
        added = installed.run("console", "--dir", "platform", "package", "add", "p.tar.gz")[0]
        fuid = json.loads(added)["fuid"]
        installed.run("console", "--dir", "platform", "request", "a", fuid)
        status = installed.run("console", "--dir", "platform", "status", "a")[0]
        assert fuid in status
    finally:
        console.send_signal(signal.SIGINT)
        assert console.wait(60) == 130


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_with_the_simulator(installed: Installed, wheel: Path):
    """Behind the test above, in the same environment."""
    installed.pip(f"{wheel}[sim]")
    root = installed.folder / "node"
    root.mkdir()
    (root / "main.py").write_text("import ota, machine\nprint(ota.__version__)\n")
    made = installed.run("flash", "build", "--root", "node", "--out", "n.img", "--mpy")[0]
    assert json.loads(made)["files"] > 30
    out, err = installed.run("node", "n.img")
    assert places.version() in err
    assert json.loads(out.splitlines()[0])["event"] == "boot"
    told = installed.run("package", "build", "node", "--out", "p.tar.gz", "--try", "n.img")[0]
    assert "tried on a virtual node" in told
    assert "version 2 runs" in installed.run("demo")[0]
