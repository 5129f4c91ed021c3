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

    def log(self) -> list[list[str]]:
        """Status, path, Range and Content-Encoding of each request that has ended."""
        return [line.split(" ") for line in (self.folder / "log").read_text().splitlines()]

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
    for attempt in range(5):
        port = _free_port()
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
            if _is_up(process, port):
                yield Nginx(folder, port)
                return
            assert attempt < 4, process.stdout and process.stdout.read()
        finally:
            process.terminate()
            process.wait(10)
            if process.stdout:
                process.stdout.close()


def _free_port() -> int:
    """One that is free on both addresses, as long as nobody else is quicker."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as probe:
        port = probe.getsockname()[1]
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    return _free_port()


def _is_up(process: subprocess.Popen, port: int) -> bool:
    end = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        time.sleep(0.02)
    return False
