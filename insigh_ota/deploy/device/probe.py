# What is on the board. Runs there, and writes nothing but, on an empty flash, a file for a moment.


def run():
    import hashlib
    import json
    import os
    import sys
    from binascii import b2a_base64, hexlify

    buffer = bytearray(1024)
    view = memoryview(buffer)

    def listed(folder):
        try:
            return [e for e in os.ilistdir(folder) if e[1] == 0x8000]
        except OSError:
            return []

    def read(path, most):
        try:
            with open(path, "rb") as file:
                return file.read(most)
        except OSError:
            return None

    def digest(path):
        whole = hashlib.sha256()
        with open(path, "rb") as file:
            n = file.readinto(buffer)
            while n:
                whole.update(view[:n])
                n = file.readinto(buffer)
        return hexlify(whole.digest()).decode()

    def is_fat():
        # FAT, and only FAT, finds a file by its name in other letters.
        names = [e[0] for e in listed("/") if e[0].upper() != e[0]]
        name = "/" + (names[0] if names else "deploy~")
        if not names:
            open(name, "w").close()
        try:
            os.stat(name.upper())
            return True
        except OSError:
            return False
        finally:
            if not names:
                os.remove(name)

    def ca_paths():
        # Of all that is in it only this: it also holds the device key.
        try:
            ca = json.loads(read("/ota.json", 4096)).get("ca", "/ca.der")
        except (TypeError, ValueError, AttributeError):
            ca = "/ca.der"
        return ca if type(ca) is list else [ca]

    def sector():
        # Of the block device, where it is an ESP32's; elsewhere nobody knows its name.
        try:
            import flashbdev

            return flashbdev.bdev.ioctl(5, 0)
        except Exception:
            return None

    # Told by C, and to nobody but the wire: the host reads it there. Builtin modules, and frozen
    # ones, of which a boot.py or main.py wins over the one on flash.
    try:
        help("modules")
    except NameError:
        pass
    implementation = sys.implementation
    flash = os.statvfs("/")
    found = {
        "version": list(implementation[1])[:3],
        "machine": getattr(implementation, "_machine", sys.platform),
        "mpy": getattr(implementation, "_mpy", 0),
        "fat": is_fat(),
        "block": flash[0],
        "free": flash[0] * flash[3],
        "ca": ca_paths(),
        "state": None,
        "sector": sector(),
        # A global of our boot.py, whatever else has run behind it.
        "started": "_trial" in globals(),
        "printed": [],
    }
    state = read("/.ota/state", 400)
    if state is not None:
        found["state"] = b2a_base64(state).decode()
    boot = read("/boot.py", 16384)
    found["boot"] = None if boot is None else b2a_base64(boot).decode()
    paths = [path + tail for path in args["paths"] + found["ca"] for tail in ("", "~")]
    for folder in args["folders"]:
        paths += [folder + "/" + entry[0] for entry in listed(folder)]
    files = {}
    for path in paths:
        try:
            files[path] = (os.stat(path)[6], digest(path))
        except OSError:
            pass
    found["files"] = files
    print("@deploy", json.dumps(found))


run()
