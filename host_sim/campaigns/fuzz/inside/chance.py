"""Seeded chance and blind mutation. Equal seeds give equal cases on every machine."""

import binascii

_WORD = 0xFFFFFFFF
# Bytes that mean something to one of the parsers: ends, signs, digits, separators, extremes.
_TELLING = b"\0\x01\x7f\x80\xff \n\r\t/.\\:;,=-+_\"'[]{}0178x9geLKxS"


class Chance:
    """A xorshift generator that begins anew with every case, so that each can be had alone.

    seed: int; target: str.
    """

    def __init__(self, seed, target):
        self._start = seed * 0x9E3779B1 + binascii.crc32(target)
        self._x = 1

    def begin(self, case):
        """Go to the beginning of case number `case`."""
        x = (self._start + case * 0x85EBCA6B) & _WORD
        x = (x ^ x >> 16) * 0x7FEB352D & _WORD
        x = (x ^ x >> 15) * 0x846CA68B & _WORD
        self._x = x ^ x >> 16 or 1

    def below(self, n):
        """An int from 0 to n - 1; n: at least 1."""
        x = self._x
        x ^= x << 13 & _WORD
        x ^= x >> 17
        x ^= x << 5 & _WORD
        self._x = x
        return x % n

    def one_in(self, n):
        """True once in n times."""
        return not self.below(n)

    def pick(self, things):
        """One of a sequence."""
        return things[self.below(len(things))]


def character(chance):
    """The UTF-8 of any character of two or three bytes.

    Not by chr(): MicroPython keeps every string of one character that there ever was.
    """
    code = 0x80 + chance.below(0xD000)
    if code < 0x800:
        return bytes((0xC0 | code >> 6, 0x80 | code & 63))
    return bytes((0xE0 | code >> 12, 0x80 | code >> 6 & 63, 0x80 | code & 63))


def overwrite(data, chance, start, end):
    """Change something in data[start:end] (a bytearray, not empty there), not its length."""
    at = start + chance.below(end - start)
    kind = chance.below(6)
    if kind == 0:
        data[at] ^= 1 << chance.below(8)
    elif kind == 1:
        data[at] = chance.below(256)
    elif kind == 2:
        data[at] = chance.pick(_TELLING)
    elif kind == 3:
        data[at] = (data[at] + chance.pick((1, 255, 16, 128))) & 255
    else:
        length = 1 + chance.below(min(end - at, 16))
        if kind == 4:
            data[at : at + length] = bytes((chance.pick(_TELLING),)) * length
        else:
            other = start + chance.below(end - start - length + 1)
            data[at : at + length] = bytes(data[other : other + length])


def resize(data, chance, pieces):
    """Remove, repeat or insert something anywhere in data (a bytearray).

    pieces: a sequence of bytes to choose insertions from.
    """
    at = chance.below(len(data) + 1)
    kind = chance.below(4)
    length = 1 + chance.below(chance.pick((4, 32, 600)))
    if kind == 0:
        data[at : at + length] = b""
    elif kind == 1:
        data[at:at] = bytes(data[at : at + length])
    elif kind == 2:
        data[at:at] = chance.pick(pieces)
    else:
        data[at:] = b""


def mangle(data, chance, pieces):
    """A few blind changes of either kind, anywhere in data (a bytearray)."""
    for _ in range(1 + chance.below(4)):
        if len(data) and chance.below(3):
            overwrite(data, chance, 0, len(data))
        else:
            resize(data, chance, pieces)
