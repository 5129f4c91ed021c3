"""What is put into the cases: hostile names, odd numbers, and the words of each language."""

from __future__ import annotations

NAMES = [
    *(b"main.py", b"lib", b"a", b"b.py", b"boot.py", b"ota", b"boot.mpy", b"main.mpy", b""),
    *(b".", b"..", b"...", b"../", b"/..", b"..\\", b"a/../b", b"./..", b" ..", b".. ", b"..\0"),
    *(b".ota", b".ota/state", b"ota.json", b"/ota.json", b".OTA", b".ota ", b"ca.der", b"/.ota/"),
    *(b"/", b"//", b"./", b"\\", b"C:\\x", b"\x1b[2J", b"\n", b"a\tb", b"\x7f", b"\x01", b"\0"),
    *("ä".encode(), "中".encode(), "😀".encode(), b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xe2\x80"),
    *(b"\xc0\xae\xc0\xae", b"\xc0\xaf", b"\xe0\x80\xae", b"\xc1\x9c", b"\xe2\x80\xae", b"%2e%2e"),
    *(b"n" * 100, b"n" * 155, b"n" * 255, b"n" * 256, "ä".encode() * 128, b"d/" * 200, b"=", b" "),
]
NUMBERS = [
    *(b"", b"0", b"7", b"8", b"00000000000\0", b"00000000001\0", b"00000000777\0", b"77777777777"),
    *(b"777777777777", b"0x10", b"-1", b"+1", b" 1", b"1 ", b" 1 \0", b"1 1", b"1\x002", b"\0\0"),
    *(b"\x80" + bytes(11), b"\x80" + bytes(10) + b"\x01", b"\x80" + b"\xff" * 11, b"\xff" * 12),
    *(b"\xff" * 11 + b"\xfe", b"\x80" + bytes(7), b"\x40" + bytes(11), b"512", b"1000", b"1024"),
    *(b"9" * 10, b"9" * 11, b"4294967296", b"2147483648", b"1_0", b"1.5", b"1e3", b"\xd9\xa1"),
]
KEYS = [
    *(b"path", b"path", b"path", b"size", b"size", b"linkpath", b"mtime", b"uid", b"comment", b""),
    *(b"GNU.sparse.major", b"GNU.sparse.name", b"hdrcharset", b"Path", b"path\0", b"pa", b"a b"),
]
MAGICS = [
    b"ustar\x0000",
    b"ustar  \0",
    bytes(8),
    b"ustar\0\0\0",
    b"ustar   ",
    b"USTAR\0",
    b"ustar\x0001",
]

_REQUEST = (
    b'[{"n":"e","v":0},{"n":"i","vs":"fa8884d2"},{"n":"t","vs":".tar.gz"},{"n":"s","v":3987}]'
)
REQUESTS = [
    _REQUEST,
    b'[ { "vs" : "fa8884d2" , "n" : "i" } , {"n":"s","vs":"12"},{"n":"t","vs":".tar"},{"n":"e"}]',
    b'[{"bn":"urn:x:","n":"e","v":0},{"n":"i","vs":"a"},{"n":"t","vs":".tar"},{"n":"s","v":1}]',
    b'[{"n":"e","v":1},{"n":"i","vs":"fa8884d2"}]',
    b'[{"n":"e","v":2},{"n":"i","vs":"fa8884d2"},{"n":"m","vs":"not enough space"}]',
    b'[{"bn":"e","v":0.0},{"bn":"","n":"i","v":12345678},{"n":"t","vs":".tar"},{"n":"s","v":9e3}]',
    b"",
    b"{}",
    b"[]",
]
REQUEST_TOKENS = [
    *b'[ ] { } , : " \\ [] {} [[ ]] null true false NaN Infinity -0 1e999 -1e999 1e-999'.split(),
    *(b'"n":', b'"v":', b'"vs":', b'"bn":', b'"e"', b'"i"', b'"t"', b'"s"', b'"x"', b'""'),
    *(b'{"n":"s","v":1}', b'{"n":"i","vs":"a"}', b'{"n":"e","v":0}', b'{"bn":1}', b'{"n":[]}'),
    *(b'"\\u0000"', b'"\\ud800"', b'"\\uD83D\\uDE00"', b'"\\x"', b'"\\', b"\\u00", b'"\xff"'),
    *(b"0", b"1", b"-1", b"3987", b"1.5", b"9" * 30, b"0x10", b"1_0", b'"0"', b'" 1"', b'"1e3"'),
    *(b"\xef\xbb\xbf", b"\0", b"\n", b"\xff", b"[" * 70, b'{"a":' * 30, b'"' + b"a" * 200 + b'"'),
    *(b"9" * 400, b"1e400", b"-", b".", b'"../x"', b'"a&dk=b"', b'"a b"', b'".tar"', b'".TAR"'),
]

BODY = b"".join(b"%05d" % n for n in range(80))
_LENGTH = b'HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 400\r\nETag: "v1"\r\n\r\n' + BODY
_CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"64\r\n"
    + BODY[:100]
    + b"\r\n12c;name=value\r\n"
    + BODY[:300]
    + b"\r\n0\r\nTrailer: x\r\n\r\n"
)
RESPONSES = [
    _LENGTH,
    _CHUNKED,
    b"HTTP/1.0 200 OK\nConnection: close\n\n" + BODY,
    b"HTTP/1.1 100 Continue\r\n\r\n" + _LENGTH,
    b"HTTP/1.1 302 Found\r\nLocation: https://other.example/x?y=z\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 307 T\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n\r\n<html>no</html>",
    b"HTTP/1.1 503\r\nContent-Length: 4\r\n\r\nbusy",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 0\r\n\r\n",
]
_HEADER_LINES = b"""\
Content-Length: 400
Content-Length: 0
Content-Length: -1
Content-Length: 4_0
Content-Length: 999999999
Content-Length: 1000000000
CONTENT-LENGTH:1
Transfer-Encoding: chunked
Transfer-Encoding: gzip, chunked
Content-Encoding: gzip
Content-Range: bytes 100-399/400
ETag: "v1"
ETag: W/"v1"
ETag: "v\r2"
Location:
Location: /
Location: /a b
Location: //h/
Location: http://h/
Location: https://
Location: https://h?
Location: https://h#x
Location: https://h:99999/
Location: https://h:80:80/
Location: https://u@h/
Location: https://[::1]/
Location: HTTPS://H
0
5
+5
-1
0x10
1_0
00000005
ffffffff
fffffffff
"""
RESPONSE_TOKENS = [
    *(line + b"\r\n" for line in _HEADER_LINES.split(b"\n")),
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b":", b" ", b"\t", b";", b"\0", b"\xff", b"\r\n "),
    *(b"HTTP/1.1 ", b"HTTP/2 ", b"200", b"301", b"302", b"100", b"99999999999", b"-200", b"500"),
    *(
        b"Location: https://h/\xc3\xa9\r\n",
        b"Location: /\x7f\r\n",
        b"0\r\n\r\n",
        b"5 \r\n",
        b"400",
    ),
    *(
        b"h" * 1100,
        b"X: y\r\n" * 70,
        b"Name" + b"x" * 2000 + b": y\r\n",
        b"https://h/",
        b"chunked",
    ),
]
