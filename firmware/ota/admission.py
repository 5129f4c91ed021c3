"""Whether a request may begin: what the application says, what flash has, how often it has."""

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


def count_attempt(agent, file_id):
    """Count this attempt on flash before it begins; True when it is the last one.

    One that ends in a watchdog reset or a power cut is counted as well: such a package would
    otherwise be fetched for ever. Raises Refused when there have been enough.
    """
    from . import recovery

    # What an earlier attempt left must not be taken for this one's: an old file above all.
    recovery.discard(agent.feed)
    count = 1
    before = recovery.load("attempts")
    if before and before.split(" ")[0] == file_id:
        count += int(before.split(" ")[1])
    most = agent.config["max_attempts"]
    if count > most:
        raise Refused("can not apply", "interrupted %d times" % most)
    recovery.save("attempts", "%s %d" % (file_id, count))
    return count == most
