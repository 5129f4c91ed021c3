# From aside into place. Runs on the board.
#
# Every step is one rename within a folder, which littlefs does whole or not at all, and each may
# be repeated. boot.py comes last.


def run():
    import hashlib
    import os
    from binascii import hexlify

    buffer = bytearray(1024)
    view = memoryview(buffer)

    def pieces(path):
        with open(path, "rb") as file:
            n = file.readinto(buffer)
            while n:
                yield view[:n]
                n = file.readinto(buffer)

    def check(path, expected):
        whole = hashlib.sha256()
        for piece in pieces(path):
            whole.update(piece)
        if hexlify(whole.digest()).decode() != expected:
            raise OSError(path + " is not what was sent")

    for path, expected in args["moved"]:
        check(path + "~", expected)
    for path, _ in args["moved"]:
        if path != "/boot.py":
            os.rename(path + "~", path)
    for path in args["stale"]:
        os.remove(path)
    if args["keep_boot"]:
        with open("/boot_user.py~", "wb") as copy:
            for piece in pieces("/boot.py"):
                copy.write(piece)
        os.rename("/boot_user.py~", "/boot_user.py")
    for path, _ in args["moved"]:
        if path == "/boot.py":
            os.rename(path + "~", path)
    for path, expected in args["all"]:
        check(path, expected)
    print("@deploy {}")


run()
