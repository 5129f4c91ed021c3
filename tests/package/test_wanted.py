"""Packages with an index: a node fetches what it lacks."""

from __future__ import annotations

import random

from host_sim import sample
from host_sim.sample import Tree
from insigh_ota.package import delta
from insigh_ota.package.manifest import Manifest
from tests.conftest import MakeSite


def package(new: Tree, *releases: Tree) -> tuple[bytes, delta.Layout]:
    files = {path: new[path] for path in sorted(new, key=str.encode)}
    manifest = Manifest(sequence=1)
    for path, content in files.items():
        manifest.add(path, content)
    bases = [delta.Release(str(n), tree) for n, tree in enumerate(releases)]
    return delta.build(manifest, files, 13, delta.patches_for(files, bases))


def tree(version: int, files: int = 20) -> Tree:
    found = {"main.py": sample.main_py(version)}
    for n in range(files):
        text = sample._source(random.Random(n), f"m{n}", 5000)
        if n % 5 == 0:
            text = text[:2000] + b"\n# version %d\n" % version + text[2000:]
        found[f"lib/part{n}.py"] = text
    return found


def test_it_fetches_what_it_lacks(make_site: MakeSite):
    old, new = tree(1), tree(2)
    raw, layout = package(new, old)
    site = make_site(old, blocks=160)
    site.ask(raw, "p.tar.gz")
    run = site.run(wakes=1, timeout_s=40)
    print(run.output)
    for d in site.console.downloads:
        print(d)
    assert [report["e"] for report in site.reports()] == [1], run.output
    assert site.flash_files() == site.files | {"/" + n: c for n, c in new.items()}
    asked = sum(d.bytes_sent for d in site.console.downloads)
    print(len(raw), asked, layout.wanted(dict(sorted(new.items())), old))
    assert asked == sum(map(len, layout.wanted(dict(sorted(new.items())), old)))
