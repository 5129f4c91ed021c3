"""The device's reader of manifests: every byte has one meaning, and none is taken on trust."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from host_sim.node.node import run_code
from tests import signing
from tests.mutants import Mutant

DEVICE = Path(__file__).parents[1] / "device"
FILES = {"main.py": b"print(1)\n", "lib/größe ä.py": b"", "a/b/c.mpy": b"M\6" + bytes(3000)}
GONE = ("old.py", "apps/x y.py")
HASH = "ab" * 32
#: Lines 1 to 12 of a manifest that has everything.
GOOD = [
    "insigh-ota-manifest 1",
    "key none",
    "sequence 7",
    "board esp32-s3 rev. β",
    "mpy 6",
    "requires 3",
    f"file {HASH} 5 main.py",
    f"file {HASH} 0 lib/größe ä.py",
    f"file {HASH} 2147483647 a/b/c.mpy",
    "delete old.py",
    "delete apps/x y.py",
    "signature none",
]
HEADER_ONLY = [GOOD[0], GOOD[1], "sequence 0", GOOD[-1]]


def run(firmware: Path, code: str, heap: str = "256K") -> list:
    """What calls of tests/device/manifest_probe.py print, one value for each line."""
    result = run_code(
        f"from manifest_probe import *\n{code}", path=[firmware, DEVICE], heap=heap, timeout_s=100
    )
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.output.splitlines()]


def receive(
    firmware: Path, folder: Path, manifests: list[bytes], keys: list[Path] | None = None
) -> list:
    """What becomes of each: a list of what it says, or the reason."""
    for number, content in enumerate(manifests):
        (folder / str(number)).write_bytes(content)
    paths = [str(path) for path in keys or []]
    return run(firmware, f"cases({str(folder)!r}, {len(manifests)}, {paths})")


def text(lines: list[str | bytes]) -> bytes:
    """Lines as a manifest's bytes."""
    return b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)


def with_line(number: int, *lines: str | bytes) -> bytes:
    """GOOD with line `number` replaced by others, or by none."""
    return text([*GOOD[: number - 1], *lines, *GOOD[number:]])


def before(number: int, *lines: str | bytes) -> bytes:
    """GOOD with further lines before line `number`."""
    return with_line(number, *lines, GOOD[number - 1])


SIGNATURE = "signature " + "QUJD" * 128
KEY = "key 0123456789abcdef"


def signature(line: str) -> bytes:
    """GOOD with a key, and this line for its signature."""
    return text([GOOD[0], KEY, *GOOD[2:-1], line])


# (what it is, the manifest, the line that is named)
MALFORMED = [
    ("nothing", b"", 1),
    ("an empty line", b"\n", 1),
    ("another format", with_line(1, "insigh-ota-manifest 2"), 1),
    ("a format with a zero", with_line(1, "insigh-ota-manifest 01"), 1),
    ("a byte order mark", b"\xef\xbb\xbf" + text(GOOD), 1),
    ("a blank before", b" " + text(GOOD), 1),
    ("CRLF", text(GOOD).replace(b"\n", b"\r\n"), 1),
    ("CR for LF", text(GOOD).replace(b"\n", b"\r"), 1),
    ("UTF-16", text(GOOD).decode().encode("utf-16"), 1),
    ("a comment", before(2, "# comment"), 2),
    ("an empty line inside", before(7, ""), 7),
    ("no key", with_line(2), 2),
    ("key twice", before(2, "key none"), 3),
    ("key empty", with_line(2, "key "), 2),
    ("key without blank", with_line(2, "key"), 2),
    ("key in upper case", with_line(2, "key 0123456789ABCDEF"), 2),
    ("key short", with_line(2, "key 0123456789abcd"), 2),
    ("key long", with_line(2, "key 0123456789abcdef00"), 2),
    ("key odd", with_line(2, "key 0123456789abcde"), 2),
    ("key no hex", with_line(2, "key 0123456789abcdeg"), 2),
    ("key None", with_line(2, "key None"), 2),
    ("key with a blank behind", with_line(2, "key none "), 2),
    ("a key, but no signature", signature("signature none"), 12),
    ("a signature, but no key", with_line(12, SIGNATURE), 12),
    ("no sequence", with_line(3), 3),
    ("sequence twice", before(3, "sequence 7"), 4),
    ("sequence empty", with_line(3, "sequence "), 3),
    ("sequence with a zero", with_line(3, "sequence 07"), 3),
    ("sequence 00", with_line(3, "sequence 00"), 3),
    ("sequence with a sign", with_line(3, "sequence +7"), 3),
    ("sequence negative", with_line(3, "sequence -7"), 3),
    ("sequence with blanks", with_line(3, "sequence  7"), 3),
    ("sequence with a blank behind", with_line(3, "sequence 7 "), 3),
    ("sequence in hex", with_line(3, "sequence 0x7"), 3),
    ("sequence with an underscore", with_line(3, "sequence 1_0"), 3),
    ("sequence in other digits", with_line(3, "sequence ٧"), 3),
    ("sequence 2**31", with_line(3, "sequence 2147483648"), 3),
    ("sequence beyond 10 digits", with_line(3, "sequence 10000000000"), 3),
    ("sequence a fraction", with_line(3, "sequence 7.0"), 3),
    ("sequence in capitals", with_line(3, "Sequence 7"), 3),
    ("board empty", with_line(4, "board "), 4),
    ("board too long", with_line(4, "board " + "x" * 129), 4),
    ("board with a tab", with_line(4, "board a\tb"), 4),
    ("board with a CR", with_line(4, "board a\r"), 4),
    ("board with a NUL", with_line(4, "board a\0"), 4),
    ("board not UTF-8", with_line(4, b"board \xff"), 4),
    ("board overlong", with_line(4, b"board \xc0\xaf"), 4),
    ("board twice", before(4, "board x"), 5),
    ("board after mpy", with_line(4, "mpy 6", "board x", "mpy 6"), 5),
    ("mpy no number", with_line(5, "mpy 6.3"), 5),
    ("mpy twice", before(5, "mpy 6"), 6),
    ("requires no number", with_line(6, "requires x"), 6),
    ("requires twice", before(6, "requires 3"), 7),
    ("requires before mpy", with_line(5, "requires 3", "mpy 6"), 6),
    ("unknown header", before(7, "colour red"), 7),
    ("header after files", before(8, "requires 3"), 8),
    ("sequence after files", before(9, "sequence 8"), 9),
    ("key after files", before(9, "key none"), 9),
    ("hash in upper case", with_line(7, f"file {HASH.upper()} 5 main.py"), 7),
    ("hash short", with_line(7, f"file {HASH[2:]} 5 main.py"), 7),
    ("hash odd", with_line(7, f"file {HASH[1:]} 5 main.py"), 7),
    ("hash long", with_line(7, f"file {HASH}00 5 main.py"), 7),
    ("hash no hex", with_line(7, f"file {HASH[1:]}x 5 main.py"), 7),
    ("no hash", with_line(7, "file 5 main.py"), 7),
    ("no size", with_line(7, f"file {HASH} main.py"), 7),
    ("size with a zero", with_line(7, f"file {HASH} 05 main.py"), 7),
    ("size negative", with_line(7, f"file {HASH} -5 main.py"), 7),
    ("size 2**31", with_line(7, f"file {HASH} 2147483648 main.py"), 7),
    ("two blanks before the size", with_line(7, f"file {HASH}  5 main.py"), 7),
    ("no path", with_line(7, f"file {HASH} 5 "), 7),
    ("no path and no blank", with_line(7, f"file {HASH} 5"), 7),
    ("path with a slash before", with_line(7, f"file {HASH} 5 /main.py"), 7),
    ("path with a slash behind", with_line(7, f"file {HASH} 5 main.py/"), 7),
    ("path with ./", with_line(7, f"file {HASH} 5 ./main.py"), 7),
    ("path with /./", with_line(7, f"file {HASH} 5 a/./main.py"), 7),
    ("path with //", with_line(7, f"file {HASH} 5 a//main.py"), 7),
    ("path with ..", with_line(7, f"file {HASH} 5 a/../main.py"), 7),
    ("path of a dot", with_line(7, f"file {HASH} 5 ."), 7),
    ("path with a backslash", with_line(7, f"file {HASH} 5 a\\b"), 7),
    ("path with a tab", with_line(7, f"file {HASH} 5 a\tb"), 7),
    ("path with a CR", with_line(7, f"file {HASH} 5 a\r"), 7),
    ("path with a DEL", with_line(7, f"file {HASH} 5 a\x7f"), 7),
    ("path with a NUL", with_line(7, f"file {HASH} 5 a\0b"), 7),
    ("path not UTF-8", with_line(7, f"file {HASH} 5 ".encode() + b"\xff"), 7),
    ("path with a surrogate", with_line(7, f"file {HASH} 5 ".encode() + b"\xed\xa0\x80"), 7),
    ("part of 256 bytes", with_line(7, f"file {HASH} 5 " + "x" * 256), 7),
    ("the manifest itself", with_line(7, f"file {HASH} 5 .ota-manifest"), 7),
    ("line of 401 bytes", with_line(7, f"file {HASH} 5 " + "xx/" * 109 + "xx"), 7),
    ("endless line", with_line(7, "x" * 100_000), 7),
    ("delete before file", before(8, "delete a"), 9),
    ("delete empty", with_line(10, "delete "), 10),
    ("delete without blank", with_line(10, "delete"), 10),
    ("delete the root", with_line(10, "delete /"), 10),
    ("delete outside", with_line(10, "delete ../x"), 10),
    ("delete with a slash", with_line(10, "delete /old.py"), 10),
    ("file after delete", before(11, GOOD[6]), 11),
    ("no signature", with_line(12), 12),
    ("signature empty", signature("signature "), 12),
    ("signature in capitals", signature("signature NONE"), 12),
    ("signature no base64", signature("signature !"), 12),
    ("signature short", signature(SIGNATURE[:-4]), 12),
    ("signature long", signature(SIGNATURE + "QUJD"), 12),
    ("signature padded", signature(SIGNATURE[:-4] + "QUI="), 12),
    ("signature with a blank", signature(SIGNATURE[:-5] + " QUJD"), 12),
    ("signature URL-safe", signature(SIGNATURE[:-4] + "-_-_"), 12),
    ("signature no base64 inside", signature(SIGNATURE[:-8] + "!!!!QUJD"), 12),
    ("signature twice", text([*GOOD, GOOD[-1]]), 13),
    ("data behind the signature", text([*GOOD, "x"]), 13),
    ("an LF behind the signature", text(GOOD) + b"\n", 13),
    ("a NUL behind the signature", text(GOOD) + b"\0", 13),
    ("no LF at the end", text(GOOD)[:-1], 12),
]


def test_every_malformed_manifest_is_refused(agent: Path, tmp_path: Path):
    answers = receive(agent, tmp_path, [content for _, content, _ in MALFORMED])
    wrong = {
        name: answer
        for (name, _, line), answer in zip(MALFORMED, answers, strict=True)
        if answer != f"manifest: malformed line {line}"
    }
    assert not wrong


def test_what_is_well_formed_is_read(agent: Path, tmp_path: Path):
    longest = f"file {HASH} 5 " + "xx/" * 108 + "xxxx"
    assert len(longest) == 400
    manifests = [
        text(GOOD),
        text(HEADER_ONLY),
        with_line(3, "sequence 2147483647"),
        with_line(7, longest),
        with_line(7, f"file {HASH} 5  main.py "),  # blanks belong to the path
        signature(SIGNATURE),
    ]
    board = "esp32-s3 rev. β"
    assert receive(agent, tmp_path, manifests) == [
        [7, board, 6, 3, None, False],
        [0, None, None, None, None, False],
        [2**31 - 1, board, 6, 3, None, False],
        [7, board, 6, 3, None, False],
        [7, board, 6, 3, None, False],
        [7, board, 6, 3, "0123456789abcdef", False],
    ]


def test_the_walk_gives_what_was_signed(agent: Path, tmp_path: Path):
    signer = signing.key()
    content = signing.manifest(FILES, signer, deleted=GONE)
    (tmp_path / "manifest").write_bytes(content)
    ((files, deletions, signature),) = run(agent, f"walk({str(tmp_path / 'manifest')!r})")
    assert files == [
        ["/" + name, len(data), hashlib.sha256(data).hexdigest()] for name, data in FILES.items()
    ]
    assert deletions == ["/" + name for name in GONE]
    assert bytes.fromhex(signature) == signer.sign(content[: content.rindex(b"signature")])


def test_every_manifest_that_ends_early_is_refused(compiled: Path, tmp_path: Path):
    (tmp_path / "manifest").write_bytes(text(GOOD))
    paths = f"{str(tmp_path / 'manifest')!r}, {str(tmp_path / 'received')!r}"
    assert run(compiled, f"prefixes({paths})") == [[len(text(GOOD)), 0]]


def test_a_walk_over_a_file_that_became_shorter_is_refused(compiled: Path, tmp_path: Path):
    lines = text(GOOD).splitlines(keepends=True)
    calls = []
    for kept in range(len(GOOD)):
        file = tmp_path / str(kept)
        file.write_bytes(b"".join(lines[:kept]) + lines[kept][:-1])
        calls.append(f"walk({str(file)!r})")
    expected = [f"manifest: malformed line {kept + 1}" for kept in range(len(GOOD))]
    assert run(compiled, "\n".join(calls)) == expected


def test_a_member_that_ends_early_is_refused(compiled: Path, tmp_path: Path):
    code = f"print(json.dumps(receive(b'insigh', {str(tmp_path / 'x')!r}, size=500)))"
    assert run(compiled, code) == ["manifest: ends early"]


def test_the_longest_manifest(compiled: Path, tmp_path: Path):
    """512 KB are read, and of one that is longer not a byte."""
    line = f"file {HASH} 5 " + "x" * 100 + "/{:06}\n"
    count = (512 * 1024 - 200) // len(line.format(0))
    content = text([*HEADER_ONLY[:3]]) + "".join(map(line.format, range(count))).encode()
    room = 512 * 1024 - len(content) - len(b"signature none\n")
    content += f"file {HASH} 5 ".encode() + b"y" * (room - 73) + b"\n"
    content += b"signature none\n"
    assert len(content) == 512 * 1024
    code = f"""
print(json.dumps(receive(open({str(tmp_path / "0")!r}, "rb").read(), {str(tmp_path / "x")!r})))
import os
os.remove({str(tmp_path / "x")!r})
print(json.dumps(receive(b"", {str(tmp_path / "x")!r}, size=512 * 1024 + 1)))
"""
    (tmp_path / "0").write_bytes(content)
    assert run(compiled, code, "2M") == [
        [0, None, None, None, None, False],
        "manifest: longer than 524288 bytes",
    ]
    assert not (tmp_path / "x").exists()


def test_signatures_and_keys(agent: Path, tmp_path: Path):
    first, second = signing.key(1), signing.key(2)
    _, one = first.write(tmp_path)
    _, two = second.write(tmp_path)
    by_first = signing.manifest(FILES, first, sequence=4)
    by_second = signing.manifest(FILES, second, sequence=5)
    unsigned = signing.manifest(FILES)
    body = by_first[: by_first.rindex(b"signature")]
    stolen = body + by_second[by_second.rindex(b"signature") :]
    liar = signing.signed(body, second)
    changed = by_first.replace(b"sequence 4", b"sequence 9")
    manifests = [by_first, by_second, unsigned, stolen, liar, changed]
    accepted = [
        [4, None, None, None, first.id, True],
        [5, None, None, None, second.id, True],
        [1, None, None, None, None, False],
    ]
    bad = ["manifest: bad signature"] * 3
    # Rotation: each of two keys will do, whichever comes first.
    assert receive(agent, tmp_path, manifests, [one, two]) == accepted + bad
    assert receive(agent, tmp_path, manifests, [two, one]) == accepted + bad
    # After it the old key is worth nothing.
    unknown = f"manifest: unknown key {first.id}"
    assert receive(agent, tmp_path, manifests, [two]) == [
        unknown,
        *accepted[1:],
        *[unknown] * 3,
    ]
    # Without keys nobody can say.
    without = [[*answer[:-1], False] for answer in accepted]
    assert receive(agent, tmp_path, manifests[:3]) == without


def test_files_that_hold_no_key(compiled: Path, tmp_path: Path):
    key = signing.key()
    wrong = {
        "missing": None,
        "empty": b"",
        "short": key.modulus[:-1],
        "long": key.modulus + b"\0",
        "even": key.modulus[:-1] + bytes([key.modulus[-1] ^ 1]),
        "small": bytes([key.modulus[0] & 0x7F]) + key.modulus[1:],
    }
    for name, content in wrong.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
    _, good = key.write(tmp_path)
    content = signing.manifest(FILES, key)
    for name in wrong:
        path = tmp_path / name
        (answer,) = receive(compiled, tmp_path, [content], [path])
        assert answer == f"manifest: unknown key {key.id}, no key in {path}"
    paths = [tmp_path / name for name in wrong]
    (answer,) = receive(compiled, tmp_path, [content], [*paths, good])
    assert answer == [1, None, None, None, key.id, True]


@pytest.mark.slow
def test_every_flipped_bit_is_refused(compiled: Path, tmp_path: Path):
    """Of the signature as of what is signed; none left out."""
    signer = signing.key()
    content = signing.manifest({"a.py": b"1"}, signer, mpy=6, deleted=("b",))
    (tmp_path / "manifest").write_bytes(content)
    _, key = signer.write(tmp_path)
    paths = ", ".join(repr(str(tmp_path / name)) for name in ("manifest", "received"))
    assert run(compiled, f"flips({paths}, [{str(key)!r}])") == [[True, len(content) * 8, 0]]


@pytest.mark.slow
def test_a_reader_that_overlooks_is_seen(tmp_path: Path):
    """The tests above can fail: a signature that nobody compares, a line that may be anything."""
    content = signing.manifest({"a.py": b"1"}, signing.key())
    (tmp_path / "manifest").write_bytes(content)
    _, key = signing.key().write(tmp_path)
    paths = ", ".join(repr(str(tmp_path / name)) for name in ("manifest", "received"))
    edit = ("ota/package/manifest.py", "if verify(modulus, digest, signature):", "if signature:")
    firmware = Mutant("unverified", "", "", (edit,)).plant(tmp_path / "unverified")
    ((good, _, accepted),) = run(firmware, f"flips({paths}, [{str(key)!r}])")
    assert good
    assert accepted > 1000
    edit = (
        "ota/package/manifest.py",
        '    if not name or path != "/" + name:',
        "    if not name:",
    )
    firmware = Mutant("any spelling", "", "", (edit,)).plant(tmp_path / "spelling")
    with pytest.raises(AssertionError, match="path with a slash before"):
        test_every_malformed_manifest_is_refused(firmware, tmp_path)


OURS = "sys.implementation._mpy"
TARGETS = [
    ("{}", None, 0, None),
    ("{'sequence': 9}", "x", 9, None),  # the same package again
    ("{'sequence': 10}", "x", 9, None),
    ("{'sequence': 5}", "", 9, "manifest: sequence 5 is older than 9"),
    ("{'sequence': 0}", "", 1, "manifest: sequence 0 is older than 1"),
    ("{'board': 'a'}", "a", 0, None),
    ("{'board': 'a'}", "b", 0, "manifest: for board a, this is b"),
    ("{'board': 'a'}", "A", 0, "manifest: for board a, this is A"),
    ("{'board': 'a'}", "", 0, "manifest: for board a, this is none"),
    ("{'board': 'a'}", None, 0, "manifest: for board a, this is none"),
    ("{'sequence': 9, 'requires': 0}", "", 0, None),
    ("{'sequence': 9, 'requires': 7}", "", 7, None),
    ("{'sequence': 9, 'requires': 7}", "", 8, None),
    ("{'sequence': 9, 'requires': 7}", "", 6, "manifest: requires sequence 7, this is 6"),
    (f"{{'mpy': {OURS} & 255}}", "", 0, None),
    (f"{{'mpy': {OURS}}}", "", 0, None),
    ("{'mpy': 5}", "", 0, "manifest: for .mpy 5"),
    (f"{{'mpy': {OURS} ^ 0x400}}", "", 0, "manifest: for .mpy"),
    (f"{{'mpy': {OURS} ^ 0x100}}", "", 0, "manifest: for .mpy"),
    (f"{{'mpy': {OURS} ^ 1}}", "", 0, "manifest: for .mpy"),
    ("{'mpy': 0}", "", 0, "manifest: for .mpy 0"),
]


def test_packages_for_other_nodes(agent: Path):
    rows = ", ".join(f"({fields}, {board!r}, {floor})" for fields, board, floor, _ in TARGETS)
    (answers,) = run(agent, f"import sys\ntargets([{rows}])")
    for (*row, expected), answer in zip(TARGETS, answers, strict=True):
        if expected is None:
            assert answer is None, row
        else:
            assert answer is not None, row
            assert answer.startswith(expected), row


def test_two_thousand_files_take_no_more_heap_than_ten(compiled: Path, tmp_path: Path):
    """Each name has a character of its own: MicroPython keeps those that it meets as strings."""
    _, key = signing.key().write(tmp_path)
    peaks = {}
    for count in (10, 2000):
        files = {f"d{n % 9}/{chr(0x4E00 + n)}{n:04}.py": b"%d" % n for n in range(count)}
        content = signing.manifest(files, signing.key())
        (tmp_path / "manifest").write_bytes(content)
        code = f"memory({str(tmp_path / 'manifest')!r}, {len(content)}, [{str(key)!r}])"
        ((signed, met, calls, peak),) = run(compiled, code, "2M")
        assert (signed, met) == (True, count)
        assert calls > 2 * count
        peaks[count] = peak
    assert abs(peaks[2000] - peaks[10]) <= 1024, peaks
