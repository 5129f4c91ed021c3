"""What the pages say is compared with the code; links lead somewhere, commands exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from host_sim.bench.compilers import RELEASES
from host_sim.cli import simulator
from host_sim.node.node import run_code
from host_sim.releases.interpreters import releases
from insigh_ota.commands import insigh_ota
from insigh_ota.deploy.cli import boards
from insigh_ota.package.cli import package
from tests.command_lines import parse
from tests.docs.readme import ROOT, commands, pages

README = (ROOT / "README.md").read_text()
STARTED = (ROOT / "docs/getting-started.md").read_text()
CONFIGURATION = (ROOT / "docs/configuration.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
PAGES = {page.relative_to(ROOT).as_posix(): page.read_text() for page in pages()}
#: Our programs, by the words that they begin with.
PROGRAMS = {
    "insigh-ota": insigh_ota,
    "python -m insigh_ota": insigh_ota,
    "python -m insigh_ota.deploy": boards,
    "python -m insigh_ota.package": package,
    "python -m host_sim": simulator,
}
OURS = ("insigh-ota", "make", "python", "mpremote")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.check
def test_the_configuration_table_is_the_code():
    code = """
import json
from ota.config import complete
ids = {"device_id": "d", "device_key": "k", "control_channel": "c"}
print(json.dumps(complete(ids)))
"""
    config = json.loads(run_code(code, path=[ROOT / "firmware"]).output)
    for key, value in config.pop("mqtt").items():
        config["mqtt." + key] = value
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.+?) \|", CONFIGURATION, re.MULTILINE))
    assert set(rows) == set(config)
    for key, cell in rows.items():
        if cell == "none":
            assert key in ("device_id", "device_key", "control_channel")
        else:
            assert json.loads(cell.strip("`")) == config[key], key


def test_the_table_of_firmware_says_what_was_run():
    text = PAGES["docs/limits.md"]
    rows = dict(re.findall(r"^\| (1\.\d+) \| yes \| (.+) \|$", text, re.MULTILINE))
    assert tuple(rows) == RELEASES
    for release in releases():
        run = rows[release.short]
        assert (release.name if release.mpy else "preview") in run
    assert [short for short in RELEASES if "yes" not in rows[short]] == ["1.22"]
    ours = run_code("import sys\nprint('%d.%d' % sys.implementation.version[:2])").output.strip()
    assert [short for short in RELEASES if "Unix port" in rows[short]] == [ours]


def test_the_two_commands_come_first():
    assert README.index("make demo") < README.index("make test") < README.index("## ")


@pytest.mark.parametrize("text", [STARTED, CONFIGURATION], ids=["started", "configuration"])
def test_the_example_configuration_is_one(text: str, tmp_path: Path):
    (example,) = blocks(text, "json")
    (tmp_path / "ota.json").write_text(example)
    code = f"import ota\nprint(ota.load_config({str(tmp_path / 'ota.json')!r})['server'])"
    assert run_code(code, path=[ROOT / "firmware"]).output.strip() == "console.insigh.io"


def test_the_ten_lines_update_a_node(make_site):
    """The main.py of getting-started.md, word for word, takes a package."""
    from host_sim import sample

    (main,) = blocks(STARTED, "python")
    assert len(main.splitlines()) <= 10
    site = make_site({"main.py": main.encode()})
    site.ask(sample.tar_gz({"main.py": sample.main_py(2)}))
    assert "version 2 runs" in site.run().output
    assert [r["e"] for r in site.reports()] == [1]


# Links


def anchors(text: str) -> set[str]:
    """What GitHub makes of the headings."""
    plain = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", plain, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(name: str, text: str) -> list[str]:
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if re.match(r"https://[\w.-]+(/|$)", target):
            continue
        page = (ROOT / name).parent / path if path else ROOT / name
        if not page.exists() or (anchor and anchor not in anchors(page.read_text())):
            dead.append(target)
    return dead


@pytest.mark.check
@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str):
    assert dead_links(name, PAGES[name]) == []


def test_dead_links_are_noticed():
    text = (
        "[a](docs/design.md) [b](docs/none.md) [c](docs/design.md#words) [d](#no) [e](http://x.y)"
    )
    assert dead_links("README.md", text) == ["docs/none.md", "#no", "http://x.y"]


def test_every_page_can_be_reached_from_the_readme():
    seen, left = set(), ["README.md"]
    while left:
        name = left.pop()
        if name in seen or not name.endswith(".md"):
            continue
        seen.add(name)
        folder = (ROOT / name).parent
        for target in re.findall(r"\]\(([^)#\s]+)", PAGES[name]):
            if not target.startswith("http"):
                left.append((folder / target).resolve().relative_to(ROOT.resolve()).as_posix())
    assert seen == set(PAGES)


# Blocks


@pytest.mark.check
@pytest.mark.parametrize("name", PAGES)
def test_code_blocks_are_right(name: str):
    text = PAGES[name]
    assert len(re.findall("^```", text, re.MULTILINE)) % 2 == 0
    for code in blocks(text, "python"):
        compile(code, name, "exec")
    for content in blocks(text, "json"):
        json.loads(content)
    kinds = re.findall(r"^```(\w*)\n.*?^```", text, re.DOTALL | re.MULTILINE)
    assert set(kinds) <= {"python", "json"}


def recipes() -> dict[str, str]:
    """What each target of the Makefile says, its description included."""
    found = re.findall(r"^([a-z]+):(.*(?:\n\t.*)*)", MAKEFILE, re.MULTILINE)
    return dict(found)


def refusal(group: click.Command, words: list[str]) -> str | None:
    """Why it does not take these words, or None."""
    try:
        parse(group, words)
    except click.UsageError as error:
        return error.format_message()
    except click.exceptions.Exit:  # behind --help
        pass
    return None


def wrong_command(command: str) -> str | None:
    """Why a command of a page can not be right, or None."""
    text = command.split("|")[-1].replace("…", "X").replace("--sequence N", "--sequence 1")
    words = shlex.split(text)
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        for target in targets:
            if target not in recipes():
                return f"no target {target}"
        for word in words[1:]:
            name = word.split("=")[0]
            if "=" in word and f"$({name})" not in "".join(recipes()[t] for t in targets):
                return f"{targets} takes no {name}"
    program = words[0].rpartition("/")[2]
    for length in (1, 3):
        group = PROGRAMS.get(" ".join([program, *words[1:length]]))
        refused = refusal(group, words[length:]) if group else None
        if refused:
            return refused
    if words[0].startswith(".venv/bin/") and words[0].removeprefix(".venv/bin/") not in (
        "insigh-ota",
        "python",
        "mpremote",
    ):
        return f"no program {words[0]}"
    return None


@pytest.mark.check
@pytest.mark.parametrize("name", PAGES)
def test_commands_exist(name: str):
    for command in commands(PAGES[name]):
        if command.split()[0].rpartition("/")[2] in OURS:
            assert wrong_command(command) is None, command
    for target in re.findall(r"`make ([a-z]+)", PAGES[name]):
        assert target in recipes(), target
    for part in re.findall(r"`(?:\.venv/bin/)?python -m host_sim ([a-z]+)", PAGES[name]):
        assert part in simulator.entries, part
    for part in re.findall(r"`(?:\.venv/bin/)?insigh-ota ([a-z]+)", PAGES[name]):
        assert part in insigh_ota.entries, part


def test_wrong_commands_are_noticed():
    assert wrong_command("make demo") is None
    assert wrong_command("make dema")
    assert wrong_command("make deploy PORT=x SRC=1") is None
    assert wrong_command("make deploy PROT=x")
    assert wrong_command(".venv/bin/python -m host_sim board IMG --fast") is None
    assert wrong_command(".venv/bin/python -m host_sim board IMG --fats")
    assert wrong_command("printf 'key' | insigh-ota provision --id a") is None
    assert wrong_command("insigh-ota provision --name a")
    assert wrong_command(".venv/bin/insigh-ota flash bild")
    assert wrong_command("python -m insigh_ota.package verify")
    assert wrong_command(".venv/bin/pithon x")


@pytest.mark.check
def test_make_help_tells_what_each_command_does():
    (phony,) = re.findall(r"^\.PHONY:((?:.*\\\n)*.*)", MAKEFILE, re.MULTILINE)
    targets = phony.replace("\\\n", " ").split()
    env = {k: v for k, v in os.environ.items() if "MAKE" not in k and k != "MFLAGS"}
    done = subprocess.run(
        ["make", "help"], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    told = dict(re.findall(r"^  make (\w+) +(\S.+)$", done.stdout, re.MULTILINE))
    assert sorted(told) == sorted(targets)
    for target, text in told.items():
        assert re.search(r"  (\d+ (s|min|h)|minutes|to Ctrl-C)$", text), f"{target}: how long?"
    assert max(map(len, done.stdout.splitlines())) <= 80
    groups = re.findall(r"^(\w[^:\n]*)", done.stdout, re.MULTILINE)
    assert groups == ["First look", "Develop", "Campaigns", "Nodes and packages", "Upkeep"]
    rules = re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE)
    assert sorted(rules) == sorted(targets), "not in .PHONY, or not there"
