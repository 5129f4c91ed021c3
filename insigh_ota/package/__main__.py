"""Packages for nodes: build, inspect or verify one; make keys; make the package of a migration."""

from __future__ import annotations

if __name__ == "__main__":
    from host_sim import first  # noqa: F401

from host_sim import ctrl_c

if __name__ == "__main__":
    ctrl_c.watch()  # before the imports below, which take their time

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from host_sim import files
from host_sim.errors import SimError
from insigh_ota.package import archive, check, insighio, keys, migrate, since, sources, transform
from insigh_ota.package.build import build
from insigh_ota.package.delta import Release
from insigh_ota.package.errors import PackageError

#: log2. A node that fetches parts has more code in RAM, and begins a window for each: 4 KB.
_WINDOW, _WINDOW_SINCE = 13, 12


def _named(text: str) -> Path:
    """A path that was given: an empty one would be the folder that one happens to be in."""
    if not text:
        raise argparse.ArgumentTypeError("no name given: make package SRC=folder OUT=file")
    return Path(text)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(prog="python -m insigh_ota.package", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    make = commands.add_parser("build", help="make a package from a folder or from git")
    make.add_argument("source", type=_named, metavar="FOLDER", help="the node's root")
    make.add_argument(
        "--out", type=_named, required=True, metavar="FILE", help="*.tar or *.tar.gz"
    )
    make.add_argument(
        "--git",
        metavar="A..B",
        help="what changed between two commits; REV: all of one (default: the folder as it is)",
    )
    _add_steps(make)
    make.add_argument(
        "--unchecked",
        action="append",
        default=[],
        metavar="PATTERN",
        help="take these sources even if they do not compile, such as templates; repeatable",
    )
    make.add_argument(
        "--since",
        action="append",
        metavar="A..",
        help="let nodes of these releases fetch only what they lack: A (a tag or any commit) and "
        "the tags after it (A..B: up to B), a folder, an older package with all files; repeatable",
    )
    make.add_argument(
        "--no-patches", action="store_true", help="with --since: whole files only, no patches"
    )
    make.add_argument(
        "--delete", action="append", default=[], metavar="PATH", help="remove it; repeatable"
    )
    make.add_argument("--sequence", type=int, metavar="N", help="number of this release")
    make.add_argument("--board", metavar="TEXT", help="only for nodes with this `board`")
    make.add_argument("--mpy", type=int, metavar="N", help="default: what the .mpy files need")
    make.add_argument("--requires", type=int, metavar="N", help="least sequence of the node")
    whose = make.add_mutually_exclusive_group()
    whose.add_argument("--key", type=Path, metavar="PEM", help="sign with this private key")
    whose.add_argument("--sign-command", metavar="CMD", help="sign with a program (HSM)")
    make.add_argument("--public", type=Path, metavar="PUB", help="the --sign-command's public key")
    make.add_argument(
        "--window",
        type=int,
        choices=archive.WINDOWS,
        help="log2 of the bytes that a node needs to unpack a .tar.gz "
        f"(default {_WINDOW}, with --since {_WINDOW_SINCE})",
    )
    make.add_argument(
        "--no-restarts", action="store_true", help="leave restart points out of a .tar.gz"
    )
    make.add_argument(
        "--try",
        type=Path,
        dest="image",
        metavar="IMG",
        help="first install it on a copy of this flash image (of python -m host_sim flash build), "
        "and run its main.py there",
    )

    make.add_argument(
        "--adapter", action="store_true", help="bring the adapter for that firmware up to date"
    )

    show = commands.add_parser("inspect", help="what is in a package")
    show.add_argument("package", type=Path, metavar="FILE")
    show.add_argument(
        "--since",
        action="append",
        default=[],
        metavar="A..",
        help="tell what nodes of these releases fetch, as in build; give the same options",
    )
    show.add_argument(
        "--source",
        type=_named,
        default=Path(),
        metavar="FOLDER",
        help="the node's root in the git project of these releases (default: this folder)",
    )
    show.add_argument(
        "--git", metavar="REV", help="the commit that is packaged (default: what is checked out)"
    )
    _add_steps(show)

    verify = commands.add_parser("verify", help="check signature, files and their order")
    verify.add_argument("package", type=Path, metavar="FILE")
    verify.add_argument(
        "--key", type=Path, action="append", required=True, metavar="PUB", help="repeatable"
    )

    keygen = commands.add_parser("keygen", help="make an RSA-3072 key")
    keygen.add_argument("name", type=Path, metavar="NAME", help="of NAME.pem, .pub, .pub.pem")
    migrate.register(commands)
    return parser


def _add_steps(parser: argparse.ArgumentParser) -> None:
    """What is done to files on their way into a package, and to those of earlier releases."""
    for name, what in (
        ("exclude", "leave these out"),
        ("minify", "shorten these sources"),
        ("compile", "bring these sources as .mpy"),
    ):
        parser.add_argument(
            f"--{name}", action="append", default=[], metavar="PATTERN", help=what + "; repeatable"
        )
    parser.add_argument(
        "--no-protect",
        action="store_true",
        help="a release of the insighioNode firmware as it is, with its own updater",
    )


def _past(arguments: argparse.Namespace, folder: Path) -> since.Past:
    return since.Past(
        folder,
        arguments.git,
        arguments.exclude,
        arguments.minify,
        arguments.compile,
        protect=not arguments.no_protect,
    )


def _check_since(arguments: argparse.Namespace) -> None:
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


def _build(arguments: argparse.Namespace, terminal: Console) -> None:
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
    content = build(
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
    if arguments.image:
        from insigh_ota.package import show
        from insigh_ota.package.attempt import attempt

        show.cost(terminal, attempt(content, arguments.image, signed=signer is not None))
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
    if releases is not None:
        _tell(terminal, content, releases, "the folder")


def _tell(terminal: Console, raw: bytes, releases: list[Release], doubt: str) -> None:
    """What nodes of these releases fetch of a package with an index.

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


def _signer(arguments: argparse.Namespace) -> keys.Signer | None:
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


def _inspect(arguments: argparse.Namespace, terminal: Console) -> None:
    from insigh_ota.package import delta, restarts, show
    from insigh_ota.package.manifest import parse

    found, raw = _read(arguments.package)
    manifest = None if found.manifest is None else parse(found.manifest)
    points = restarts.find(raw)
    show.package(terminal, found, manifest, raw, points)
    if manifest:
        archive.check(found)
    if arguments.since:
        releases = _past(arguments, arguments.source).releases(arguments.since)
        _tell(terminal, raw, releases, "--source")
    elif manifest:
        layout = delta.check(raw, found.manifest)
        if layout:
            show.index(terminal, layout)


def _verify(arguments: argparse.Namespace, terminal: Console) -> None:
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
        show.index(terminal, layout)
    terminal.print(
        f"good: {len(manifest.files)} files, {len(manifest.deleted)} deletions, sequence "
        f"{manifest.sequence}, key {manifest.key}"
    )


def _keygen(arguments: argparse.Namespace, terminal: Console) -> None:
    name = keys.generate(arguments.name)
    stem = escape(str(arguments.name))
    terminal.print(f"key {name}: {stem}.pem is the secret, only you can read it; keep a copy")
    terminal.print(f"{stem}.pub goes onto nodes, {stem}.pub.pem to other programs")


_COMMANDS = {
    "build": _build,
    "inspect": _inspect,
    "verify": _verify,
    "keygen": _keygen,
    "migrate": migrate.run,
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; an expected failure is one line on stderr and exit code 2."""
    arguments = build_parser().parse_args(argv)
    terminal = Console(soft_wrap=True, highlight=False)
    try:
        _COMMANDS[arguments.command](arguments, terminal)
    except (PackageError, SimError) as error:
        print(f"{arguments.command}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(ctrl_c.run(main))
