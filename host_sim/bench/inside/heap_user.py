"""An application that only checks, and says what is on the heap; for runs in small heaps."""

import gc
import sys


def used():
    """Bytes in use after a collection."""
    gc.collect()
    return gc.mem_alloc()


def fragment(pieces, whole=0):
    """Cut free memory, but for a last part of `whole` bytes, into pieces of equal size.

    Returns what holds them apart.
    """
    gc.collect()
    room = gc.mem_free() - whole
    size = room // pieces - 200
    spare, pins = [], []
    for _ in range(pieces):
        try:
            spare.append(bytearray(size))
            pins.append(bytearray(32))
        except MemoryError:
            break
    spare.clear()
    gc.collect()
    return pins


def idle(config, pieces=0):
    """One idle check. Prints [in use at the start, after `import ota`, at the end], outcome."""
    pins = fragment(pieces) if pieces else None
    start = used()
    import ota

    imported = used()
    agent = ota.Agent(config, _silent)
    outcome = agent.check()
    del agent
    print("figures:", [start, imported, used()], outcome)
    return pins


def cycle(pieces=0, whole=0):
    """What main.py of a virtual node does."""
    start = used()
    pins = fragment(pieces, whole) if pieces else None
    import ota

    agent = ota.Agent(ota.load_config(), _silent)
    print("check:", agent.check(), agent.reason, start)
    return pins


def watched(every):
    """A cycle with a look at the heap at each step, and at every so many bytes and files."""
    import ota

    count = 0

    def look(step, value):
        nonlocal count
        if step in ("bytes", "file"):
            count += 1
            if count % every:
                return
        before = gc.mem_alloc()
        now = used()
        modules = sum(1 for name in sys.modules if name.startswith("ota"))
        print("@", step, value if step == "bytes" else 0, before, now, modules)

    agent = ota.Agent(ota.load_config(), look)
    look("start", 0)
    print("check:", agent.check(), agent.reason)


def _silent(step, value):
    pass
