"""The applier of patches, and the reader of the record that holds an index, by themselves."""

import io

import check
from ota.errors import Refused
from ota.package import plan
from ota.package.wanted import Patched, varint

OLD = b"0123456789"


class Source:
    """Gives a byte at a time."""

    def __init__(self, content):
        self.left = content

    def readinto(self, buffer, n):
        piece, self.left = self.left[: min(n, 1)], self.left[min(n, 1) :]
        buffer[: len(piece)] = piece
        return len(piece)


def _made(patch, size, most=4):
    source = Source(patch + b"behind it")
    member = Patched(source, len(patch), io.BytesIO(OLD), "/a/b", size)
    check.equal((member.name, member.size, member.is_folder), ("a/b", size, False))
    buffer, got = bytearray(most), b""
    while True:
        n = member.readinto(buffer, most)
        if not n:
            check.equal(source.left, b"behind it")
            return got
        got += buffer[:n]


def _refuses(patch, size, text):
    check.raises(Refused, text, _made, patch, size)


def test_copies_and_new_bytes():
    check.equal(_made(b"\x14\0", 10), OLD)
    check.equal(_made(b"\7abc", 3), b"abc")
    # Two from the beginning, two from six further on, three from seven back.
    check.equal(_made(b"\4\0\4\x0c\6\x0d\5xy", 9), b"0189345xy")
    for most in 1, 2, 3, 50:
        check.equal(_made(b"\4\0\4\x0c\6\x0d\5xy", 9, most), b"0189345xy")


def test_the_last_byte_of_the_old_file_and_no_more():
    check.equal(_made(b"\2\x12", 1), b"9")
    _refuses(b"\2\x14", 1, "a patch takes what is not there")
    _refuses(b"\4\x12", 2, "a patch takes what is not there")
    _refuses(b"\2\1", 1, "a patch takes what is not there")
    check.equal(_made(b"\2\0\2\1", 2), b"00")
    _refuses(b"\2\0\2\3", 2, "a patch takes what is not there")


def test_what_is_no_step():
    _refuses(b"\0\0\5xy", 2, "a patch makes more than its file")
    _refuses(b"\1\5xy", 2, "a patch makes more than its file")
    _refuses(b"\7xyz", 2, "a patch makes more than its file")
    _refuses(b"\xff" * 6, 2, "a number that is too large")


def test_a_patch_that_ends_early():
    for patch in b"", b"\5", b"\5x", b"\4", b"\x84", b"\3x":
        _refuses(patch, 2, "a patch ends early")


def test_a_patch_that_goes_on():
    for more in b"x", b"\0", b"\3x":
        _refuses(b"\5xy" + more, 2, "a patch goes on behind its file")
    _refuses(b"x", 0, "a patch goes on behind its file")
    check.equal(_made(b"", 0), b"")


def test_an_old_file_that_becomes_shorter():
    old = io.BytesIO(OLD)
    member = Patched(Source(b"\x14\0"), 2, old, "/a", 10)
    buffer = bytearray(4)
    check.equal(member.readinto(buffer, 4), 4)
    old.seek(0, 2)
    check.raises(Refused, "a patch ends early", member.readinto, buffer, 4)


def test_numbers():
    def value(raw):
        stream = io.BytesIO(raw)
        return varint(stream.read)

    check.equal(value(b"\0"), 0)
    check.equal(value(b"\x7f"), 127)
    check.equal(value(b"\x80\1"), 128)
    check.equal(value(b"\xff\xff\xff\xff\x7f"), (1 << 35) - 1)
    check.raises(Refused, "too large", value, b"\xff\xff\xff\xff\xff\1")


class _Tar:
    """In front of a header whose content is shorter than its record says."""

    def __init__(self, content, kind=103):
        self.header = bytearray(512)
        self.header[124:135] = b"%011o" % len(content)
        self.header[156] = kind
        self._content = io.BytesIO(content)

    def next_header(self):
        return True

    def readinto(self, buffer, n):
        return self._content.readinto(memoryview(buffer)[:n])


def _received(content, kind=103):
    written = io.BytesIO()
    kept = []

    class _File:
        def __enter__(self):
            return written

        def __exit__(self, *_):
            kept.append(written.getvalue())

    plan.open = lambda path, how: _File()
    try:
        plan.receive(_Tar(content, kind))
    finally:
        del plan.open
    return kept[0]


def test_the_record_of_an_index():
    check.equal(_received(b"15 comment=abc\n"), b"abc")
    check.equal(_received(b"12 comment=\n"), b"")
    check.equal(_received(b"15 comment=abc\n9 path=x\n"), b"abc")


def test_a_record_that_is_longer_than_its_header():
    check.raises(Refused, "its index is damaged", _received, b"99 comment=abc\n")


def test_records_that_are_none():
    for content in (
        b"",
        b"15",
        b"x5 comment=abc\n",
        b"15 comment abc\n",
        b"15 path=abc\n",
        b" comment=abc\n",
        b"-5 comment=abc\n",
        b"11 comment=",
        b"000000015 comment=abc\n",
        b"99999999999 comment=abc\n",
    ):
        check.raises(Refused, "damaged PAX header", _received, content)
    check.raises(Refused, "its index is too long", _received, b"5000 comment=" + bytes(5000))
    check.raises(Refused, "its index is missing", _received, b"15 comment=abc\n", 120)


check.run(globals())
