"""`console …`: run the simulated platform, or drive one that runs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from host_sim import ctrl_c, files
from host_sim.command import Number
from host_sim.errors import SimError

_CERTIFICATES = ("good", "wrong-ca", "wrong-host", "expired", "future")
_STATES = (
    "idle",
    "requested",
    "downloading",
    "installed on trial",
    "confirmed",
    "rolled back",
    "failed",
    "overdue",
)
_FOLDER = "host_sim.console.dir"


def _remember_folder(context: click.Context, _: click.Parameter, folder: Path | None) -> None:
    if folder is not None:
        context.meta[_FOLDER] = folder  # which all commands of one command line share


#: Taken by the group and by each command: the one furthest right counts.
_dir_option = click.option(
    "--dir",
    type=click.Path(path_type=Path),
    expose_value=False,
    callback=_remember_folder,
    help="where the console keeps its files",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="one line of JSON for each")


class _Port(click.ParamType):
    name = "port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if not value.isascii() or not value.isdecimal() or int(value) > 65535:
            self.fail(f"{value!r} is no port: write a number from 0 to 65535", param, ctx)
        return int(value)


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="the simulated platform, or a command to one that runs",
)
@_dir_option
@click.option("--mqtt", type=_Port(), default=0, metavar="PORT", help="default: a free one")
@click.option("--mqtts", type=_Port(), default=0, metavar="PORT", help="MQTT over TLS")
@click.option("--https", type=_Port(), default=0, metavar="PORT", help="package server")
@click.option(
    "--broker",
    default="amqtt",
    help="amqtt (default), mosquitto, nats, nats-tls, rabbitmq, aedes, aedes-500, HOST:PORT",
)
@click.option("--broker-user", help="the console's account on a HOST:PORT broker")
@click.option("--broker-password", help="and its password")
@click.option("--certificate", type=click.Choice(_CERTIFICATES), default="good")
@click.option(
    "--link",
    metavar="SPEC",
    help="put a bad link before each port, and print the links' ports: "
    "rtt=200ms,down=20k,loss=2%,cut=4096; `--link help` tells of all there is",
)
@click.option(
    "--overdue",
    type=Number(min=0, min_open=True),
    default=24 * 3600,
    metavar="SECONDS",
    help="a device that was asked and is not heard of for so long is overdue; default: a day",
)
@click.option(
    "--reports",
    type=click.Choice(("installed", "confirmed")),
    default="installed",
    help="when the nodes send e:1, as `report` in their configuration; default: installed",
)
@click.option(
    "--web", type=_Port(), metavar="PORT", help="serve a page to watch and steer the devices with"
)
@click.option(
    "--web-host",
    metavar="ADDRESS",
    help="where the page is served; default: 127.0.0.1. Others than this machine need a token",
)
@click.option(
    "--web-token",
    metavar="TEXT",
    envvar="INSIGH_OTA_WEB_TOKEN",
    help="what the page asks for; default: nothing on this machine, elsewhere one is made and "
    "printed. In INSIGH_OTA_WEB_TOKEN it does not show in the list of processes",
)
@click.pass_context
def console(context: click.Context, **options: Any) -> None:
    """Run the simulated platform.

    With a command: drive the one that runs in the same --dir.
    """
    given = context.get_parameter_source("web_token") is ParameterSource.COMMANDLINE
    if options["web"] is None and (options["web_host"] is not None or given):
        raise click.UsageError("--web-host and --web-token are for the page: add --web PORT")
    if context.invoked_subcommand is None:
        _serve(**options)


def _serve(
    *,
    mqtt: int,
    mqtts: int,
    https: int,
    broker: str,
    broker_user: str | None,
    broker_password: str | None,
    certificate: str,
    link: str | None,
    overdue: float,
    reports: str,
    web: int | None,
    web_host: str | None,
    web_token: str | None,
) -> None:
    # Late imports: a command to a running console need not wait for these.
    from host_sim.console.control import ControlServer
    from host_sim.console.core import Console
    from host_sim.link import HELP, Link, parse

    if link == "help":
        click.echo(HELP)
        return
    directory = _directory()
    profile = parse(link or "")
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s"
    )
    for noisy in ("amqtt", "transitions", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    running = Console(
        directory,
        broker=broker,
        mqtt_port=mqtt,
        mqtts_port=mqtts,
        https_port=https,
        certificate=certificate,
        broker_user=broker_user,
        broker_password=broker_password,
        overdue_s=overdue,
        reports=reports,
    )
    taken = f"a console is already running in {directory}"
    with contextlib.ExitStack() as parts:
        parts.enter_context(files.locked(directory / "control.json", taken, parents=True))
        parts.enter_context(running)
        parts.enter_context(ControlServer(running))
        ports = dataclasses.asdict(running.ports)
        for name, port in ports.items():
            if link is not None and port is not None:
                host = "127.0.0.1" if name == "https" else running.mqtt_host
                ports[name] = parts.enter_context(Link(host, port, profile)).port
        # Whatever else serves while the console does is entered here, and adds its ready keys.
        page: dict[str, str] = {}
        if web is not None:
            from host_sim.web import WebServer

            server = WebServer(running, web, host=web_host or "127.0.0.1", token=web_token)
            page["web"] = parts.enter_context(server).url
            if server.token and not web_token:
                page["web_token"] = server.token
        anchors = {"ca": str(running.ca_pem), "ca_der": str(running.ca_der)}
        ctrl_c.gently(ended.set)
        _print({"event": "ready"} | ports | anchors | page)
        ended.wait()


# -- devices and packages ------------------------------------------------------------------------


@console.group()
@_dir_option
def device() -> None:
    """Devices of the running console."""


@device.command("add")
@click.argument("words", nargs=-1, metavar="[ID KEY CHANNEL]")
@click.option("--board", help="what kind of board it is")
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="add all devices of a table: id,key,channel, and perhaps board; all of them or none",
)
@click.option("--replace", is_flag=True, help="give a device that is there this key and channel")
@_dir_option
def _device_add(
    words: tuple[str, ...], board: str | None, file: Path | None, replace: bool
) -> None:
    """Add a device, or all devices of a table."""
    from host_sim.console.devices import read_devices

    if file is not None and not words and board is None:
        devices = [dataclasses.astuple(device) for device in read_devices(file)]
        _print({"devices": _call("devices_add", devices, replace)})
    elif file is None and len(words) == 3:
        _call("devices_add", [[*words, board]], replace)
    else:
        raise click.UsageError("say ID KEY CHANNEL, or --file CSV")


@device.command("remove")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@_dir_option
def _device_remove(ids: tuple[str, ...]) -> None:
    """Forget devices, and withdraw what they are asked."""
    _call("device_remove", list(dict.fromkeys(ids)))


@device.command("list")
@_json_option
@_dir_option
def _device_list(as_json: bool) -> None:
    """List all devices, without their keys."""
    _list(
        _call("device_list"),
        as_json,
        {
            "ID": lambda d: d["id"],
            "CHANNEL": lambda d: d["channel"],
            "BOARD": lambda d: d["board"],
        },
    )


@console.group()
@_dir_option
def package() -> None:
    """Packages of the running console."""


@package.command("add")
@click.argument("file", type=click.Path(path_type=Path))
@_dir_option
def _package_add(file: Path) -> None:
    """Store a package; prints its file id and size."""
    _print(_call("package_add", str(file.resolve())))


@package.command("remove")
@click.argument("fuids", nargs=-1, required=True, metavar="FUID...")
@_dir_option
def _package_remove(fuids: tuple[str, ...]) -> None:
    """Remove packages that no device is asked to take."""
    for fuid in fuids:
        _call("package_remove", fuid)


@package.command("list")
@_json_option
@_dir_option
def _package_list(as_json: bool) -> None:
    """List all packages, the oldest first."""
    _list(
        _call("package_list"),
        as_json,
        {
            "FUID": lambda p: p["fuid"],
            "SIZE": lambda p: str(p["size"]),
            "ADDED": lambda p: _clock(p["added"]),
            "NAME": lambda p: p["name"],
        },
    )


# -- requests ------------------------------------------------------------------------------------


@console.command("request")
@click.argument("words", nargs=-1, required=True, metavar="[ID]... FUID")
@click.option("--all", "everybody", is_flag=True, help="ask all devices")
@click.option(
    "--wait",
    is_flag=True,
    help="wait until each device has ended. Exit code 0: all have installed it; "
    "1: one or more have not; 3: --timeout is over",
)
@click.option(
    "--timeout",
    type=Number(min=0),
    metavar="SECONDS",
    help="how long to wait; default: for ever",
)
@click.option("--json", "as_json", is_flag=True, help="with --wait: each change as JSON")
@_dir_option
@click.pass_context
def _request(
    context: click.Context,
    words: tuple[str, ...],
    everybody: bool,
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Ask devices to take a package; prints the retained message."""
    from host_sim.console.wait import wait_for_end

    *ids, fuid = words
    if everybody and ids:
        raise click.UsageError("say --all FUID, or ID... FUID")
    if not everybody and not ids:
        raise click.UsageError("say who is asked: ID... FUID, or --all FUID")
    if timeout is not None and not wait:
        raise click.UsageError("--timeout is for --wait")
    asked = _call("request_many", None if everybody else list(dict.fromkeys(ids)), fuid)
    click.echo(asked["message"])
    if not wait:
        return

    def tell(view: dict[str, Any]) -> None:
        if as_json:
            _print({"time": round(time.time(), 3)} | view)
            return
        said = f"  {view['message']}" if view["message"] else ""
        click.echo(f"{_clock(time.time())}  {view['id']}  {view['state']}{said}")

    end = wait_for_end(_directory(), asked["ids"], fuid, asked["after"], timeout, tell)
    click.echo(end.words, err=True)
    context.exit(end.code)


@console.command("cancel")
@click.argument("ids", nargs=-1, metavar="ID...")
@click.option("--all", "everybody", is_flag=True, help="cancel what any device is asked")
@_dir_option
def _cancel(ids: tuple[str, ...], everybody: bool) -> None:
    """Withdraw requests. A node that has committed already still installs."""
    if everybody == bool(ids):
        raise click.UsageError("say ID..., or --all")
    _print(_call("cancel", None if everybody else list(dict.fromkeys(ids))))


@console.command("list")
@click.option("--state", "states", multiple=True, type=click.Choice(_STATES), help="only these")
@_json_option
@_dir_option
def _list_devices(states: tuple[str, ...], as_json: bool) -> None:
    """Tell how all devices stand."""
    now = time.time()
    views = [v for v in _call("views")["views"] if not states or v["state"] in states]
    _list(
        views,
        as_json,
        {
            "ID": lambda v: v["id"],
            "STATE": lambda v: v["words"],
            "FOR": lambda v: _ago(v["since"], now),
            "PACKAGE": lambda v: v["fuid"],
            "RUNS": lambda v: v["version"],
            "HEARD": lambda v: (
                f"{_ago(v['last_contact'], now)} ago" if v["last_contact"] else None
            ),
            "ATTEMPTS": lambda v: str(v["attempts"]),
            "MESSAGE": lambda v: v["message"] or "",
        },
    )


@console.command("status")
@click.argument("id", metavar="ID")
@click.option("--words", "in_words", is_flag=True, help="for people, not one line of JSON")
@_dir_option
def _status(id: str, in_words: bool) -> None:
    """Tell what is retained for a device, what it reported, and how it stands."""
    status = _call("status", id)
    if not in_words:
        _print(status)
        return
    from host_sim.console.state import plain

    now = time.time()
    heard = status["last_contact"]
    rows = [
        ("state", status["words"] + (f": {status['message']}" if status["message"] else "")),
        ("since", f"{_clock(status['since'])}, {_ago(status['since'], now)}"),
        ("package", status["fuid"] or "-"),
        ("runs", status["version"] or "-"),
        ("heard", f"{_clock(heard)}, {_ago(heard, now)} ago" if heard else "never"),
        ("attempts", str(status["attempts"])),
        ("retained", plain(status["retained"] or "-")),
    ]
    for at, report in zip(status["times"], status["reports"], strict=True):
        told = "applied" if report["e"] == 1 else "failed"
        about = " ".join(plain(text) for text in (report["i"], report["m"]) if text)
        rows.append(("report", f"{_clock(at)} {told} {about}"))
    click.echo(f"{status['id']}")
    for name, text in rows:
        click.echo(f"  {name:<9} {text}")


# -- inside --------------------------------------------------------------------------------------


def _directory() -> Path:
    folder = click.get_current_context().meta.get(_FOLDER)
    if folder is None:
        raise SimError("console: --dir DIR is missing")
    return folder


def _call(operation: str, *values: Any) -> Any:
    from host_sim.console.control import call

    return call(_directory(), operation, *values)


def _print(line: Any) -> None:
    """One line of JSON; what a terminal would obey is written as \\u…."""
    text = json.dumps(line, separators=(",", ":"), ensure_ascii=False)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
    click.echo(text)


def _list(
    rows: list[dict[str, Any]],
    as_json: bool,
    columns: dict[str, Callable[[dict[str, Any]], str | None]],
) -> None:
    """Each row as a line of JSON, or all as a table."""
    if as_json:
        for row in rows:
            _print(row)
        return
    table = [list(columns)] + [[of(row) or "-" for of in columns.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        click.echo(_columns(cells, widths))


def _columns(cells: Iterable[str], widths: list[int]) -> str:
    return "  ".join(
        f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)
    ).rstrip()


def _clock(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def _ago(moment: float, now: float) -> str:
    from host_sim.console.state import duration

    return duration(now - moment)
