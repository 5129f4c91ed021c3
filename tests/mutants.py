# ruff: noqa: E501 - quotes of the firmware, as they stand there
"""The agent, broken on purpose: each of these faults has to be caught by the campaign."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from host_sim.node import flash


@dataclass(frozen=True)
class Mutant:
    """One fault. `edits` are (file, what stands there, what it becomes); each must be found once.

    `scenario` is the one that has to catch it: by a cut, or for some already uncut. The search for
    that cut begins `near` this share of the cycle's operations, where it was last found. A fault
    that neither shows has a `case`, a replay id, or some, one of which has to catch it.
    """

    name: str
    fault: str
    scenario: str
    edits: tuple[tuple[str, str, str], ...]
    uncut: bool = False
    near: float = 0.86
    slow: bool = False
    """Found only after many cuts: not in `make test`."""
    case: str = ""

    @property
    def caught_by(self) -> str:
        """How its scenario catches it, as the table in docs/power-cuts.md has it."""
        return f"`{self.cases[0]}`" if self.case else "uncut" if self.uncut else "a cut"

    @property
    def cases(self) -> list[str]:
        """The replay ids in `case`."""
        return self.case.split()

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


FINISH, READY = "ota/install/finish.py", "ota/install/ready.py"
RECOVERY, STAGING, AGENT = "ota/recovery.py", "ota/install/staging.py", "ota/agent.py"
ENDING, ATTEMPT = "ota/install/ending.py", "ota/install/attempt.py"
TRANSACTION, TRIAL = "ota/install/transaction.py", "ota/install/trial.py"
OPENING = "ota/install/opening.py"
BOOT, JOURNAL = "boot.py", "ota/install/journal.py"
REPORT, KEPT = "ota/install/report.py", "ota/install/kept.py"

_BEGIN_TRIAL = '    write_state("trial", 0)\n\n\ndef roll_back'
# The next boot would even survive some faults with the copy that is left at the commit.
_NO_COPY = (READY, "    if recovery.exists(source):\n", "    if False:\n")

# What a bit does depends on where it is, and that on what is in recovery.
_BITS_OF_RECOVERY = " ".join(
    f"few/@trial,bit,:.ota:recovery.mpy,{bit}" for bit in range(8899, 14000, 211)
)

MUTANTS = [
    Mutant(
        "no close before commit",
        "the journal is still open, so not on flash, when the commit is",
        "one",
        (
            (
                JOURNAL,
                "        self.file.close()\n",
                '        import sys\n\n        sys.modules["kept"] = self.file\n',
            ),
        ),
        uncut=True,
    ),
    Mutant(
        "marker before data",
        "the state says trial before the files are in place",
        "forty",
        (
            (RECOVERY, "    wrong = _move_in(journal", "    wrong = None if journal"),
            (RECOVERY, ', moved) if journal else "journal"\n', ' else "journal"\n'),
            (
                RECOVERY,
                _BEGIN_TRIAL,
                '    write_state("trial", 0)\n    _move_in(journal, moved)\n\n\ndef roll_back',
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
                "        os.rename(path, saved)\n    if waits:",
                "        os.remove(path)\n    if waits:",
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
            _NO_COPY,
        ),
        slow=True,
    ),
    Mutant(
        "state written in place",
        "a small file is overwritten instead of renamed into place",
        "one",
        (
            (
                RECOVERY,
                'with open(aside, "w") as file:',
                'with open(name, "w") as file:',
            ),
            (
                RECOVERY,
                "    done(os.rename, aside, name) or remove(name) or os.rename(aside, name)\n",
                "",
            ),
        ),
        near=0.789,
        slow=True,
    ),
    Mutant(
        "count kept in RAM",
        "boots of a trial are not counted on flash",
        "boots",
        (
            (
                RECOVERY,
                '        write_state("trial", boots, "", state[4], 0, end, now)\n',
                "        pass\n",
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
                "        try:\n            busy = connect and",
                "        from .transaction import confirm\n\n        confirm()\n"
                "        try:\n            busy = connect and",
            ),
        ),
        uncut=True,
    ),
    Mutant(
        "clear before the outcome is durable",
        "the request is cleared while the report is only in RAM",
        "report",
        ((ENDING, '            transaction.save("report", owed)\n', ""),),
    ),
    Mutant(
        "report forgotten before it is sent",
        "the owed report is removed from flash, then published",
        "one",
        (
            (
                ENDING,
                '                send(agent, owed)\n                transaction.forget("report")\n',
                '                transaction.forget("report")\n                send(agent, owed)\n',
            ),
        ),
    ),
    Mutant(
        "no report owed after an install",
        "the trial begins without a note that e:1 is due",
        "boots",
        ((RECOVERY, '        save("report", "1 " + head[1])\n', "        pass\n"),),
        uncut=True,
    ),
    Mutant(
        "old files dropped before the trial ends",
        "what a roll back needs is removed after the install",
        "boots",
        (
            (
                RECOVERY,
                _BEGIN_TRIAL,
                '    write_state("trial", 0)\n    remove(_DIR + "0~")\n\n\ndef roll_back',
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
                "    if not journal or _move_out(journal,",
                "    os.remove(_STATE)\n    if not journal or _move_out(journal,",
            ),
            (RECOVERY, "the agent removes.\n    os.remove(_STATE)\n", "the agent removes.\n"),
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
                "    if waits:\n        _make_way(path)\n        os.rename(staged, path)\n",
                "    _make_way(path)\n    os.rename(staged, path)\n",
            ),
        ),
        near=0.946,
    ),
    Mutant(
        "half a replace taken for none",
        "after a cut between the two renames the old file is moved away once more",
        "forty",
        ((RECOVERY, 'if kind == "r" and not exists(saved):', 'if kind == "r":'),),
    ),
    Mutant(
        "replaced before added",
        "a replaced module moves in before the new one that it imports, without the copy at the commit",
        "moved",
        (
            _NO_COPY,
            (RECOVERY, 'for turn in b"am", b"r", b"d":', 'for turn in b"r", b"am", b"d":'),
        ),
        uncut=True,
        slow=True,
    ),
    Mutant(
        "renamed out of the root",
        "a file in the root is renamed away, and littlefs hides the next name after a cut in that",
        "forty",
        ((STAGING, '    return path.rfind("/") == 0\n', "    return False\n"),),
        near=0.748,
        slow=True,
    ),
    Mutant(
        "stale source stays beside a new .mpy",
        "the old module is imported although the new one is installed",
        "compiled",
        ((STAGING, "        self.retire(name)\n", ""),),
        uncut=True,
    ),
    Mutant(
        "litter taken for staged files",
        "a new attempt does not clear what a cut one left",
        "one",
        (
            (ATTEMPT, "    discard(agent.feed, count and request)\n", ""),
            (
                OPENING,
                '        transaction.discard(agent.feed, (attempts.split(" ")[0], "", 0))\n',
                "",
            ),
            (OPENING, "    transaction.discard(agent.feed, request)\n", ""),
        ),
        near=0.964,
        slow=True,
    ),
    Mutant(
        "roll back that can not be repeated",
        "an added file that a cut roll back has removed already stops its replay",
        "boots",
        (
            (
                RECOVERY,
                "                remove(path)\n            while depth:",
                "                os.remove(path)\n            while depth:",
            ),
        ),
        near=0.948,
        slow=True,
    ),
    Mutant(
        "outer folders left behind",
        "a roll back that was cut takes a folder that is gone for one that has to stay",
        "shadows",
        (
            (
                RECOVERY,
                "if not done(os.remove, path) and exists(path):",
                "if not done(os.remove, path):",
            ),
        ),
        near=0.878,
    ),
    Mutant(
        "new folders left behind",
        "a roll back removes added files, but not the folders that came with them",
        "boots",
        ((RECOVERY, "            while depth:\n", "            while False:\n"),),
        uncut=True,
    ),
    Mutant(
        "floor moved by the install",
        "the package's number counts before anything has confirmed it",
        "undeleted",
        (
            (
                RECOVERY,
                _BEGIN_TRIAL,
                '    with open("/ota.sequence", "w") as file:\n        file.write(str(head[9]))\n'
                + _BEGIN_TRIAL,
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
                TRIAL,
                "    keep_sequence(sequence)\n    # Without a state there is no way back, and what is left is litter.\n"
                "    os.remove(_STATE)\n",
                "    os.remove(_STATE)\n    keep_sequence(sequence)\n",
            ),
        ),
        near=0.876,
    ),
    Mutant(
        "deleted for good",
        "a roll back leaves deleted files where they were kept",
        "undeleted",
        ((RECOVERY, 'lines(journal, None, b"rd")', 'lines(journal, None, b"r")'),),
        uncut=True,
    ),
    Mutant(
        "check sum not compared",
        "small files are taken for what they say, whatever flash has made of them",
        "few",
        ((RECOVERY, 'if found == b"%08x" % crc32(text):', "if text:"),),
        case="few/@trial,bit,:.ota:state,99",
    ),
    Mutant(
        "second copy not used",
        "a journal that flash has damaged is the end of the way back",
        "few",
        ((RECOVERY, 'for name in "journal", "journal2":', 'for name in ("journal",):'),),
        case="few/@trial,bit,:.ota:journal,600",
    ),
    Mutant(
        "copy of recovery not checked",
        "boot.py runs what flash has made of it",
        "few",
        ((BOOT, "if crc32(_f.read()) != 0x2144DF1C:", "if crc32(_f.read()) == 0:"),),
        case=_BITS_OF_RECOVERY,
    ),
    Mutant(
        "folder removed from a full flash",
        "littlefs takes no write any more once a log has filled it to the last byte",
        "few",
        ((TRANSACTION, "if _LEAST_FREE <= info[3] <= info[2]:", "if True:"),),
        case="few/@owed,brim",
    ),
    Mutant(
        "small files stand once",
        "a flipped bit costs a good update",
        "few",
        ((RECOVERY, "text if len(text) > 63 else text + text", "text"),),
        case="few/@commit,bit,:.ota:state,49",
    ),
    Mutant(
        "obstacle stays",
        "a folder that the new code made of a file stops the roll back",
        "few",
        ((RECOVERY, "            if exists(path) & _FOLDER:\n", "            if False:\n"),),
        case="few/@on-trial,folder,:d:old.txt",
    ),
    Mutant(
        "parent stays",
        "a file that the new code made of a folder stops the roll back",
        "few",
        ((RECOVERY, "            force and remove(path[:at])\n", ""),),
        case="few/@on-trial,file,:d",
    ),
    Mutant(
        "waiting taken for moved",
        "the roll back removes what the old application has made where a new file would go",
        "few",
        ((RECOVERY, "        if not exists(staged):\n", "        if True:\n"),),
        case="few/@at-commit,made,:d:add.txt",
    ),
    Mutant(
        "no reserve",
        "deleted files can not come back to a flash that the new code has filled",
        "long",
        ((FINISH, "    if staging.returns:\n", "    if False:\n"),),
        case="long/@trial,brim",
        slow=True,
    ),
    Mutant(
        "lost copies not told",
        "a roll back that had nothing to bring back says that all is well",
        "few",
        (
            (
                RECOVERY,
                '        elif not (tried or exists(staged) or (kind == "d" and exists(path))):\n',
                "        elif False:\n",
            ),
        ),
        case="few/@trial,gone,:.ota:1~",
    ),
    Mutant(
        "no rehearsal",
        "a version that can not be updated again is kept",
        "compiled",
        (
            (
                "ota/install/rehearsal.py",
                '    if not any(name in _MEMBERS for name in os.listdir("/")):\n',
                "    if True:\n",
            ),
        ),
        case="compiled/@trial,gone,:ota:install:journal.mpy",
        slow=True,
    ),
    Mutant(
        "runs on after an error of flash",
        "main.py runs on a tree between old and new",
        "boots",
        (
            (
                RECOVERY,
                "            if machine.reset_cause() != machine.SOFT_RESET:\n"
                "                machine.soft_reset()\n            return\n",
                "            return\n        return\n",
            ),
        ),
        case="boots/512.EIO",
    ),
    Mutant(
        "keys not switched off",
        "Ctrl-C at power-up leaves a tree between old and new",
        "boots",
        ((BOOT, "    micropython.kbd_intr(-1)\n", ""),),
        case="boots/key:4287.ctrl_c",
        slow=True,
    ),
    Mutant(
        "a soft reset taken for a crash",
        "three looks at a good version end its trial",
        "signed",
        ((RECOVERY, "machine.SOFT_RESET: 1, 0: 1", "0: 1"),),
        case="signed/key:1070.soft_reset/key:280.soft_reset/key:280.soft_reset",
        slow=True,
    ),
    Mutant(
        "soft resets not counted",
        "new code that does nothing else is on trial for ever",
        "shadows",
        ((RECOVERY, "machine.SOFT_RESET: 1, 0: 1", "machine.SOFT_RESET: 0, 0: 1"),),
        uncut=True,
    ),
    Mutant(
        "wakes taken for crashes",
        "a version that sleeps between its tries has no time to reach its channel",
        "wakes",
        ((RECOVERY, "_DEEPSLEEP_RESET: 0, ", ""),),
        uncut=True,
    ),
    Mutant(
        "frozen recovery not alone",
        "modules that a package brings come before those that are frozen",
        "shadows+frozen",
        ((BOOT, '(".frozen",), ("/.ota",), _path:', '("/.ota",), _path:'),),
        uncut=True,
    ),
    Mutant(
        "first trial not known",
        "a trial that the old agent has opened is nobody's, and is never confirmed",
        "layout",
        (
            (
                TRIAL,
                ' if len(fields) == 10 and fields[:2] == ["1", "trial"] else None',
                " and None",
            ),
        ),
        uncut=True,
    ),
    Mutant(
        "first floor not moved",
        "the number of a package that the old agent has staged is litter after the confirm",
        "layout-signed",
        (
            (
                TRANSACTION,
                "    # Of the first version it is there already.\n    done(os.rename, _SEQUENCE",
                "    if number is not None:\n        done(os.rename, _SEQUENCE",
            ),
        ),
        uncut=True,
    ),
    Mutant(
        "first report not read",
        "a report that the old agent still owes has no check sum, and is taken for damaged",
        "layout",
        ((TRANSACTION, 'if text[:2] == "1 " and text.count(" ") == 1:', "if False:"),),
    ),
    Mutant(
        "boot.py runs itself",
        "today's boot.py as /boot_user.py takes itself for the first code at power-up",
        "layout",
        ((BOOT, '_own = "_trial" not in globals()', "_own = True"),),
    ),
]


def _order_mutant(name: str, fault: str, file: str, old: str, new: str) -> Mutant:
    return Mutant(name, fault, "", ((file, old, new),))


#: Faults that the campaign of `host_sim/campaigns/orders` has to catch.
ORDER_MUTANTS = [
    _order_mutant(
        "commits unseen",
        "nobody looks whether the request still stands",
        READY,
        "    if control.request != request:\n",
        "    if False:\n",
    ),
    _order_mutant(
        "commits on a stale view",
        "what was heard last is believed, without a fence",
        REPORT,
        "            control.fence()\n            return\n",
        "            return\n",
    ),
    _order_mutant(
        "stays wiped",
        "a request that the clear has wiped is heard and forgotten",
        REPORT,
        "    if over == payload or times > earlier:\n",
        "    if True:\n",
    ),
    _order_mutant(
        "kept in RAM",
        "a request that is to be put back does not survive a power cut",
        REPORT,
        '                save("request", hexlify(other).decode())\n',
        "                pass\n",
    ),
    _order_mutant(
        "older over newer",
        "what was wiped is put back over what has been asked for since",
        REPORT,
        "if not wiped or control.pending():",
        "if not wiped:",
    ),
    _order_mutant(
        "echo not looked at",
        "a request that comes while another one is put back is lost",
        REPORT,
        "    over = heard[-1] if heard and times else payload\n",
        "    over = heard[-1] if heard and times and not payload else payload\n",
    ),
    _order_mutant(
        "acknowledged, so cleared",
        "a broker that drops a clear has its way",
        REPORT,
        '            cleared = retain(control, b"", mark)\n',
        '            cleared = True\n            retain(control, b"", mark)\n',
    ),
    _order_mutant(
        "clear before report, for ever",
        "a broker that closes the connection on a clear never hears the report",
        REPORT,
        '                save("done", mark)\n                raise\n',
        "                raise\n",
    ),
    _order_mutant(
        "done in RAM",
        "nobody remembers that a request has ended",
        REPORT,
        '            save("done", mark)\n            progress("notice", KEPT)\n',
        '            progress("notice", KEPT)\n',
    ),
    _order_mutant(
        "done for ever",
        "an end is not forgotten when its request is gone",
        KEPT,
        '        if control or pending:\n            forget("done")\n',
        "",
    ),
]
