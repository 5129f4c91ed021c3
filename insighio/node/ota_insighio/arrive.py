"""The second half of the migration from the field's updater, on the node.

The first half is a package that the field's updater unpacks in place. Its last member is the new
/apps/demo_console/ota.py: where that runs, all else is there. What is left to do is here, each
step whole or not at all, and each may be repeated:

1. remove the package's own file, where power failed before the field's updater did;
2. /apps/demo_console/apply_ota.py: the field's is kept as field_apply_ota.py, ours comes;
3. /boot.py: the field's is kept as /boot_user.py, which ours runs last; ours takes its place;
4. reset, and look whether our boot.py has run. If not, nothing could ever be rolled back, and no
   package would be taken: the field's updater comes back.

A file gets its new content under a name that nothing uses, then a rename in the same folder: never
one from folder to folder, in which a power cut can hide another file for a while.
"""

import os

# All that waits. Its last file goes when the node has been seen to run under our boot.py.
_WAITING = "/ota_insighio/arrival"
_BOOT = _WAITING + "/boot.py"
_APPLY = _WAITING + "/apply_ota.py"
# A package brings this file, of any content, to have the field's updater again.
_BACK = _WAITING + "/back"
# The detail of a refusal that is none.
_DONE = "the migration is done already"
# The size of the package that brought all this, in digits. It stays.
_SIZE = "/ota_insighio/migration"
_APP = "/apps/demo_console/"
# A name in __main__, until the reset that is due.
_DUE = "_arrive_reset"
_NO_ENTRY = 2
_NO_SPACE = 28
# Blocks for what littlefs itself moves.
_LEAST_FREE = 2


def settle():
    """Do what is left of the migration. True: reset the node now. One stat when nothing is left.

    Call it before anything else of a check. Raises OSError when the flash fails: the next call
    goes on where this one was.
    """
    if not _is_there(_WAITING):
        return False
    try:
        return _go_on()
    except OSError as error:
        if error.args[0] != _NO_SPACE:
            raise
        return _go_back("flash is full")


def verdict(request):
    """What a policy hook answers to the request for the migration that is done; None to others.

    request: has kind, str, and size, int, as the agent's has. It is heard where power failed after
    the last file and before the field's report, and from a batch with this node in it once more.
    The agent would refuse it for its /ota.json. It is known by its size: no other .tar has one
    that is not a multiple of 512.
    """
    if request.kind == ".tar" and request.size == _migration():
        return "refuse", _DONE
    return None


def said(payload):
    """The report of that refusal as the report of a success; any other as it is.

    payload: bytes of a report that the agent publishes.
    """
    if _DONE.encode() not in payload:
        return payload
    import json

    pack = [row for row in json.loads(payload) if row["n"] != "m"]
    for row in pack:
        if row["n"] == "e":
            row["v"] = 1
    return json.dumps(pack).encode()


def _go_on():
    import __main__

    if hasattr(__main__, _DUE):
        return True
    if _is_there(_BACK):
        # While that package is on trial, the agent has to confirm it first.
        return not _is_there("/.ota/state") and _go_back("a package asks for it")
    if not _is_there(_BOOT):
        if not hasattr(__main__, "_trial"):
            return _go_back("our boot.py did not run")
        _tidy()
        print("arrive: the migration is done")
        return False
    _remove_package()
    if _is_there(_APPLY):
        if not _fits():
            return _go_back("flash is full")
        if not _same(_APPLY, _APP + "apply_ota.py"):
            if _is_there(_APP + "apply_ota.py"):
                _copy(_APP + "apply_ota.py", _APP + "field_apply_ota.py")
            _copy(_APPLY, _APP + "apply_ota.py")
        os.remove(_APPLY)
    # One of ours has come by cable: it stays.
    if _is_there("/boot.py") and not _holds("/boot.py", b"recovery.boot()"):
        if _is_there("/boot_user.py") and not _same("/boot.py", "/boot_user.py"):
            if _holds("/boot.py", b"boot_user"):
                return _go_back("there is a /boot_user.py that /boot.py needs")
            # Nothing has run it; ours would.
            os.rename("/boot_user.py", "/boot_user_before.py")
        if not _is_there("/boot_user.py"):
            _copy("/boot.py", "/boot_user.py")
        _copy(_BOOT, "/boot.py")
    elif not _is_there("/boot.py"):
        _copy(_BOOT, "/boot.py")
    # Before the last step: whether our boot.py runs is to be asked after the reset, not before.
    setattr(__main__, _DUE, True)
    os.remove(_BOOT)
    print("arrive: boot.py is ours from the reset on")
    return True


def _fits():
    """Whether there is room for all copies. After a write without it littlefs is wrong in RAM."""
    info = os.statvfs("/")
    needed = _LEAST_FREE
    for path in _APPLY, _BOOT, _APP + "apply_ota.py", "/boot.py":
        if _is_there(path):
            needed += os.stat(path)[6] // info[0] + 1
    return info[3] >= needed


def _go_back(why):
    """The field's updater again, as it was. Returns True: reset; False where nobody kept it."""
    field, ota = _APP + "field_ota", _APP + "ota"
    compiled = not _is_there(field + ".py")
    if compiled and not (_is_there(field + ".mpy") or _is_there(ota + ".mpy")):
        print("arrive: there is no field_ota.py that could come back,", why)
        return False
    print("arrive: the field's updater comes back,", why)
    # What a failed copy has left: there may be no room for anything else.
    for path in _APP + "apply_ota.py", _APP + "field_apply_ota.py", "/boot_user.py", "/boot.py":
        if _is_there(path + "~"):
            os.remove(path + "~")
    # In an order in which our ota.py, that goes on with this, is the last to go.
    if _is_there("/boot_user.py") and _holds("/boot.py", b"recovery.boot()"):
        os.rename("/boot_user.py", "/boot.py")
    if _is_there(_APP + "field_apply_ota.py"):
        os.rename(_APP + "field_apply_ota.py", _APP + "apply_ota.py")
    if not compiled:
        os.rename(field + ".py", ota + ".py")
    else:
        # A .py is found before its .mpy: until ours is gone, it goes on with this.
        if _is_there(field + ".mpy"):
            os.rename(field + ".mpy", ota + ".mpy")
        os.remove(ota + ".py")
    _tidy()
    return True


def _tidy():
    for name in os.listdir(_WAITING):
        os.remove(_WAITING + "/" + name)
    os.rmdir(_WAITING)


def _migration():
    """Size of the package that brought the migration, in bytes; None where it is not known."""
    try:
        with open(_SIZE) as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _remove_package():
    size = _migration()
    for name in os.listdir("/"):
        if size and name.endswith(".tar") and os.stat("/" + name)[6] == size:
            os.remove("/" + name)


def _copy(path, to):
    """to becomes a copy of path, whole or not at all."""
    buffer = memoryview(bytearray(512))
    with open(path, "rb") as source, open(to + "~", "wb") as target:
        n = source.readinto(buffer)
        while n:
            target.write(buffer[:n])
            n = source.readinto(buffer)
    os.rename(to + "~", to)


def _same(path, other):
    """True when both are there and hold the same."""
    if not _is_there(other) or os.stat(path)[6] != os.stat(other)[6]:
        return False
    with open(path, "rb") as one, open(other, "rb") as two:
        while True:
            piece = one.read(512)
            if piece != two.read(512):
                return False
            if not piece:
                return True


def _holds(path, text):
    """True when a line of the file holds text."""
    with open(path, "rb") as file:
        for line in file:
            if text in line:
                return True
    return False


def _is_there(path):
    try:
        os.stat(path)
        return True
    except OSError as error:
        if error.args[0] != _NO_ENTRY:
            raise
        return False
