"""An application that checks, and says what is on the heap meanwhile."""

import gc
import sys


def used():
    """Bytes in use after a collection."""
    gc.collect()
    return gc.mem_alloc()


def idle(path):
    """One idle check. Prints [in use at the start, after `import ota`, after the check]."""
    start = used()
    import ota

    imported = used()
    agent = ota.Agent(ota.load_config(path), _silent)
    outcome = agent.check()
    del agent
    print("figures:", [start, imported, used()], outcome)


def cycle(every):
    """A whole cycle with a look at the heap at each step, and at every so many bytes and files."""
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
        modules = [name[4:] for name in sys.modules if name.startswith("ota.")]
        received = value if step == "bytes" else 0
        print("@", step, received, before, now, ",".join(sorted(modules)))

    agent = ota.Agent(ota.load_config(), look)
    print("check:", agent.check(), agent.reason)


def _silent(step, value):
    pass
