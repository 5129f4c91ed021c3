"""A selection of files becomes a package."""

from __future__ import annotations

from insigh_ota.package import archive, delta, paths, restarts
from insigh_ota.package.errors import PackageError
from insigh_ota.package.keys import Signer, key_id
from insigh_ota.package.manifest import Manifest
from insigh_ota.package.sources import Selection
from insigh_ota.package.transform import mpy_of


def build(
    selection: Selection,
    *,
    sequence: int = 0,
    board: str | None = None,
    mpy: int | None = None,
    requires: int | None = None,
    signer: Signer | None = None,
    window: int | None = None,
    restart: bool = True,
    releases: list[delta.Release] | None = None,
    patched: bool = True,
) -> bytes:
    """The package's bytes; with a window gzip, with restart points if they cost little enough.

    mpy: None means what the .mpy files need; restart: False for none of these points; releases:
    of before, for an index, and with `patched` for patches from what they have.

    Raises PackageError for what a node would refuse.
    """
    files = {path: selection.files[path] for path in sorted(selection.files, key=str.encode)}
    deleted = sorted(selection.deleted, key=str.encode)
    if not files and not deleted:
        raise PackageError("nothing to package: no file has changed, or all are excluded")
    _check_names(files, deleted)
    for path, content in files.items():
        if b"PRIVATE KEY-----" in content or (
            path.endswith(".json") and b'"device_key"' in content
        ):
            raise PackageError(
                f"{path} has a secret key in it, and a package has none: --exclude {path}"
            )
    manifest = Manifest(
        key=key_id(signer.modulus) if signer else "none",
        sequence=sequence,
        board=board,
        mpy=mpy_of(files) if mpy is None else mpy,
        requires=requires,
        deleted=deleted,
    )
    for path, content in files.items():
        manifest.add(path, content)
    manifest.check()
    if signer:
        manifest.signature = signer.signature(manifest.signed_part())
    if releases is not None and window is not None:
        if not files:
            raise PackageError("--since: there is no file to find by an index, only deletions")
        found = delta.patches_for(files, releases) if patched else {}
        return delta.build(manifest, files, window, found, releases)[0]
    content = archive.tar(manifest, files)
    if window is None:
        return content
    if not restart:
        return archive.compress(content, window)
    return restarts.compress(content, window, signed=signer is not None)


def _check_names(files: dict[str, bytes], deleted: list[str]) -> None:
    """Raise PackageError for names that contradict each other."""
    folders = {path[:at] for path in files for at, c in enumerate(path) if c == "/"}
    for path in deleted:
        paths.check(path)
        if path in files:
            raise PackageError(f"{path} is brought and deleted: drop one of the two")
        if path == "boot.py":
            raise PackageError("boot.py can not be deleted: nothing would finish an update")
        if path in folders or any(path.startswith(name + "/") for name in files):
            raise PackageError(
                f"{path} is deleted where a file becomes a folder, or a folder a file: no node "
                "does both at once, make two packages"
            )
        if paths.twin(path) in files:
            raise PackageError(
                f"{path} need not be deleted, {paths.twin(path)} takes its place: drop --delete"
            )
    for path in files:
        if path in folders:
            raise PackageError(f"{path} is a file and a folder")
        if path in ("boot.mpy", "main.mpy", "boot_user.mpy"):
            raise PackageError(f"{path}: no node runs it, only its source: --exclude {path}")
        folder = path.rpartition(".")[0] + "/"
        if paths.twin(path) and any(gone.startswith(folder) for gone in deleted):
            raise PackageError(
                f"{path}: the empty folder {folder} stays on a node, and MicroPython imports that "
                "one first: give the module another name"
            )
        if path.endswith(".py") and paths.twin(path) in files:
            raise PackageError(
                f"both {path} and {paths.twin(path)}: --exclude one, a node takes only one"
            )
