# A firmware's ROMFS, as the ports mount it before boot.py.

import sys

import vfs


def mount(image):
    # image: a file of the host; "" stands for the one that is frozen into this interpreter.
    if image:
        at = image.rfind("/")
        vfs.mount(vfs.VfsPosix(image[:at]), "/.rom~", readonly=True)
        with open("/.rom~" + image[at:], "rb") as file:
            rom = bytearray(file.seek(0, 2))
            file.seek(0)
            file.readinto(rom)
        vfs.umount("/.rom~")
    else:
        from romfs_image import IMAGE as rom

        del sys.modules["romfs_image"]
    vfs.mount(vfs.VfsRom(memoryview(rom)), "/rom")
    sys.path[:] = ["", ".frozen", "/rom", "/rom/lib", "/lib"]
    del sys.modules["_romfs"]
