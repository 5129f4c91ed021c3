"""Whether the trust anchors that an update has brought still let the next one come."""

from ..errors import Transient


def try_anchors(config, limits):
    """What is wrong with anchors that the update on trial has touched, as str, or None.

    A wrong root that is kept would let no package come any more to put it right.
    config: a complete configuration; limits: Limits of this contact. Raises Transient when the
    download's server can not be asked, OSError when flash fails.
    """
    from ..recovery import read_head

    paths = [config["ca"]] if type(config["ca"]) is str else config["ca"]
    # As vetting.clean_path() has them, whose module there may be no room for.
    anchors = [b" /" + b"/".join(_parts(path)) + b"\n" for path in paths]
    # The copy that is whole: flash may have lost the other one.
    journal = read_head()[0]
    if not (journal and _touches(journal, anchors)):
        return None
    from ..dial import dial
    from ..trust import address, trust
    from ..wire import Wire

    try:
        context = trust(paths, "no trust", True)
    except Transient as error:
        return str(error)
    wire = Wire(limits)
    try:
        dial(wire, "can not download", *address(config["server"]), context)
    except Transient as error:
        text = str(error).split(": ", 1)[1]
        if not text.startswith("certificate is not signed"):
            raise  # the trial goes on, and this wake counts as one that failed
        return text
    finally:
        wire.close()
    return None


def _parts(path):
    return [part for part in path.encode().split(b"/") if part not in (b"", b".")]


def _touches(journal, anchors):
    """Whether a line of the journal ends in one of these, bytes."""
    # Not by lines(): what that makes of each line takes time, and is of no use here.
    with open(journal, "rb") as file:
        for line in file:
            for end in anchors:
                if line.endswith(end):
                    return True
    return False
