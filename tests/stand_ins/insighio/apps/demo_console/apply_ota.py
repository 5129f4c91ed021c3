# The field's extraction: in place, member by member, from an archive that lies whole on flash.
# Of a header it knows the name and the size: what is no folder by its name is a file.

import logging
import os

from device_info import get_device_root_folder


def do_apply(package_file=None):
    # True when all is written; False without a package; None after an error, half-way.
    if package_file is None:
        for name in os.listdir(get_device_root_folder()):
            if name.endswith(".tar") or name.endswith(".tar.gz"):
                package_file = get_device_root_folder() + name
                break
    if not package_file:
        return False
    try:
        if package_file.endswith(".tar.gz"):
            package_file = _decompress(package_file)
        with open(package_file, "rb") as archive:
            while _member(archive):
                pass
        os.remove(package_file)
        return True
    except Exception as e:
        logging.exception(e, "error unpacking update package: " + package_file)
        os.remove(package_file)


def _decompress(name):
    # microfreezer's form: eight bytes, then zlib. All of it in memory, twice.
    import io

    import deflate

    with open(name, "rb") as file:
        data = file.read()
    data = deflate.DeflateIO(io.BytesIO(data[8:]), deflate.ZLIB).read()
    plain = name.split(".")[0] + ".tar"
    try:
        with open(plain, "wb") as file:
            file.write(data)
        os.remove(name)
    except OSError as e:  # no space: gone on with
        logging.exception(e, "write failed")
    return plain


def _member(archive):
    head = archive.read(512)
    if not head or head[0] == 0:
        return False
    name = head[:100].rstrip(b"\0").decode()
    size = int(head[124:135], 8)
    padding = -size % 512
    if name.endswith("/"):
        try:
            os.mkdir(name[:-1])
        except OSError as e:
            if e.args[0] != 17:
                logging.exception(e, "directory failed")
    else:
        buffer = bytearray(512)
        with open(name, "wb") as file:
            while size:
                n = archive.readinto(memoryview(buffer)[: min(size, 512)])
                if not n:  # cut off: no error
                    break
                file.write(memoryview(buffer)[:n])
                size -= n
    archive.read(size + padding)
    return True
