"""A real nginx for tests, with a certificate of the console's authority; ended by its id."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from host_sim.console.process_broker import reserved

_SBIN = ("/usr/sbin", "/usr/local/sbin")
_CONFIG = """\
daemon off;
worker_processes 1;
{user}
pid {folder}/pid;
error_log {folder}/errors crit;
events {{}}
http {{
    # Without the query, which holds the device key.
    log_format short '$status $uri $http_range $sent_http_content_encoding';
    access_log {folder}/log short;
    default_type application/octet-stream;
    client_body_temp_path {folder}/t1;
    proxy_temp_path {folder}/t2;
    fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4;
    scgi_temp_path {folder}/t5;
    ssl_certificate {chain};
    ssl_certificate_key {chain};
    absolute_redirect off;
    server {{
        listen 127.0.0.1:{port} ssl;
        listen [::1]:{port} ssl;
        root {folder}/www;
{rules}
    }}
}}
"""
DOWNLOAD = "/mf-rproxy/packages/download"


@dataclass(frozen=True)
class Nginx:
    """One that runs. What is put into `www` it serves; `flag` switches a rule on by a file."""

    folder: Path
    port: int

    @property
    def www(self) -> Path:
        return self.folder / "www"

    def log(self, count: int) -> list[list[str]]:
        """Status, path, Range and Content-Encoding of each request that has ended.

        Waits for so many lines: each is written behind the last byte of an answer.
        """
        end = time.monotonic() + 30
        while len(lines := (self.folder / "log").read_text().splitlines()) < count:
            assert time.monotonic() < end, lines
            time.sleep(0.01)
        return [line.split(" ") for line in lines]

    def flag(self, name: str, on: bool = True) -> None:
        """Make or remove `www/<name>`, which rules may look for."""
        path = self.www / name
        path.touch() if on else path.unlink()


def need_nginx() -> str:
    """Its program. Without it the test is skipped; in CI, which has to have it, it fails."""
    found = shutil.which("nginx") or shutil.which("nginx", path=os.pathsep.join(_SBIN))
    if not found:
        message = "nginx is not installed (Debian's package nginx-light)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@contextlib.contextmanager
def running(folder: Path, chain: Path, rules: str) -> Iterator[Nginx]:
    """Run nginx with these rules in its server block; `{port}` in them is its port."""
    program = need_nginx()
    (folder / "www").mkdir(parents=True)
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(parent.stat().st_mode | 0o055)  # its worker may be another user
    user = "user root;" if os.getuid() == 0 else ""
    with _port() as port:
        text = _CONFIG.format(
            folder=folder,
            chain=chain,
            port=port,
            user=user,
            rules=rules.replace("{port}", str(port)),
        )
        (folder / "nginx.conf").write_text(text)
        process = subprocess.Popen(
            [program, "-p", str(folder), "-e", "errors", "-c", "nginx.conf"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            assert _is_up(process, port), process.stdout and process.stdout.read()
            yield Nginx(folder, port)
        finally:
            process.terminate()
            process.wait(60)
            if process.stdout:
                process.stdout.close()


@contextlib.contextmanager
def _port() -> Iterator[int]:
    """One that nobody else is given, on either address; nginx may listen there all the same."""
    for _ in range(100):
        with contextlib.ExitStack() as kept:
            port = kept.enter_context(reserved())
            holder = kept.enter_context(socket.socket(socket.AF_INET6))
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                holder.bind(("::1", port))
            except OSError:
                continue  # somebody has it there
            yield port
            return
    raise AssertionError("no port that is free on both addresses")


def _is_up(process: subprocess.Popen, port: int) -> bool:
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        time.sleep(0.02)
    return False
