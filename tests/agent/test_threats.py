"""The threat tables name tests that exist, and the format's page has an example that is one."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from insigh_ota.package.manifest import parse

ROOT = Path(__file__).parents[2]
SECURITY = (ROOT / "docs/security.md").read_text()
SIGNING = (ROOT / "docs/signing.md").read_text()
#: RFC 9124, 4.2.
SUIT = """
IMG.EXPIRED IMG.EXPIRED.OFFLINE IMG.INCOMPATIBLE IMG.FORMAT IMG.LOCATION NET.REDIRECT NET.ONPATH
IMG.REPLACE IMG.NON_AUTH UPD.WRONG_PRECURSOR UPD.UNAPPROVED IMG.DISCLOSURE MFST.OVERRIDE
MFST.EXPOSURE IMG.EXTRA KEY.EXPOSURE MFST.MODIFICATION MFST.TOCTOU
"""


def missing(text: str) -> list[str]:
    """Tests that the text names and nobody wrote."""
    found = []
    for file, _, name in re.findall(r"`(test_\w+\.py)(::(test_\w+))?`", text):
        path = next((ROOT / "tests").rglob(file), None)
        if not path or not re.search(
            rf"^def {name + '[(]' if name else 'test_'}", path.read_text(), re.M
        ):
            found.append(f"{file}::{name}")
    return found


def test_every_test_that_is_named_exists():
    assert SECURITY.count("::test_") > 40
    assert not missing(SECURITY)


def test_a_test_that_does_not_exist_is_seen():
    names = "`test_none.py` `test_flash.py` `test_threats.py::test_every`"
    assert missing(names) == ["test_none.py::", "test_threats.py::test_every"]
    assert not missing("`test_threats.py::test_the_example_is_a_manifest`")


def test_every_threat_of_the_information_model_has_a_row():
    rows = re.findall(r"^\| THREAT\.([A-Z_.]+): .+? \| .+ \|$", SECURITY, re.MULTILINE)
    assert rows == SUIT.split()


def test_the_example_is_a_manifest():
    (example,) = re.findall(r"(?:^    .*\n)*^    signature none\n", SIGNING, re.MULTILINE)
    manifest = parse(re.sub("^    ", "", example, flags=re.MULTILINE).encode())
    assert (manifest.sequence, manifest.board, manifest.mpy) == (7, "esp32-s3 rev. 2", 6)
    assert manifest.files[1][2] == hashlib.sha256(b"42\n").hexdigest()


def test_every_option_is_in_the_table():
    from insigh_ota.package.commands import build

    options = {name for option in build.params for name in option.opts if name.startswith("-")}
    for option in options - {"--out", "--json"}:
        assert option in SIGNING, option
