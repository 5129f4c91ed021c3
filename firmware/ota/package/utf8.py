"""Names in other characters than ASCII. Only in RAM for packages with such names."""


def is_utf8(raw):
    """Whether bytes that MicroPython takes for UTF-8 are that to everybody (RFC 3629)."""
    # It lets forms that are too long (0xC0, 0xC1, 0xE080 to 0xE09F, 0xF080 to 0xF08F), surrogates
    # (0xEDA0 to 0xEDBF) and what is beyond Unicode pass. Bytes are looked at, not characters: each
    # of those would be kept in RAM for good.
    for i in range(len(raw) - 1):
        pair = raw[i] << 8 | raw[i + 1]
        if (
            pair >> 9 == 0x60
            or pair >> 5 in (0x704, 0x76D)
            or pair >> 4 == 0xF08
            or pair >= 0xF490
        ):
            return False
    return True
