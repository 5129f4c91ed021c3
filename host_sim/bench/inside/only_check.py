"""The smallest application: it checks, and does nothing else."""


def check(path="/ota.json", pins=None):
    """One check; prints how it ended. pins: what keeps memory in pieces."""
    import ota

    agent = ota.Agent(ota.load_config(path), _silent)
    print("check:", agent.check(), agent.reason)


def check_in_pieces(pieces, whole=0, path="/ota.json"):
    """The same, with memory cut into pieces before."""
    from pieces import cut

    check(path, cut(pieces, whole))


def _silent(step, value):
    pass
