"""Devices and packages the platform knows, who may do what, and their copy on disk."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from host_sim import files
from host_sim.errors import SimError

_FUID = re.compile(r"[0-9a-f]{8}")
#: Of an id, a channel or a key: MQTT takes 65,535 bytes in a topic, a user name and a password.
_LONGEST = 1024
# Separators and wildcards of MQTT topics; the colon separates fields in mosquitto's password file.
_FORBIDDEN_IN_IDS = frozenset("/+#:")


@dataclass(frozen=True)
class Device:
    """A node as the platform knows it."""

    device_id: str
    key: str = field(repr=False)
    channel: str
    board: str | None = None
    """What kind of board it is, where anybody has told."""

    def topic(self, leaf: str = "ota") -> str:
        """The device's topic for requests and reports, or another of its own."""
        return f"channels/{self.channel}/messages/{self.device_id}/{leaf}"


@dataclass(frozen=True)
class Package:
    """A stored package; `path` is the console's own copy."""

    fuid: str
    name: str
    size: int
    etag: str
    path: Path
    added: float = 0.0
    """When it was stored, in seconds since 1970."""

    @property
    def type(self) -> str:
        """The extension for the request's `t`."""
        return ".tar" if self.name.endswith(".tar") else ".tar.gz"


def write_private(path: Path, text: str) -> None:
    """Replace a file that nobody else may read."""
    files.write(path, text, mode=0o600)


class Registry:
    """Thread-safe: the broker's and the server's threads ask it, the console's changes it."""

    def __init__(self, directory: Path) -> None:
        self._state = directory / "state.json"
        self._log = directory / "state.log"
        self._logged = 0
        # Which state the log goes on from: it may outlive a later one that is written anew.
        self._mark = ""
        self._packages_folder = directory / "packages"
        self._packages_folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._devices: dict[str, Device] = {}
        self._packages: dict[str, Package] = {}
        # The console's own account on the broker. New at every start, never written down.
        self.admin_user = "console-" + secrets.token_hex(4)
        self.admin_password = secrets.token_hex(16)
        self._load()

    # -- devices -----------------------------------------------------------------------------

    def add_device(
        self, device_id: str, key: str, channel: str, *, replace: bool = True
    ) -> Device:
        """Store a device. One of that id is replaced; without `replace` only an equal one."""
        (device,) = self.add_devices([Device(device_id, key, channel)], replace=replace)
        return device

    def add_devices(self, devices: Iterable[Device], *, replace: bool = True) -> list[Device]:
        """`add_device` for many: all of them, or none."""
        added = list(devices)
        for device in added:
            for what, value in (
                ("device id", device.device_id),
                ("control channel", device.channel),
            ):
                _check_id(what, value)
            if not device.key or not device.key.isprintable():
                raise SimError(
                    f"device key of {device.device_id}: must be printable and not empty"
                )
            if device.device_id == self.admin_user:
                raise SimError(f"device id {device.device_id!r} is taken")
        with self._lock:
            for device in added:
                known = self._devices.get(device.device_id, device)
                if not replace and (known.key, known.channel) != (device.key, device.channel):
                    raise SimError(
                        f"device {device.device_id!r} is there already, with another key or "
                        "channel: --replace gives it these"
                    )
            devices_then = self._devices | {device.device_id: device for device in added}
            self._save([{"device": _device_json(d)} for d in added], devices_then, self._packages)
            self._devices = devices_then  # only what is on disk
        return added

    def remove_devices(self, device_ids: Iterable[str]) -> None:
        """Forget devices: all of them, or none."""
        with self._lock:
            gone = {self.device(device_id).device_id for device_id in device_ids}
            left = {i: device for i, device in self._devices.items() if i not in gone}
            self._save([{"no_device": i} for i in sorted(gone)], left, self._packages)
            self._devices = left

    def knows(self, device_id: str) -> bool:
        """Whether there is a device of that id."""
        with self._lock:
            return device_id in self._devices

    def device(self, device_id: str) -> Device:
        """The device of that id."""
        with self._lock:
            try:
                return self._devices[device_id]
            except KeyError:
                raise SimError(f"device {device_id!r} is not known: add it first") from None

    def devices(self) -> list[Device]:
        """All devices."""
        with self._lock:
            return list(self._devices.values())

    def identify(self, device_id: str, key: str) -> Device | None:
        """The device when the key is its own."""
        with self._lock:
            device = self._devices.get(device_id)
        # An unknown id costs the same time as a wrong key.
        expected = device.key if device else self.admin_password
        same = hmac.compare_digest(expected.encode(), key.encode("utf-8", "surrogatepass"))
        return device if same else None

    def may_connect(self, user: str | None, password: str | None) -> bool:
        """Whether the broker lets this account in."""
        if user is None or password is None:
            return False
        if user == self.admin_user:
            return hmac.compare_digest(self.admin_password.encode(), password.encode())
        return self.identify(user, password) is not None

    def may_use(self, user: str | None, topic_or_filter: str) -> bool:
        """Whether an account may publish on, subscribe to or hear a topic."""
        if user == self.admin_user:
            return True
        with self._lock:
            device = self._devices.get(user or "")
        if device is None:
            return False
        # Ids hold no wildcards, so a filter that starts with them cannot reach elsewhere.
        own = device.topic(leaf="").rstrip("/")
        return topic_or_filter == own or topic_or_filter.startswith(own + "/")

    # -- packages ----------------------------------------------------------------------------

    def add_package(
        self, source: Path | str | bytes, name: str | None, fuid: str | None
    ) -> Package:
        """Store a copy of a package under a random file id, or the given one."""
        if name is None:
            name = "package.tar.gz" if isinstance(source, bytes) else Path(source).name
        if name.endswith(".tgz"):
            name = name.removesuffix(".tgz") + ".tar.gz"
        if not name.endswith((".tar", ".tar.gz")):
            raise SimError(f"package {name}: its name must end in .tar, .tar.gz or .tgz")
        if fuid is not None and not _FUID.fullmatch(fuid):
            raise SimError(f"file id {fuid!r}: must be 8 lower-case hex digits")
        with self._lock:
            fuid = fuid or secrets.token_hex(4)
            stored = self._packages_folder / fuid
            try:
                content = source if isinstance(source, bytes) else Path(source).read_bytes()
            except OSError as error:
                raise SimError(f"package {name}: {error.strerror}") from error
            files.write(stored, content)
            about = stored.stat()
            package = Package(fuid, name, about.st_size, _etag(stored), stored, about.st_mtime)
            packages = self._packages | {fuid: package}
            self._save([{"package": _package_json(package)}], self._devices, packages)
            self._packages = packages
        return package

    def remove_package(self, fuid: str) -> None:
        """Forget a package, and remove the console's copy of it."""
        with self._lock:
            package = self.package(fuid)
            left = {f: other for f, other in self._packages.items() if f != fuid}
            self._save([{"no_package": fuid}], self._devices, left)
            self._packages = left
            package.path.unlink(missing_ok=True)

    def packages(self) -> list[Package]:
        """All packages, the oldest first."""
        with self._lock:
            return sorted(self._packages.values(), key=lambda p: (p.added, p.fuid))

    def package(self, fuid: str) -> Package:
        """The package of that file id."""
        package = self.find_package(fuid)
        if package is None:
            raise SimError(f"package {fuid!r} is not known: add it first")
        return package

    def find_package(self, fuid: str) -> Package | None:
        """The package of that file id, if any."""
        with self._lock:
            return self._packages.get(fuid)

    # -- disk --------------------------------------------------------------------------------

    def _save(
        self,
        changes: list[dict[str, Any]],
        devices: dict[str, Device],
        packages: dict[str, Package],
    ) -> None:
        """Put changes on disk: behind the log, or all anew once that has an eighth of all."""
        if (self._logged + len(changes)) * 8 < len(devices) + len(packages):
            lines = changes if self._logged else [{"log": self._mark}, *changes]
            _append(self._log, "".join(json.dumps(line) + "\n" for line in lines))
            self._logged += len(changes)
            return
        mark = secrets.token_hex(4)
        state = {
            "log": mark,
            "devices": [_device_json(device) for device in devices.values()],
            "packages": [_package_json(package) for package in packages.values()],
        }
        write_private(self._state, json.dumps(state, indent=1) + "\n")
        self._log.unlink(missing_ok=True)
        self._mark, self._logged = mark, 0

    def _load(self) -> None:
        """Take over what an earlier console in this directory knew."""
        try:
            changes = self._read()
            for change in changes:
                self._take_over(change)
        except (ValueError, KeyError, TypeError) as error:
            raise SimError(f"{self._state} is damaged: delete it and start again") from error

    def _read(self) -> list[dict[str, Any]]:
        changes = []
        if self._state.exists():
            state = json.loads(self._state.read_text(encoding="utf-8"))
            changes += [{"device": device} for device in state["devices"]]
            changes += [{"package": package} for package in state["packages"]]
            self._mark = state.get("log", "")
        if self._log.exists():
            # Behind the last line end there may be a line that a crash has cut off.
            whole = self._log.read_bytes().rpartition(b"\n")[0].splitlines()
            mark, *logged = [json.loads(line) for line in whole] or [{"log": None}]
            if mark["log"] == self._mark:
                changes += logged
            self._logged = len(changes) + 1  # so the next change writes all anew
        return changes

    def _take_over(self, change: dict[str, Any]) -> None:
        ((kind, what),) = change.items()
        if kind == "device":
            self._devices[what["device_id"]] = Device(**what)
        elif kind == "no_device":
            self._devices.pop(what, None)
        elif kind == "no_package":
            self._packages.pop(what, None)
        elif kind == "package":
            fuid, stored = what["fuid"], self._packages_folder / what["fuid"]
            if stored.is_file():
                about = stored.stat()
                self._packages[fuid] = Package(
                    fuid, what["name"], about.st_size, _etag(stored), stored, about.st_mtime
                )
        else:
            raise ValueError(kind)


def _device_json(device: Device) -> dict[str, Any]:
    return {name: value for name, value in asdict(device).items() if value is not None}


def _package_json(package: Package) -> dict[str, Any]:
    return {"fuid": package.fuid, "name": package.name}


def _append(path: Path, text: str) -> None:
    """Put text behind a file that nobody else may read: all of it, or nothing."""
    try:
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            try:
                data = text.encode()
                while data:
                    data = data[file.write(data) :]
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise SimError(f"{path} can not be written: {files.why(path, error)}") from error


def check_device(device: Device) -> None:
    """Raise SimError when a platform could not have such a device."""
    _check_id("device id", device.device_id)
    _check_id("control channel", device.channel)
    if not device.key or not device.key.isprintable() or len(device.key.encode()) > _LONGEST:
        raise SimError(f"device key: must be printable text of 1 to {_LONGEST} bytes")
    if device.board is not None and not (device.board and device.board.isprintable()):
        raise SimError("board: must be printable text and not empty")


def _check_id(what: str, value: str) -> None:
    if len(value.encode(errors="replace")) > _LONGEST:
        raise SimError(f"{what} {value[:20]!r}…: it is longer than {_LONGEST} bytes")
    clean = value.isprintable() and not _FORBIDDEN_IN_IDS.intersection(value) and " " not in value
    if not value or not clean:
        raise SimError(
            f"{what} {value!r}: must be printable text without spaces, '/', '+', '#', ':'"
        )


def _etag(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 16):
            digest.update(block)
    return f'"{digest.hexdigest()[:32]}"'
