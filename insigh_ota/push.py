"""`insigh-ota push FOLDER`: build, try, store, request, wait and report, a line for each step.

It drives a simulated console that runs. The insigh.io platform has no documented way to store a
package by a program, so there a person uploads it.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from host_sim import ctrl_c, files
from host_sim.command import NAMED, PATH, Number, Output, check_simulator, json_option
from host_sim.console.control import call
from host_sim.console.state import DONE, PENDING, plain
from host_sim.console.wait import End, wait_for_end
from host_sim.errors import SimError
from insigh_ota.package import check, insighio, keys, since, sources, transform
from insigh_ota.package.build import build
from insigh_ota.package.errors import PackageError

#: As `package build` has them: log2 of the window, and that of a package with --since.
_WINDOW, _WINDOW_SINCE = 13, 12
#: So many devices are named in a line; of the others it tells how many they are.
_NAMED = 3
#: Of a line, in characters.
_LONGEST = 1000
_BY_HAND = (
    "--dir DIR is missing, the folder of a simulated console that runs. The insigh.io platform "
    "has no documented way for a program to store a package: make it with `package build`, upload "
    "it on the platform's page Packages, and request it there"
)


class _Failed(Exception):
    """A step that failed. The text says what to do; `left` is the state that it leaves."""

    def __init__(self, step: str, text: str, left: str, code: int = 2) -> None:
        super().__init__(f"{step}: {text.rstrip('.')}. {left}")
        self.code = code


@dataclass
class _Push:
    """One call of the command, and what its steps have made so far."""

    folder: Path
    directory: Path
    output: Output
    left: str = "Nothing is stored, and nothing is requested"
    now: str = "begin"
    content: bytes = b""
    ids: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Callable[..., None]]:
        """A step; call what this yields, with its line and its data, once it is done."""
        begin = time.monotonic()
        self.now = name
        self.leaves(self.left)

        def done(line: str, **data: Any) -> None:
            seconds = time.monotonic() - begin
            self.output.terminal.print(
                f"[bold green]{name:<8}[/]{seconds:6.1f} s  {escape(plain(line, _LONGEST))}"
            )
            self.output.data(step=name, seconds=round(seconds, 3), **data)

        status = self.output.terminal.status(f"{name} …")
        with ctrl_c.shielded():  # its thread must not get the Ctrl-C that a step lets wait
            status.start()
        try:
            yield done
        except BrokenPipeError:  # nobody reads what this prints
            raise
        except (PackageError, SimError, OSError) as error:
            text = str(error)
            if isinstance(error, OSError):
                text = f"{error.filename or self.folder}: {error.strerror or error}"
            self.output.data(step=name, error=text)
            raise _Failed(name, text, self.left) from error
        finally:
            status.stop()

    def leaves(self, text: str) -> None:
        """From now on a failure, or a Ctrl-C, leaves this state."""
        self.left = text
        ctrl_c.tell(f"stopped at {self.now}. {text}")

    def call(self, operation: str, *arguments: Any) -> Any:
        """Have the console do something. Raises SimError."""
        return call(self.directory, operation, *arguments)


@click.command(
    help="Bring the files of FOLDER, a node's root, onto devices of a running simulated console: "
    "build a package, try it on a virtual node, store it, request it of the devices ID, wait for "
    "them, and report. The first step that fails ends it. Exit codes: 0 all devices took it, 1 "
    "not all, 2 a step before failed, 3 --timeout is over.",
    epilog="Example: insigh-ota push my_node --dir console --all --since v1.0..",
)
@click.argument("folder", type=NAMED)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--dir", "directory", type=PATH, help="folder of the running console")
@click.option("--all", "everybody", is_flag=True, help="of all devices that the console knows")
@click.option(
    "--since",
    "releases",
    multiple=True,
    metavar="A..",
    help="let nodes of these releases fetch only what they lack, as in package build; repeatable",
)
@click.option(
    "--exclude", multiple=True, metavar="PATTERN", help="leave these files out; repeatable"
)
@click.option("--key", type=PATH, metavar="PEM", help="sign it with this key")
@click.option("--sequence", type=click.IntRange(min=0), metavar="N", help="number of this release")
@click.option(
    "--image",
    type=PATH,
    metavar="IMG",
    help="try it on a copy of this flash image (default: a new node with the agent alone)",
)
@click.option("--no-try", is_flag=True, help="do not try it")
@click.option("--wait/--no-wait", default=True, help="for the devices' reports (default: wait)")
@click.option(
    "--timeout",
    type=Number(min=0),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="how long to wait for them",
)
@json_option
@click.pass_context
def push(context: click.Context, **options: Any) -> None:
    """`push`."""
    try:
        context.exit(_push(**options))
    except _Failed as error:
        print(f"push: {plain(str(error), _LONGEST)}", file=sys.stderr)
        context.exit(error.code)


def _push(
    *,
    folder: Path,
    ids: Sequence[str],
    directory: Path | None,
    everybody: bool,
    releases: Sequence[str],
    exclude: Sequence[str],
    key: Path | None,
    sequence: int | None,
    image: Path | None,
    no_try: bool,
    wait: bool,
    timeout: float,
    as_json: bool,
) -> int:
    if directory is None:
        raise SimError(_BY_HAND)
    if key and sequence is None:
        raise PackageError("--sequence N is missing: higher for each release that you sign")
    if image and no_try:
        raise PackageError("--image IMG and --no-try: give one of them")
    work = _Push(folder, directory, Output(as_json, highlight=False))
    work.ids = _known(work, ids, everybody)  # before a minute of work
    signer = keys.from_pem(key) if key else None
    with work.step("build") as done:
        _build(work, done, list(releases), list(exclude), signer, sequence)
    with work.step("try") as done:
        _try(work, done, image, signer, no_try)
    with work.step("store") as done:
        fuid = _store(work, done)
    with work.step("request") as done:
        after = _request(work, done, fuid)
    if not wait:
        return 0
    with work.step("wait") as done:
        end, views = _wait(work, done, fuid, after, timeout)
    with work.step("report") as done:
        return _report(work, done, fuid, end, views)


def _known(work: _Push, ids: Sequence[str], everybody: bool) -> list[str]:
    """The devices that are meant, each once. Raises SimError."""
    if everybody == bool(ids):
        raise SimError("which devices? Name their ids, or --all, and not both")
    known = [device["id"] for device in work.call("device_list")]
    if everybody and not known:
        raise SimError(
            f"the console in {work.directory} knows no device: add one with `console device add`"
        )
    strangers = sorted(set(ids).difference(known))
    if strangers:
        raise SimError(
            f"the console in {work.directory} does not know {_some(strangers)}: `console list` "
            "tells whom it knows"
        )
    return known if everybody else list(dict.fromkeys(ids))


def _build(
    work: _Push,
    done: Callable[..., None],
    named: list[str],
    exclude: list[str],
    signer: keys.Signer | None,
    sequence: int | None,
) -> None:
    """As `package build` does it, with its defaults."""
    selection = sources.from_folder(work.folder, exclude)
    insighio.protect(selection)
    selection = transform.apply(selection, [], [])
    check.sources(selection.files, None)
    releases = None
    if named:
        releases = since.Past(work.folder, exclude=exclude).releases(named)
        selection.deleted |= since.gone(releases, selection.files)
    work.content = build(
        selection,
        sequence=sequence or 0,
        signer=signer,
        window=_WINDOW_SINCE if releases else _WINDOW,
        releases=releases,
    )
    whose = f"signed with key {keys.key_id(signer.modulus)}" if signer else "not signed"
    told = f", for nodes of {_some([each.name for each in releases])}" if releases else ""
    done(
        f"{work.folder}: {_count(len(selection.files), 'file')}, {len(work.content)} bytes, "
        f"{whose}{told}",
        files=len(selection.files),
        deletions=len(selection.deleted),
        bytes=len(work.content),
        key=keys.key_id(signer.modulus) if signer else None,
        since=[each.name for each in releases or []],
    )


def _try(
    work: _Push,
    done: Callable[..., None],
    image: Path | None,
    signer: keys.Signer | None,
    no_try: bool,
) -> None:
    """Install it on a virtual node. Raises PackageError when that does not take it."""
    if image:
        check_simulator("--image")
    why = "--no-try" if no_try else _no_simulator()
    if why:
        done(f"not tried: {why}", tried=False, reason=why)
        return
    from insigh_ota.package.attempt import attempt, new_node

    with tempfile.TemporaryDirectory(prefix="push-") as scratch:
        node = image or new_node(Path(scratch), signer.modulus if signer else None)
        cost = attempt(work.content, node, signed=signer is not None)
    which = "a copy of the node" if image else "a new virtual node"
    done(
        f"{which} confirmed it; " + "; ".join(cost.notes),
        tried=True,
        heap=cost.heap,
        fetched=cost.fetched,
        notes=cost.notes,
    )


def _no_simulator() -> str:
    """Why there is no virtual node; nothing when there is one."""
    try:
        check_simulator("it")
    except SimError as error:
        return str(error)
    return ""


def _store(work: _Push, done: Callable[..., None]) -> str:
    """Give it to the console; returns its file id."""
    name = "".join(c if c.isprintable() else "_" for c in work.folder.resolve().name)
    with tempfile.TemporaryDirectory(prefix="push-") as scratch:
        file = Path(scratch) / f"{name or 'package'}.tar.gz"
        files.write(file, work.content)
        # A Ctrl-C waits for the answer: then it is known, and told, what has been done.
        with ctrl_c.shielded():
            fuid = work.call("package_add", str(file))["fuid"]
            work.leaves(f"It is stored as {fuid}, and nothing is requested")
    done(f"as {fuid}, in {work.directory}", fuid=fuid, size=len(work.content))
    return fuid


def _request(work: _Push, done: Callable[..., None], fuid: str) -> int:
    """Ask all at once; returns the number of the console's last event before."""
    before = work.left
    # What a broken connection leaves nobody knows; a refusal comes before any request.
    work.leaves(f"{fuid} is stored; `console list` tells of whom it is requested")
    with ctrl_c.shielded():
        try:
            after = work.call("request_many", work.ids, fuid)["after"]
        except SimError as error:
            if "broke off" not in str(error):
                work.leaves(before)
            raise
        who = _some(work.ids)
        work.leaves(f"{fuid} stays requested of {who}: `console cancel` withdraws it")
    done(f"of {who}", devices=len(work.ids))
    return after


def _wait(
    work: _Push, done: Callable[..., None], fuid: str, after: int, timeout: float
) -> tuple[End, dict[str, dict[str, Any]]]:
    """How the waiting ended, and what is known of each device, by its id."""
    views: dict[str, dict[str, Any]] = {}

    def tell(view: dict[str, Any]) -> None:
        views[view["id"]] = view

    end = wait_for_end(work.directory, work.ids, fuid, after, timeout, tell)
    answered = end.succeeded + end.failed
    line = f"{answered} of {_count(len(work.ids), 'device')} answered"
    done(line + (f" within {timeout:g} s" if end.open else ""), answered=answered, open=end.open)
    return end, views


def _report(
    work: _Push, done: Callable[..., None], fuid: str, end: End, views: dict[str, dict[str, Any]]
) -> int:
    """Tell how it ended. Raises _Failed when a device did not take it."""
    states = {each: _state(views.get(each), fuid) for each in work.ids}
    counted = Counter(state for state, _ in states.values())
    done(
        f"{fuid}: " + ", ".join(f"{count} {state}" for state, count in counted.most_common()),
        fuid=fuid,
        states=counted,
        devices=[
            {"id": each, "state": state, "message": message}
            for each, (state, message) in states.items()
        ],
    )
    bad = {each for each, (state, _) in states.items() if state not in DONE}
    if not bad:
        return 0
    late = [each for each in work.ids if states[each][0] in PENDING]
    failed = [
        f"{each} {state}" + (f" ({message})" if message else "")
        for each, (state, message) in states.items()
        if each in bad and state not in PENDING
    ]
    text, left = [], "`console status ID` tells more of a device"
    if failed:
        text.append(f"{len(failed)} of {len(work.ids)} did not take it: {_some(failed)}")
    if late:
        text.append(f"{len(late)} of {len(work.ids)} did not answer in time: {_some(late)}")
        left += ", `console cancel` withdraws what stays requested"
    raise _Failed("report", "; ".join(text), left, code=end.code)


def _state(view: dict[str, Any] | None, fuid: str) -> tuple[str, str | None]:
    """How it stands with a device, and why."""
    if view is None:
        return "requested", None
    if view["fuid"] not in (fuid, None):
        return "replaced", view["message"]
    return view["state"], view["message"]


def _some(names: Sequence[str]) -> str:
    """The first few, and how many more."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
