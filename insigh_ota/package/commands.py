"""The commands on packages: build, inspect or verify one; make keys."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from host_sim import files
from host_sim.command import NAMED, PATH, Output, check_simulator, json_option, options
from insigh_ota.package import archive, check, insighio, keys, since, sources, transform
from insigh_ota.package.build import build as make_package
from insigh_ota.package.delta import Release, differing
from insigh_ota.package.errors import PackageError
from insigh_ota.package.manifest import Manifest

#: log2. A node that fetches parts has more code in RAM, and begins a window for each: 4 KB.
_WINDOW, _WINDOW_SINCE = 13, 12


def _steps(command: Any) -> Any:
    """What is done to files on their way into a package, and to those of earlier releases."""
    text = "a release of the insighioNode firmware as it is, with its own updater"
    command = click.option("--no-protect", is_flag=True, help=text)(command)
    for name, what in (
        ("compile", "bring these sources as .mpy"),
        ("minify", "shorten these sources"),
        ("exclude", "leave these out"),
    ):
        text = what + "; repeatable"
        command = click.option(f"--{name}", multiple=True, metavar="PATTERN", help=text)(command)
    return command


@click.command(
    help="Make a package from a folder, the node's root, or from git.",
    epilog="Example: insigh-ota package build my_node --out v2.tar.gz --since v1.0..",
)
@click.argument("source", type=NAMED, metavar="FOLDER")
@click.option("--out", type=NAMED, required=True, metavar="FILE", help="*.tar or *.tar.gz")
@click.option(
    "--git",
    metavar="A..B",
    help="what changed between two commits; REV: all of one (default: the folder as it is)",
)
@_steps
@click.option(
    "--unchecked",
    multiple=True,
    metavar="PATTERN",
    help="take these sources even if they do not compile, such as templates; repeatable",
)
@click.option(
    "--since",
    multiple=True,
    metavar="A..",
    help="let nodes of these releases fetch only what they lack: A (a tag or any commit) and "
    "the tags after it (A..B: up to B), a folder, an older package with all files; repeatable",
)
@click.option("--no-patches", is_flag=True, help="with --since: whole files only, no patches")
@click.option("--delete", multiple=True, metavar="PATH", help="remove it; repeatable")
@click.option("--sequence", type=int, metavar="N", help="number of this release")
@click.option("--board", metavar="TEXT", help="only for nodes with this `board`")
@click.option("--mpy", type=int, metavar="N", help="default: what the .mpy files need")
@click.option("--requires", type=int, metavar="N", help="least sequence of the node")
@click.option("--key", type=PATH, metavar="PEM", help="sign with this private key")
@click.option("--sign-command", metavar="CMD", help="sign with a program (HSM)")
@click.option("--public", type=PATH, metavar="PUB", help="the --sign-command's public key")
@click.option(
    "--window",
    type=click.Choice(archive.WINDOWS),
    help="log2 of the bytes that a node needs to unpack a .tar.gz "
    f"(default {_WINDOW}, with --since {_WINDOW_SINCE})",
)
@click.option("--no-restarts", is_flag=True, help="leave restart points out of a .tar.gz")
@click.option(
    "--try",
    "image",
    type=PATH,
    metavar="IMG",
    help="first install it on a copy of this flash image (of insigh-ota flash build), and run its "
    "main.py there",
)
@click.option("--adapter", is_flag=True, help="bring the adapter for that firmware up to date")
@json_option
def build(as_json: bool, **given: Any) -> None:
    """`package build`."""
    arguments = options(**given)
    if arguments.key and arguments.sign_command:
        raise click.UsageError("--key and --sign-command: give one of them")
    _build(arguments, Output(as_json, highlight=False))


@click.command(
    help="Tell what is in the package FILE.",
    epilog="Example: insigh-ota package inspect v2.tar.gz --since v1.0..",
)
@click.argument("package", type=PATH, metavar="FILE")
@click.option(
    "--since",
    multiple=True,
    metavar="A..",
    help="tell what nodes of these releases fetch, as in build; give the same options",
)
@click.option(
    "--source",
    type=NAMED,
    default=Path(),
    metavar="FOLDER",
    help="the node's root in the git project of these releases (default: this folder)",
)
@click.option(
    "--git", metavar="REV", help="the commit that is packaged (default: what is checked out)"
)
@_steps
@json_option
def inspect(as_json: bool, **given: Any) -> None:
    """`package inspect`."""
    _inspect(options(**given), Output(as_json, highlight=False))


@click.command(
    help="Check the signature of the package FILE, its files and their order.",
    epilog="Example: insigh-ota package verify v2.tar.gz --key release.pub",
)
@click.argument("package", type=PATH, metavar="FILE")
@click.option("--key", type=PATH, multiple=True, required=True, metavar="PUB", help="repeatable")
@json_option
def verify(as_json: bool, **given: Any) -> None:
    """`package verify`."""
    _verify(options(**given), Output(as_json, highlight=False))


@click.command(
    help="Make an RSA-3072 key: NAME.pem, the secret; NAME.pub and NAME.pub.pem.",
    epilog="Example: insigh-ota package keygen release",
)
@click.argument("name", type=PATH)
@json_option
def keygen(name: Path, as_json: bool) -> None:
    """`package keygen`."""
    _keygen(name, Output(as_json, highlight=False))


def _past(arguments: SimpleNamespace, folder: Path) -> since.Past:
    return since.Past(
        folder,
        arguments.git,
        arguments.exclude,
        arguments.minify,
        arguments.compile,
        protect=not arguments.no_protect,
    )


def _check_since(arguments: SimpleNamespace) -> None:
    """Raise PackageError for what does not go together with --since, or not without it."""
    if not arguments.since:
        if arguments.no_patches:
            raise PackageError("--no-patches is for --since A..: give both, or none")
        return
    if arguments.out.suffix == ".tar":
        raise PackageError("--since needs restart points, and a .tar has none: name it *.tar.gz")
    if arguments.no_restarts:
        raise PackageError("--since needs restart points: drop --no-restarts")
    _, dots, last = (arguments.git or "").rpartition("..")
    if dots:
        raise PackageError(
            f"--git {arguments.git} and --since: one package for all releases has all files, so "
            f"write --git {last or 'HEAD'}"
        )


def _build(arguments: SimpleNamespace, output: Output) -> None:
    terminal = output.terminal
    if arguments.image:
        check_simulator("--try")
    signer = _signer(arguments)
    out = arguments.out
    if out.is_dir():
        raise PackageError(f"--out {out}: it is a folder, name a file in it: *.tar or *.tar.gz")
    if out.suffix != ".tar" and out.suffixes[-2:] != [".tar", ".gz"]:
        raise PackageError(f"--out {out}: name it *.tar or *.tar.gz")
    if not out.parent.is_dir():
        raise PackageError(f"--out {out}: {out.parent} is no folder")
    _check_since(arguments)
    if arguments.git:
        selection = sources.from_git(arguments.source, arguments.git, arguments.exclude)
    else:
        selection = sources.from_folder(arguments.source, arguments.exclude)
    of_macos = selection.of_macos
    kept = [] if arguments.no_protect else insighio.protect(selection)
    if arguments.adapter:
        insighio.add_adapter(selection)
    selection = transform.apply(selection, arguments.minify, arguments.compile)
    check.sources(selection.files, arguments.unchecked)
    selection.deleted.update(arguments.delete)
    releases = None
    if arguments.since:
        past = _past(arguments, arguments.source)
        releases = past.releases(arguments.since)
        selection.taken += past.told
        selection.deleted |= since.gone(releases, selection.files, protect=past.protect)
    window = arguments.window or (_WINDOW_SINCE if releases else _WINDOW)
    content = make_package(
        selection,
        sequence=arguments.sequence or 0,
        board=arguments.board,
        mpy=arguments.mpy,
        requires=arguments.requires,
        signer=signer,
        window=None if out.suffix == ".tar" else window,
        restart=not arguments.no_restarts,
        releases=releases,
        patched=not arguments.no_patches,
    )
    tried = None
    if arguments.image:
        from insigh_ota.package import show
        from insigh_ota.package.attempt import attempt

        cost = attempt(content, arguments.image, signed=signer is not None)
        tried = dataclasses.asdict(cost)
        show.cost(terminal, cost)
    files.write(out, content)
    for line in kept:
        terminal.print(f"insighioNode: {line} (--no-protect leaves it as it is)")
    if of_macos:
        terminal.print(f"left out: {of_macos} files of macOS (._*, .DS_Store, __MACOSX)")
    for line in selection.taken:
        terminal.print(escape(line.encode(errors="backslashreplace").decode()))
    whose = f"signed with key {keys.key_id(signer.modulus)}" if signer else "not signed"
    terminal.print(
        f"{escape(str(out))}: {len(content)} bytes, {len(selection.files)} files, "
        f"{len(selection.deleted)} deletions, {whose}"
    )
    told = _tell(terminal, content, releases, "the folder") if releases is not None else None
    output.data(
        package=str(out),
        bytes=len(content),
        files=len(selection.files),
        deletions=len(selection.deleted),
        key=keys.key_id(signer.modulus) if signer else None,
        tried=tried,
        releases=told,
    )


def _tell(terminal: Console, raw: bytes, releases: list[Release], doubt: str) -> list[dict]:
    """What nodes of these releases fetch of a package with an index; told, and returned.

    doubt: what may be wrong where a release has nothing to do with the package.
    """
    from insigh_ota.package import delta, restarts, show

    found = archive.read(raw)
    manifest = archive.check(found)
    layout = delta.check(raw, found.manifest)
    if layout is None:
        raise PackageError("it has no index: every node fetches all of it; build it with --since")
    content = dict(found.files)
    signed = manifest.signature is not None
    without = restarts.compress(archive.tar(manifest, content), found.window, signed=signed)
    show.index(terminal, layout)
    terminal.print(f"as a plain package with the same --window it would have {len(without)} bytes")
    show.releases(terminal, layout, content, len(raw), releases)
    show.strangers(terminal, content, releases, doubt)
    return [
        {
            "release": each.name,
            "files": len(differing(content, each.files)),
            "bytes": sum(map(len, layout.wanted(content, each.files))),
        }
        for each in releases
    ]


def _signer(arguments: SimpleNamespace) -> keys.Signer | None:
    if bool(arguments.sign_command) != bool(arguments.public):
        raise PackageError("--sign-command and --public PUB, the key it signs with, go together")
    if (arguments.key or arguments.sign_command) and arguments.sequence is None:
        raise PackageError("--sequence N is missing: higher for each release that you sign")
    if arguments.key:
        return keys.from_pem(arguments.key)
    if arguments.sign_command:
        return keys.from_command(arguments.sign_command, arguments.public)
    return None


def _read(path: Path) -> tuple[archive.Package, bytes]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise PackageError(f"{path} can not be read: {error.strerror}") from error
    return archive.read(raw), raw


def _inspect(arguments: SimpleNamespace, output: Output) -> None:
    from insigh_ota.package import delta, restarts, show
    from insigh_ota.package.manifest import parse

    terminal = output.terminal
    found, raw = _read(arguments.package)
    manifest = None if found.manifest is None else parse(found.manifest)
    points = restarts.find(raw)
    show.package(terminal, found, manifest, raw, points)
    layout, told = None, None
    if manifest:
        archive.check(found)
        layout = delta.check(raw, found.manifest)
    if arguments.since:
        releases = _past(arguments, arguments.source).releases(arguments.since)
        told = _tell(terminal, raw, releases, "--source")
    elif layout:
        show.index(terminal, layout)
    output.data(
        package=str(arguments.package),
        bytes=len(raw),
        compression=found.compression,
        window=1 << found.window if found.window else None,
        restart_points=len(points),
        **_facts(manifest),
        files=_files(found, manifest),
        index=layout and {"files": len(layout.files), "patches": len(layout.patches())},
        releases=told,
    )


def _facts(manifest: Manifest | None) -> dict[str, Any]:
    """Of the manifest, for programs; null where it says nothing, and where there is none."""
    names = ("sequence", "board", "mpy", "requires")
    facts = {name: getattr(manifest, name, None) for name in names}
    signed = manifest is not None and manifest.signature is not None
    facts["key"] = manifest.key if manifest and signed else None
    deleted = list(manifest.deleted) if manifest else []
    return {"manifest": manifest is not None, **facts, "signed": signed, "deleted": deleted}


def _files(found: archive.Package, manifest: Manifest | None) -> list[dict]:
    if manifest is None:
        return [{"path": path, "bytes": len(content)} for path, content in found.files]
    return [
        {"path": path, "bytes": length, "sha256": digest}
        for path, length, digest in manifest.files
    ]


def _verify(arguments: SimpleNamespace, output: Output) -> None:
    from insigh_ota.package import delta, show

    moduli = {keys.key_id(modulus): modulus for modulus in map(keys.public, arguments.key)}
    found, raw = _read(arguments.package)
    manifest = archive.check(found)
    if manifest.signature is None:
        raise PackageError("it is not signed")
    if manifest.key not in moduli:
        raise PackageError(f"signed with key {manifest.key}, not with {', '.join(moduli)}")
    if not keys.verifies(moduli[manifest.key], manifest.signed_part(), manifest.signature):
        raise PackageError("the signature is not that key's for this manifest")
    layout = delta.check(raw, found.manifest)
    if layout:
        show.index(output.terminal, layout)
    output.terminal.print(
        f"good: {len(manifest.files)} files, {len(manifest.deleted)} deletions, sequence "
        f"{manifest.sequence}, key {manifest.key}"
    )
    output.data(good=True, sequence=manifest.sequence, key=manifest.key, files=len(manifest.files))


def _keygen(name: Path, output: Output) -> None:
    key = keys.generate(name)
    stem = escape(str(name))
    output.terminal.print(
        f"key {key}: {stem}.pem is the secret, only you can read it; keep a copy"
    )
    output.terminal.print(f"{stem}.pub goes onto nodes, {stem}.pub.pem to other programs")
    output.data(key=key, secret=f"{name}.pem", node=f"{name}.pub", public=f"{name}.pub.pem")
