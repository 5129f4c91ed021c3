"""``provision``: who a node is, in a file that never goes into git."""

from __future__ import annotations

import getpass
import json
import os
import sys
import tempfile
from pathlib import Path

from insigh_ota import agent_config
from insigh_ota.deploy.errors import DeployError
from insigh_ota.package.errors import PackageError
from insigh_ota.package.git import Repository

#: In the current folder. Becomes /ota.json on the board, byte for byte.
DEFAULT = Path("provision.json")

#: For people, wherever a node is told of that does so.
PLAIN = "[yellow]plain MQTT: the device key goes over the network in clear[/]"


def is_ignored(path: Path) -> bool | None:
    """Whether git ignores this file; None where it is in no git project, or git is missing."""
    path = path.resolve()
    try:
        done = Repository(path.parent).run("check-ignore", "-q", "--", path.name)
    except PackageError:
        return None
    return {0: True, 1: False}.get(done.returncode)


def is_tracked(path: Path) -> bool:
    """Whether git knows this file already: then no .gitignore keeps it out of a commit."""
    path = path.resolve()
    try:
        done = Repository(path.parent).run(
            "--literal-pathspecs", "ls-files", "--error-unmatch", "--", path.name
        )
    except PackageError:
        return False
    return done.returncode == 0


def read(path: Path) -> bytes:
    """The file's content, if the agent itself accepts it."""
    return check(path)[0]


def check(path: Path) -> tuple[bytes, bool]:
    """The file's content, if the agent itself accepts it; and whether MQTT is over TLS."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DeployError(f"{path} can not be read: {error.strerror}") from error
    try:
        config = agent_config.parse(content)
    except agent_config.ConfigError as error:
        raise DeployError(f"{path}: {error}") from error
    return content, config["mqtt"]["tls"]


def write(
    path: Path,
    *,
    device_id: str | None = None,
    channel: str | None = None,
    server: str | None = None,
    mqtt: str | None = None,
    tls: bool | None = None,
) -> None:
    """Ask for what is missing and write the file. The key comes from the keyboard, or stdin.

    What the file has already is kept where nothing new is said; `mqtt` is host or host:port.
    """
    if path.is_dir() or not path.parent.is_dir():  # before anybody types a key
        what = path if path.is_dir() else path.parent
        fault = "is a folder: name a file" if path.is_dir() else "is no folder: make it first"
        raise DeployError(f"{path} can not be written: {what} {fault}")
    config = _existing(path)
    config["device_id"] = device_id or _ask("device id", config.get("device_id"))
    config["control_channel"] = channel or _ask(
        "control channel id", config.get("control_channel")
    )
    config["device_key"] = _ask_key(config.get("device_key"))
    if server:
        config["server"] = server
    if mqtt or tls is not None:
        config["mqtt"] = _mqtt(config.get("mqtt", {}), mqtt, tls)
    _save(path, config)


def _existing(path: Path) -> dict:
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DeployError(f"{path} is there but can not be read: remove it first") from error
    if not isinstance(config, dict):
        raise DeployError(f"{path} is not a JSON object: remove it first")
    return config


def _ask(what: str, known: str | None) -> str:
    if sys.stdin.isatty():
        answer = input(f"{what}{f' [{known}]' if known else ''}: ").strip()
    else:
        answer = sys.stdin.readline().strip()
    if not (answer or known):
        raise DeployError(f"no {what} given")
    return answer or known


def _ask_key(known: str | None) -> str:
    """The one thing that never is an argument: those can be seen by everybody on the machine."""
    if sys.stdin.isatty():
        keep = " [keep it]" if known else ""
        answer = getpass.getpass(f"device key (not shown){keep}: ").strip()
    else:
        answer = sys.stdin.readline().strip()
    if not (answer or known):
        raise DeployError("no device key given")
    if not answer.isprintable():  # half a character as well: text in another encoding
        raise DeployError("the device key must be printable text, in UTF-8")
    return answer or known


def _mqtt(config: dict, address: str | None, tls: bool | None) -> dict:
    if address:
        host, colon, port = address.partition(":")
        config["host"] = host
        if colon:
            if not port.isdecimal():
                raise DeployError(f"--mqtt {address}: write host or host:port")
            config["port"] = int(port)
    if tls is not None:
        config["tls"] = tls
    return config


def _save(path: Path, config: dict) -> None:
    """Readable for its owner only; checked before it takes the place of an older one."""
    try:
        _save_checked(path, config)
    except OSError as error:
        raise DeployError(f"{path} can not be written: {error.strerror}") from error


def _save_checked(path: Path, config: dict) -> None:
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix="~")
    fresh = Path(name)
    try:
        with os.fdopen(fd, "w") as file:
            json.dump(config, file, indent=1)
            file.write("\n")
        try:
            read(fresh)
        except DeployError as error:
            raise DeployError(str(error).replace(str(fresh), "not written", 1)) from None
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
