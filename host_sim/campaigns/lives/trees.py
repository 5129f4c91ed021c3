"""What may stand on a node: a tree, what a package makes of it, and what a way back leaves."""

from __future__ import annotations

from collections.abc import Iterator

from host_sim.campaigns.lives.package import Package

#: A file's content, or None for a folder, by absolute path.
Tree = dict[str, bytes | None]
_NOTHING = object()

#: No part of any tree: the node's notes, the floor of sequence numbers (it moves with the
#: confirm), and the log with which bad code fills flash.
LOG = "/log.txt"
_APART = ("/ota.sequence", LOG)


def of_flash(files: dict[str, bytes], folders: list[str]) -> Tree:
    """The tree of a flash, without what belongs to none."""
    tree: Tree = dict.fromkeys(folders)
    tree |= files
    return {
        path: content
        for path, content in tree.items()
        if path not in _APART and path != "/.ota" and not path.startswith("/.ota/")
    }


def above(path: str) -> Iterator[str]:
    """The folders that a path lies in, innermost first."""
    while path := path[: path.rfind("/")]:
        yield path


def is_file(tree: Tree, path: str) -> bool:
    """Whether the path names a file."""
    return tree.get(path) is not None


def is_folder(tree: Tree, path: str) -> bool:
    """Whether the path names a folder."""
    return path in tree and tree[path] is None


def apply(tree: Tree, package: Package) -> Tree | None:
    """What a package makes of a tree; None where it can not be applied to it."""
    new = dict(tree)
    for name in package.folders:
        if not _make_folders(new, "/" + name + "/"):
            return None
    for name, content in package.tree.items():
        path = "/" + name
        if path == "/boot.py" and b"recovery.boot()" not in content:
            path = "/boot_user.py"
        if is_folder(new, path) or not _make_folders(new, path):
            return None
        twin = _twin(path)
        if is_file(new, twin):
            del new[twin]
        new[path] = content
    for name in package.deleted:
        if is_folder(tree, "/" + name):
            return None
        new.pop("/" + name, None)
    return new


def _make_folders(tree: Tree, path: str) -> bool:
    """False where a file stands in the way."""
    for folder in above(path):
        if is_file(tree, folder):
            return False
        tree[folder] = None
    return True


def _twin(path: str) -> str:
    if path.endswith(".py"):
        return path[:-2] + "mpy"
    return path[:-3] + "py" if path.endswith(".mpy") else ""


def touched(old: Tree, new: Tree) -> set[str]:
    """Paths at which the two differ."""
    return {p for p in {*old, *new} if old.get(p, _NOTHING) != new.get(p, _NOTHING)}


def rolled_back(old: Tree, new: Tree, now: Tree) -> Tree:
    """What is right after the way back to `old`.

    `new` is what the package made of it, `now` that with what the new code has done to it since:
    what it did at the package's paths goes, what it wrote elsewhere stays.
    """
    ours = touched(old, new)
    back = dict(old)
    for path in old:
        if path in ours or is_folder(old, path):
            continue
        if path not in now:
            del back[path]
        elif is_file(now, path):
            back[path] = now[path]
    for path in now:
        if path in old or path in ours:
            continue
        if any(is_file(old, f) or (f in ours and is_file(new, f)) for f in above(path)):
            continue
        back[path] = now[path]
        back |= dict.fromkeys(above(path))
    return back


def difference(now: Tree, rights: dict[str, Tree]) -> str:
    """In what a tree differs from each of those that would be right."""
    texts = []
    for name, right in rights.items():
        wrong = sorted(p + "/" * is_folder({**right, **now}, p) for p in touched(now, right))
        texts.append(f"{name} in {', '.join(wrong[:5])}{' …' * (len(wrong) > 5)}")
    return "; ".join(texts)
