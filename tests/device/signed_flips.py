"""Bits of signed packages, flipped one at a time: what the agent makes of each."""

import json

from signed_probe import ota, transaction


def flips(node, bundle, size, bits):
    """Flip each of these bits of a package, one at a time, and let the agent stage it.

    Prints, for each, a digit: 0 refused, 1 staged as the sound package is, 2 otherwise.
    """
    _remember_verified()
    node.read_in_large_pieces()
    transaction.save("attempts", "fa8884d2 1")
    content = bytearray(bundle.read(size))
    sound = node.stage(content)
    found = ""
    for _ in _flipped(content, bits):
        staged = node.stage(content)
        found += "2" if staged and staged != sound else "1" if staged else "0"
    print(json.dumps([len(sound), found]))


def whole_flips(node, bundle, size, bits):
    """As flips(), through a whole check. A digit more: 3 refused, but something was staged."""
    node.read_in_large_pieces()
    content = bytearray(bundle.read(size))
    found = ""
    for _ in _flipped(content, bits):
        row = node.row(node.take(content))
        refused = row["end"] == "failed" and "commit" not in row["steps"]
        clean = row["outside"] and not row["changes"] and set(row["staged"]) <= _UNREAD
        found += "2" if not refused else "0" if clean else "3"
        if not refused:
            node.restore()
    print(json.dumps([0, found]))


# What is in /.ota before the first member of a package with a manifest is looked at.
_UNREAD = {"attempts", "manifest"}


def _flipped(content, bits):
    """Yield once for each bit, while it is flipped in content."""
    for bit in bits:
        content[bit >> 3] ^= 1 << (bit & 7)
        yield bit
        content[bit >> 3] ^= 1 << (bit & 7)


def _remember_verified():
    """Verify each signature once: it takes half the time, and the manifest does not change."""
    verify, known = ota.package.signature.verify, {}

    def remembered(*arguments):
        if arguments not in known:
            known[arguments] = verify(*arguments)
        return known[arguments]

    ota.package.signature.verify = remembered
