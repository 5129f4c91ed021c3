"""Devices and packages the platform knows, who may do what, and their copy on disk."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path

from host_sim import files
from host_sim.errors import SimError

_FUID = re.compile(r"[0-9a-f]{8}")
# Separators and wildcards of MQTT topics; the colon separates fields in mosquitto's password file.
_FORBIDDEN_IN_IDS = frozenset("/+#:")


@dataclass(frozen=True)
class Device:
    """A node as the platform knows it."""

    device_id: str
    key: str = field(repr=False)
    channel: str

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
        for what, value in (("device id", device_id), ("control channel", channel)):
            _check_id(what, value)
        if not key or not key.isprintable():
            raise SimError("device key: must be printable text and not empty")
        device = Device(device_id, key, channel)
        with self._lock:
            if not replace and self._devices.get(device_id, device) != device:
                raise SimError(
                    f"device {device_id!r} is there already, with another key or channel: "
                    "--replace gives it these"
                )
            devices = self._devices | {device_id: device}
            self._save(devices, self._packages)
            self._devices = devices  # only what is on disk
        return device

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
            package = Package(fuid, name, stored.stat().st_size, _etag(stored), stored)
            packages = self._packages | {fuid: package}
            self._save(self._devices, packages)
            self._packages = packages
        return package

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

    def _save(self, devices: dict[str, Device], packages: dict[str, Package]) -> None:
        state = {
            "devices": [asdict(device) for device in devices.values()],
            "packages": [{"fuid": p.fuid, "name": p.name} for p in packages.values()],
        }
        write_private(self._state, json.dumps(state, indent=1) + "\n")

    def _load(self) -> None:
        """Take over what an earlier console in this directory knew."""
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            self._devices = {d["device_id"]: Device(**d) for d in state["devices"]}
            for entry in state["packages"]:
                stored = self._packages_folder / entry["fuid"]
                if stored.is_file():
                    self._packages[entry["fuid"]] = Package(
                        entry["fuid"], entry["name"], stored.stat().st_size, _etag(stored), stored
                    )
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError) as error:
            raise SimError(f"{self._state} is damaged: delete it and start again") from error


def _check_id(what: str, value: str) -> None:
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
