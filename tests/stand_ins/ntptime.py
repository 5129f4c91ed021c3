# For the examples: the virtual node's clock is the host's.


def settime():
    pass
