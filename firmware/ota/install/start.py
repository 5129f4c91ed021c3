"""What staging does before its first member; not in RAM behind it."""

import json
from binascii import crc32

from micropython import const

from ..errors import Refused
from ..package.vetting import clean_path
from ..tarfile_lite import TarReader
from .marks import Marks

# The name of the member that makes a package a signed one (docs/signing.md).
_MANIFEST = const(".ota-manifest")
_LONGEST_ETAG = const(200)
# What staging, and the head of the journal, take from the configuration.
_JUDGED = const(
    "protected keys ca require_signature board report watchdog_s"
    " trial_boots trial_wakes trial_days trial_deadline_s"
)


def begin(agent, request, archive, rehearsal, local, download, left):
    """Go to the first member or the manifest, and see whether this node may take such a package.

    archive: what open_archive() returns; rehearsal, local: as arrival.stage() has them; download,
    left: what begin.connect() returns. Returns (a TarReader, at its first member where there is
    neither a manifest nor left; the SignedReader or None; protected paths; the journal's head;
    what else has to be the same in another wake, or None; Marks or None). Raises Refused, OSError.
    """
    config = agent.config
    reader = TarReader(archive)
    signed = sequence = said = marks = None
    more = left or reader.next()
    paths = config["protected"][:]
    if left[4] if left else reader.name == _MANIFEST and not reader.is_folder:
        from ..package.signed import SignedReader

        signed = SignedReader(reader, config, agent.feed, left[3] if left else None)
        sequence = signed.sequence
    elif rehearsal:
        paths = []
    elif config["require_signature"]:
        raise Refused("manifest", "there is none, and this node requires it")
    elif not more:
        raise Refused("can not apply", "bad archive, it is empty")
    if not (signed and signed.signed):
        # Whoever could exchange these would have the node for good. The owner may: a trial
        # shows that the platform is trusted still (anchors.py).
        paths += config["keys"]
        paths += [config["ca"]] if type(config["ca"]) is str else config["ca"]
    head = [2, request.file_id]
    for key in "trial_boots", "trial_wakes", "trial_days", "trial_deadline_s":
        head.append(config[key])
    head.append(not local and config["report"] == "installed")
    head += [config["watchdog_s"], [archive.window, 0], sequence]
    paths = [] if rehearsal else [clean_path(path) for path in paths]
    if not (rehearsal or local):
        # Without a strong entity tag nobody can tell whether the rest belongs to what has come,
        # but by the hashes of a manifest.
        etag = download.etag
        if not (0 < len(etag) <= _LONGEST_ETAG and max(etag) < 127):
            etag = b""
        way = archive if (etag or signed) and not agent.open_stream else None
        last, begun = (left[0], left[-1]) if left else (None, None)
        marks = Marks(download, way, reader.globals, agent.fetched, last, begun)
        # What has no signature is known by this alone in another wake.
        said = left or mark_of(config, request, etag, signed.sum if signed else 0)
    return reader, signed, paths, head, said, marks


def mark_of(config, request, etag, manifest):
    """What has to be the same in each wake, as the path of a line in the journal.

    etag: bytes, a strong entity tag, b"" where there is none; manifest: its CRC-32, or 0.
    """
    config = crc32(json.dumps([config[key] for key in _JUDGED.split(" ")]))
    return "%08x %08x %d %s" % (config, manifest, request.size, etag.decode())
