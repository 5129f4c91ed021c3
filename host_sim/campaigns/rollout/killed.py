"""`python -m host_sim.campaigns.rollout.killed N before|behind …`: a rollout that dies at a write.

It is killed with SIGKILL before its Nth write of the state file, or right behind it.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys

from insigh_ota.commands import main
from insigh_ota.rollout.state import Store


def _arm(number: int, when: str) -> None:
    writes = itertools.count(1)
    write = Store._write

    def deadly(self: Store, text: str) -> None:
        last = next(writes) == number
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, text)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)

    Store._write = deadly  # type: ignore[method-assign]


if __name__ == "__main__":
    _arm(int(sys.argv[1]), sys.argv[2])
    sys.exit(main(["rollout", *sys.argv[3:]]))
