"""`python -m insigh_ota.package build` follows symbolic links and submodules, and says so."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from host_sim.sample import Tree, write_tree
from insigh_ota.package.archive import read
from insigh_ota.package.manifest import parse
from tests.tools.test_package import Desk, Project

FIRST: Tree = {"drv.py": b"1\n", "pkg/a.py": b"a1\n", "pkg/gone.py": b"gone\n", "README": b"1"}
SECOND: Tree = {"drv.py": b"2\n", "pkg/b.py": b"b\n"}
NOTE = "submodule at "


@pytest.fixture(autouse=True)
def _near(monkeypatch: pytest.MonkeyPatch):
    """Submodules may come from this machine, and nobody's own settings count."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "protocol.file.allow")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "always")


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture) -> Desk:
    return Desk(tmp_path, capsys)


@pytest.fixture
def driver(tmp_path: Path) -> Project:
    """Two versions of a driver."""
    driver = Project(tmp_path / "driver")
    driver.commit(FIRST, tag="d1")
    driver.commit(SECOND, ("pkg/gone.py",), tag="d2")
    return driver


@pytest.fixture
def project(tmp_path: Path, driver: Project) -> Project:
    """Two versions of a node, each with the driver of that version behind links."""
    project = Project(tmp_path / "project")
    project.git("submodule", "--quiet", "add", "../driver", "ext/drv")
    (project.folder / "node/lib").mkdir(parents=True)
    (project.folder / "node/lib/drv.py").symlink_to("../../ext/drv/drv.py")
    (project.folder / "node/lib/pkg").symlink_to("../../ext/drv/pkg")
    move(project, "d1")
    project.commit({"node/main.py": b"same\n"}, tag="v1")
    move(project, "d2")
    project.commit({}, tag="v2")
    return project


def move(project: Project, name: str, place: str = "ext/drv") -> None:
    """Check out another commit of a submodule."""
    project.git("-C", place, "checkout", "-q", name)


def short(project: Project, name: str = "HEAD") -> str:
    return project.git("rev-parse", name)[:7]


def run(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True)


def files(package: Path) -> dict[str, bytes]:
    return dict(read(package.read_bytes()).files)


def deleted(package: Path) -> list[str]:
    return parse(read(package.read_bytes()).manifest).deleted


V1 = {
    "main.py": b"same\n",
    "lib/drv.py": b"1\n",
    "lib/pkg/a.py": b"a1\n",
    "lib/pkg/gone.py": b"gone\n",
}
V2 = {"main.py": b"same\n", "lib/drv.py": b"2\n", "lib/pkg/a.py": b"a1\n", "lib/pkg/b.py": b"b\n"}


def test_a_folder_with_links_into_a_submodule(desk: Desk, project: Project, driver: Project):
    out = desk.folder / "p.tar"
    said = desk.type("build", project.folder / "node", "--out", out)
    assert files(out) == V2
    d1, d2 = short(driver, "d1"), short(driver, "d2")
    assert said.splitlines()[:-1] == [
        f"lib/drv.py <- ext/drv/drv.py (submodule at {d2})",
        f"lib/pkg <- ext/drv/pkg (submodule at {d2})",
    ]
    # What is on disk counts, and it is said that this is another one than what is recorded.
    move(project, "d1")
    (project.folder / "ext/drv/drv.py").write_bytes(b"mine\n")
    said = desk.type("build", project.folder / "node", "--out", out)
    assert files(out) == V1 | {"lib/drv.py": b"mine\n"}
    assert f"(submodule at {d1}-dirty, recorded is {d2})" in said


@pytest.mark.check
def test_git_takes_what_the_revision_records(desk: Desk, project: Project, driver: Project):
    """Whatever is checked out."""
    node, out = project.folder / "node", desk.folder / "p.tar"
    (project.folder / "ext/drv/drv.py").write_bytes(b"not committed\n")
    d1, d2 = short(driver, "d1"), short(driver, "d2")
    said = desk.type("build", node, "--out", out, "--git", "v1")
    assert (files(out), deleted(out)) == (V1, [])
    assert f"lib/pkg <- ext/drv/pkg (submodule at {d1})\n" in said
    desk.type("build", node, "--out", out, "--git", "HEAD")
    assert files(out) == V2
    said = desk.type("build", node, "--out", out, "--git", "v1..v2")
    assert files(out) == {"lib/drv.py": b"2\n", "lib/pkg/b.py": b"b\n"}
    assert deleted(out) == ["lib/pkg/gone.py"]
    was = f"(submodule at {d2}), was ext/drv/pkg (submodule at {d1})"
    assert f"lib/pkg <- ext/drv/pkg {was}\n" in said
    desk.type("build", node, "--out", out, "--git", "v2..v1")
    assert files(out) == {"lib/drv.py": b"1\n", "lib/pkg/gone.py": b"gone\n"}
    assert deleted(out) == ["lib/pkg/b.py"]


def test_the_deletions_are_signed(desk: Desk, project: Project):
    pem, pub = desk.key()
    words = ["--git", "v1..", "--key", pem, "--sequence", 4, "--compile", "lib/pkg"]
    package = desk.build(project.folder / "node", *words)
    assert deleted(package) == ["lib/pkg/gone.mpy"]
    assert "good: 2 files, 1 deletions" in desk.type("verify", package, "--key", pub)


def test_a_link_that_changes_its_target(desk: Desk, project: Project):
    folder = project.folder / "node"
    (folder / "lib/drv.py").unlink()
    (folder / "lib/drv.py").symlink_to("../own.py")
    (folder / "lib/pkg").unlink()
    (folder / "lib/pkg").symlink_to("../../other")
    new = {"node/own.py": b"own\n", "other/a.py": b"a1\n", "other/new.py": b"n"}
    project.commit(new, tag="v3")
    package = desk.build(folder, "--git", "v2..v3")
    # a.py has the same content in its new place.
    assert files(package) == {"own.py": b"own\n", "lib/drv.py": b"own\n", "lib/pkg/new.py": b"n"}
    assert deleted(package) == ["lib/pkg/b.py"]
    # A link that becomes the file that it led to changes nothing on a node.
    (folder / "lib/drv.py").unlink()
    project.commit({"node/lib/drv.py": b"own\n"}, tag="v4")
    words = ["build", folder, "--out", desk.folder / "n.tar", "--git", "v3..v4"]
    assert "nothing to package" in desk.refused(*words)


def test_a_submodule_that_moves_is_the_same(desk: Desk, project: Project):
    project.git("mv", "ext/drv", "driver")
    for name in ("drv.py", "pkg"):
        (project.folder / "node/lib" / name).unlink()
        (project.folder / "node/lib" / name).symlink_to("../../driver/" + name)
    project.commit({}, tag="v3")
    out = ["--out", desk.folder / "p.tar"]
    folder = project.folder / "node"
    assert "nothing to package" in desk.refused("build", folder, *out, "--git", "v2..v3")
    desk.type("build", folder, *out, "--git", "v1..v3")
    assert files(out[1]) == {"lib/drv.py": b"2\n", "lib/pkg/b.py": b"b\n"}


# -- what is not there -------------------------------------------------------------------------


def obey(line: str, folder: Path) -> None:
    """Run the command that an error names."""
    command = line[line.rindex("git ") :].partition(" (in ")[0].partition(", with ")[0]
    subprocess.run(shlex.split(command), cwd=folder, check=True, capture_output=True)


def test_a_submodule_that_is_not_checked_out(desk: Desk, project: Project):
    clone = desk.folder / "clone"
    run(desk.folder, "clone", "-q", project.folder, clone)
    node, out = clone / "node", desk.folder / "p.tar"
    for words in ([], ["--git", "HEAD"], ["--git", "v1..v2"]):
        line = desk.refused("build", node, "--out", out, *words)
        assert line.startswith(
            "build: lib/drv.py: submodule ext/drv is not checked out: "
            f"git submodule update --init ext/drv (in {clone})"
        ), line
        assert not out.exists()
    desk.type("build", node, "--out", out, "--exclude", "lib")
    assert files(out) == {"main.py": b"same\n"}
    obey(line, clone)
    for words, tree in (([], V2), (["--git", "HEAD"], V2), (["--git", "v1"], V1)):
        desk.type("build", node, "--out", out, *words)
        assert files(out) == tree
    # An update that was stopped has left .git alone there.
    for each in ("drv.py", "README"):
        (clone / "ext/drv" / each).unlink()
    shutil.rmtree(clone / "ext/drv/pkg")
    line = desk.refused("build", node, "--out", out)
    assert "ext/drv is not checked out" in line
    obey(line, clone)
    desk.type("build", node, "--out", out)
    assert files(out) == V2
    shutil.rmtree(clone / "ext/drv")
    assert "ext/drv is not checked out" in desk.refused("build", node, "--out", out)


def test_a_commit_that_is_not_there(desk: Desk, project: Project, driver: Project):
    clone, out = desk.folder / "clone", desk.folder / "p.tar"
    run(desk.folder, "clone", "-q", "--recurse-submodules", project.folder, clone)
    driver.commit({"pkg/b.py": b"b3\n"}, tag="d3")
    project.git("-C", "ext/drv", "fetch", "-q")
    move(project, "d3")
    project.commit({}, tag="v3")
    run(clone, "fetch", "-q", "--no-recurse-submodules", "--tags")
    line = desk.refused("build", clone / "node", "--out", out, "--git", "v2..v3")
    commit = driver.git("rev-parse", "d3").strip()
    assert f"ext/drv does not have the commit {commit[:7]} of v3" in line
    assert "git submodule update --init ext/drv, or " in line
    obey(line, clone)
    desk.type("build", clone / "node", "--out", out, "--git", "v2..v3")
    assert files(out) == {"lib/pkg/b.py": b"b3\n"}


def test_a_submodule_of_another_revision_alone(desk: Desk, project: Project):
    """It can not be fetched without that revision's .gitmodules."""
    project.git("rm", "-q", "ext/drv")
    project.commit({}, ("node/lib/drv.py", "node/lib/pkg"), tag="v3")
    out = desk.folder / "p.tar"
    words = ["build", project.folder / "node", "--out", out, "--git", "v2..v3"]
    desk.type(*words)  # .git/modules still has it
    assert deleted(out) == ["lib/drv.py", "lib/pkg/a.py", "lib/pkg/b.py"]
    shutil.rmtree(project.folder / ".git/modules")
    line = desk.refused(*words)
    assert line.endswith(", with v2 checked out")
    project.git("checkout", "-q", "v2")
    obey(line, project.folder)
    project.git("checkout", "-q", "v3")
    desk.type(*words)


def test_a_submodule_in_the_folder_itself(desk: Desk, project: Project, driver: Project):
    project.git("submodule", "--quiet", "add", "../driver", "node/drv")
    project.commit({}, tag="v3")
    node, out = project.folder / "node", desk.folder / "p.tar"
    inner = {"drv/drv.py": b"2\n", "drv/pkg/a.py": b"a1\n", "drv/pkg/b.py": b"b\n"}
    inner["drv/README"] = b"1"
    for words in ([], ["--git", "v3"]):
        said = desk.type("build", node, "--out", out, *words)
        assert files(out) == V2 | inner
        assert f"drv <- node/drv (submodule at {short(driver)})\n" in said
    desk.type("build", node, "--out", out, "--git", "v2..v3")
    assert files(out) == inner
    # A copy of its files is good enough where the disk counts.
    (node / "drv/.git").unlink()
    assert "drv <- node/drv (submodule, not from git)" in desk.type("build", node, "--out", out)
    assert files(out) == V2 | inner
    shutil.rmtree(node / "drv")
    line = desk.refused("build", node, "--out", out)
    assert "drv: submodule node/drv is not checked out" in line
    desk.type("build", node, "--out", out, "--exclude", "drv")
    assert files(out) == V2


# -- links that are refused --------------------------------------------------------------------

BAD_LINKS = {
    "out": ("../../../secret", "(node/x -> ../../../secret): it leads out of the project"),
    "absolute": ("/etc/hostname", "(node/x -> /etc/hostname): it leads out of the project"),
    "broken": ("../nothing", "(node/x -> ../nothing): a broken link"),
    "through a file": ("main.py/a", "a broken link"),
    "beside a file": ("main.py/../main.py", "a broken link"),
    "itself": ("x", "(node/x -> x): a loop of links"),
    "circle": ("y", "(node/x -> y): a loop of links"),
    "its folder": (".", "(node/x -> .): it leads back to node: a loop"),
    "above": ("..", "(node/x -> ..): it leads back to node: a loop"),
}


@pytest.mark.parametrize("words", [[], ["--git", "HEAD"]], ids=["folder", "git"])
@pytest.mark.parametrize("name", BAD_LINKS)
def test_links_that_lead_nowhere(desk: Desk, name: str, words: list[str]):
    target, line = BAD_LINKS[name]
    (desk.folder / "secret").write_bytes(b"not for nodes")
    project = Project(desk.folder / "project")
    project.commit({"node/main.py": b"1"}, tag="v1")
    node, out = project.folder / "node", desk.folder / "p.tar"
    (node / "x").symlink_to(target)
    if name == "circle":
        (node / "y").symlink_to("x")
    project.commit({})
    said = desk.refused("build", node, "--out", out, *words)
    assert said.startswith("build: x (node/x -> ")
    assert line in said
    assert said.endswith(": --exclude x")
    exclude = ["--exclude", "x", "--exclude", "y"]
    desk.type("build", node, "--out", out, *words, *exclude)
    assert files(out) == {"main.py": b"1"}
    # The next version is not held up by what the last one had.
    (node / "x").unlink()
    project.commit({"node/x": b"good"}, ("node/y",) if name == "circle" else ())
    said = desk.type("build", node, "--out", out, "--git", "HEAD~..HEAD")
    assert files(out) == {"x": b"good"}
    assert f"taken as not there in HEAD~: x (node/x -> {target}): " in said


def test_a_circle_of_the_last_version_gives_no_files(desk: Desk):
    """Not even those that stand before the place where it closes."""
    project = Project(desk.folder / "project")
    project.commit({"a.txt": b"a", "node/main.py": b"1"})
    (project.folder / "node/x").symlink_to("..")
    project.commit({})
    (project.folder / "node/x").unlink()
    project.commit({"node/x/a.txt": b"a"})
    package = desk.build(project.folder / "node", "--git", "HEAD~..")
    assert (files(package), deleted(package)) == ({"x/a.txt": b"a"}, [])


def test_a_link_without_a_target(desk: Desk):
    """Only git has such links: no disk does."""
    project = Project(desk.folder / "project")
    project.commit({"node/main.py": b"1", "ext/a.py": b"a"})
    blob = project.git("hash-object", "-w", "/dev/null").strip()
    project.git("update-index", "--add", "--cacheinfo", f"120000,{blob},ext/x")
    (project.folder / "node/x").symlink_to("../ext/x")
    project.git("add", "node")
    project.git("commit", "-q", "-m", "c")
    words = ["build", project.folder / "node", "--out", desk.folder / "p.tar", "--git", "HEAD"]
    assert "x (node/x -> ../ext/x): a broken link" in desk.refused(*words)


def test_a_folder_of_no_project_is_its_own(desk: Desk):
    """Links within it are followed, also absolute ones."""
    source = desk.tree({"main.py": b"1", "drivers/a/x.py": b"x", "lib/own.py": b"own"})
    (source / "lib/a").symlink_to("../drivers/a")
    (source / "lib/main.py").symlink_to(source / "main.py")
    (source / "drivers/a/again").symlink_to("../../lib/main.py")
    (desk.folder / "alias").symlink_to(source)
    out, exclude = desk.folder / "p.tar", ["--exclude", "drivers"]
    for folder in (source, desk.folder / "alias"):
        said = desk.type("build", folder, "--out", out, *exclude)
        assert files(out) == {
            "main.py": b"1",
            "lib/own.py": b"own",
            "lib/a/x.py": b"x",
            "lib/a/again": b"1",
            "lib/main.py": b"1",
        }
    assert said.splitlines()[:-1] == [
        "lib/a <- drivers/a",
        "lib/a/again <- main.py",
        "lib/main.py <- main.py",
    ]
    (source / "lib/out").symlink_to("../../alias")
    said = desk.refused("build", source, "--out", out)
    assert f"lib/out (lib/out -> ../../alias): it leads out of the project {source}" in said


def test_a_circle_below_a_link_has_the_name_in_the_package(desk: Desk):
    source = desk.tree({"a/x.py": b"x"})
    (source / "a/up").symlink_to("..")
    (source / "lib").symlink_to("a")
    said = desk.refused("build", source, "--out", desk.folder / "p.tar", "--exclude", "a")
    assert "lib/up (a/up -> ..): it leads back to" in said
    assert said.endswith("--exclude lib/up")


@pytest.mark.parametrize("words", [[], ["--git", "HEAD"]], ids=["folder", "git"])
def test_names_that_collide(desk: Desk, words: list[str]):
    """A computer whose disk knows no upper and lower case would pack another package."""
    project = Project(desk.folder / "project")
    project.commit({"node/Drv/a.py": b"1", "ext/b.py": b"2"}, tag="v1")
    node, out = project.folder / "node", desk.folder / "p.tar"
    (node / "drv").symlink_to("../ext")
    project.commit({})
    said = desk.refused("build", node, "--out", out, *words)
    assert "Drv and drv are one name" in said
    desk.type("build", node, "--out", out, *words, "--exclude", "Drv")
    assert files(out) == {"drv/b.py": b"2"}
    # Those that nobody touches are nobody's business.
    project.commit({"node/main.py": b"2"})
    assert files(desk.build(node, "--git", "HEAD~..HEAD")) == {"main.py": b"2"}
    # One in the place of the other is no collision: nodes tell them apart.
    desk.type("build", node, "--out", out, "--git", "v1..HEAD", "--exclude", "Drv")


# -- how git keeps things ----------------------------------------------------------------------


def nested(desk: Desk, project: Project) -> Project:
    """A project with the node's project as its submodule, and that one's driver in it."""
    outer = Project(desk.folder / "outer")
    outer.git("submodule", "--quiet", "add", "../project", "ext/project")
    outer.git("submodule", "--quiet", "update", "--init", "--recursive")
    (outer.folder / "app").mkdir()
    (outer.folder / "app/lib").symlink_to("../ext/project/node/lib")
    outer.commit({"app/main.py": b"outer"}, tag="o2")
    outer.git("-C", "ext/project", "checkout", "-q", "v1")
    outer.commit({}, tag="o1")
    return outer


def of_outer(tree: Tree) -> Tree:
    return tree | {"main.py": b"outer"}


def _worktree(project: Project) -> Path:
    project.git("worktree", "add", "-q", "../tree", "HEAD")
    return project.folder.parent / "tree"


def _without_work(project: Project) -> Path:
    project.git("submodule", "--quiet", "deinit", "--all", "--force")
    shutil.rmtree(project.folder / "ext")
    return project.folder


def _git_inside(project: Project) -> Path:
    """As clones of long ago, and those that were made by hand, have it."""
    place = project.folder / "ext/drv"
    (place / ".git").unlink()
    shutil.move(project.folder / ".git/modules/ext/drv", place / ".git")
    run(project.folder, "config", "--file", place / ".git/config", "--unset", "core.worktree")
    return project.folder


def _name_that_is_no_path(project: Project) -> Path:
    clone = project.folder.parent / "clone"
    content = (project.folder / ".gitmodules").read_text().replace('"ext/drv"', '"the driver.x"')
    project.commit({".gitmodules": content.encode()})
    run(project.folder, "clone", "-q", "--recurse-submodules", project.folder, clone)
    assert (clone / ".git/modules/the driver.x/HEAD").exists()
    shutil.rmtree(clone / "ext/drv")
    return clone


WAYS = (_worktree, _without_work, _git_inside, _name_that_is_no_path)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__[1:])
def test_where_git_has_the_submodule(desk: Desk, project: Project, way: Callable):
    folder = way(project) / "node"
    package = desk.build(folder, "--git", "v1..v2")
    assert files(package) == {"lib/drv.py": b"2\n", "lib/pkg/b.py": b"b\n"}
    assert deleted(package) == ["lib/pkg/gone.py"]
    assert files(desk.build(folder, "--git", "v1")) == V1


def test_submodules_in_a_worktree(desk: Desk, project: Project):
    """Its .git is a file, and that of its submodule as well."""
    tree = _worktree(project)
    shutil.rmtree(project.folder / ".git/modules")
    line = desk.refused("build", tree / "node", "--out", desk.folder / "p.tar", "--git", "v1..v2")
    obey(line, tree)
    assert files(desk.build(tree / "node", "--git", "v1")) == V1
    assert files(desk.build(tree / "node")) == V2


def test_nested_submodules(desk: Desk, project: Project, driver: Project):
    outer, out = nested(desk, project), desk.folder / "p.tar"
    app = outer.folder / "app"
    said = desk.type("build", app, "--out", out)
    # The driver has not moved with the project that it belongs to.
    moved = f"{NOTE}{short(driver, 'd2')}, recorded is {short(driver, 'd1')}"
    assert f"lib/pkg <- ext/project/ext/drv/pkg ({moved})\n" in said
    for name, tree in (("o1", V1), ("o2", V2)):
        said = desk.type("build", app, "--out", out, "--git", name)
        assert files(out) == of_outer(tree)
    assert f"lib <- ext/project/node/lib ({NOTE}{short(project, 'v2')})\n" in said
    assert f"lib/pkg <- ext/project/ext/drv/pkg ({NOTE}{short(driver, 'd2')})\n" in said
    desk.type("build", app, "--out", out, "--git", "o1..o2")
    assert files(out) == {"lib/drv.py": b"2\n", "lib/pkg/b.py": b"b\n"}
    clone = desk.folder / "clone"
    run(desk.folder, "clone", "-q", outer.folder, clone)
    run(clone, "submodule", "--quiet", "update", "--init")
    ways = [([], "git -C ext/project submodule update --init ext/drv")]
    ways.append((["--git", "HEAD"], "git submodule update --init --recursive ext/project"))
    for words, command in ways:
        line = desk.refused("build", clone / "app", "--out", out, *words)
        assert "lib/drv.py: submodule ext/project/ext/drv is not checked out: " in line
        assert command + " (in" in line
    obey(command, clone)
    desk.type("build", clone / "app", "--out", out)
    assert files(out) == of_outer(V1)


def test_links_that_are_text_files(desk: Desk, project: Project):
    """As git keeps them where a disk has no links."""
    clone, out = desk.folder / "clone", desk.folder / "p.tar"
    words = ["-c", "core.symlinks=false", "--recurse-submodules"]
    run(desk.folder, "clone", "-q", *words, project.folder, clone)
    assert not (clone / "node/lib/pkg").is_symlink()
    desk.type("build", clone / "node", "--out", out)
    assert files(out) == V2
    # A copy of it, which says nothing of how it was made.
    run(clone, "config", "core.symlinks", "true")
    desk.type("build", clone / "node", "--out", out)
    assert files(out) == V2
    (clone / "node/lib/drv.py").write_bytes(b"print('a file now')\n")
    desk.type("build", clone / "node", "--out", out)
    assert files(out) == V2 | {"lib/drv.py": b"print('a file now')\n"}
    run(clone, "config", "core.symlinks", "false")
    (clone / "node/lib/drv.py").write_bytes(b"../../ext/drv/nothing.py")
    said = desk.refused("build", clone / "node", "--out", out)
    assert "lib/drv.py (node/lib/drv.py -> ../../ext/drv/nothing.py): a broken link" in said


def test_a_bare_repository(desk: Desk, project: Project):
    bare, out = desk.folder / "bare.git", desk.folder / "p.tar"
    run(desk.folder, "clone", "-q", "--bare", project.folder, bare)
    words = ["build", bare / "node", "--out", out, "--git"]
    desk.type(*words, "v1", "--exclude", "lib")
    assert files(out) == {"main.py": b"same\n"}
    line = desk.refused(*words, "v1")
    assert "submodule ext/drv is not in the bare repository" in line
    assert "git submodule update --init ext/drv" in line
    whole = ["build", bare, "--out", out, "--git", "v1", "--exclude", "lib", "--exclude", "ext"]
    desk.type(*whole)
    assert set(files(out)) == {".gitmodules", "node/main.py"}


def test_the_folder_may_be_gone_from_the_work_tree(desk: Desk, project: Project):
    shutil.rmtree(project.folder / "node")
    assert files(desk.build(project.folder / "node", "--git", "v1")) == V1


def test_in_a_hook(desk: Desk, project: Project, driver: Project, monkeypatch: pytest.MonkeyPatch):
    """git tells a hook of its repository; what is packaged may be another one."""
    monkeypatch.setenv("GIT_DIR", str(driver.folder / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(driver.folder / ".git/index"))
    monkeypatch.setenv("GIT_WORK_TREE", str(driver.folder))
    # What has just been pushed is nowhere else; it is no place of a submodule's objects.
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(project.folder / ".git/objects"))
    assert files(desk.build(project.folder / "node", "--git", "v1")) == V1
    assert files(desk.build(project.folder / "node")) == V2


def test_a_project_of_somebody_else(desk: Desk, project: Project, monkeypatch: pytest.MonkeyPatch):
    """git does not look into it; only where submodules are does that matter."""
    plain = Project(desk.folder / "plain")
    plain.commit({"a.py": b"a"})
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert files(desk.build(plain.folder)) == {"a.py": b"a"}
    for words in ([], ["--git", "v1"]):
        out = ["--out", desk.folder / "p.tar"]
        assert "dubious ownership" in desk.refused("build", project.folder / "node", *out, *words)


def test_without_git(desk: Desk, project: Project, monkeypatch: pytest.MonkeyPatch):
    """A folder needs none, but what a submodule is, only git knows."""
    plain = Project(desk.folder / "plain")
    plain.commit({"a.py": b"a"})
    write_tree({"b.py": b"b"}, plain.folder)
    monkeypatch.setenv("PATH", str(desk.folder))
    assert files(desk.build(plain.folder)) == {"a.py": b"a", "b.py": b"b"}
    line = desk.refused("build", project.folder / "node", "--out", desk.folder / "p.tar")
    assert "git is not installed" in line
