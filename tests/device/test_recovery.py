"""Stage, commit, install, confirm and roll back, on littlefs in RAM."""

import binascii
import gc
import os
import sys

import check
import ramflash
import vfs
import whole_agent  # noqa: F401 - before the flash that it is on is gone
from ota import recovery
from ota.errors import Refused
from ota.install import transaction, trial
from ota.install.finish import finish
from ota.install.journal import Journal
from ota.install.ready import write_copies
from ota.install.staging import Staging
from ota.install.trial import status
from ota.package.vetting import clean_path
from ota.package.wanted import Wanted


class Member:
    """What a TarReader shows of one member."""

    def __init__(self, name, content):
        self.name = name
        self.is_folder = content is None
        self.size = len(content or b"")
        self._content = content
        self._at = 0

    def readinto(self, buffer, n):
        # Short reads on purpose: a link gives what it has.
        n = min(n, self.size - self._at, 700)
        buffer[:n] = self._content[self._at : self._at + n]
        self._at += n
        return n


OLD = {
    "/main.py": b"old main" * 300,
    "/same.py": b"same" * 900,
    "/lib/a.py": b"old a",
    "/boot.py": b"import ota.recovery\nota.recovery.boot()\nsys.path[:] = _path\nold = 1\n",
    "/ota/agent.py": b"agent = 'old'\n" * 300,
    "/keep.bin": bytes(range(256)) * 20,
}
NEW = {
    "/main.py": b"new main" * 300,
    "/same.py": b"same" * 900,
    "/lib/a.py": b"new a, longer",
    "/lib/sub/deep/b.py": b"b",
    "/lib/sub/c.py": b"",
    "/boot.py": b"import ota.recovery\n\n# new\nota.recovery.boot()\nsys.path[:] = _path\nx = 1\n",
    "/ota/agent.py": b"agent = 'new'\n" * 300,
    "/ota/more.py": b"more = 1\n",
    b"/f\xc3\xbcr/\xe2\x82\xac.txt".decode(): b"names",
    "/empty/inner": None,
}


def old_tree(blocks=64):
    device = ramflash.mount(blocks)
    for path in OLD:
        ramflash.write(path, OLD[path])
    return device, ramflash.tree()


def head(at_once=True, deadline_s=300):
    """What the agent writes first into the journal, see ota/recovery.py."""
    return [2, "fa8884d2", 3, 24, 7, deadline_s, at_once, 0, 0, None]


def new_staging(journal_head=None):
    journal = Journal(journal_head or head())
    return Staging(lambda step, value: None, [], lambda: None, journal, bytearray(512))


def commit_and_install():
    write_copies()
    transaction.commit()
    recovery.install()


def cleared():
    """The agent's next check, which clears up and delivers. True when nothing is left."""
    transaction.discard()
    transaction.forget("report")
    return not recovery.exists("/.ota")


def stage(package, journal_head=None):
    transaction.discard()
    staging = new_staging(journal_head)
    members = package if type(package) is list else [(path, package[path]) for path in package]
    try:
        for path, content in members:
            staging.add(Member("." + path, content))
        finish(staging)
    finally:
        staging.journal.close()
    return staging


def open_trial(at_once=True):
    sys.modules.pop("ota.counted", None)
    _, before = old_tree()
    # No deadline: there is no timer here.
    stage(NEW, head(at_once, 0))
    commit_and_install()
    return before


def one_boot():
    """As boot.py counts it, without a machine."""
    state = recovery.read_state()
    state[2] = 8
    recovery.write_state(*state[1:])
    sys.modules["ota.counted"] = sys


def expected_new():
    files = dict(OLD)
    files.update(NEW)
    for folder in ("/lib", "/ota", "/lib/sub", "/lib/sub/deep", "/empty", "/empty/inner"):
        files[folder] = None
    files[b"/f\xc3\xbcr".decode()] = None
    return files


def test_staging_touches_nothing_that_lives():
    _, before = old_tree()
    staging = stage(NEW)
    check.equal(ramflash.tree(), before)
    check.equal(staging.staged, 9)


def test_install_then_confirm():
    open_trial()
    check.equal(ramflash.tree(), expected_new())
    check.equal(status()["state"], "trial")
    check.equal(recovery.load("report"), "1 fa8884d2")
    check.equal(trial.confirm(), False)  # the new tree has not run yet
    check.equal(status()["state"], "trial")
    one_boot()
    check.equal(trial.confirm(), True)
    check.equal(trial.confirm(), False)
    check.equal(ramflash.tree(), expected_new())
    check.equal(cleared(), True)


def test_confirmed_mode_owes_its_report_only_then():
    open_trial(False)
    check.equal(recovery.load("report"), None)
    one_boot()
    trial.confirm()
    check.equal(recovery.load("report"), "1 fa8884d2")
    check.equal(transaction.owed(), "1 fa8884d2")


def test_a_cut_in_the_confirm_tells_nothing_before_the_next_one():
    """The report is on flash and the trial still open: the rehearsal may yet fail."""
    open_trial(False)
    one_boot()
    transaction.save("report", "1 fa8884d2")
    check.equal(transaction.owed(), None)
    check.equal(trial.confirm(), True)
    check.equal(transaction.owed(), "1 fa8884d2")
    # One that is due at once is told during the trial.
    open_trial(True)
    one_boot()
    check.equal(transaction.owed(), "1 fa8884d2")


def test_roll_back_restores_exactly_the_old_tree():
    before = open_trial()
    recovery.roll_back("rolled back: a test")
    check.equal(ramflash.tree(), before)
    check.equal(recovery.load("report"), "2 fa8884d2 rolled back: a test")
    check.equal(cleared(), True)


def test_roll_back_keeps_what_new_code_wrote_itself():
    before = open_trial()
    ramflash.write("/lib/sub/measured.csv", b"1,2")
    recovery.roll_back("rolled back: a test")
    before["/lib/sub"] = None
    before["/lib/sub/measured.csv"] = b"1,2"
    check.equal(ramflash.tree(), before)


def test_a_package_that_changes_nothing_stages_nothing():
    _, before = old_tree()
    staging = stage(OLD)
    check.equal((staging.staged, staging.bytes), (0, 0))
    transaction.discard()
    check.equal(ramflash.tree(skip=None), before)


def test_one_changed_byte_at_every_place():
    content = bytes(range(250)) * 13  # several buffers and a rest
    for at in (0, 1, 1023, 1024, 1025, 2048, len(content) - 1):
        ramflash.mount()
        ramflash.write("/x.bin", content)
        changed = bytearray(content)
        changed[at] ^= 1
        check.equal(stage({"/x.bin": bytes(changed)}).staged, 1)
        commit_and_install()
        check.equal(ramflash.tree()["/x.bin"], bytes(changed))


class Flaky:
    """The os module, but for the n-th rename."""

    def __init__(self, n):
        self.left = n

    def __getattr__(self, name):
        return getattr(os, name)

    def rename(self, a, b):
        self.left -= 1
        if not self.left:
            raise OSError(5)
        os.rename(a, b)


def test_an_error_of_flash_while_moving_in_is_left_to_the_next_boot():
    """Nothing is written after it: littlefs would finish the rename by removing the file."""
    for renames in range(1, 12):
        device, _ = old_tree()
        stage(NEW)
        write_copies()
        transaction.commit()
        recovery.os = Flaky(renames)
        try:
            check.raises(OSError, "5", recovery.install)
            operations = device.operations
        finally:
            recovery.os = os
        check.equal(status()["state"], "commit")
        check.equal(device.operations, operations)
        recovery.install()
        check.equal(ramflash.tree(), expected_new())


def test_the_transaction_is_run_by_the_code_that_committed_it():
    """Whatever the package does to the agent, a whole copy of recovery stands beside the state."""
    ramflash.mount()
    ramflash.write("/main.py", b"")
    ramflash.write("/ota/recovery.py", b"as it was at the commit")
    file = recovery.__file__
    recovery.__file__ = "ota/recovery.py"
    try:
        stage({"/ota/recovery.py": b"import nowhere\n"})
        commit_and_install()
    finally:
        recovery.__file__ = file
    copy = ramflash.tree(skip=None)["/.ota/recovery.py"]
    check.equal(copy[:23], b"as it was at the commit")
    # What follows is its CRC-32, by which boot.py knows it, and which is a comment.
    check.equal(copy[23:25] + copy[-5:-4], b"\n# ")
    check.equal(binascii.crc32(copy[:-4]).to_bytes(4, "little"), copy[-4:])
    recovery.roll_back("rolled back: a test")
    check.equal(cleared(), True)


def test_a_foreign_boot_py_never_takes_the_front():
    _, before = old_tree()
    foreign = b"# ota.recovery is not for me\nimport network\n"
    stage({"/boot.py": foreign})
    commit_and_install()
    before["/boot_user.py"] = foreign
    check.equal(ramflash.tree(), before)


def test_a_boot_py_that_could_not_be_undone_never_takes_the_front():
    for foreign in (
        b"raise ValueError\nimport ota.recovery\nota.recovery.boot()\n",
        b"import ota.recovery\nimport nowhere\nota.recovery.boot()\n",
        b"import ota.recovery\n# ota.recovery.boot()\n",
        b"import ota.recovery\n",
        b"",
    ):
        _, before = old_tree()
        stage({"/boot.py": foreign})
        commit_and_install()
        before["/boot_user.py"] = foreign
        check.equal(ramflash.tree(), before)


def mpy(version=6, feature=3, small_int_bits=31):
    return bytes((77, version, feature, small_int_bits)) + b"rest"


def test_a_stale_twin_is_retired_and_comes_back():
    for old_name, new_name in (("/lib/x.py", "/lib/x.mpy"), ("/lib/x.mpy", "/lib/x.py")):
        ramflash.mount()
        ramflash.write("/main.py", b"")
        ramflash.write(old_name, b"old")
        before = ramflash.tree()
        stage({new_name: mpy()})
        check.equal(ramflash.tree(), before)
        commit_and_install()
        check.equal(ramflash.tree(), {"/main.py": b"", "/lib": None, new_name: mpy()})
        recovery.roll_back("rolled back: a test")
        check.equal(ramflash.tree(), before)


def test_source_and_mpy_of_one_module_refuse_the_package():
    for package in (
        {"/x.py": b"", "/x.mpy": mpy()},
        {"/x.mpy": mpy(), "/x.py": b""},
        {"/main.py": OLD["/main.py"], "/main.mpy": mpy()},
        {"/main.mpy": mpy(), "/main.py": b"new"},
    ):
        old_tree()
        check.raises(Refused, "can not apply: ", stage, package)


def test_mpy_files_that_this_interpreter_does_not_load():
    # Feature byte: two bits of sub-version, then the architecture; 10 is an ESP32's.
    for wrong in (b"", b"M\x06", b"x" * 9, mpy(5), mpy(7), mpy(6, 10 << 2 | 3), mpy(6, 3, 200)):
        old_tree()
        check.raises(Refused, "incompatible .mpy: ", stage, {"/lib/x.mpy": wrong})
    # Without native code the sub-version does not matter.
    for right in (mpy(), mpy(6, 0), mpy(6, 2), mpy(6, 3, 0)):
        old_tree()
        stage({"/lib/x.mpy": right})


def test_source_on_the_boot_path_must_compile():
    for path in ("/ota/recovery.py", "/lib/ota/x.py", "/boot.py"):
        for wrong in (b"def (:", b"\xff\xfe = 1", b"x = 1\n  y = 2\n"):
            old_tree()
            check.raises(Refused, path + " does not compile", stage, {path: wrong})
    stage({"/app.py": b"def (:"})  # elsewhere that is for the trial to find out


class Machine:
    """What recovery.boot() asks of the machine module."""

    PWRON_RESET = 1
    DEEPSLEEP_RESET = 4
    SOFT_RESET = 5

    def __init__(self):
        self.resets = 0

    def reset(self):
        self.resets += 1

    def reset_cause(self):
        return 1


def boot():
    """As boot.py does. Returns the machine, which counts resets."""
    machine = sys.modules["machine"] = Machine()
    check.boot(recovery)
    return machine


def test_boot_counts_a_boot_once():
    before = open_trial()
    for boots in (1, 2, 3):
        check.equal(boot().resets, 0)
        recovery.boot()  # a package's own boot.py may call it once more
        check.equal(status()["boots"], boots)
    check.equal(boot().resets, 1)
    check.equal(ramflash.tree(), before)
    check.equal(recovery.load("report"), "2 fa8884d2 rolled back: 3 boots without confirm")


def test_one_copy_of_the_journal_is_enough():
    for name in "journal", "journal2":
        before = open_trial()
        os.remove("/.ota/" + name)
        recovery.roll_back("rolled back: a test")
        check.equal(ramflash.tree(), before)
        check.equal(recovery.load("report"), "2 fa8884d2 rolled back: a test")


def test_flash_that_has_lost_the_journal_ends_at_once():
    """Both copies. Once it was tried for ever, as state `back`; now it is said, and closed."""
    for phase in "commit", "trial", "back":
        open_trial()
        recovery.write_state(phase, 8)
        os.remove("/.ota/journal")
        ramflash.write("/.ota/journal2", b"[2]\n=1234")
        resets = 0
        for _ in range(4):
            resets += boot().resets
        check.equal(resets, 1)
        check.equal(recovery.load("report"), "2 - rolled back, but not whole: lost")
        check.equal(recovery.exists("/.ota/state"), 0)
        check.equal(cleared(), True)


def test_refused_members():
    rows = (
        ({"/../x": b""}, "leaves the root"),
        ({"/a/../../x": b""}, "leaves the root"),
        ({"/a\\b": b""}, "not allowed"),
        ({"/a\nb": b""}, "not allowed"),
        ({"/" + "n" * 256: b""}, "longer than 255"),
        ({"/.ota/state": b""}, "protected"),
        ({"/.ota": None}, "protected"),
        ({"/ota.json": b"{}"}, "protected"),
        ({"/": b"x"}, "without a name"),
        ({"/lib": b"x"}, "a file where a folder is"),
        ({"/main.py": None}, "a folder where a file is"),
        ({"/main.py/x": b""}, "a folder where a file is"),
        ({"/n": b"x", "/n/y": b""}, "a folder where a file is"),
        ({"/n/y": b"", "/n": b"x"}, "same name twice"),
        ({"/n": None, "/./n": b"x"}, "same name twice"),
        ({"/n": b"1", "//n": b"2"}, "same name twice"),
        ({"/same.py": OLD["/same.py"], "/./same.py": b"2"}, "same name twice"),
    )
    for package, text in rows:
        _, before = old_tree()
        check.raises(Refused, text, stage, package)
        transaction.discard()
        check.equal(ramflash.tree(skip=None), before)


def test_folders_named_often_are_no_mistake():
    old_tree()
    stage({"/n": None, "/n/a": b"", "/./n": None, "/n/b/c": b"", "/lib": None, "/": None})


def test_conflicts_inside_new_folders():
    a, b, other = ("/t/a", b"1"), ("/t/a/b", b"2"), ("/u/v/w", b"3")
    folder = ("/t/a", None)
    in_the_way, twice = "a folder where a file is", "same name twice"
    for package, text in (
        ([a, b], in_the_way),
        ([a, folder], in_the_way),
        ([a, other, b], in_the_way),
        ([a, other, folder], in_the_way),
        ([b, a], twice),
        ([b, other, a], twice),
        ([folder, a], twice),
        ([folder, other, a], twice),
        ([a, other, a], twice),
        ([other, a, ("/u/v", b"")], twice),
        ([other, a, ("/u", b"")], twice),
        ([("/u", b""), a, other], in_the_way),
    ):
        _, before = old_tree()
        check.raises(Refused, text, stage, package)
        transaction.discard()
        check.equal(ramflash.tree(skip=None), before)


def test_new_folders_move_whole_however_members_are_ordered():
    tree = [("/n%d/d%d/f%d" % (n % 3, n % 5, n), b"%d" % n * n) for n in range(60)]
    tree += [("/lib/new%d.py" % n, b"x") for n in range(20)]
    _, before = old_tree(256)
    stage(tree)
    check.equal(ramflash.tree(), before)
    write_copies()
    transaction.commit()
    renamed, rename_for_real = [], os.rename

    class Watching:
        def __getattr__(self, name):
            return getattr(os, name)

        def rename(self, old, new):
            if not new.startswith("/.ota"):
                renamed.append(new)
            rename_for_real(old, new)

    recovery.os = Watching()
    try:
        recovery.install()
    finally:
        recovery.os = os
    check.equal(
        sorted(renamed),
        ["/lib/new%d.py" % n for n in sorted(range(20), key=str)] + ["/n0", "/n1", "/n2"],
    )
    new = ramflash.tree()
    for path, content in tree:
        check.equal(new[path], content)
    check.equal(len(new), len(before) + 60 + 20 + 3 + 15)
    recovery.roll_back("rolled back: a test")
    check.equal(ramflash.tree(), before)


def test_a_new_folder_that_the_application_makes_meanwhile():
    package = [
        ("/data", None),
        ("/data/sub/new.csv", b"new"),
        ("/other/x", b"x"),
        ("/data/a", b"a"),
    ]
    for earlier in {"/data/log.csv": b"1,2"}, {"/data/sub/log.csv": b"1,2"}, {"/data/sub": None}:
        _, before = old_tree()
        stage(package)
        write_copies()
        transaction.commit()
        for path in earlier:
            if earlier[path] is None:
                os.mkdir("/data")
                os.mkdir(path)
            else:
                ramflash.write(path, earlier[path])
        recovery.install()
        new = ramflash.tree()
        for path, content in package[1:]:
            check.equal(new[path], content)
        for path in earlier:
            check.equal(new[path], earlier[path])
        recovery.roll_back("rolled back: a test")
        after = ramflash.tree()
        check.equal(
            [path for path in after if path not in before and after[path]],
            [path for path in earlier if earlier[path]],
        )


def test_a_card_below_a_folder_that_is_missing():
    card = ramflash._Ram(16)
    vfs.VfsLfs2.mkfs(card)
    for package in (
        [("/data/a.txt", b"a"), ("/data/sd/b.txt", b"b")],
        [("/data/sd/b.txt", b"b"), ("/data/a.txt", b"a")],
        [("/data/sd", None)],
    ):
        old_tree()
        vfs.mount(vfs.VfsLfs2(card), "/data/sd")
        try:
            check.raises(Refused, "another filesystem", stage, package)
        finally:
            vfs.umount("/data/sd")


def test_what_lies_on_a_card_already():
    """A twin beside it could not be removed at boot."""
    card = ramflash._Ram(16)
    vfs.VfsLfs2.mkfs(card)
    old_tree()
    vfs.mount(vfs.VfsLfs2(card), "/sd")
    try:
        ramflash.write("/sd/x.mpy", b"x")
        walk = Wanted(None, 9, None, None, None, (), 0)
        walk.staging = new_staging()
        check.raises(Refused, "another filesystem", walk.take, "/sd/x.mpy", "/sd/x.mpy", 0)
    finally:
        vfs.umount("/sd")


def test_what_waits_in_a_new_folder_is_checked_before_it_moves():
    _, before = old_tree()
    for wrong in False, True:
        staging = new_staging()
        for path in "/t/deep er/a", "/t/b":
            member = Member(path, path.encode())
            member.again = None  # as one that is signed
            staging.add(member)
        finish(staging)
        staging.journal.close()
        if wrong:
            ramflash.write("/.ota/0/deep er/a", b"/t/deep er/!")
        commit_and_install()
        if wrong:
            reason = "can not apply: changed on flash, /t/deep er/a"
            check.equal(recovery.load("report"), "2 fa8884d2 " + reason)
        else:
            check.equal(ramflash.tree()["/t/b"], b"/t/b")
            recovery.roll_back("rolled back: a test")
        check.equal(ramflash.tree(), before)
        check.equal(cleared(), True)


def test_litter_with_many_folders_is_not_listed_over_and_over():
    old_tree(400)
    stage([("/n/d%d/f" % n, b"x") for n in range(80)])
    listed = 0

    class Counting:
        def __getattr__(self, name):
            return getattr(os, name)

        def ilistdir(self, path):
            nonlocal listed
            listed += 1
            return os.ilistdir(path)

    recovery.os = Counting()
    try:
        transaction.discard()
    finally:
        recovery.os = os
    check.equal(listed < 2 * 80, True)


def test_folders_deeper_than_the_stack():
    gc.collect()
    ramflash.mount(1000)
    path = "/d" * 400
    before = ramflash.tree()
    for confirmed in False, True:
        stage([(path + "/file", b"deep"), (path + "/folder", None)])
        write_copies()
        transaction.commit()
        if not confirmed:  # what waits is litter, and has not moved
            os.remove("/.ota/state")
            transaction.discard()
            check.equal(ramflash.tree(skip=None), before)
            continue
        recovery.install()
        with open(path + "/file") as file:
            check.equal(file.read(), "deep")
        recovery.roll_back("rolled back: a test")
        check.equal(ramflash.tree(), before)


def test_a_full_flash_is_refused_with_a_reserve_left():
    _, before = old_tree()
    check.raises(Refused, "not enough space", stage, {"/big": bytes(200000)})
    check.equal(os.statvfs("/")[3] >= 10, True)
    transaction.discard()
    check.equal(ramflash.tree(skip=None), before)


def test_many_small_files_fit_where_littlefs_keeps_them_inside_folders():
    ramflash.mount(64)
    stage({"/s/%d" % n: b"tiny" for n in range(120)})


def test_discard_never_touches_an_open_transaction():
    open_trial()
    transaction.discard()
    recovery.roll_back("rolled back: a test")
    check.equal(ramflash.tree()["/main.py"], OLD["/main.py"])


def test_a_state_of_another_version_is_left_alone():
    """It has a right check sum of its own; what has none is damaged, see below."""
    before = open_trial()
    text = recovery.load("state")
    recovery.save("state", "[3" + text[2:])
    transaction.discard()
    whole = ramflash.tree(skip=None)
    check.equal(boot().resets, 0)
    check.equal(trial.confirm(), False)
    check.equal(ramflash.tree(skip=None), whole)
    recovery.save("state", text)
    recovery.roll_back("rolled back: a test")
    check.equal(ramflash.tree(), before)


def test_a_damaged_state_is_rolled_back():
    before = open_trial()
    ramflash.write("/.ota/state", b"[3, a state of another version, or not]")
    check.equal(boot().resets, 1)
    check.equal(ramflash.tree(), before)
    check.equal(recovery.load("report"), "2 fa8884d2 rolled back: damaged")


def test_clean_paths():
    for name, path in (
        ("a", "/a"),
        ("./a//b/", "/a/b"),
        ("/a/./b", "/a/b"),
        (".", "/"),
        ("", "/"),
        ("..a/b..", "/..a/b.."),
    ):
        check.equal(clean_path(name), path)


check.run(globals())
