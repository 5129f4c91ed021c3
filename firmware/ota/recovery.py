"""Everything that must survive a power cut: commit, install, trial, confirm, roll back.

Self-contained, because boot.py runs it before anything else of the node may be trusted. It decides
from what is on flash, never from memory, and every step may be repeated at any time.

    /.ota/state      exists from the commit until the end of the transaction; boot.py looks for it
    /.ota/journal    one line per touched path, complete before the commit, never changed after it
    /.ota/new/<n>    staged members         /.ota/old/<n>    what they replace
    /.ota/report     the outcome that the platform has not acknowledged yet

State, one line of fields with single spaces between; the version is state's and journal's:

    1 <phase> <file id> <boots> <wakes> <most boots> <most wakes> <deadline s> <when> <reason>

    commit   the install may have begun and must be finished
    trial    the new tree runs; <boots> counts boots that no deep sleep explains, <wakes> all boots
    back     the return to the old tree may have begun and must be finished; <reason> says why

Journal line: `<kind> <n> <depth> <path>`; <depth> is how many folders above <path> (for m: and
<path> itself) the old tree does not have.

    a   add: there is no file of this name          r   replace
    b   replace what the next boot itself needs     m   make a folder
    d   delete: a stale twin (x.py of a new x.mpy)  u   unchanged: nothing to do; <path> is only a
                                                        check sum of the name
"""

import os

_DIR = "/.ota"
_STATE = "/.ota/state"
_JOURNAL = "/.ota/journal"
_VERSION = "1"

# The trial deadline, so that confirm() can disarm it.
_timer = None
# Whether this boot has been counted: a package's own boot.py may call boot() once more.
_begun = False


def exists(path):
    """True when the path names a file or a folder."""
    try:
        os.stat(path)
    except OSError:
        return False
    return True


def save(name, text):
    """Make text the content of /.ota/<name>: after a cut it is wholly the old one or the new one.

    name, text: str. Raises OSError.
    """
    if not exists(_DIR):
        os.mkdir(_DIR)
    path = _DIR + "/" + name
    with open(path + "~", "w") as file:
        file.write(text)
    os.rename(path + "~", path)


def load(name):
    """The text of /.ota/<name>, or None when it does not exist."""
    try:
        with open(_DIR + "/" + name) as file:
            return file.read()
    except OSError:
        return None


def forget(name):
    """Remove /.ota/<name> if it exists, and the folder with it when nothing else is in it."""
    for remove, path in ((os.remove, _DIR + "/" + name), (os.rmdir, _DIR)):
        try:
            remove(path)
        except OSError:
            pass


def read_state():
    """The open transaction as a list of str, [phase, file id, boots, …, reason], or None."""
    text = load("state")
    fields = text.split(" ", 9) if text else ()
    if len(fields) == 10 and fields[0] == _VERSION:
        return fields[1:]
    return None


def _write_state(state):
    save("state", _VERSION + " " + " ".join(state))


def commit(file_id, boots, wakes, deadline_s, when):
    """From here on the staged members will be installed, whatever happens.

    The journal and everything it names are complete and closed. boots, wakes: int, limits of the
    trial; deadline_s: int, seconds; when: `installed` or `confirmed`, what `e:1` waits for.
    """
    _write_state(["commit", file_id, "0", "0", str(boots), str(wakes), str(deadline_s), when, ""])


def install():
    """Finish the committed transaction and begin its trial.

    Raises OSError after having rolled back, when flash refuses.
    """
    state = read_state()
    try:
        _move_in()
    except OSError as error:
        roll_back("can not apply: OSError %s" % error.args[0])
        raise
    if state[7] == "installed":
        # Before the trial begins: once it has, nobody would know that a report is owed.
        save("report", "1 " + state[1])
    state[0] = "trial"
    _write_state(state)


def confirm():
    """Keep the new tree. True when a trial ended by this, False when none was open.

    Called by the agent when it has reached the control channel, or by the application.
    """
    global _timer
    state = read_state()
    if not state or state[0] != "trial":
        return False
    if _timer:
        _timer.deinit()
        _timer = None
    if state[7] == "confirmed":
        save("report", "1 " + state[1])
    # This is the point: without a state there is no way back, and what is left is litter.
    os.remove(_STATE)
    discard()
    return True


def roll_back(reason):
    """Return to the old tree and owe the platform `e:2`. reason: str, the report's text."""
    state = read_state()
    if state[0] != "back":
        state[0] = "back"
        state[8] = reason
        _write_state(state)
    _move_out()
    save("report", "2 %s %s" % (state[1], state[8]))
    os.remove(_STATE)
    discard()


def discard():
    """Remove what no transaction needs: staged members, kept old files, the journal.

    Does nothing while a transaction is open, even one in a state that this version can not read.
    """
    if exists(_STATE):
        return
    for folder in ("/new", "/old"):
        _empty(_DIR + folder)
    for name in ("journal", "state~", "report~", "attempts~"):
        forget(name)


def boot():
    """What boot.py does while a transaction is open. Resets the node when the tree has changed."""
    global _begun
    state = read_state()
    if not state or _begun:
        return
    _begun = True
    import machine

    if state[0] == "trial":
        _begin_trial_boot(state, machine)
        return
    if state[0] == "back":
        roll_back(state[8])
    else:
        try:
            install()
        except OSError:
            if exists(_STATE):
                raise  # neither in nor out: resetting would only wear the flash, for ever
    # The tree has changed under the modules that are loaded: begin again with its own.
    machine.reset()


def status():
    """{"state", "file_id", "boots", "undelivered"} for people and for the application.

    state: "idle", "staged", "commit", "trial" or "back"; undelivered: the waiting report or None.
    """
    state = read_state()
    phase = state[0] if state else "staged" if exists(_JOURNAL) else "idle"
    return {
        "state": phase,
        "file_id": state[1] if state else None,
        "boots": int(state[2]) if state else 0,
        "undelivered": load("report"),
    }


def _begin_trial_boot(state, machine):
    global _timer
    # The count is on flash before any new code runs: code that crashes can not lose it.
    if machine.reset_cause() != machine.DEEPSLEEP_RESET:
        state[2] = str(int(state[2]) + 1)
    state[3] = str(int(state[3]) + 1)
    reason = None
    if int(state[2]) > int(state[4]):
        reason = "rolled back: %s boots without confirm" % state[4]
    elif int(state[3]) > int(state[5]):
        reason = "rolled back: %s wakes without confirm" % state[5]
    if reason:
        roll_back(reason)
        machine.reset()
    _write_state(state)
    if int(state[6]):
        # The node that sits at the REPL after main.py raised would stay there for ever.
        _timer = _arm(machine, int(state[6]) * 1000)


def _arm(machine, period_ms):
    for number in (3, 1, 0):  # not every ESP32 has four timers
        try:
            timer = machine.Timer(number)
            timer.init(
                mode=machine.Timer.ONE_SHOT, period=period_ms, callback=lambda _: machine.reset()
            )
            return timer
        except (ValueError, OSError):
            pass


def _lines():
    """Journal lines as (kind, n, depth, path)."""
    try:
        with open(_JOURNAL) as file:
            for line in file:
                kind, n, depth, path = line[:-1].split(" ", 3)
                if kind != "u":
                    yield kind, n, int(depth), path
    except OSError as error:
        if error.args[0] != 2:
            raise


def _folders(path, depth):
    """The innermost `depth` folders above path, innermost first."""
    while depth:
        path = path[: path.rfind("/")]
        depth -= 1
        yield path


def _move_in():
    # Added files first, then replaced ones, stale twins last: whenever the power fails in between,
    # what a replaced module of the boot path imports is there, and of x.py and x.mpy at least one.
    for kind, n, depth, path in _lines():
        if kind == "m":
            _make(path + "/", depth)
        elif kind == "a" and exists(_DIR + "/new/" + n):
            _make(path, depth)
            os.rename(_DIR + "/new/" + n, path)
    for kind, n, _, path in _lines():
        new = _DIR + "/new/" + n
        if kind in "rb" and exists(new):
            # A cut between these two renames leaves no file at path: old exists then, and only
            # the second one remains. For b there is no such moment: the old file was copied
            # aside while staging.
            if kind == "r" and not exists(_DIR + "/old/" + n):
                os.rename(path, _DIR + "/old/" + n)
            os.rename(new, path)
    for kind, n, _, path in _lines():
        if kind == "d" and not exists(_DIR + "/old/" + n):
            os.rename(path, _DIR + "/old/" + n)


def _make(path, depth):
    for folder in reversed(list(_folders(path, depth))):
        try:
            os.mkdir(folder)
        except OSError as error:
            if error.args[0] != 17:  # EEXIST: made before a cut, or by an earlier line
                raise


def _move_out():
    # The other way round: what was there returns before what was added goes.
    for kind, n, _, path in _lines():
        # What still waits in new was never installed, and its path is still the old tree's.
        if kind in "rd" or (kind == "b" and not exists(_DIR + "/new/" + n)):
            if exists(_DIR + "/old/" + n):
                os.rename(_DIR + "/old/" + n, path)
    for kind, n, depth, path in _lines():
        if kind == "a" and not exists(_DIR + "/new/" + n) and exists(path):
            os.remove(path)
        for folder in _folders(path + "/" if kind == "m" else path, depth):
            try:
                os.rmdir(folder)
            except OSError:
                break  # not empty: a later line, or something the new code wrote itself


def _empty(folder):
    try:
        for entry in os.ilistdir(folder):
            os.remove(folder + "/" + entry[0])
        os.rmdir(folder)
    except OSError:
        pass  # not there; or flash refused, and the next cycle tries again
