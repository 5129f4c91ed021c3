"""Whether the sources that a package brings compile: a node finds out only when it runs them."""

from __future__ import annotations

import re

from host_sim.errors import SimError
from host_sim.node.process import compiled
from insigh_ota.package import insighio, paths
from insigh_ota.package.errors import PackageError

#: Machine code and assembler compile only for a processor that knows them.
_PROCESSORS = "", "xtensawin", "armv7emdp", "rv32imc"
_NO_PROCESSOR = "invalid arch"
_BOM = b"\xef\xbb\xbf"


def sources(files: dict[str, bytes], unchecked: list[str] | None) -> None:
    """Raise PackageError for the first source that MicroPython's compiler refuses.

    Those that match a pattern of `unchecked`, and templates of the insighioNode firmware, pass.
    """
    for path, content in files.items():
        if not path.endswith(".py") or insighio.is_template(path):
            continue
        if not paths.matches(path, unchecked or []):
            advice = "Mend it, or --exclude it"
            if unchecked is not None:  # else the command has no such option
                advice += f"; --unchecked {path} takes it as it is"
            source(path, content, advice)


def source(path: str, content: bytes, advice: str = "Mend it") -> None:
    """Raise PackageError, with the advice behind it, if this source compiles for no processor."""
    if content.startswith(_BOM):  # the compiler takes it for a part of the first name
        raise PackageError(
            f"{path} begins with a byte order mark, which MicroPython reads as a name: save it as "
            f"UTF-8 without BOM. {advice}"
        )
    told: list[str] = []
    for processor in _PROCESSORS:
        try:
            compiled(content, path, processor=processor)
            return
        except SimError as error:
            told.append(str(error).strip())
        if _NO_PROCESSOR not in told[0]:
            break
    words = next((each for each in told if _NO_PROCESSOR not in each), told[0])
    line = re.search(r"line (\d+)", words)
    where = f"line {line[1]}, " if line else ""
    raise PackageError(f"{path} does not compile: {where}{words.splitlines()[-1]}. {advice}")
