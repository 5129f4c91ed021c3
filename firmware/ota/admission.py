"""Whether a request may begin: what the application says, what flash has, how often it has."""

from binascii import crc32

from .errors import Refused, name_of


def ask_policy(agent, request):
    """True when the application wants to wait. Raises Refused when it does not want at all."""
    if not agent.policy:
        return False
    try:
        answer = agent.policy(request)
        if type(answer) is tuple and answer[0] == "refuse":
            detail = str(answer[1])
        elif answer in ("go", "later"):
            return answer == "later"
        else:
            raise ValueError
    except Exception as error:
        # Nobody can tell what it meant: waiting loses nothing.
        print("ota: the policy hook failed,", name_of(error))
        return True
    raise Refused("refused", detail)


def check_space(agent, request):
    """Raise Refused when the announced size is more than flash can take."""
    from .space import enough_for, free_blocks

    if not enough_for(request.size):
        raise Refused(
            "not enough space",
            "%d bytes announced, %d blocks are free" % (request.size, free_blocks()),
        )
    agent.progress("space", free_blocks())


def check_way_back(agent):
    """Raise Refused when our boot.py did not run: nothing would finish or undo an install.

    It may be missing, somebody else's, or one that is frozen into the firmware, which wins.
    """
    import __main__

    if not hasattr(__main__, "_trial"):
        raise Refused("can not apply", "this agent's boot.py did not run, so there is no way back")
    from .transaction import exists

    # Of a frozen one nothing can be seen, but that no file has run after boot.py.
    if getattr(__main__, "__file__", "") == "boot.py" and exists("/main.py"):
        agent.progress("notice", "/main.py has not run: a frozen one comes before it")


def count_attempt(agent, file_id):
    """Count this attempt on flash before it begins; True when it is the last one.

    One that ends in a watchdog reset or a power cut is counted as well: such a package would
    otherwise be fetched for ever. Raises Refused when there have been enough.
    """
    from .transaction import discard, load, save

    # What an earlier attempt left must not be taken for this one's: an old file above all.
    discard(agent.feed)
    count = 1
    before = (load("attempts") or "").split(" ")  # damaged: none
    if before[0] == file_id:
        count += int(before[1])
    else:
        before = ()
    most = agent.config["max_attempts"]
    if count > most:
        raise Refused("can not apply", "interrupted %d times" % most)
    save("attempts", " ".join([file_id, str(count)] + list(before[2:])))
    return count == most


def was_told(reason):
    """True when an attempt of the same package before has ended for this reason as well.

    If not, it is noted on flash for the next one, behind the count, as its CRC-32.
    """
    from .transaction import load, save

    mark = "%08x" % crc32(reason.encode())
    before = (load("attempts") or "").split(" ")
    if before[2:] == [mark]:
        return True
    save("attempts", " ".join(before[:2] + [mark]))
    return False
