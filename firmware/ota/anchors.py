"""Whether the platform is still trusted, after an update that has changed the trust anchors.

Else a wrong root would be kept, and no package could come any more to mend it. Only loaded before
a trial is confirmed, when all that stages is out of RAM.
"""

from .errors import Transient
from .recovery import lines, read_head
from .vetting import clean_path


def try_anchors(config, limits):
    """What is wrong with anchors that the update on trial has touched, as str, or None.

    config: a complete configuration; limits: Limits of this contact. Raises Transient when the
    download's server can not be asked, OSError when flash fails.
    """
    paths = [config["ca"]] if type(config["ca"]) is str else config["ca"]
    anchors = [clean_path(path) for path in paths]
    # The copy that is whole: flash may have lost the other one.
    journal = read_head()[0]
    touched = False
    for line in lines(journal) if journal else ():  # to its end, which closes it
        touched = touched or line[4] in anchors
    if not touched:
        return None
    from .https import address
    from .trust import trust
    from .wire import Wire

    try:
        context = trust(paths, "no trust", True)
    except Transient as error:
        return str(error)
    wire = Wire(limits, "can not download")
    try:
        wire.open(*address(config["server"]), context)
    except Transient as error:
        text = str(error).split(": ", 1)[1]
        if not text.startswith("certificate is not signed"):
            raise  # the trial goes on, and this wake counts as one that failed
        return text
    finally:
        wire.close()
    return None
