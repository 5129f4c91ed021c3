# A stand-in of the field's extraction: in place, in the archive's order, name and size only.

import os


def do_apply(package):
    try:
        with open(package, "rb") as archive:
            while True:
                head = archive.read(512)
                if not head or head[0] == 0:
                    break
                name = head[:100].decode().rstrip("\0")
                size = int(head[124:135], 8)
                if name.endswith("/"):
                    try:
                        os.mkdir(name[:-1])
                    except OSError as error:
                        if error.args[0] != 17:
                            print("field: no folder", name)
                else:
                    _unpack(archive, name, size)
                archive.read(-size % 512)
        os.remove(package)
        return True
    except Exception as error:
        print("field: can not apply", type(error), error)
        os.remove(package)
        return False


def _unpack(archive, name, size):
    with open(name, "w") as file:
        while size:
            piece = archive.read(min(512, size))
            file.write(piece)
            size -= len(piece)
