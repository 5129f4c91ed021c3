"""Modules frozen into the firmware: found as a board finds them, and an agent that is there."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from host_sim import sample
from host_sim.errors import SimError
from host_sim.node import flash
from host_sim.node.node import Node
from host_sim.sample import Tree, write_tree
from tests.conftest import MakeSite

FROZEN: Tree = {
    "pk/__init__.py": b"from . import drop_me\nwhere = 'frozen'\ndef drop(): return 'dropped'\n",
    "pk/a.py": b"from . import drop, b\nfrom .b import x\nimport pk, other\n",
    "pk/b.py": b"x = 1\ndef again():\n    from . import a, late\n    return late.y + a.x\n",
    "pk/drop_me.py": b"",
    "pk/late.py": b"y = 40\n",
    "pk/sub/__init__.py": b"from ..b import x\n",
    "pk/sub/leaf.py": b"from .. import b\nfrom . import x\n",
    "other.py": b"where = 'frozen'\n",
    "lazy.py": b"def load(name): return __import__(name, None, None, (name,))\n",
}

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """What a node with these frozen modules, and these files on flash, prints."""
    frozen = tmp_path / "frozen"

    def run_code(code: str, files: Tree | None = None, firmware: Tree = FROZEN) -> str:
        write_tree(firmware, frozen)
        root = write_tree(files, tmp_path / "root") if files else None
        flash.build(root, tmp_path / "node.img", blocks=32, agent=False)
        node = Node(tmp_path / "node.img", stock=False, frozen=frozen)
        if "boot.py" in (files or {}):
            return node.run().output
        return node.exec("import sys, os\n" + textwrap.dedent(code)).output

    return run_code


def test_found_as_frozen_and_not_on_flash(run: Run):
    code = """
        import pk.a, lazy
        print(pk.where, pk.a.x, pk.a.drop(), pk.a.other.where, pk.a.pk is pk)
        print(os.listdir('/'), sys.path, pk.__path__, pk.__file__, pk.a.__file__)
        for name in ('/pk', 'pk', '.frozen', '/.frozen/pk', '/.frozen~', pk.a.__file__):
            try: os.stat(name); print('there is', name)
            except OSError: pass
        print(lazy.load('other').where, lazy.load('pk.b').x)
        import pk.sub.leaf
        print(pk.sub.leaf.b is pk.b, pk.sub.__path__, pk.sub.leaf.__file__)
    """
    assert run(code).splitlines() == [
        "frozen 1 dropped frozen True",
        "[] ['', '.frozen', '/lib'] .frozen/pk pk/__init__.py pk/a.py",
        "frozen 1",
        "True .frozen/pk/sub pk/sub/leaf.py",
    ]


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("['.frozen']", "frozen"),
        ("['', '.frozen', '/lib']", "frozen"),
        ("['.frozen', '/lib']", "frozen"),
        ("['/lib', '.frozen']", "lib"),
        ("['', '/lib']", "lib"),
        ("['/lib']", "lib"),
        ("['']", "no module named 'other'"),
        ("[]", "no module named 'other'"),
    ],
)
def test_where_in_sys_path(run: Run, path: str, found: str):
    code = f"""
        sys.path[:] = {path}
        try:
            import other
            print(other.where)
        except ImportError as error: print(error)
        print(sys.path == {path})
    """
    assert run(code, {"lib/other.py": b"where = 'lib'"}) == f"{found}\nTrue\n"


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"pk.py": b"where = 'file'"}, "file no module"),
        ({"pk/__init__.py": b"where = 'flash'"}, "flash no module"),
        ({"pk/notes.txt": b"notes"}, "None no module"),
        ({"pk/b.py": b"x = 'flash'"}, "None flash"),
        ({"lib/pk/b.py": b"x = 'lib'"}, "frozen 1"),
        ({"lib/pk.py": b"where = 'lib'"}, "frozen 1"),
    ],
)
def test_what_wins(run: Run, files: Tree, found: str):
    code = """
        import pk
        where = getattr(pk, 'where', None)
        try: from pk.b import x
        except ImportError: x = 'no module'
        print(where, x)
    """
    assert run(code, files) == f"{found}\n"


def test_a_file_on_flash_is_nothing_to_frozen_alone(run: Run):
    code = """
        path = sys.path[:]
        sys.path[:] = ('.frozen',)
        import pk.b as b
        sys.path[:] = path
        import other
        print(b.x, other.where)
    """
    assert run(code, {"pk/b.py": b"x = 2", "other.py": b"where = 'flash'"}) == "1 flash\n"


def test_dropped_and_loaded_again(run: Run):
    code = """
        import pk.a
        first = pk.b
        del sys.modules['pk.b'], sys.modules['pk.a']
        from pk.b import again
        print(sys.modules['pk.b'] is first, again())
    """
    assert run(code) == "False 41\n"
    code = """
        import pk
        sys.path[:] = ['/lib']  # a module of a package that is loaded is found in the package
        from pk import late
        print(late.y)
        del sys.modules['pk'], sys.modules['pk.late']
        try: import pk
        except ImportError as error: print(error)
    """
    assert run(code) == "40\nno module named 'pk'\n"


def test_what_fails_leaves_nothing_behind(run: Run):
    firmware = FROZEN | {"pk/bad.py": b"import nothing\n", "pk/odd.py": b"def\n"}
    code = """
        for name in ('pk.bad', 'pk.odd', 'pk.none', 'gone'):
            try: __import__(name)
            except (ImportError, SyntaxError) as error: print(type(error).__name__)
        print(os.listdir('/'), sys.path, sys.modules['pk'].__path__)
        from pk import b
        print(b.x)
    """
    seen = run(code, firmware=firmware).splitlines()
    names = ["ImportError", "SyntaxError", "ImportError", "ImportError"]
    assert seen == [*names, "[] ['', '.frozen', '/lib'] .frozen/pk", "1"]


def test_relative_imports_on_flash_still_work(run: Run):
    files = {"fl/__init__.py": b"", "fl/a.py": b"from . import b\nfrom .b import z\n"}
    files |= {"fl/b.py": b"z = 7\n", "top.py": b"from . import x\n"}
    code = """
        import fl.a
        print(fl.a.b.z, fl.a.z)
        try: import top
        except ImportError as error: print(error)
    """
    assert run(code, files) == "7 7\ncan't perform relative import\n"


def test_a_frozen_boot_wins_over_the_one_on_flash(run: Run):
    files = {"boot.py": b"print('flash boot')", "main.py": b"print('flash main', x)"}
    assert run("", files, {"boot.py": b"print('frozen boot', __file__)\nx = 1\n"}) == (
        "frozen boot boot.py\nflash main 1\n"
    )


def test_no_folder(tmp_path: Path):
    flash.build(None, tmp_path / "node.img", blocks=32, agent=False)
    with pytest.raises(SimError, match="frozen"):
        Node(tmp_path / "node.img", stock=False, frozen=tmp_path / "none").run()


def test_heap_that_it_costs(tmp_path: Path):
    code = "import gc\ngc.collect()\nprint(gc.mem_free())"
    flash.build(None, tmp_path / "node.img", blocks=32, agent=False)
    folder = write_tree(FROZEN, tmp_path / "frozen")
    plain = Node(tmp_path / "node.img", stock=False, heap="64K").exec(code).output
    frozen = Node(tmp_path / "node.img", stock=False, heap="64K", frozen=folder).exec(code).output
    assert abs(int(plain) - int(frozen)) < 1024, (plain, frozen)


# The agent


@pytest.mark.check
def test_an_update_with_a_frozen_agent(make_site: MakeSite):
    site = make_site(frozen=True, extra={"data.txt": b"old"})
    assert not [name for name in site.files if name.startswith("/ota/")]
    assert "/boot.py" in site.files
    package = {"main.py": sample.main_py(2), "data.txt": b"new", "lib/more.py": b"more = 1\n"}
    fuid = site.ask(sample.tar_gz(package))
    run = site.run()
    assert run.exit_code == 0, run.output
    assert "version 2 runs" in run.output
    assert run.names() == ["boot", "reset", "boot", "sleep", "flash"]
    assert site.flash_files() == site.files | {"/" + n: c for n, c in package.items()}
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    again = site.run()
    assert "check: idle" in again.output
    assert again.ops == 0


def test_a_roll_back_with_a_frozen_agent(make_site: MakeSite):
    site = make_site(frozen=True, config={"trial_deadline_s": 60})
    fuid = site.ask(sample.tar_gz({"main.py": b"1/0\n", "data.txt": b"new"}))
    run = site.run(wakes=2)
    assert "version 1 runs" in run.output
    assert site.flash_files() == site.files
    assert [report["e"] for report in site.reports()] == [1, 2]
    assert site.reports()[-1]["i"] == fuid
