"""`console --web`: the ready line, Ctrl-C, and what is refused."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner

from host_sim.console.cli import console
from tests.busy import factor

ROOT = Path(__file__).resolve().parents[2]
_COMMAND = [sys.executable, "-m", "insigh_ota", "console"]


def begin(folder: Path, *options: str) -> tuple[subprocess.Popen[str], dict]:
    """A console in a process of its own, and its ready line."""
    process = subprocess.Popen(
        [*_COMMAND, "--dir", str(folder), *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stderr
    line = process.stdout.readline()
    assert line, process.stderr.read()
    return process, json.loads(line)


def test_ctrl_c_ends_it_at_once_while_a_page_is_open(tmp_path: Path) -> None:
    process, ready = begin(tmp_path / "console", "--web", "0")
    try:
        assert "web_token" not in ready
        assert "Devices" in requests.get(ready["web"], timeout=60).text
        place = http.client.HTTPConnection(ready["web"].split("/")[2], timeout=60)
        place.request("GET", "/api/stream")
        answer = place.getresponse()
        assert answer.readline().startswith(b"event: hello")
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        took = time.monotonic() - began
    finally:
        process.kill()
        process.wait()
    assert took < 4 * factor(), took
    assert "Traceback" not in errors and "Error" not in errors, errors
    answer.read()  # the stream has ended, and is not broken
    place.close()


def test_a_token_is_printed_for_other_addresses(tmp_path: Path) -> None:
    process, ready = begin(tmp_path / "console", "--web", "0", "--web-host", "0.0.0.0")
    try:
        port = ready["web"].rstrip("/").rsplit(":", 1)[1]
        here = f"http://127.0.0.1:{port}/"
        assert "Token" in requests.get(here, timeout=60).text
        page = requests.get(here, params={"token": ready["web_token"]}, timeout=60)
        # Without a browser's memory for cookies it only leads back to the login.
        assert page.history[0].status_code == 303 and page.history[0].cookies
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert ready["web_token"] not in errors


@pytest.mark.parametrize(
    "words, line",
    [
        (["--web", "x"], "no port"),
        (["--web", "70000"], "no port"),
        (["--web-host", "0.0.0.0"], "add --web PORT"),
        (["--web-token", "a token of the test"], "add --web PORT"),
    ],
)
def test_what_does_not_go_together(tmp_path: Path, words: list[str], line: str) -> None:
    result = CliRunner().invoke(console, ["--dir", str(tmp_path), *words])
    assert result.exit_code == 2 and line in result.output


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ["--dir", str(tmp_path / "console"), "--web", str(taken.getsockname()[1])]
        done = subprocess.run(
            [*_COMMAND, *words], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 2 and not done.stdout
    last = done.stderr.splitlines()[-1]
    assert "no page on 127.0.0.1" in last and "in use" in last
    assert "Traceback" not in done.stderr
