"""`python -m insigh_ota.rollout …`: the command without the rest of `insigh-ota`."""

from __future__ import annotations

from host_sim import ctrl_c

if __name__ == "__main__":
    ctrl_c.watch()  # before the imports below, which take their time

import sys

from host_sim.errors import SimError
from insigh_ota.rollout.cli import rollout


def main() -> int:
    """Run it; an expected failure is one line on stderr and exit code 2."""
    try:
        return rollout.main(standalone_mode=True) or 0
    except SimError as error:
        print(f"rollout: {error}", file=sys.stderr)
        return 2
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


if __name__ == "__main__":
    sys.exit(ctrl_c.run(main))
