"""`insigh_ota.package migrate`, and what `build` does with a release of the maintainers."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tarfile
from pathlib import Path

import pytest

from host_sim import sample
from host_sim.console import certificates
from host_sim.node import flash
from host_sim.sample import write_tree
from insigh_ota.package import archive, insighio, transform
from insigh_ota.package.build import build
from insigh_ota.package.cli import package as commands
from insigh_ota.package.sources import Selection
from tests.command_lines import parse
from tests.conftest import MakeSite
from tests.insighio.field import FIELD_OTA, FIELD_TREE, adapter
from tests.tools.test_package import Desk

SHIMS = [f"/{path}" for path in (insighio.OTA, insighio.APPLY)]


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture) -> Desk:
    return Desk(tmp_path, capsys)


@pytest.fixture(autouse=True)
def adapter_of_this_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in of the adapter is that of the checkout."""
    folder = adapter(tmp_path / "adapter")
    monkeypatch.setattr(insighio, "ADAPTER", folder)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """The maintainers' release."""
    return write_tree(FIELD_TREE, tmp_path / "release")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    (tmp_path / "ca").mkdir()
    return certificates.create(tmp_path / "ca", "good", "good").pem


def migrate(desk: Desk, release: Path, certificate: Path, *words: object) -> tuple[Path, str]:
    out = desk.folder / "migrate.tar"
    text = desk.type("migrate", "--release", release, "--ca", certificate, "--out", out, *words)
    return out, text


def headers(raw: bytes) -> list[tuple[str, bytes]]:
    """Name and header of each member, as the field's updater finds them."""
    found, at = [], 0
    while raw[at]:
        head = raw[at : at + 512]
        found.append((head[:100].rstrip(b"\0").decode(), head))
        at += 512 + -(-int(head[124:135], 8) // 512) * 512
    return found


def test_the_order_is_the_safety(desk: Desk, release: Path, certificate: Path) -> None:
    out, _ = migrate(desk, release, certificate)
    names = [name for name, _ in headers(out.read_bytes())]
    assert names[-2:] == [insighio.FIELD_OTA, insighio.OTA]
    assert insighio.APPLY not in names
    assert "boot.py" not in names
    assert not [name for name in names if name.startswith("apps/") and name.endswith("/")]
    for name in names:
        folder = name.rstrip("/").rpartition("/")[0] + "/"
        if folder not in ("/", insighio.APP):
            assert names.index(folder) < names.index(name), name


def test_the_field_can_read_each_header(desk: Desk, release: Path, certificate: Path) -> None:
    out, _ = migrate(desk, release, certificate)
    for name, head in headers(out.read_bytes()):
        assert head[257:263] == b"ustar\0", name
        assert head[345:500] == bytes(155), name  # no prefix, which it does not know
        assert re.fullmatch(rb"[0-7]{11}\0", head[124:136]), name
        assert head[156:157] == (b"5" if name.endswith("/") else b"0"), name
    with tarfile.open(out) as read:
        assert len(read.getnames()) == len(headers(out.read_bytes()))


def test_it_tells_its_own_size_which_no_other_has(
    desk: Desk, release: Path, certificate: Path
) -> None:
    out, _ = migrate(desk, release, certificate)
    size = out.stat().st_size
    assert size % 512
    files = dict(archive.read(out.read_bytes()).files)
    assert int(files["ota_insighio/migration"]) == size
    again = out.read_bytes()
    assert migrate(desk, release, certificate)[0].read_bytes() == again


def test_inspect_shows_it(desk: Desk, release: Path, certificate: Path) -> None:
    out, text = migrate(desk, release, certificate)
    shown = desk.type("inspect", out)
    assert insighio.FIELD_OTA in shown
    assert "ota/agent.mpy" in shown
    assert "not signed" in text
    assert "ota/agent.py" in desk.type("inspect", migrate(desk, release, certificate, "--src")[0])


def test_it_says_how_much_flash_it_needs(desk: Desk, release: Path, certificate: Path) -> None:
    """More than a real littlefs takes, and not much more."""
    out, text = migrate(desk, release, certificate)
    needed, stored, beside, again = map(int, re.findall(r"(\d+) KB", text))
    assert needed in (stored + beside, stored + beside + 1)
    assert again > needed
    files = dict(archive.read(out.read_bytes()).files)
    root = write_tree(files | {"package.tar": out.read_bytes()}, desk.folder / "unpacked")

    def fits(blocks: int) -> bool:
        try:
            flash.build(root, desk.folder / "node.img", blocks=blocks, agent=False)
        except Exception:
            return False
        return True

    assert fits(needed // 4 + 2)
    assert not fits(needed // 4 - 40)


def test_keys_and_configuration(desk: Desk, release: Path, certificate: Path) -> None:
    more = desk.folder / "more.json"
    more.write_text(json.dumps({"trial_wakes": 100, "protected": ["/calibration"]}))
    keys = [desk.key(number)[1] for number in (1, 2)]
    words = [word for key in keys for word in ("--key", key)]
    out, text = migrate(desk, release, certificate, *words, "--config", more)
    files = dict(archive.read(out.read_bytes()).files)
    config = json.loads(files["ota.json"])
    assert config == {
        "ca": "/ca.der",
        "keys": ["/ota.key1", "/ota.key2"],
        "require_signature": True,
        "protected": [*SHIMS, "/calibration"],
        "trial_wakes": 100,
    }
    assert [files[name[1:]] for name in config["keys"]] == [key.read_bytes() for key in keys]
    assert files["ca.der"][:1] == b"\x30"
    assert "signed packages only (2 keys)" in text


def test_what_is_missing_is_said_in_one_line(desk: Desk, release: Path, certificate: Path) -> None:
    words = ["migrate", "--out", desk.folder / "m.tar"]
    assert "--release FOLDER is missing" in desk.refused(*words)
    words += ["--release", release]
    assert "--ca is missing" in desk.refused(*words)
    words += ["--ca", certificate]
    assert "*.tar" in desk.refused(*words, "--out", "m.tar.gz")
    assert "--ca localhost:1: can not reach" in desk.refused(*words[:-1], "localhost:1")
    assert "is no public key" in desk.refused(*words, "--key", desk.key()[0])
    (release / insighio.OTA).write_text("import ota_insighio\n")
    assert "no checkAndApply" in desk.refused(*words)
    (release / insighio.OTA).unlink()
    assert f"has no {insighio.OTA}" in desk.refused(*words)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"device_id": "d"}, "device_id is not said there"),
        ({"trial_wake": 9}, "unknown key trial_wake"),
        ({"trial_wakes": 0}, "trial_wakes is below 1"),
    ],
)
def test_a_configuration_that_no_agent_takes(
    desk: Desk, release: Path, certificate: Path, config: dict, text: str
) -> None:
    """A node with it would be out of reach."""
    (desk.folder / "more.json").write_text(json.dumps(config))
    words = ["--release", release, "--ca", certificate, "--config", desk.folder / "more.json"]
    assert text in desk.refused("migrate", "--out", desk.folder / "m.tar", *words)


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


def test_a_release_of_git(desk: Desk, certificate: Path) -> None:
    """Their project has the node's root in a folder."""
    project = desk.folder / "project"
    write_tree(FIELD_TREE, project / "insighioNode")
    git(project, "init", "-q")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "one")
    git(project, "tag", "v1")
    (project / "insighioNode" / insighio.OTA).unlink()
    for folder in (project, project / "insighioNode"):
        out, _ = migrate(desk, folder, certificate, "--git", "v1")
        assert dict(archive.read(out.read_bytes()).files)[insighio.FIELD_OTA] == FIELD_OTA
    git(project, "clone", "-q", "--bare", str(project), str(desk.folder / "bare.git"))
    migrate(desk, desk.folder / "bare.git", certificate, "--git", "v1")
    for folder in (project, desk.folder / "bare.git"):
        words = ["--release", folder, "--git", "v2", "--ca", certificate]
        refused = desk.refused("migrate", "--out", desk.folder / "m.tar", *words)
        assert refused.endswith(f"v2 is no tag or commit of {folder}")
    # The revision is right, the file is not in it.
    git(project, "commit", "-qam", "two")
    words = ["--release", project, "--git", "HEAD", "--ca", certificate]
    refused = desk.refused("migrate", "--out", desk.folder / "m.tar", *words)
    assert f"HEAD of {project} has no {insighio.OTA}" in refused


# -- their releases, from then on


def test_a_release_keeps_the_adapter(desk: Desk, release: Path) -> None:
    out = desk.folder / "p.tar"
    text = desk.type("build", release, "--out", out)
    files = dict(archive.read(out.read_bytes()).files)
    assert files[insighio.FIELD_OTA] == FIELD_OTA
    assert not files.keys() & {insighio.OTA, insighio.APPLY}
    assert files["boot.py"] == FIELD_TREE["boot.py"]  # the agent makes /boot_user.py of it
    assert f"{insighio.OTA} goes to {insighio.FIELD_OTA}" in text
    assert f"{insighio.APPLY} stays out" in text
    desk.type("build", release, "--out", out, "--no-protect")
    assert dict(archive.read(out.read_bytes()).files).keys() == FIELD_TREE.keys()


def test_a_span_of_commits_keeps_the_adapter(desk: Desk) -> None:
    project = write_tree(FIELD_TREE, desk.folder / "project")
    git(project, "init", "-q")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "one")
    (project / insighio.OTA).write_bytes(FIELD_OTA + b"# two\n")
    (project / insighio.APPLY).unlink()
    git(project, "commit", "-qam", "two")
    out = desk.folder / "p.tar"
    text = desk.type("build", project, "--git", "HEAD~1..", "--out", out, "--minify", "*.py")
    assert [name for name, _ in archive.read(out.read_bytes()).files] == [insighio.FIELD_OTA]
    assert f"{insighio.APPLY} is not deleted" in text
    assert " 0 deletions" in text


REEXPORTED = b"from .impl import checkAndApply, hasEnoughFreeSpace\n"


def test_an_updater_in_another_file_is_the_maintainers_too(
    desk: Desk, release: Path, certificate: Path
) -> None:
    (release / insighio.OTA).write_bytes(REEXPORTED)
    (release / insighio.APPLY).write_bytes(b"from .impl import *\n")
    out = desk.folder / "p.tar"
    text = desk.type("build", release, "--out", out)
    files = dict(archive.read(out.read_bytes()).files)
    assert files[insighio.FIELD_OTA] == REEXPORTED
    assert not files.keys() & {insighio.OTA, insighio.APPLY}
    assert f"{insighio.APPLY} stays out" in text
    # It may be kept by a migration as well.
    out, _ = migrate(desk, release, certificate)
    assert dict(archive.read(out.read_bytes()).files)[insighio.FIELD_OTA] == REEXPORTED


def compiled(path: str, content: bytes) -> tuple[str, bytes]:
    """Path and content of the .mpy of a source."""
    (path,), (content,) = zip(
        *transform.apply(Selection(files={path: content}), [], ["*"]).files.items(), strict=True
    )
    return path, content


def test_a_compiled_updater_goes_beside_as_well(desk: Desk, release: Path) -> None:
    tree = dict(FIELD_TREE)
    for path in insighio.OTA, insighio.APPLY:
        (release / path).unlink()
        name, content = compiled(path, tree[path])
        (release / name).write_bytes(content)
    out = desk.folder / "p.tar"
    text = desk.type("build", release, "--out", out)
    files = dict(archive.read(out.read_bytes()).files)
    beside = insighio.APP + "field_ota.mpy"
    assert files[beside] == compiled(insighio.OTA, FIELD_OTA)[1]
    assert [name for name in files if "ota" in name] == [beside]
    assert f"{insighio.APP}ota.mpy goes to {beside}" in text
    assert f"{insighio.APP}apply_ota.mpy stays out" in text


def test_shims_stay_out_in_either_form(desk: Desk) -> None:
    shim = insighio.adapter()[1][insighio.OTA]
    for name, content in ((insighio.OTA, shim), compiled(insighio.OTA, shim)):
        selection = Selection(files={name: content, "a.py": b""})
        (said,) = insighio.protect(selection)
        assert list(selection.files) == ["a.py"]
        assert said == f"{name} stays out: it is the adapter's, which every migrated node has"


def test_both_forms_of_an_updater_are_refused(desk: Desk, release: Path) -> None:
    """A node would take neither."""
    name, content = compiled(insighio.OTA, FIELD_OTA)
    (release / name).write_bytes(content)
    said = desk.refused("build", release, "--out", desk.folder / "p.tar")
    assert f"{insighio.OTA} and {name}" in said


def test_any_other_tree_is_left_alone(desk: Desk) -> None:
    tree = {"apps/other/ota.py": b"def checkAndApply(c): pass\n", "boot.py": b"pass\n"}
    tree["ota.py"] = tree[insighio.APP + "client.py"] = tree["apps/other/ota.py"]
    out = desk.folder / "p.tar"
    text = desk.type("build", desk.tree(tree), "--out", out)
    assert dict(archive.read(out.read_bytes()).files) == tree
    assert "insighioNode" not in text


def test_a_release_that_holds_the_adapter(desk: Desk, release: Path) -> None:
    out = desk.folder / "p.tar"
    desk.type("build", release, "--out", out, "--adapter", "--compile", "ota_insighio/*")
    names = [name for name, _ in archive.read(out.read_bytes()).files]
    assert "ota_insighio/arrive.mpy" in names
    assert insighio.OTA not in names  # protected on the node
    write_tree({"ota_insighio/arrive.py": b"other"}, release)
    refused = desk.refused("build", release, "--out", out, "--adapter")
    assert "ota_insighio/arrive.py is in the folder too" in refused


def test_a_node_refuses_a_release_that_brings_its_own_updater(make_site: MakeSite) -> None:
    """One that was packaged without this packager; and takes it as `build` makes it."""
    tree = {f"apps/demo_console/{name}.py": b"shim" for name in ("ota", "apply_ota")}
    site = make_site(
        tree | {"main.py": sample.main_py(1), "boot_user.py": b"print('old boot')\n"},
        config={"protected": SHIMS},
    )
    new = FIELD_TREE | {"main.py": sample.main_py(2)}
    fuid = site.ask(sample.tar_gz(new))
    site.run()
    (report,) = site.reports()
    assert (report["e"], report["i"]) == (2, fuid)
    assert report["m"].startswith("can not apply: protected path /apps/demo_console/")
    assert site.flash_files() == site.files

    selection = Selection(files=dict(new))
    insighio.protect(selection)
    site.ask(build(selection), "p.tar")
    assert "version 2 runs" in site.run(wakes=2).output
    files = site.flash_files()
    assert files["/boot_user.py"] == FIELD_TREE["boot.py"]
    assert files["/boot.py"] == site.files["/boot.py"]
    assert files["/" + insighio.FIELD_OTA] == FIELD_OTA
    assert [files[path] for path in SHIMS] == [b"shim", b"shim"]
    assert site.reports()[-1]["e"] == 1


def test_a_node_with_a_compiled_updater_beside(make_site: MakeSite) -> None:
    """It refuses an .mpy in a shim's place, and takes what `build` makes of such a release."""
    tree = {f"apps/demo_console/{name}.py": b"shim" for name in ("ota", "apply_ota")}
    tree |= {insighio.FIELD_OTA: b"old", "main.py": sample.main_py(1)}
    site = make_site(tree, config={"protected": SHIMS})
    name, content = compiled(insighio.OTA, FIELD_OTA)
    new = {name: content, "main.py": sample.main_py(2)}
    site.ask(sample.tar_gz(new))
    site.run()
    (report,) = site.reports()
    assert report["m"] == "can not apply: protected path /apps/demo_console/ota.py"
    assert site.flash_files() == site.files

    selection = Selection(files=dict(new))
    insighio.protect(selection)
    site.ask(build(selection), "p.tar")
    assert "version 2 runs" in site.run(wakes=2).output
    files = site.flash_files()
    assert files["/apps/demo_console/field_ota.mpy"] == content
    assert "/" + insighio.FIELD_OTA not in files
    assert [files[path] for path in SHIMS] == [b"shim", b"shim"]


def test_templates_stay_as_they_are(desk: Desk) -> None:
    """They are named as Python, and none: the application fills them in."""
    template = b"_DEEP_SLEEP = <period>  # in seconds\n"
    code = b"def double(number):\n    # twice\n    return 2 * number\n"
    path = insighio.APP + "templ/common_templ.py"
    tree = {path: template, insighio.APP + "a.py": code, insighio.APP + "templ.py": code}
    out = desk.folder / "p.tar"
    for option in ("--minify", "--compile"):
        desk.type("build", desk.tree(tree, option), "--out", out, option, "*.py")
        files = dict(archive.read(out.read_bytes()).files)
        assert files.pop(path) == template
        assert len(files) == 2
        assert code not in files.values()


def test_the_commands_of_the_page_exist() -> None:
    text = (Path(__file__).parents[2] / "docs/insighio-migration.md").read_text()
    lines = re.sub(r" *\\\n *", " ", text).splitlines()
    words = "insigh-ota package "
    ours = [line.partition(words)[2] for line in lines if line.strip().startswith(words)]
    assert len(ours) >= 5
    for line in ours:
        parse(commands, shlex.split(line.replace("--sequence N", "--sequence 1")))
