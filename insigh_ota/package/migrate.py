"""``migrate``: the package that the field's own updater installs, once, and that ends its time.

That updater unpacks in place, in the archive's order, and knows plain headers only. So whatever
nothing uses yet comes first, and what brings all of it into use is one file, the last one:
/apps/demo_console/ota.py. Before it the node is as it was, and is asked again; from it on
everything is there. `apply_ota.py` and `boot.py` are not replaced here, but on the node by
ota_insighio/arrive.py: with a new `apply_ota.py` and the old `ota.py` a node would give the
repeated package to an agent that refuses it, and with the new boot.py before the adapter the
field's boot.py would be lost.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import click
from cryptography.hazmat.primitives.serialization import Encoding
from rich.markup import escape

from host_sim import files as disk
from host_sim.command import PATH, Output, json_option, options
from host_sim.errors import SimError
from host_sim.node.process import compiled
from insigh_ota import agent_config
from insigh_ota.deploy import ca, firmware, plan
from insigh_ota.deploy.errors import DeployError
from insigh_ota.package import check, insighio, keys
from insigh_ota.package.archive import header
from insigh_ota.package.errors import PackageError

#: Where the field's updater looks for a name, and how far.
_LONGEST_NAME = 100
_ARRIVAL = "ota_insighio/arrival/"
#: The package's own size, in digits: a request with it asks for this migration.
_SIZE = "ota_insighio/migration"
_SIZE_DIGITS = 10
#: What a node has from its own configuration.
_IDENTITY = ("device_id", "device_key", "control_channel", "server")
#: Both shims. An .mpy of one is refused as well: it would remove the source (staging.py).
PROTECTED = ["/" + insighio.OTA, "/" + insighio.APPLY]
#: A folder takes two blocks of littlefs.
_FOLDER_BLOCKS = 2
_SPARE_BLOCKS = 12


@dataclass
class Migration:
    """The package, and what it needs of a node's flash, in bytes."""

    content: bytes
    files: dict[str, bytes]
    package_bytes: int
    unpacked_bytes: int

    @property
    def free_bytes(self) -> int:
        """What has to be free: a download that is repeated stands beside the one before."""
        return 2 * self.package_bytes + self.unpacked_bytes


@click.command(
    help="Make the package with which nodes go over from the field's updater to this one, by air.",
)
@click.option("--out", type=PATH, required=True, metavar="FILE", help="*.tar")
@click.option(
    "--release", type=PATH, metavar="FOLDER", help="the maintainers' release of the nodes"
)
@click.option("--git", metavar="REV", help="that commit or tag of --release")
@click.option("--ca", metavar="FILE|HOST", help="trust anchor: a file, or the root of this server")
@click.option("--key", type=PATH, multiple=True, metavar="PUB", help="from then on signed")
@click.option(
    "--config", type=PATH, metavar="JSON", help="more for /ota.json, but not who the node is"
)
@click.option("--src", is_flag=True, help="sources, not .mpy")
@json_option
def migrate(as_json: bool, **given: Any) -> None:
    """`package migrate`."""
    _run(options(**given), Output(as_json, highlight=False))


def _run(arguments: SimpleNamespace, output: Output) -> None:
    out = arguments.out
    if out.is_dir():
        raise PackageError(f"--out {out}: it is a folder, name a file in it: *.tar")
    if out.suffix != ".tar":
        raise PackageError(
            f"--out {out}: name it *.tar, which is what the field's updater unpacks"
        )
    if not arguments.release:
        raise PackageError(
            "--release FOLDER is missing: the maintainers' release that the nodes run (and --git "
            f"TAG), of which {insighio.OTA} is kept"
        )
    if not arguments.ca:
        raise PackageError("--ca is missing: a certificate's file, or the server's name")
    found = make(
        field_ota(arguments.release, arguments.git),
        anchor(arguments.ca),
        [keys.public(path) for path in arguments.key],
        more=_json(arguments.config) if arguments.config else {},
        source=arguments.src,
    )
    disk.write(out, found.content)
    terminal = output.terminal
    signed = f"signed packages only ({len(arguments.key)} keys)" if arguments.key else "not signed"
    terminal.print(
        f"{escape(str(out))}: {len(found.content)} bytes, {len(found.files)} files; from then on "
        f"{signed}"
    )
    terminal.print(
        f"a node needs {found.package_bytes + found.unpacked_bytes >> 10} KB of free flash: "
        f"{found.package_bytes >> 10} KB for the package, {found.unpacked_bytes >> 10} KB beside "
        f"it; {found.free_bytes >> 10} KB where power fails and it is downloaded again"
    )
    output.data(
        package=str(out),
        bytes=len(found.content),
        files=len(found.files),
        keys=len(arguments.key),
        free_bytes=found.free_bytes,
    )


def field_ota(release: Path, revision: str | None) -> bytes:
    """The maintainers' ota.py, of a folder or a commit: the node's root, or their whole project.

    Raises PackageError when it is not there, or is none.
    """
    if not release.is_dir():
        raise PackageError(f"--release {release} is no folder")
    for below in ("", "insighioNode/"):
        path = below + insighio.OTA
        if revision:
            content = _of_commit(release, revision, path)
        else:
            content = (release / path).read_bytes() if (release / path).is_file() else None
        if content is not None:
            if not insighio.is_field(insighio.OTA, content):
                raise PackageError(
                    f"{path} of --release is not the maintainers': no checkAndApply"
                )
            check.source(path, content)
            return content
    if revision and not _is_commit(release, revision):
        raise PackageError(f"{revision} is no tag or commit of {release}")
    where = f"{revision} of {release}" if revision else str(release)
    raise PackageError(f"{where} has no {insighio.OTA}: give the maintainers' release")


def _is_commit(folder: Path, revision: str) -> bool:
    command = ["git", "-C", str(folder), "rev-parse", "--quiet", "--verify"]
    found = subprocess.run([*command, revision + "^{commit}"], capture_output=True, check=False)
    return not found.returncode


def _of_commit(folder: Path, revision: str, path: str) -> bytes | None:
    """A file below the folder as a commit has it; None when it has none."""
    command = ["git", "-C", str(folder), "cat-file", "blob"]
    for name in (f"{revision}:./{path}", f"{revision}:{path}"):  # a bare project has no folders
        try:
            done = subprocess.run([*command, name], capture_output=True, check=False)
        except FileNotFoundError as error:
            raise PackageError("git is not installed: --git needs it") from error
        if not done.returncode:
            return done.stdout
    return None


def anchor(given: str) -> tuple[str, bytes]:
    """Name on the node and content of the trust anchor: of a file, or of a server's name."""
    try:
        found = ca.of_file(Path(given)) if Path(given).is_file() else [ca.of_host(given)]
    except DeployError as error:
        raise PackageError(f"--ca {given}: {error}") from error
    if len(found) == 1:
        return "ca.der", found[0].public_bytes(Encoding.DER)
    return "ca.pem", b"".join(each.public_bytes(Encoding.PEM) for each in found)


def make(
    field: bytes,
    trusted: tuple[str, bytes],
    public_keys: list[bytes],
    *,
    more: dict | None = None,
    source: bool = False,
    adapter: Path | None = None,
) -> Migration:
    """The package. field: the maintainers' ota.py; public_keys: contents of .pub files.

    adapter: a folder like insighio/node, None: that.

    Raises PackageError for a configuration that no agent takes, or a name that the field's
    updater can not take.
    """
    modules, shims = insighio.adapter(adapter)
    files = {f"ota/{name}": content for name, content in _agent(source).items()}
    for path, content in modules.items():
        name = path if source else path.removesuffix(".py") + ".mpy"
        files[name] = content if source else _compiled(path, content)
    files[_ARRIVAL + "boot.py"] = firmware.boot()
    files[_ARRIVAL + "apply_ota.py"] = shims[insighio.APPLY]
    files[trusted[0]] = trusted[1]
    named = {f"ota.key{number}": key for number, key in enumerate(public_keys, 1)}
    files |= named
    files["ota.json"] = _config(trusted[0], list(named), more or {})
    files[_SIZE] = b"0" * _SIZE_DIGITS
    files[insighio.FIELD_OTA] = field
    # The switch: nothing may come after it.
    files[insighio.OTA] = shims[insighio.OTA]
    return with_size(files)


def with_size(files: dict[str, bytes]) -> Migration:
    """The archive, of a size that no other .tar has, and that it tells itself."""
    content = archive(files)
    # Every tar is whole blocks. This one is a few bytes more, zeros, which nobody reads.
    more = 1 + int.from_bytes(hashlib.sha256(content).digest()[:4], "big") % 511
    size = len(content) + more
    files = files | {_SIZE: b"%0*d" % (_SIZE_DIGITS, size)}
    blocks = sum(plan.blocks_of(len(each), plan.ERASE_BLOCK) for each in files.values())
    blocks += _FOLDER_BLOCKS * len(_folders(files)) + _SPARE_BLOCKS
    return Migration(
        archive(files) + bytes(more),
        files,
        plan.blocks_of(size, plan.ERASE_BLOCK) * plan.ERASE_BLOCK,
        blocks * plan.ERASE_BLOCK,
    )


def archive(files: dict[str, bytes]) -> bytes:
    """A tar of plain ustar headers, in this order, each folder before what is in it."""
    out = io.BytesIO()
    made: set[str] = set()
    for name, content in files.items():
        for folder in _folders({name: b""}):
            if folder not in made:
                made.add(folder)
                out.write(_header(folder, None))
        out.write(_header(name, content))
        out.write(content + bytes(-len(content) % tarfile.BLOCKSIZE))
    out.write(bytes(2 * tarfile.BLOCKSIZE))
    return out.getvalue()


def _folders(files: dict[str, bytes]) -> list[str]:
    """Folders of these files, the outer ones first. That of the application is there already."""
    found: dict[str, None] = {}
    for name in files:
        for parent in reversed(PurePosixPath(name).parents[:-1]):
            if not insighio.APP.startswith(f"{parent}/"):
                found[parent.as_posix()] = None
    return list(found)


def _header(name: str, content: bytes | None) -> bytes:
    if not name.isascii() or len(name) + (content is None) > _LONGEST_NAME:
        raise PackageError(f"{name}: the field's updater takes {_LONGEST_NAME} plain letters")
    return header(name, content)


def _agent(source: bool) -> dict[str, bytes]:
    try:
        return firmware.agent(source)
    except DeployError as error:
        raise PackageError(str(error)) from error


def _compiled(path: str, content: bytes) -> bytes:
    try:
        return compiled(content, path.removesuffix(".py").replace("/", "."))
    except SimError as error:
        raise PackageError(" ".join(str(error).split())) from error


def _config(trusted: str, named: list[str], more: dict) -> bytes:
    """The node's /ota.json, which the agent itself has accepted."""
    for key in (*_IDENTITY, "ca", "keys"):
        if key in more:
            raise PackageError(f"--config: {key} is not said there: see --ca, --key and the node")
    config = {"ca": "/" + trusted} | more
    if named:
        config["keys"] = ["/" + name for name in named]
        config.setdefault("require_signature", True)
    config["protected"] = PROTECTED + [p for p in more.get("protected", []) if p not in PROTECTED]
    content = json.dumps(config, indent=1).encode() + b"\n"
    stand_in = dict.fromkeys(("device_id", "device_key", "control_channel"), "x")
    try:
        agent_config.complete(config | stand_in)
    except agent_config.ConfigError as error:
        raise PackageError(f"--config: {error}") from error
    return content


def _json(path: Path) -> dict:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise PackageError(f"{path} can not be read: {error.strerror}") from error
    except ValueError as error:
        raise PackageError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise PackageError(f"{path} is not a JSON object")
    return found
