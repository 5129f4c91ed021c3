"""What `--since` says where something is odd: a line that tells what to do."""

from __future__ import annotations

import pytest

from insigh_ota.package.__main__ import main
from tests.tools.test_package import Desk, Project, desk  # noqa: F401
from tests.tools.test_since import NOISE, names, project, refusal, rows  # noqa: F401


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--git", "v1..v2", "--since", "v1.."], "has all files, so write --git v2"),
        (["--git", "v1..", "--since", "v1.."], "has all files, so write --git HEAD"),
        (["--no-patches"], "--no-patches is for --since A..: give both, or none"),
        (["--since", ".."], "--since ..: neither a folder, nor a package, nor releases"),
        (["--since", "v3..v2"], "for one release of another branch write v3..v3"),
        (["--since", "v9.."], "or fetch its tags: git fetch --tags"),
        (["--since", __file__], "; --since takes releases (A..), a folder or a package"),
    ],
)
def test_a_refusal_says_what_to_write(
    desk: Desk,  # noqa: F811
    project: Project,  # noqa: F811
    words: list[str],
    line: str,
):
    out = desk.folder / "p.tar.gz"
    assert line in desk.refused("build", project.folder / "node", "--out", out, *words)


def test_a_release_comes_once(desk: Desk, project: Project):  # noqa: F811
    assert names(desk, project, "--since", "v2..", "--since", "v2..") == ["v4", "v3", "v2"]
    assert names(desk, project, "--since", "v3..", "--since", "v2..") == ["v4", "v3", "v2"]


def test_a_tag_of_another_branch(desk: Desk, project: Project):  # noqa: F811
    project.git("checkout", "-q", "-f", "-b", "side", "v2")
    project.commit({"node/main.py": b"side"}, tag="v2.1")
    project.git("checkout", "-q", "-f", "v4")
    assert names(desk, project, "--since", "v2..") == ["v4", "v3", "v2"]
    assert names(desk, project, "--since", "v2.1..v2.1") == ["v2.1"]
    out = desk.folder / "p.tar.gz"
    line = desk.refused("build", project.folder / "node", "--out", out, "--since", "v2.1..")
    assert "v2.1 is not before HEAD" in line
    assert line.endswith("write v2.1..v2.1")


def test_a_release_that_has_nothing_to_do_with_it(desk: Desk, project: Project):  # noqa: F811
    out = desk.build(project.folder / "node", "--since", "v1..", name="p.tar.gz")
    (project.folder / "docs").mkdir()
    line = "v4 shares no file with this package: check "
    asked = ("inspect", out, "--since", "v4..", "--source")
    assert line + "--source" in desk.type(*asked, project.folder / "docs")
    assert line not in desk.type(*asked, project.folder / "node")
    words = ("--out", desk.folder / "q.tar.gz", "--since", "v4..")
    (project.folder / "docs" / "new.txt").write_bytes(NOISE)
    assert line + "the folder" in desk.type("build", project.folder / "docs", *words)
    # Outside of a project.
    other = desk.tree({"main.py": b"1"}, "other")
    told = refusal(desk, *asked, other)
    assert "v4 is no commit of a git project" in told
    assert "inspect: with --source" in told


def test_a_small_package_comes_whole(desk: Desk):  # noqa: F811
    old, new = desk.tree({"a": b"1", "b": b"1"}, "old"), desk.tree({"a": b"2", "b": b"1"}, "new")
    told = desk.type("build", new, "--out", desk.folder / "p.tar.gz", "--since", old)
    assert "at most 16 KB: every node fetches all of it; --since helps larger packages" in told
    assert "end within" not in told


def test_more_than_256_files(desk: Desk):  # noqa: F811
    tree = {f"{n:03}": NOISE[40 * n : 40 * n + 80] for n in range(257)}
    old = desk.tree(tree, "old")
    some = desk.tree(tree | {"000": b"some"}, "some")
    new = desk.tree(
        {path: content + b"2" for path, content in tree.items() if path != "000"}
        | {"000": b"some"},
        "new",
    )
    out = desk.folder / "p.tar.gz"
    told = desk.type("build", new, "--out", out, "--since", old, "--since", some)
    line = "more than 256 files differ: such a node fetches all"
    assert told.endswith(f"{old}: {line}\n")
    assert told.count(line) == 1
    assert rows(told)[str(old)][:2] == ["257", str(out.stat().st_size + 18)]
    assert rows(told)[str(some)][0] == "256"


def test_the_help_says_what_is_the_default(capsys: pytest.CaptureFixture):
    for command, words in (
        ("build", "(default: the folder as it is)"),
        ("inspect", "(default: what is checked out)"),
    ):
        assert main([command, "--help"]) == 0
        assert words in " ".join(capsys.readouterr().out.split())
