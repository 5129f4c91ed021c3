# ruff: noqa: E501 - quotes of the firmware, as they stand there
"""The agent, broken on purpose: each of these faults has to be caught by the campaign."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from host_sim import flash


@dataclass(frozen=True)
class Mutant:
    """One fault. `edits` are (file, what stands there, what it becomes); each must be found once.

    `scenario` is the one that has to catch it: by a cut, or for some already uncut. The search for
    that cut begins `near` this share of the cycle's operations, where it was last found.
    """

    name: str
    fault: str
    scenario: str
    edits: tuple[tuple[str, str, str], ...]
    uncut: bool = False
    near: float = 0.86
    slow: bool = False
    """Found only after many cuts: not in `make test`."""

    def plant(self, folder: Path) -> Path:
        """A copy of the firmware with this fault in it."""
        firmware = folder / "firmware"
        shutil.copytree(flash.FIRMWARE, firmware, ignore=shutil.ignore_patterns("__pycache__"))
        for name, old, new in self.edits:
            file = firmware / name
            source = file.read_text()
            if source.count(old) != 1:
                raise ValueError(
                    f"{self.name}: {old!r} stands {source.count(old)} times in {name}"
                )
            file.write_text(source.replace(old, new))
        return firmware


RECOVERY, STAGING, AGENT = "ota/recovery.py", "ota/staging.py", "ota/agent.py"
ENDING, ADMISSION = "ota/ending.py", "ota/admission.py"

MUTANTS = [
    Mutant(
        "no close before commit",
        "the journal is still open, so not on flash, when the commit is",
        "one",
        (
            (
                STAGING,
                '        """All members are staged and verified: close what the commit relies on."""\n'
                "        self._journal.close()",
                '        """Nothing."""\n        import sys\n\n        sys.modules["kept"] = self._journal',
            ),
            (
                STAGING,
                '        """Close files, in whatever state. Leaves the litter to recovery.discard()."""\n'
                "        self._journal.close()",
                '        """Nothing."""',
            ),
        ),
        uncut=True,
    ),
    Mutant(
        "marker before data",
        "the state says trial before the files are in place",
        "forty",
        (
            (
                RECOVERY,
                '    _move_in(moved)\n    if state[7] == "installed":',
                '    if state[7] == "installed":',
            ),
            (
                RECOVERY,
                '    state[0] = "trial"\n    state[2] = "0"\n    _write_state(state)\n',
                '    state[0] = "trial"\n    state[2] = "0"\n    _write_state(state)\n    _move_in(moved)\n',
            ),
        ),
    ),
    Mutant(
        "delete before rename",
        "the old file is removed, not kept, before the new one moves in",
        "boots",
        (
            (
                RECOVERY,
                '            os.rename(path, staged + "~")\n',
                "            os.remove(path)\n",
            ),
        ),
        uncut=True,
    ),
    Mutant(
        "boot file renamed away first",
        "a file that the next boot needs is absent for a moment",
        "agent",
        (
            (
                STAGING,
                "        elif on_boot_path(path) or _in_root(path):",
                "        elif _in_root(path) and path != '/boot.py':",
            ),
            # Without the copy at the commit that moment would even be survived.
            (RECOVERY, "    _leave_copy()\n", ""),
        ),
        slow=True,
    ),
    Mutant(
        "state written in place",
        "a small file is overwritten instead of renamed into place",
        "one",
        (
            (RECOVERY, 'with open(path + "~", "w") as file:', 'with open(path, "w") as file:'),
            (RECOVERY, '    os.rename(path + "~", path)\n', ""),
        ),
        near=0.77,
        slow=True,
    ),
    Mutant(
        "count kept in RAM",
        "boots of a trial are not counted on flash",
        "boots",
        (
            (
                RECOVERY,
                "    # On flash before any new code runs: code that crashes can not lose it.\n"
                "    _write_state(state)\n",
                "",
            ),
        ),
        uncut=True,
    ),
    Mutant(
        "confirm before connect",
        "the new tree is kept although it never reached the control channel",
        "wakes",
        (
            (
                AGENT,
                "        try:\n            if connect:\n",
                "        from .recovery import confirm\n\n        confirm()\n"
                "        try:\n            if connect:\n",
            ),
        ),
        uncut=True,
    ),
    Mutant(
        "clear before the outcome is durable",
        "the request is cleared while the report is only in RAM",
        "report",
        ((ENDING, '            recovery.save("report", owed)\n', ""),),
    ),
    Mutant(
        "report forgotten before it is sent",
        "the owed report is removed from flash, then published",
        "one",
        (
            (
                ENDING,
                '            _send(agent, owed)\n            recovery.forget("report")\n    except',
                '            recovery.forget("report")\n            _send(agent, owed)\n    except',
            ),
        ),
    ),
    Mutant(
        "no report owed after an install",
        "the trial begins without a note that e:1 is due",
        "boots",
        (
            (
                RECOVERY,
                '        save("report", "1 " + state[1])\n    state[0]',
                "        pass\n    state[0]",
            ),
        ),
        uncut=True,
    ),
    Mutant(
        "old files dropped before the trial ends",
        "what a roll back needs is removed after the install",
        "boots",
        (
            (
                RECOVERY,
                '    state[0] = "trial"\n    state[2] = "0"\n    _write_state(state)\n',
                '    state[0] = "trial"\n    state[2] = "0"\n    _write_state(state)\n'
                '    os.remove(_DIR + "/0~")\n',
            ),
        ),
        uncut=True,
    ),
    Mutant(
        "transaction closed before the roll back",
        "the state is removed, then the old files return",
        "boots",
        (
            (
                RECOVERY,
                '    _move_out()\n    save("report", "2 %s %s" % (state[1], state[8]))\n'
                "    os.remove(_STATE)\n",
                '    save("report", "2 %s %s" % (state[1], state[8]))\n    os.remove(_STATE)\n'
                "    _move_out()\n",
            ),
        ),
        slow=True,
    ),
    Mutant(
        "replay from the beginning",
        "a finished install does not see which files have been moved already",
        "moved",
        (
            (
                RECOVERY,
                '            if kind != "m" and exists(staged):  # not moved before a cut\n',
                '            if kind != "m":\n',
            ),
        ),
    ),
    Mutant(
        "half a replace taken for none",
        "after a cut between the two renames the old file is moved away once more",
        "forty",
        ((RECOVERY, 'if kind == "r" and not exists(staged + "~"):', 'if kind == "r":'),),
    ),
    Mutant(
        "replaced before added",
        "a replaced module moves in before the new one that it imports, without the copy at the commit",
        "moved",
        (
            (RECOVERY, "    _leave_copy()\n", ""),
            (
                RECOVERY,
                "    for kind, staged, _, path in _lines(moved):\n        # A cut between",
                "    for kind, staged, _, path in ():\n        # A cut between",
            ),
            (
                RECOVERY,
                '        if kind == "t" and',
                '        if kind == "r" and not exists(staged + "~"):\n            os.rename(path, staged + "~")\n'
                '        if kind in "rb":\n            _done(os.rename, staged, path)\n'
                '        if kind == "t" and',
            ),
        ),
        near=0.92,
        slow=True,
    ),
    Mutant(
        "renamed out of the root",
        "a file in the root is renamed away, and littlefs hides the next name after a cut in that",
        "forty",
        ((STAGING, '    return path.rfind("/") == 0\n', "    return False\n"),),
        near=0.69,
        slow=True,
    ),
    Mutant(
        "stale source stays beside a new .mpy",
        "the old module is imported although the new one is installed",
        "compiled",
        ((STAGING, "        self._retire_twin(path, depth)\n", ""),),
        uncut=True,
    ),
    Mutant(
        "litter taken for staged files",
        "a new attempt does not clear what a cut one left",
        "one",
        (
            (ADMISSION, "    recovery.discard(agent.feed)\n    count = 1\n", "    count = 1\n"),
            (
                ENDING,
                "    recovery.discard(agent.feed)\n    if not agent.control.request:",
                "    if not agent.control.request:",
            ),
        ),
        near=0.96,
        slow=True,
    ),
    Mutant(
        "roll back that can not be repeated",
        "an added file that a cut roll back has removed already stops its replay",
        "boots",
        (
            (
                RECOVERY,
                '        if kind in "an":\n            _done(os.remove, path)\n',
                '        if kind in "an":\n            os.remove(path)\n',
            ),
        ),
        near=0.955,
        slow=True,
    ),
    Mutant(
        "outer folders left behind",
        "a roll back that was cut takes a folder that is gone for one that has to stay",
        "boots",
        (
            (
                RECOVERY,
                "if not _done(os.rmdir, folder) and exists(folder):",
                "if not _done(os.rmdir, folder):",
            ),
        ),
        near=0.94,
    ),
    Mutant(
        "new folders left behind",
        "a roll back removes added files, but not those that came with their folder",
        "boots",
        ((RECOVERY, '        if kind in "an":\n', '        if kind == "a":\n'),),
        uncut=True,
    ),
    Mutant(
        "floor moved by the install",
        "the package's number counts before anything has confirmed it",
        "undeleted",
        (
            (
                RECOVERY,
                '    state[0] = "trial"\n    state[2] = "0"\n    _write_state(state)\n',
                '    keep_sequence()\n    state[0] = "trial"\n    state[2] = "0"\n    _write_state(state)\n',
            ),
        ),
        uncut=True,
    ),
    Mutant(
        "floor moved after the end",
        "the state goes first, and what the number is kept in is litter then",
        "signed",
        (
            (
                RECOVERY,
                "    keep_sequence()\n    # Without a state there is no way back, and what is left is litter.\n"
                "    os.remove(_STATE)\n",
                "    os.remove(_STATE)\n    keep_sequence()\n",
            ),
        ),
        near=0.8,
    ),
    Mutant(
        "deleted for good",
        "a roll back leaves deleted files where they were kept",
        "undeleted",
        ((RECOVERY, 'if kind in "rbdx" and', 'if kind in "rb" and'),),
        uncut=True,
    ),
]
