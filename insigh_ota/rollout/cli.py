"""`insigh-ota rollout`: a package to a fleet, in waves that stop by themselves."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from host_sim import ctrl_c
from host_sim.command import SETTINGS, Number
from host_sim.errors import SimError
from insigh_ota.rollout import devices as fleet
from insigh_ota.rollout import state as states
from insigh_ota.rollout.devices import Device
from insigh_ota.rollout.records import Phase
from insigh_ota.rollout.runner import Runner, Tell, counts, words
from insigh_ota.rollout.state import Package, State, Store

_TLS_PORT, _PLAIN_PORT = 8883, 1883
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_FUID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_STOPPED = 1
#: So many kinds of boards are always believed; of more, that they are less than so many percent.
_BOARDS, _BOARDS_SHARE = 20, 5
_SHOWN = 20
_NEEDED = "is missing: docs/rollout.md shows a whole command"


class Seconds(click.ParamType):
    """A time: 90, 30s, 15m, 12h or 2d."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """In seconds."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(value))
        if not found:
            self.fail(f"{value!r} is no time: write 30s, 15m, 12h or 2d", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


class Waves(click.ParamType):
    """Shares of the fleet that grow to 100."""

    name = "waves"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        """As numbers."""
        if isinstance(value, tuple):
            return value
        try:
            shares = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            shares = ()
        pairs = zip((0.0, *shares), shares, strict=False)
        if not shares or shares[-1] != 100 or not all(a < b for a, b in pairs):
            self.fail(f"{value!r}: write shares that grow to 100, as 5,25,50,100", param, ctx)
        return shares


_PERCENT = Number(0, 100)


@click.group(invoke_without_command=True, context_settings=SETTINGS)
@click.option("--state", type=click.Path(path_type=Path), help="the file that it goes on from")
@click.option(
    "--devices", type=click.Path(path_type=Path), help="CSV: id,key,channel[,board][,report]"
)
@click.option("--broker", metavar="HOST[:PORT]", help="where the devices connect")
@click.option("--plain", is_flag=True, help="MQTT without TLS: sends the keys in clear")
@click.option("--ca", type=click.Path(path_type=Path), help="trust anchors for TLS, PEM")
@click.option(
    "--dir", "console", type=click.Path(path_type=Path), help="the simulated console in DIR"
)
@click.option("--fuid", help="the file id that the platform gave the package")
@click.option("--file", type=click.Path(path_type=Path), help="the package, for type and size")
@click.option("--type", "kind", type=click.Choice([".tar", ".tar.gz"]), help="without --file")
@click.option("--size", type=click.IntRange(1), help="bytes, without --file")
@click.option("--waves", type=Waves(), help="percent of the fleet  [default: 5,25,50,100]")
@click.option("--max-failed", type=_PERCENT, help="stop above this percentage  [default: 2]")
@click.option("--max-silent", type=_PERCENT, help="stop above this percentage  [default: 10]")
@click.option(
    "--guard", type=_PERCENT, help="first percents, which all have to end well  [default: 1]"
)
@click.option("--silence", type=Seconds(), help="silent after so long  [default: 2d]")
@click.option("--settle", type=Seconds(), help="a roll back shows within  [default: 1h]")
@click.option(
    "--report", type=click.Choice(fleet.REPORTS), help="what the nodes' e:1 says, as in ota.json"
)
@click.option("--seed", help="who is in which wave  [default: a random one]")
@click.option(
    "--connections",
    type=click.IntRange(1, 300),
    default=50,
    show_default=True,
    help="at most so many at a time",
)
@click.option(
    "--look-every", type=Seconds(), default=60.0, help="between looks at a device  [default: 1m]"
)
@click.option("--keep-requests", is_flag=True, help="a stop leaves requests that wait")
@click.option("--go-on", is_flag=True, help="after a stop, when you have looked at its cause")
@click.option("--cancel", is_flag=True, help="withdraw all that is out, and end")
@click.option("--json", "as_json", is_flag=True, help="one JSON object per line")
@click.pass_context
def rollout(context: click.Context, **options: Any) -> None:
    """Bring a package to a whole fleet, in waves that stop by themselves.

    The same command goes on after it was stopped, at whatever moment. Exit code 0: all were asked
    and have ended; 1: it stopped by itself; 2: something is to be mended first.
    """
    if context.invoked_subcommand is None:
        context.exit(_run(options))
    source = click.core.ParameterSource.COMMANDLINE
    if any(context.get_parameter_source(name) is source for name in options):
        raise click.UsageError("status is another command: rollout status STATE [--json]")


@rollout.command("status")
@click.argument("state", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def status(state: Path, as_json: bool) -> None:
    """How a rollout stands, from its state file alone."""
    known = states.load(state)
    if known is None:
        raise SimError(f"{state} is not there")
    found = counts(known.records.values())
    asked = sum(found.values()) - found["withdrawn"]
    reasons = Counter(r.text for r in known.records.values() if r.phase is Phase.FAILED)
    if as_json:
        line = {
            "stage": known.stage,
            "why": known.why,
            "fuid": known.package.fuid,
            "asked": asked,
            "of": known.size,
            **found,
            "reasons": dict(reasons),
        }
        click.echo(json.dumps(line))
        return
    why = f": {known.why}" if known.why else ""
    click.echo(_plain(f"{known.package.fuid}, {known.stage}{why}"))
    click.echo(f"{asked:,} of {known.size:,} asked: {words(found)}")
    for text, number in reasons.most_common(_SHOWN):
        click.echo(_plain(f"  {number:,} times: {text}"))
    for phase, title in (
        (Phase.FAILED, "failed"),
        (Phase.LOST, "took it and fell silent"),
        (Phase.SILENT, "silent"),
    ):
        ids = [one for one, record in known.records.items() if record.phase is phase]
        if ids:
            more = " …" if len(ids) > _SHOWN else ""
            click.echo(f"  {title}: {' '.join(ids[:_SHOWN])}{more}")


def _run(options: dict[str, Any]) -> int:
    path: Path | None = options["state"]
    if path is None:
        raise SimError(f"--state {_NEEDED}")
    if not (options["seed"] or "").isprintable():
        raise SimError("--seed must be printable text, in UTF-8")
    if options["go_on"] and options["cancel"]:
        raise SimError("--go-on or --cancel, not both")
    if (options["broker"] is None) == (options["console"] is None):
        raise SimError("say --broker HOST[:PORT], or --dir DIR for the simulated console")
    tell = _teller(options["as_json"])
    with states.locked(path):
        where, connect = _transport(options)
        found = _devices(options)
        state, new = _state(path, options, found, where)
        store = Store(path, state)
        transport = connect(found, state)
        runner = Runner(
            store,
            found,
            transport,
            tell,
            connections=len(found) if options["console"] else options["connections"],
            look_every=options["look_every"],
            keep_requests=options["keep_requests"],
        )
        try:
            return _carry(runner, store, options, tell, new)
        finally:
            transport.close()


def _carry(runner: Runner, store: Store, options: dict[str, Any], tell: Tell, new: bool) -> int:
    state = store.state
    store.changed()
    store.commit()
    if options["cancel"]:
        runner.cancel()
    elif options["go_on"]:
        runner.go_on()
    begin = "begins" if new else "goes on"
    if state.stage == "running":
        tell(
            {"event": "begin", "new": new, "of": state.size, "seed": state.seed},
            f"the rollout of {state.package.fuid} to {state.size:,} devices {begin}",
        )
    elif new is False and state.stage == "stopped":
        tell({"event": "stop", "why": state.why}, f"STOPPED: {state.why}")
    ctrl_c.gently(runner.interrupt)
    runner.run()
    found = runner.counts()
    ends = {
        "running": (0, "interrupted; requests stay where they are. The same command goes on"),
        "stopped": (_STOPPED, "stopped. Look at the cause (rollout status), then: --go-on"),
        "done": (0, "done"),
        "cancelled": (0, "cancelled; nothing of it is out any more"),
    }
    code, text = ends[state.stage]
    if state.stage == "done" and found["silent"]:
        text += "; the requests of the silent stay, --cancel withdraws them"
    tell({"event": state.stage, **found}, f"{text}: {words(found)}")
    return code


def _teller(as_json: bool) -> Tell:
    def tell(event: dict[str, Any], text: str) -> None:
        # Nobody may read it any more, or its disk is full; the rollout goes on.
        with contextlib.suppress(OSError):
            click.echo(json.dumps(event) if as_json else _plain(text))

    return tell


def _plain(text: str) -> str:
    """One line: what a node said is data."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _devices(options: dict[str, Any]) -> list[Device]:
    found = _all_devices(options)
    boards = {device.board for device in found}
    if len(boards) > max(_BOARDS, len(found) * _BOARDS_SHARE / 100):
        raise SimError(
            f"{len(boards)} different boards among {len(found)} devices: one of each is asked at "
            "once, whatever --guard says. The column board is for the kind of board, which many "
            "devices share"
        )
    return found


def _all_devices(options: dict[str, Any]) -> list[Device]:
    path = options["devices"]
    if options["console"] is None:
        if path is None:
            raise SimError(f"--devices CSV {_NEEDED}")
        return fleet.read(path)
    from insigh_ota.rollout import console

    return console.devices(options["console"], path)


def _state(
    path: Path, options: dict[str, Any], found: Sequence[Device], where: str
) -> tuple[State, bool]:
    """The state of before, if it is of this very rollout, or a new one."""
    known = states.load(path)
    digest = fleet.digest(found)
    if known is None:
        if options["go_on"] or options["cancel"]:
            raise SimError(f"{path} is not there: there is nothing to go on with")
        state = State(
            package=_package(options),
            seed=options["seed"] or secrets.token_hex(4),
            devices=digest,
            size=len(found),
            where=where,
        )
        return _with_rules(state, options), True
    for what, before, now in (
        ("other devices, channels or boards", known.devices, digest),
        ("another broker or console", known.where, where),
        ("another seed", known.seed, options["seed"] or known.seed),
    ):
        if before != now:
            raise SimError(f"{path} belongs to a rollout with {what}: name another --state")
    if not known.records.keys() <= {device.id for device in found}:
        raise SimError(f"{path} is damaged: it knows devices that the fleet does not have")
    if options["fuid"] is not None or options["file"] is not None:
        package = _package(options, known.package)
        if package != known.package:
            raise SimError(
                f"{path} belongs to the package {known.package.fuid} of {known.package.size} "
                "bytes: name another --state"
            )
    return _with_rules(known, options), False


def _with_rules(state: State, options: dict[str, Any]) -> State:
    """What was said on the command line counts from now on; all else as before."""

    def said(*names: str) -> dict[str, Any]:
        return {name: options[name] for name in names if options[name] is not None}

    state.rules = replace(state.rules, **said("waves", "max_failed", "max_silent", "guard"))
    state.times = replace(state.times, **said("silence", "settle"))
    state.report = options["report"] or state.report
    return state


def _package(options: dict[str, Any], known: Package | None = None) -> Package:
    fuid, file, kind, size = (options[name] for name in ("fuid", "file", "kind", "size"))
    if file is not None:
        try:
            size = file.stat().st_size
            if not file.is_file():
                raise SimError(f"{file} is no file")
        except OSError as error:
            raise SimError(f"{file} can not be read: {error.strerror}") from error
        if not file.name.endswith((".tar", ".tar.gz", ".tgz")):
            raise SimError(f"{file}: its name must end in .tar, .tar.gz or .tgz")
        if not size:
            raise SimError(f"{file} is empty")
        kind = ".tar" if file.name.endswith(".tar") else ".tar.gz"
    if options["console"] is not None:
        from insigh_ota.rollout import console

        return console.package(options["console"], fuid, file, known)
    if known is not None:
        return Package(fuid or known.fuid, kind or known.type, size or known.size)
    if fuid is None:
        raise SimError(f"--fuid {_NEEDED}")
    if not _FUID.fullmatch(fuid):
        raise SimError(f"--fuid {fuid!r}: 1 to 64 letters, digits, '-', '.' or '_'")
    if not size or not kind:
        raise SimError("say --file PACKAGE, or --type and --size")
    return Package(fuid, kind, size)


def _transport(
    options: dict[str, Any],
) -> tuple[str, Callable[[Sequence[Device], State], Any]]:
    """Where it goes to, for the state file, and how to get there."""
    if options["console"] is not None:
        from insigh_ota.rollout import console

        directory = options["console"].resolve()
        return f"console {directory}", lambda _found, state: console.ConsoleTransport(
            directory, state.package.fuid, state
        )
    from insigh_ota.rollout import mqtt

    plain = options["plain"]
    broker = mqtt.Broker(*_address(options["broker"], plain), _tls(options["ca"], plain))

    def connect(found: Sequence[Device], state: State) -> mqtt.MqttTransport:
        mqtt.probe(broker, found[0])
        return mqtt.MqttTransport(
            broker,
            {device.id: device for device in found},
            state.number,
            state.package.fuid,
            state.package.request(),
            options["connections"],
        )

    return f"{broker.host}:{broker.port}", connect


def _address(text: str, plain: bool) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or text.endswith("]"):
        host, port = text, str(_PLAIN_PORT if plain else _TLS_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        raise SimError(f"--broker {text!r}: write HOST or HOST:PORT")
    return host, int(port)


def _tls(ca: Path | None, plain: bool) -> ssl.SSLContext | None:
    if plain:
        if ca is not None:
            raise SimError("--plain or --ca, not both")
        return None
    try:
        return ssl.create_default_context(cafile=None if ca is None else str(ca))
    except ssl.SSLError as error:
        raise SimError(f"{ca} has no certificate in PEM") from error
    except OSError as error:
        raise SimError(f"{ca} can not be read: {error.strerror}") from error
