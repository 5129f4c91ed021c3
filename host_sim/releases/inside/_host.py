# The instance's end of the pipes to the host: operations (operations.py has the same
# numbers), and what is shared by all that asks the host.

from struct import pack_into, unpack_from

_pipe = open("/dev/host", "r+b")
_head = bytearray(16)
_answer = bytearray(8)


def ask(operation, a=0, b=0, data=b""):
    """(result, how many bytes of data follow). Raises OSError with the host's number."""
    pack_into("<iiiI", _head, 0, operation, a, b, len(data))
    _pipe.write(_head)
    if data:
        _pipe.write(data)
    _pipe.readinto(_answer)
    result, size = unpack_from("<iI", _answer)
    if result < 0:
        raise OSError(-result)
    return result, size


def take(buffer, size):
    """The data of the answer into buffer."""
    if size:
        _pipe.readinto(buffer if size == len(buffer) else memoryview(buffer)[:size])


def fetch(operation, a=0, b=0, data=b""):
    """The data of the answer."""
    size = ask(operation, a, b, data)[1]
    found = bytearray(size)
    take(found, size)
    return bytes(found)
