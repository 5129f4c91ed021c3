"""Nodes of the public insighioNode firmware: where our adapter stands, and how it survives there.

docs/insighio-migration.md tells the whole story.
"""

from __future__ import annotations

from pathlib import Path

from insigh_ota.package.errors import PackageError
from insigh_ota.package.sources import Selection
from insigh_ota.places import ADAPTER

APP = "apps/demo_console/"
#: What the application calls; ours stand there from the migration on.
OTA, APPLY = APP + "ota.py", APP + "apply_ota.py"
#: The maintainers' own, which still does all that is no package.
FIELD_OTA = APP + "field_ota.py"
_PACKAGE = "ota_insighio"
_ENTRANCES = {OTA: b"checkAndApply", APPLY: b"do_apply"}


def is_field(path: str, content: bytes) -> bool:
    """True for the maintainers' updater: it has what the application calls, and is not ours."""
    entrance = _ENTRANCES.get(path)
    return entrance is not None and entrance in content and not is_shim(content)


def is_template(path: str) -> bool:
    """True for a template of the application's configuration: named as Python, and none."""
    return path.startswith(APP + "templ/")


def is_shim(content: bytes) -> bool:
    """True for one of the files that stand in the place of the maintainers' updater."""
    return _PACKAGE.encode() in content


def is_adapters(path: str) -> bool:
    """True for what a migrated node has of the adapter, and for the updater that it has kept."""
    kept = FIELD_OTA, _mpy(FIELD_OTA), OTA, _mpy(OTA), APPLY, _mpy(APPLY)
    return path in kept or path.startswith(_PACKAGE + "/")


def adapter(folder: Path | None = None) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The adapter's modules, and its two shims, by path: of this checkout, or of `folder`.

    Raises PackageError when a shim is missing.
    """
    folder = folder or ADAPTER
    modules = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted((folder / _PACKAGE).rglob("*.py"))
    }
    shims = {}
    for path in (OTA, APPLY):
        if not (folder / path).is_file():
            raise PackageError(f"{folder / path} is missing: this checkout has no whole adapter")
        shims[path] = (folder / path).read_bytes()
    return modules, shims


def protect(selection: Selection) -> list[str]:
    """Keep the adapter where the selection would replace it; one line for each thing done.

    What a release has in the place of our two shims, source or .mpy, is the maintainers': `ota`
    goes beside ours, and `apply_ota` stays out. Nothing happens to any other selection.

    Raises PackageError where both forms are there: the node could not tell which one to keep.
    """
    if OTA in selection.files and _mpy(OTA) in selection.files:
        raise PackageError(f"both {OTA} and {_mpy(OTA)}: --exclude one, a node takes only one")
    done = []
    for path, beside in (
        (OTA, FIELD_OTA),
        (_mpy(OTA), _mpy(FIELD_OTA)),
        (APPLY, None),
        (_mpy(APPLY), None),
    ):
        content = selection.files.pop(path, None)
        if content is None:
            if path in selection.deleted:
                selection.deleted.discard(path)
                done.append(f"{path} is not deleted: the adapter stands in its place")
        elif is_shim(content):
            done.append(f"{path} stays out: it is the adapter's, which every migrated node has")
        elif beside:
            selection.files[beside] = content
            selection.deleted -= {FIELD_OTA, _mpy(FIELD_OTA)}
            done.append(f"{path} goes to {beside}: the adapter stands in its place")
        else:
            done.append(f"{path} stays out: the adapter stands in its place")
    return done


def _mpy(path: str) -> str:
    return path.removesuffix(".py") + ".mpy"


def add_adapter(selection: Selection) -> None:
    """Bring the adapter's modules too. Not the shims: no package can change those on a node.

    Raises PackageError for a file that is in the selection already.
    """
    for path, content in adapter()[0].items():
        if selection.files.setdefault(path, content) != content:
            raise PackageError(f"{path} is in the folder too, and another: --exclude {path}")
        selection.deleted.discard(path)
