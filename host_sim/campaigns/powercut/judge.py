"""The oracle: reads raw images with littlefs-python and shares no code with the agent."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from host_sim.errors import SimError
from host_sim.node import flash
from host_sim.sample import Tree

# littlefs-python tells of every single read.
logging.getLogger("littlefs").setLevel(logging.WARNING)

_REMEMBERED = 4096
_FLOOR = "/ota.sequence"


class Judge:
    """Knows exactly two trees, the old and the new one.

    `image` is the node as it was flashed; `new_files` what the package makes of its files. The
    floor of sequence numbers belongs to neither: it moves with the confirm.
    """

    def __init__(self, image: bytes, new_files: Tree, scratch: Path) -> None:
        self._file = scratch / "judged.img"
        self._verdicts: dict[bytes, tuple[str, list[str]]] = {}
        files, folders = self._read(image)
        new_folders = set(folders)
        for path in new_files:
            parts = path.split("/")[1:-1]
            new_folders |= {"/" + "/".join(parts[: n + 1]) for n in range(len(parts))}
        self._trees = {"old": (files, folders), "new": (new_files, new_folders)}
        for tree, _ in self._trees.values():
            tree.pop(_FLOOR, None)

    def files(self, name: str) -> Tree:
        """The files of the tree "old" or "new"."""
        return self._trees[name][0]

    def tree(self, name: str) -> tuple[Tree, set[str]]:
        """Files and folders of the tree "old" or "new"."""
        return self._trees[name]

    def everything(self, image: bytes) -> dict[str, bytes | str] | str:
        """Files (their content) and folders ("folder") of an image, but for the floor.

        A text in words when it does not mount.
        """
        try:
            files, folders = self._read(image)
        except SimError as error:
            return f"unmountable image: {error}"
        files.pop(_FLOOR, None)
        return {**files, **dict.fromkeys(folders, "folder")}

    def which(self, image: bytes) -> str:
        """ "old" or "new", or in other words what is wrong with this image."""
        return self._verdict(image)[0]

    def leftovers(self, image: bytes) -> list[str]:
        """What is in /.ota."""
        return self._verdict(image)[1]

    def floor(self, image: bytes) -> bytes:
        """The floor of sequence numbers; empty where there is none."""
        return self.file(image, _FLOOR)

    def file(self, image: bytes, path: str) -> bytes:
        """The content of a file on an image; empty where there is none."""
        try:
            return self._read(image)[0].get(path, b"")
        except SimError:
            return b""

    def _read(self, image: bytes) -> tuple[Tree, set[str]]:
        self._file.write_bytes(image)
        files, folders = flash.read_all(self._file)
        return files, set(folders)

    def _verdict(self, image: bytes) -> tuple[str, list[str]]:
        # Many cuts leave the same image; reading one takes longer than booting it.
        digest = hashlib.sha256(image).digest()
        if digest not in self._verdicts:
            if len(self._verdicts) > _REMEMBERED:
                self._verdicts.clear()
            self._verdicts[digest] = self._judge(image)
        return self._verdicts[digest]

    def _judge(self, image: bytes) -> tuple[str, list[str]]:
        try:
            files, folders = self._read(image)
        except SimError as error:
            return f"unmountable image: {error}", []
        own = {p for p in {*files, *folders} if p == "/.ota" or p.startswith("/.ota/")}
        own_files = {*own, _FLOOR}
        tree = ({p: files[p] for p in files if p not in own_files}, folders - own)
        for name, right in self._trees.items():
            if tree == right:
                return name, sorted(own)
        return "mixed tree: " + self._difference(*tree), sorted(own)

    def _difference(self, files: Tree, folders: set[str]) -> str:
        texts = []
        for name, (right, right_folders) in self._trees.items():
            wrong = [p for p in {*files, *right} if files.get(p) != right.get(p)]
            wrong += [p + "/" for p in folders ^ right_folders]
            texts.append(f"differs from {name} in {', '.join(sorted(wrong)[:4])}")
        return "; ".join(texts)
