"""One update from request to reset, and which code is in RAM for each step of it.

Here is what an agent does when there is something to do: a request, a report that is owed, a trial
to confirm. This much of it is in RAM throughout, so the steps themselves are elsewhere.
"""

import gc
import sys

from micropython import const

from . import drop

# How often one contact takes up the request that has come in the place of another.
_MOST_REPLACED = const(3)
# More than an update needs beside what is in RAM before it: with less than this and 16 KB to
# spare there is no room for larger pieces and a window of 32 KB between garbage.
_NEEDED = const(80 * 1024)
# As in arrival.py.
_MUCH = const(16 * 1024)
# Modules of the interpreter. At each import it looks for files of these names first, in every
# folder of sys.path, but not where they are in sys.modules. They take room there.
_BUILT_IN = const("binascii io json os time")


def run(agent, task=None):
    """Do whatever waits. Returns what Agent.check() says. Raises Transient, OSError.

    task: called with the agent, and what it says is returned, in place of that.
    """
    before = gc.threshold()
    ours = []
    # Without it what is loaded for good lies above the garbage of a whole heap, and cuts
    # that in pieces. A part of the heap, so that a large one does not collect all the time, and
    # what is free beyond what an update may need: each collection takes its time.
    free = gc.mem_free()
    gc.threshold(max((gc.mem_alloc() + free) // 16, free - _NEEDED))
    try:
        if gc.threshold() > _MUCH:
            for name in _BUILT_IN.split(" "):
                module = __import__(name)
                if name not in sys.modules:  # a file has put itself there
                    sys.modules[name] = module
                    ours.append(name)
                    agent.feed()
        return (task or _run)(agent)
    finally:
        if agent.stat:
            agent.stat = agent.stat.close()
        gc.threshold(before)
        # An application that looks for modules elsewhere after this finds its own ones.
        for name in ours:
            sys.modules.pop(name, None)


def _run(agent):
    from .install.opening import settle

    outcome, need = settle(agent)
    del settle
    # Not before: with an owed report its request is cleared.
    bad, request = _heard(agent)
    if need is not None:
        forget_ending()
        from .install.proof import decide

        outcome = decide(agent, need)
        del decide
        if agent.control:  # as above
            bad, request = _heard(agent)
    from .install.opening import go_on

    outcome, bad, request = go_on(agent, outcome, bad, request)
    del go_on
    for _ in range(_MOST_REPLACED):
        if bad:
            from .install.ending import fail

            return fail(agent, bad.file_id, str(bad))
        if not request:
            return outcome
        # What is only for the end makes room for what is only for the beginning.
        forget_ending()
        ended = _take(agent, request)
        if ended:
            return ended
        bad, request = _heard(agent)
        outcome = "idle"
    return outcome  # and contact() sees that there is more to do


def _heard(agent):
    # By itself: the interpreter keeps what a function has last looked into, and with it its code.
    control = agent.control
    return control.bad, control.request


def _take(agent, request):
    """Do what request asks for. Returns what check() says, None when it stands no more."""
    agent.progress("request", request.file_id)
    # Whether this attempt is counted on flash, and the last one.
    counted = last = False
    try:
        from .request import ask_policy

        if ask_policy(agent, request):
            return agent.later("the application's policy")
        from .install.attempt import check_space, check_way_back, count_attempt, keep_names

        check_space(agent, request)
        check_way_back(agent)
        last = count_attempt(agent, request)
        counted = True
        del ask_policy, check_space, check_way_back, count_attempt
        # Not before: whoever refuses has to clear the request, and a broker may be later than any
        # patience when it is asked once more. A node without PSRAM can not hold everything at a
        # time: two connections, and code that has done its part or has it still before it.
        if not agent.client:
            agent.leave(agent.theirs)
        keep_names(agent, request)
        del keep_names
        staged, sequence = _stage(agent, request)
        forget_staging()
        from .install.ready import prepare

        prepare(agent, request, staged)
        del prepare
        drop("install.ready")
    except Exception as caught:
        error = caught
    else:
        from .install.ending import install

        return install(agent, request, staged, sequence)
    forget_staging()
    from .install.trouble import end_attempt

    return end_attempt(agent, request, error, counted, last)


def _stage(agent, request):
    # By itself, so that an exception leaves nothing behind that would keep its code in RAM.
    from .arrival import stage

    return stage(agent, request)


def forget_ending():
    """Free the RAM of what comes before and behind the staging."""
    drop("install", "recovery")


def forget_staging():
    """Free the RAM of all that stage() has loaded, and of what has connected."""
    staging = (
        "arrival",
        "begin",
        "download",
        "chunks",
        "package",
        "install",
        "tarfile_lite",
        "request",
    )
    drop("dial", "trust", *staging)
