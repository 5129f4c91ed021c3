"""Where the agent and the adapter lie, in a checkout and installed; and where caches may lie."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

_PACKAGE = Path(__file__).parent
#: The checkout, if it is one.
CHECKOUT = _PACKAGE.parent if (_PACKAGE.parent / "firmware/ota").is_dir() else None
_DATA = CHECKOUT or _PACKAGE / "data"
#: boot.py, and the agent in `ota`.
FIRMWARE = _DATA / "firmware"
#: The adapter for the insighioNode firmware, as it stands on a node.
ADAPTER = _DATA / "insighio/node"
#: What is said of an agent on a board that has, or has not, the same files.
WHOSE = "this checkout" if CHECKOUT else "this insigh-ota"
NO_SIMULATOR = (
    "needs the simulator: pip install '.[sim]' in its checkout (Linux x86-64 and macOS arm64 only)"
)


def cache(name: str) -> Path:
    """A folder for what is made, or fetched, once; it may not be there yet.

    Inside the virtual environment, which takes it along when it is removed; where nobody may
    write there, or where there is none, in the user's folder of caches.
    """
    if sys.prefix != sys.base_prefix and os.access(sys.prefix, os.W_OK):
        return Path(sys.prefix) / name
    import platformdirs

    return platformdirs.user_cache_path("insigh-ota") / name


def version() -> str:
    """That of the agent, and of all else here."""
    source = (FIRMWARE / "ota/__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    assert found
    return found[1]
