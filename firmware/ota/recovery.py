"""Everything that must survive a power cut: commit, install, trial, confirm, roll back.

Self-contained, because boot.py runs it before anything else of the node may be trusted. It decides
from what is on flash, never from memory, and every step may be repeated at any time.

    /.ota/state      exists from the commit until the end of the transaction; boot.py looks for it
    /.ota/journal    one line per touched path, complete before the commit, never changed after it
    /.ota/recovery.* this module as it was at the commit, which boot.py runs until the end
    /.ota/<place>    a staged member        /.ota/<place>~   what it replaces
    /.ota/report     the outcome that the platform has not acknowledged yet
    /.ota/verified   its sequence number, which becomes /ota.sequence by the confirm

State, one line of fields with single spaces between; the version is state's and journal's:

    1 <phase> <file id> <boots> <wakes> <most boots> <most wakes> <deadline s> <when> <reason>

    commit   the install may have begun and must be finished; <boots> counts the boots that tried
    trial    the new tree runs; <boots> counts boots that no deep sleep explains, <wakes> all boots
    back     the return to the old tree may have begun and must be finished; <boots> counts the
             boots that tried, <reason> says why

Journal line: `<kind> <place> <depth> <path>`; <place> is `<n>` or `<folder>/<n>`; <depth> is how
many folders above <path> (for m: and <path> itself) the old tree does not have.

    a   add: there is no file of this name          t   the same of a folder with all that is in it
    n   a file in such a folder, which waits in     m   a folder in such a folder, or the folder
    r   replace                                     b   replace what the next boot itself needs
    d   delete (x.py of a new x.mpy, too)           x   delete, but the old file was copied aside
    u   unchanged; <path> is a check sum of it      h   <path> is the SHA-256 of the line above's
"""

import os
import sys

from micropython import const

_DIR = const("/.ota")
_STATE = const("/.ota/state")
_JOURNAL = const("/.ota/journal")
# A cut while it leaves /.ota would also hide the name that comes next there (docs/design.md): that
# must not be `state`, so it comes last.
_SEQUENCE = const("/.ota/verified")
_VERSION = const("1")
# A flash that fails at every boot must not be worn by resets for ever.
_MOST_TRIES = const(20)
# ENOENT, ENOTDIR (new code has put a file in a folder's place), ENOTEMPTY.
_NOTHING_THERE = const((2, 20, 39))
_IS_FOLDER = const(0x4000)

_timer = None  # of the trial deadline, which must not be collected
# A module of this boot once it has been counted: a package's own boot.py may call boot() again.
_COUNTED = const("ota.counted")


def exists(path):
    """True when the path names a file or a folder."""
    try:
        return bool(os.stat(path))
    except OSError:
        return False


def save(name, text):
    """Make text the content of /.ota/<name>, which after a cut is the old or the new one."""
    if not exists(_DIR):
        os.mkdir(_DIR)
    path = _DIR + "/" + name
    with open(path + "~", "w") as file:
        file.write(text)
    os.rename(path + "~", path)


def load(name):
    """The text of /.ota/<name>, or None."""
    try:
        with open(_DIR + "/" + name) as file:
            return file.read()
    except OSError:
        return None


def forget(name):
    """Remove /.ota/<name> if it exists, and the folder with it when nothing else is in it."""
    _done(os.remove, _DIR + "/" + name)
    _done(os.rmdir, _DIR)


def in_transaction():
    """True from the commit until the new tree is confirmed or the old one is back."""
    return exists(_STATE)


def read_state():
    """The open transaction as a list of str, [phase, file id, boots, …, reason], or None."""
    fields = (load("state") or "").split(" ", 9)
    return fields[1:] if len(fields) == 10 and fields[0] == _VERSION else None


def _write_state(state):
    save("state", _VERSION + " " + " ".join(state))


def commit(file_id, boots, wakes, deadline_s, when):
    """From here on the staged members will be installed, whatever happens.

    boots, wakes: int, limits of the trial; deadline_s: int, seconds; when: `installed` or
    `confirmed`, what `e:1` waits for. The journal and all that it names are complete and closed.
    """
    _leave_copy()
    _write_state(("commit", file_id, "0", "0", str(boots), str(wakes), str(deadline_s), when, ""))


def _leave_copy():
    """Copy this module beside the state: the package may break the one that is installed."""
    source = "/" + __file__.lstrip("/")
    if exists(source):
        with open(_DIR + source[source.rfind("/") :], "wb") as copy:
            _read(source, copy.write)


def _read(path, take, moved=None):
    """Call take with each piece of a file, and moved after each."""
    buffer = bytearray(512)
    n = 512
    with open(path, "rb") as file:
        while n:
            n = file.readinto(buffer)
            take(memoryview(buffer)[:n])
            moved and moved()


def install(moved=None):
    """Finish the committed transaction and begin its trial; the node has to be reset after it.

    Rolls back instead, which ends the transaction, when a member of a package with a manifest is
    no longer what was staged. moved: called after each file that was moved, and each piece read.
    After OSError the node has to be reset before anything is written: littlefs is wrong in RAM (it
    believes, say, that a failed rename still goes on), and its next write may remove files.
    """
    state = read_state()
    if _damaged(moved):
        return roll_back("can not apply: damaged on flash")
    _move_in(moved)
    if state[7] == "installed":
        # Before the trial begins: once it has, nobody would know that a report is owed.
        save("report", "1 " + state[1])
    state[0] = "trial"
    state[2] = "0"
    _write_state(state)


def confirm():
    """Keep the new tree. True when a trial ended by this, False when none was open."""
    state = read_state()
    if not state or state[0] != "trial" or state[3] == "0":
        return False  # or installed by this very boot: the new tree has not run yet
    if state[7] == "confirmed":
        save("report", "1 " + state[1])
    # Before the state goes: a cut in between must not leave the floor where it was.
    keep_sequence()
    # Without a state there is no way back, and what is left is litter.
    os.remove(_STATE)
    discard()
    return True


def keep_sequence():
    """Make /.ota/verified, if there is one, the least that this node will take from now on."""
    _done(os.rename, _SEQUENCE, "/ota.sequence")


def roll_back(reason):
    """Return to the old tree and owe `e:2` with reason (str). What install() says holds here."""
    state = read_state()
    if state[0] != "back":
        state[0], state[2], state[8] = "back", "0", reason
        _write_state(state)
    _move_out()
    save("report", "2 %s %s" % (state[1], state[8]))
    os.remove(_STATE)
    discard()


def discard(moved=None):
    """Remove what no transaction needs; nothing while one is open, of whatever version.

    moved: called after each file.
    """
    if in_transaction():
        return
    if exists(_DIR):
        for entry in os.ilistdir(_DIR):
            path = _DIR + "/" + entry[0]
            if entry[1] == _IS_FOLDER:
                _empty(path, moved)
            elif entry[0] not in ("report", "attempts"):
                os.remove(path)
                moved and moved()
        _done(os.rmdir, _DIR)


def boot():
    """What boot.py does while a transaction is open. Resets the node when the tree has changed."""
    state = read_state()
    if not state or _COUNTED in sys.modules:
        return
    sys.modules[_COUNTED] = sys
    import machine

    if state[0] == "trial":
        reason = _count_trial_boot(state, machine)
        if not reason:
            return
        state[0], state[2], state[8] = "back", "0", reason
    # Counted, for when flash fails at every boot; but tried at each of them: power may have been
    # cut that often. And littlefs hides names after a cut until something is written.
    tries = min(int(state[2]) + 1, 2 * _MOST_TRIES)
    counted = tries < 2 * _MOST_TRIES
    state[2] = str(tries)
    try:
        _write_state(state)
    except OSError:
        counted = False
    try:
        if state[0] == "back":
            roll_back(state[8])
        elif tries > _MOST_TRIES:
            roll_back("can not apply: flash failed, or power, %d times" % _MOST_TRIES)
        else:
            install()
    except Exception:
        if not counted:
            raise  # flash takes nothing any more: resets would go on for ever
    # The tree has changed under the modules that are loaded, or flash has failed: begin again.
    machine.reset()


def _count_trial_boot(state, machine):
    """Count this boot; returns why the trial is over, or None."""
    global _timer
    if machine.reset_cause() != machine.DEEPSLEEP_RESET:
        state[2] = str(int(state[2]) + 1)
    state[3] = str(int(state[3]) + 1)
    if int(state[2]) > int(state[4]):
        return "rolled back: %s boots without confirm" % state[4]
    if int(state[3]) > int(state[5]):
        return "rolled back: %s wakes without confirm" % state[5]
    if int(state[6]):
        # The node that sits at the REPL after main.py raised would stay there for ever.
        _timer = _arm(machine, int(state[6]) * 1000)
    # On flash before any new code runs: code that crashes can not lose it.
    _write_state(state)


def _arm(machine, period_ms):
    def on_deadline(_):
        if in_transaction():  # not confirmed in the meantime
            machine.reset()

    for number in (3, 1, 0):  # not every ESP32 has four timers
        try:
            timer = machine.Timer(number)
            timer.init(mode=machine.Timer.ONE_SHOT, period=period_ms, callback=on_deadline)
            return timer
        except (ValueError, OSError, OverflowError):
            pass


def _lines(moved=None):
    """Journal lines as (kind, where it waits, depth, path); moved is called after each."""
    with open(_JOURNAL) as file:
        for line in file:
            kind, place, depth, path = line[:-1].split(" ", 3)
            at = len(path)
            for _ in range(int(depth) if kind == "n" else 0):
                at = path.rfind("/", 0, at)
            place += path[at:]  # for n, its name in the folder that waits at place
            yield kind, _DIR + "/" + place, int(depth), path
            moved and moved()


def _folders(path, depth):
    """The innermost `depth` folders above path, innermost first."""
    for _ in range(depth):
        path = path[: path.rfind("/")]
        yield path


def _done(call, *paths):
    """Call it; not True when there is nothing to do it to. Other errors are flash's: install()."""
    try:
        call(*paths)
        return True
    except OSError as error:
        if error.args[0] not in _NOTHING_THERE:
            raise


def _damaged(moved):
    """True when what waits is not what the manifest said: flash lost it, or somebody was there."""
    staged = damaged = None
    for kind, place, _, path in _lines(moved):  # to its end, which closes it
        if kind == "h" and exists(staged):
            import binascii
            import hashlib

            found = hashlib.sha256()
            _read(staged, found.update, moved)
            damaged = damaged or binascii.hexlify(found.digest()).decode() != path
        staged = place
    return damaged


def _move_in(moved):
    # Added files first, then replaced ones, stale twins last: whenever the power fails in between,
    # what a replaced module of the boot path imports is there, and of x.py and x.mpy at least one.
    singly = "a"
    for kind, staged, depth, path in _lines(moved):
        if kind == "t" and exists(staged) and not _done(os.rename, staged, path):
            singly = "amn"  # the application has made such a folder while we staged
        if kind in singly:
            _make(path + "/" if kind == "m" else path, depth)
            if kind != "m" and exists(staged):  # not moved before a cut
                os.rename(staged, path)
    for kind, staged, _, path in _lines(moved):
        # A cut between these two renames leaves no file at path: staged~ exists then, and only the
        # second one remains. For b there is no such moment: the old file was copied aside.
        if kind == "r" and not exists(staged + "~"):
            os.rename(path, staged + "~")
        if kind in "rb":
            _done(os.rename, staged, path)
    for kind, staged, _, path in _lines(moved):
        if kind == "d":
            _done(os.rename, path, staged + "~")
        elif kind == "x":
            _done(os.remove, path)


def _make(path, depth):
    for folder in reversed(list(_folders(path, depth))):
        exists(folder) or os.mkdir(folder)


def _move_out():
    # The other way round: what was there returns before what was added goes.
    for kind, staged, _, path in _lines():
        if kind in "rbdx" and not _done(os.rename, staged + "~", path) and exists(staged + "~"):
            _make(path, path.count("/") - 1)  # the new code has removed the folder
            os.rename(staged + "~", path)
    for kind, _, depth, path in _lines():
        if kind in "an":
            _done(os.remove, path)
        for folder in _folders(path + "/" if kind == "m" else path, depth):
            # One that is gone went before a cut, and those above it may not have.
            if not _done(os.rmdir, folder) and exists(folder):
                break  # a later line is in it, or something the new code wrote itself


def _empty(path, moved):
    # Not by recursion: a package may have folders in folders deeper than the stack of a node.
    above = path.count("/")
    while path.count("/") >= above:
        if _clear(path, moved):
            path = path[: path.rfind("/")]
            continue
        deeper = path
        for entry in os.ilistdir(path):  # only folders are left
            inside = path + "/" + entry[0]
            if not _clear(inside, moved):
                deeper = inside
        path = deeper


def _clear(folder, moved):
    """Remove the files in a folder, and the folder; not True when it has folders in it."""
    for entry in os.ilistdir(folder):
        if entry[1] != _IS_FOLDER:
            os.remove(folder + "/" + entry[0])
        moved and moved()
    return _done(os.rmdir, folder)
