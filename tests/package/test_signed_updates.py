"""Somebody has console, storage and broker, but no key: what a node then takes, and keeps.

The whole agent runs in MicroPython on littlefs; the same from console to flash is in
test_signed_nodes.py.
"""

from __future__ import annotations

import base64
import gzip
from pathlib import Path

import pytest

from host_sim import sample
from tests import signing
from tests.package.hostile.raw import END, OLD_TREE, folder, member
from tests.package.signed.node import BOARD, KEYLESS, LENIENT, follow, on_flash, refused
from tests.package.signed.packages import NAME, A, B, archive, by_hand, package, root

#: More than is read at a time.
LARGE = {"data/t.csv": bytes(range(256)) * 20, "main.py": b"print('large')\n"}
NONE = "manifest: there is none, and this node requires it"
UNSIGNED = "manifest: not signed, and this node requires it"
DAMAGED = "can not apply: changed on flash, "


def floor(row: dict) -> bytes | None:
    """The number that the node has confirmed."""
    return on_flash(row).get("/ota.sequence")


# -- who has signed it -------------------------------------------------------------------------


@pytest.mark.check
def test_an_unsigned_package_is_refused(agent: Path, tmp_path: Path):
    plain = sample.tar(A)
    cases = [
        (plain, NONE),
        (gzip.compress(plain), NONE),
        (sample.microfreezer(A), NONE),
        (archive([]), NONE),
        (package(A, None), UNSIGNED),
        (package(A, None, window=10), UNSIGNED),
        (package(A, None, deleted=("lib/driver.py",), sequence=100), UNSIGNED),
    ]
    for row in refused(agent, tmp_path, cases):
        assert set(row["staged"]) <= {"attempts", "manifest"}


def test_a_stripped_manifest_is_refused(compiled: Path, tmp_path: Path):
    good = by_hand(A)
    text = signing.manifest(A, signing.key(1))
    unsigned = signing.manifest(A)
    rest = good[512 + (len(text) + 511) // 512 * 512 :]
    assert member(NAME, text) + rest == good
    named = [(name.encode(), content) for name, content in A.items()]
    cases = [
        (rest, NONE),
        (folder(NAME) + rest, NONE),
        (folder(NAME) + good, NONE),
        (folder(b"./") + good, NONE),
        (member(b"./" + NAME, text) + rest, NONE),
        (member(b"/" + NAME, text) + rest, NONE),
        (member(NAME + b"~", text) + rest, NONE),
        (member(NAME.upper(), text) + rest, NONE),
        (member(NAME + b"/", b"") + rest, NONE),
        (archive([named[0], (NAME, text), *named[1:]]), NONE),
        (archive([*named, (NAME, text)]), NONE),
        (member(NAME, b"") + rest, "manifest: malformed line 1"),
        (member(NAME, unsigned) + rest, UNSIGNED),
        (member(NAME, unsigned) + good, UNSIGNED),
        (member(NAME, text.rpartition(b"signature ")[0]) + rest, "manifest: malformed line 7"),
        (member(NAME, text.rpartition(b"signature ")[0] + b"signature none\n") + rest, "manifest"),
        (member(NAME, text) + good, "manifest: .ota-manifest is not what comes next"),
    ]
    for row in refused(compiled, tmp_path, cases):
        assert not [name for name in row["staged"] if "/" in name]
    (row,) = follow(compiled, tmp_path, [("take", good)])
    assert row["end"] == "confirmed"


def test_a_wrong_key_is_refused(compiled: Path, tmp_path: Path):
    first, second = signing.key(1), signing.key(2)
    unknown = f"manifest: unknown key {second.id}, no key in /b.pub"
    text = signing.manifest(A, first).rpartition(b"signature ")[0]

    def with_signature(number: int) -> bytes:
        line = base64.b64encode(number.to_bytes(384, "big"))
        return by_hand(A, change=lambda m: [(NAME, text + b"signature " + line + b"\n"), *m[1:]])

    made = int.from_bytes(second.sign(text), "big")
    right = int.from_bytes(first.sign(text), "big")
    wrong = [made, 0, 1, first.n - 1, first.n, first.n + 1, right + 1, first.n - right]
    wrong.append(int.from_bytes(first.sign(text[:-1]), "big"))
    cases = [(with_signature(number), "manifest: bad signature") for number in wrong]
    cases += [(package(A, 2), unknown), (package(A, 2, window=9), unknown)]
    for options in ({}, LENIENT):
        for row in refused(compiled, tmp_path, cases, **options):
            assert set(row["staged"]) == {"attempts", "manifest"}
    (row,) = follow(compiled, tmp_path, [("take", with_signature(right))])
    assert row["end"] == "confirmed"


def test_a_rotation_of_keys(agent: Path, tmp_path: Path):
    """The second key comes in a package of the first; then it replaces that one."""
    first, second = signing.key(1), signing.key(2)
    spare = signing.forger()
    steps = [
        ("take", package(A, 2, sequence=1)),
        ("take", package({"b.pub": second.modulus}, 1, sequence=2)),
        ("take", package(A, 2, sequence=3)),
        ("take", package({"a.pub": spare.modulus}, 2, sequence=4)),
        ("take", package(B, 1, sequence=5)),
        ("take", package(B, 2, sequence=6)),
    ]
    rows = follow(agent, tmp_path, steps)
    ends = [row["reason"] or row["end"] for row in rows]
    assert ends == [
        f"manifest: unknown key {second.id}, no key in /b.pub",
        "confirmed",
        "confirmed",
        "confirmed",
        f"manifest: unknown key {first.id}",
        "confirmed",
    ]
    keys = {"/a.pub": spare.modulus, "/b.pub": second.modulus}
    assert on_flash(rows[-1]) == root(B) | keys | {"/ota.sequence": b"6"}


def test_a_new_key_goes_with_the_package_that_brought_it(compiled: Path, tmp_path: Path):
    steps = [
        ("request", package({"b.pub": signing.key(2).modulus}, 1, sequence=2)),
        ("boot", 4),
        ("wake",),
        ("take", package(A, 2, sequence=3)),
    ]
    rows = follow(compiled, tmp_path, steps)
    assert [row["end"] for row in rows] == ["reset", None, "rolled_back", "failed"]
    assert on_flash(rows[-1]) == {}


def test_a_manifest_that_nobody_signed_does_not_fill_flash(compiled: Path, tmp_path: Path):
    """A few bytes of gzip become half a megabyte; the application needs what is free meanwhile."""
    long = b"insigh-ota-manifest 1\n" + bytes(500_000)
    cases = [(gzip.compress(archive([(NAME, long)])), "not enough space: ")]
    cases.append((archive([(NAME, long[:90_000])]), "manifest: malformed line 2"))
    refused(compiled, tmp_path, cases)


# -- for whom it is meant ----------------------------------------------------------------------


def test_an_older_sequence_is_refused(compiled: Path, tmp_path: Path):
    takes = [(A, 9), (B, 8), (B, 0), (A, 9), (B, 9), (A, 10), (B, 9), (B, 2**31 - 1)]
    steps = [("take", package(tree, sequence=number)) for tree, number in takes]
    rows = follow(compiled, tmp_path, steps)
    assert [row["reason"] or row["end"] for row in rows] == [
        "confirmed",
        "manifest: sequence 8 is older than 9",
        "manifest: sequence 0 is older than 9",
        "installed",
        "confirmed",
        "confirmed",
        "manifest: sequence 9 is older than 10",
        "confirmed",
    ]
    numbers = [b"9", b"9", b"9", b"9", b"9", b"10", b"10", b"2147483647"]
    assert [floor(row) for row in rows] == numbers
    for row in (rows[1], rows[2], rows[6]):
        assert set(row["staged"]) == {"attempts", "manifest"}
    assert on_flash(rows[-2]) == root(A) | {"/ota.sequence": b"10"}
    # Who need not sign has to count all the same.
    steps = [("take", package(A, sequence=2)), ("take", package(B, None))]
    rows = follow(compiled, tmp_path, [*steps, ("take", package(B, None, sequence=2))], **LENIENT)
    ends = ["confirmed", "manifest: sequence 1 is older than 2", "confirmed"]
    assert [row["reason"] or row["end"] for row in rows] == ends
    assert floor(rows[2]) == b"2"


def test_a_folder_where_a_file_belongs_is_no_failure_of_flash(compiled: Path, tmp_path: Path):
    """That would be a reset, and another try."""
    steps = [("put", "/ota.sequence/x", b""), ("take", package(A, sequence=3))]
    rows = follow(compiled, tmp_path, steps)
    assert rows[1]["reason"] == "manifest: /ota.sequence is no number"
    keys = ["/lib", "/main.py/key"]
    rows = follow(compiled, tmp_path, [("take", package(A, sequence=3))], keys=keys)
    assert rows[0]["reason"].endswith(", no key in /lib, no key in /main.py/key")


@pytest.mark.few(2)
@pytest.mark.parametrize("content", [b"", b"x", b"7x", b"\xff\xfe", b"0x10", b"1.5", b"7 8"])
def test_a_damaged_sequence_is_not_zero(compiled: Path, tmp_path: Path, content: bytes):
    """Whoever could damage it would else get an older package in."""
    steps = [("put", "/ota.sequence", content), ("take", package(A, sequence=2**31 - 1))]
    rows = follow(compiled, tmp_path, steps)
    assert rows[1]["reason"] == "manifest: /ota.sequence is no number"
    assert on_flash(rows[1]) == {"/ota.sequence": content}
    # It can be mended, and a package without a manifest never looks there.
    steps[1:] = [("take", sample.tar(A)), ("put", "/ota.sequence", b"5")]
    rows = follow(compiled, tmp_path, [*steps, ("take", package(B, sequence=5))], **LENIENT)
    assert [rows[1]["end"], rows[3]["end"]] == ["confirmed", "confirmed"]


def test_a_required_sequence_is_required(compiled: Path, tmp_path: Path):
    needs = package(B, sequence=6, requires=3)
    steps = [
        ("take", needs),
        ("take", package(A, sequence=2)),
        ("take", needs),
        ("take", package(A, sequence=3)),
        ("take", needs),
    ]
    ends = [row["reason"] or row["end"] for row in follow(compiled, tmp_path, steps)]
    refusal = "manifest: requires sequence 3, this is "
    assert ends == [refusal + "0", "confirmed", refusal + "2", "installed", "confirmed"]


def test_another_boards_package_is_refused(compiled: Path, tmp_path: Path):
    cases = [
        (package(A, board="esp32"), f"manifest: for board esp32, this is {BOARD}"),
        (package(A, board=BOARD + " "), f"manifest: for board {BOARD} , this is {BOARD}"),
        (package(A, mpy=5), "manifest: for .mpy 5, this is "),
        (package(A, mpy=0x7F06), "manifest: for .mpy 32518, this is "),
    ]
    for row in refused(compiled, tmp_path, cases):
        assert set(row["staged"]) == {"attempts", "manifest"}
    # Whose it is does not matter to that.
    refused(
        compiled, tmp_path, [(package(A, None, board="b"), "manifest: for board b")], **LENIENT
    )
    foreign = [(package(A, board=BOARD), f"manifest: for board {BOARD}, this is unknown")]
    refused(compiled, tmp_path, foreign, board="unknown")
    (row,) = follow(compiled, tmp_path, [("take", package(A, board=BOARD, mpy=6))])
    assert row["end"] == "confirmed"


# -- what is in it -----------------------------------------------------------------------------


def test_files_not_listed_missing_or_twice_are_refused(compiled: Path, tmp_path: Path):
    bad = "can not apply: bad archive, "
    extra = (b"lib/evil.py", b"evil = 1\n")
    twice = by_hand(A, change=lambda m: [*m, m[3]])
    cases = [
        (by_hand(A, change=lambda m: m[:-1]), "manifest: /main.py is missing"),
        (by_hand(A, change=lambda m: m[:1]), "manifest: /data/t.csv is missing"),
        (by_hand(A, change=lambda m: [*m[:2], m[3]]), "manifest: main.py is not what comes next"),
        (by_hand(A, change=lambda m: [*m, extra]), "manifest: lib/evil.py is not what"),
        (by_hand(A, change=lambda m: [m[0], extra, *m[1:]]), "manifest: lib/evil.py is not what"),
        (by_hand(A, change=lambda m: [*m[:2], extra, m[3]]), "manifest: lib/evil.py is not what"),
        (by_hand(change=lambda m: [*m, extra]), "manifest: lib/evil.py is not what"),
        (twice, "manifest: main.py is not what comes next"),
        (by_hand(A, change=lambda m: [*m[:2], m[1], *m[2:]]), "manifest: data/t.csv is not what"),
        (by_hand(A, change=lambda m: [m[0], m[2], m[1], m[3]]), "manifest: lib/new.py is not"),
        (by_hand(A, change=lambda m: [*m[:3], (b"Main.py", m[3][1])]), "manifest: Main.py is not"),
        (by_hand(A, change=lambda m: [*m[:3], (b"main.py", b"")]), "manifest: main.py is not"),
        (by_hand(A, change=lambda m: [*m[:3], (b"../main.py", m[3][1])]), "can not apply: a path"),
        (by_hand(A) + member(*extra) + END, bad + "data after its end"),
        (by_hand(A)[:-1024] + folder(b"more/") + member(*extra) + END, "manifest: lib/evil.py is"),
    ]
    # A manifest may say so itself, and then the archive agrees with it.
    name, content = b"lib/driver.py", b"old = 2\n"
    key = signing.key(1)
    lines = signing.manifest({name.decode(): content}).splitlines(True)[3]
    text = b"insigh-ota-manifest 1\nkey %s\nsequence 1\n" % key.id.encode()
    both = signing.signed(text + lines + lines, key)
    same = "can not apply: the same name twice: /lib/driver.py"
    cases.append((archive([(NAME, both), (name, content), (name, content)]), same))
    refused(compiled, tmp_path, cases)


def test_files_of_another_version_are_refused(compiled: Path, tmp_path: Path):
    def files(*contents: bytes) -> bytes:
        """The manifest of A, and other content."""
        return by_hand(
            A,
            change=lambda m: [
                m[0],
                *((name, content) for (name, _), content in zip(m[1:], contents, strict=True)),
            ],
        )

    a, b = list(A.values()), list(B.values())
    longer = [content + b"#" for content in a]
    cases = [
        (files(*b), "manifest: data/t.csv has another content"),
        (files(a[0], b[1], b[2]), "manifest: lib/new.py has another content"),
        (files(a[0], a[1], b[2]), "manifest: main.py has another content"),
        (files(a[0], a[1], longer[2]), "manifest: main.py is not what comes next"),
        (files(longer[0], a[1], a[2]), "manifest: data/t.csv is not what comes next"),
        (files(a[0][:-1] + b"\0", a[1], a[2]), "manifest: data/t.csv has another content"),
        (files(b"\0" + a[0][1:], a[1], a[2]), "manifest: data/t.csv has another content"),
    ]
    # Files of equal size that change their places, and what stands on flash already.
    swapped = by_hand(
        {"a.py": b"a", "b.py": b"b"}, change=lambda m: [m[0], (m[1][0], b"b"), (m[2][0], b"a")]
    )
    cases.append((swapped, "manifest: a.py has another content"))
    other = OLD_TREE["/lib/driver.py"]
    unchanged = by_hand({"lib/driver.py": b"new = 2\n"}, change=lambda m: [m[0], (m[1][0], other)])
    cases.append((unchanged, "manifest: lib/driver.py has another content"))
    empty = by_hand({"e": b"", "f": b"x"}, change=lambda m: [m[0], (b"e", b"x"), m[2]])
    cases.append((empty, "manifest: e is not what comes next"))
    refused(compiled, tmp_path, cases)


def test_what_was_staged_is_checked_again_at_the_install(agent: Path, tmp_path: Path):
    """The reason names the path; as the commit has been, the node resets and tells then."""
    good = package(LARGE, sequence=7)
    new = bytearray(LARGE["data/t.csv"])
    new[-1] ^= 1
    rows = follow(
        agent,
        tmp_path,
        [
            # The agent itself installs.
            ("tamper", good, "commit", "/.ota/0", bytes(new)),
            ("wake",),
            ("tamper", good, "commit", "/.ota/1", b"print('evil!')\n"),
            ("wake",),
            # The power fails, and boot.py does.
            ("cut", good, "commit"),
            ("put", "/.ota/0", bytes(new)),
            ("boot", 1),
            ("wake",),
            ("cut", good, "commit"),
            ("boot", 1),
            ("wake",),
        ],
    )
    for first, path in (0, "/data/t.csv"), (2, "/main.py"):
        assert rows[first]["end"] == "reset"
        assert rows[first]["published"] == []
        row = rows[first + 1]
        assert (row["end"], row["reason"]) == ("failed", DAMAGED + path)
        assert row["changes"] == {}
        assert row["published"] == [
            f'[{{"n":"e","v":2}},{{"n":"i","vs":"fa8884d2"}},{{"n":"m","vs":"{DAMAGED + path}"}}]'
        ]
    rows = rows[4:]
    assert "/.ota/state" in rows[0]["changes"]
    # The old tree is back; what else is in /.ota the agent clears away, and then it tells.
    assert {name[:6] for name in on_flash(rows[2])} == {"/.ota/"}
    assert "/.ota/report" in on_flash(rows[2])
    assert "/.ota/state" not in on_flash(rows[2])
    row = rows[3]
    assert (row["end"], row["reason"]) == ("failed", DAMAGED + "/data/t.csv")
    assert row["changes"] == {}
    assert rows[6]["end"] == "confirmed"
    assert on_flash(rows[6]) == root(LARGE) | {"/ota.sequence": b"7"}


@pytest.mark.slow
def test_what_is_damaged_in_the_middle_of_an_install_undoes_it(compiled: Path, tmp_path: Path):
    """Wherever the power failed: as long as one member waits, the old tree can come back."""
    gone = {"/lib/driver.py": None, "/lib/fast.mpy": None}
    new = A | {"boot.py": OLD_TREE["/boot.py"] + b"more = 1\n", "lib/fast.py": b"fast = 1\n"}
    content = package(new, deleted=("lib/driver.py",), sequence=7)
    *cuts, end = follow(compiled, tmp_path, [("cut_the_install", content)])
    assert end == "reset"
    assert {number for number, _ in cuts} == set(range(len(new) + 1))
    for number, row in cuts:
        if number:
            assert row["end"] == "failed"
            assert row["reason"].startswith(DAMAGED)
            assert row["changes"] == {}
        else:
            assert row["end"] == "confirmed"
            assert on_flash(row) == root(new) | gone | {"/ota.sequence": b"7"}


# -- what becomes of the old tree, and of the number ---------------------------------------------


def test_deletions_are_rolled_back(compiled: Path, tmp_path: Path):
    gone = ("lib/driver.py", "lib/fast.mpy", "data/log.csv", "main.py", "none.py", "none/a/b.py")
    content = package({"lib/new.py": b"new = 1\n"}, deleted=gone, sequence=4)
    rows = follow(
        compiled, tmp_path, [("request", content), ("boot", 4), ("wake",), ("take", content)]
    )
    removed = {f"/{name}": None for name in gone if not name.startswith("none")}
    new = removed | {"/lib/new.py": b"new = 1\n"}
    installed = {k: v for k, v in on_flash(rows[0]).items() if not k.startswith("/.ota/")}
    assert installed == new
    assert rows[2]["end"] == "rolled_back"
    assert rows[2]["changes"] == {}
    assert rows[3]["end"] == "confirmed"
    assert on_flash(rows[3]) == new | {"/ota.sequence": b"4"}


def test_the_floor_moves_only_with_a_confirm(compiled: Path, tmp_path: Path):
    steps = [
        ("take", package(A, sequence=3)),
        ("request", package(B, sequence=5)),
        ("boot", 4),
        ("wake",),
        ("take", package(A, sequence=4)),  # as 5 was never confirmed
        ("request", package(B, sequence=6)),
        ("wake",),
    ]
    rows = follow(compiled, tmp_path, steps)
    ends = ["confirmed", "reset", None, "rolled_back", "installed", "reset", "confirmed"]
    assert [row["end"] for row in rows] == ends
    assert [floor(row) for row in rows] == [b"3", b"3", b"3", b"3", b"4", b"4", b"6"]
    assert rows[3]["reason"] == "rolled back: 3 boots without confirm"
    assert on_flash(rows[3]) == root(A) | {"/ota.sequence": b"3"}


def test_only_what_is_signed_moves_the_floor(compiled: Path, tmp_path: Path):
    """Else who serves packages could lift it above all that the owner will ever sign."""
    high = 2**31 - 1
    for config, signer in ((LENIENT, None), (KEYLESS, None), (KEYLESS, 1), (KEYLESS, 2)):
        steps = [
            ("take", package(A, signer, sequence=high)),
            ("take", package(A, signer, sequence=high)),
            ("take", package(B, signer, sequence=1)),
        ]
        rows = follow(compiled, tmp_path, steps, **config)
        assert [row["end"] for row in rows] == ["confirmed", "installed", "confirmed"]
        assert on_flash(rows[2]) == root(B), (config, signer)


def test_a_confirm_that_is_cut_off_is_finished(compiled: Path, tmp_path: Path):
    """Between floor and state above all: littlefs hides a name more than the one that moves."""
    steps = [("take", package(A, sequence=3)), ("request", package(B, sequence=6))]
    rows = follow(compiled, tmp_path, [*steps, ("cut_the_confirm",)])
    *cuts, end = rows[2:]
    assert end == "confirmed"
    assert [["6", True], "confirmed"] in [[now, woken] for now, woken, _, _ in cuts]
    before = [cut for cut in cuts if cut[0][1]]
    after = [cut for cut in cuts if not cut[0][1]]
    assert before
    assert after
    for now, woken, then, changes in cuts:
        assert now[0] in ("3", "6")
        assert woken == ("confirmed" if now[1] else "idle"), (now, woken)
        assert then == ["6", False]
        assert on_flash({"changes": changes}) == root(B) | {"/ota.sequence": b"6"}
