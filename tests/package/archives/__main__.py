"""`python -m tests.package.archives`: the long comparison, or one archive of it again."""

from __future__ import annotations

if __name__ == "__main__":
    from host_sim import first  # noqa: F401

from host_sim import ctrl_c

if __name__ == "__main__":
    ctrl_c.watch()  # before the imports below, which take their time

import argparse
import platform
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from tests.package.archives import campaign
from tests.package.archives.generate import QUIRKS
from tests.package.archives.judge import AGREED, NAMES, REFUSED
from tests.package.archives.readers import HAS_FILTER

_SHOWN = 20


def main() -> int:
    """The command line; 0 only when every archive was read as CPython does, or as documented."""
    parser = argparse.ArgumentParser(prog="python -m tests.package.archives", description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="how many archives")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, help="processes (default: one a core)")
    parser.add_argument("--only", metavar="ID", help="one archive, such as 1/537, in detail")
    arguments = parser.parse_args()
    terminal = Console(soft_wrap=True, highlight=False)
    if not HAS_FILTER:
        print("This Python's tarfile has no data filter: use 3.10.12, 3.11.4 or newer.")
        return 2
    if arguments.only:
        return _one(arguments.only)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=terminal, transient=True) as bar:
        task = bar.add_task("", total=arguments.count)
        tally = campaign.run(
            arguments.count,
            arguments.seed,
            arguments.jobs,
            lambda done: bar.update(task, completed=done),
        )
    terminal.print(
        f"{tally.archives} archives, {tally.members} members, seed {arguments.seed}, "
        f"against tarfile of Python {platform.python_version()}; "
        + ", ".join(f"{n} {kind}" for kind, n in sorted(tally.wrappings.items()))
    )
    for name in (AGREED, REFUSED, *NAMES):
        terminal.print(f"{tally.found[name]:7} {name}")
    for identity, wrong in tally.wrong[:_SHOWN]:
        print(f"FAILED {identity}: {wrong[:300]}")
    if tally.wrong:
        print(
            f"{len(tally.wrong)} failed; see one again: python -m tests.package.archives --only ID"
        )
    # Numbers go through all quirks in turn, so from there on none is a matter of chance.
    unseen = [name for name in NAMES if not tally.found[name]]
    if unseen and arguments.count >= 2 * len(QUIRKS):
        print("documented, but did not occur:", ", ".join(unseen))
        return 1
    return 1 if tally.wrong else 0


def _one(identity: str) -> int:
    odd, here, device, verdict = campaign.examine(identity)
    print("archive:", ", ".join(odd))
    print("CPython:", *(entry.member or entry.info for entry in here.entries), sep="\n  ")
    print("  ends with", repr(here.damaged or here.refusal))
    print("device:", *device.members, sep="\n  ")
    print("  ends with", repr(device.error))
    print("verdict:", verdict.wrong or ", ".join(verdict.found))
    return 1 if verdict.wrong else 0


if __name__ == "__main__":
    sys.exit(ctrl_c.run(main))
