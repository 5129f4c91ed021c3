"""`python -m host_sim console …`: run the simulated platform, or drive one that runs."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from host_sim import ctrl_c
from host_sim.errors import SimError

_CERTIFICATES = ("good", "wrong-ca", "wrong-host", "expired", "future")


def register(commands: Any) -> None:
    """Add the `console` command."""
    parser = commands.add_parser(
        "console",
        help="the simulated platform, or a command to one that runs",
        description="Run the simulated platform. With a sub-command: drive the one that runs in "
        "the same --dir.",
    )
    parser.add_argument("--dir", type=Path, help="where the console keeps its files")
    parser.add_argument(
        "--mqtt", type=_port, default=0, metavar="PORT", help="default: a free one"
    )
    parser.add_argument("--mqtts", type=_port, default=0, metavar="PORT", help="MQTT over TLS")
    parser.add_argument("--https", type=_port, default=0, metavar="PORT", help="package server")
    parser.add_argument(
        "--broker",
        default="amqtt",
        help="amqtt (default), mosquitto, nats, nats-tls, rabbitmq, aedes, aedes-500, HOST:PORT",
    )
    parser.add_argument("--broker-user", help="the console's account on a HOST:PORT broker")
    parser.add_argument("--broker-password", help="and its password")
    parser.add_argument("--certificate", choices=_CERTIFICATES, default="good")
    parser.add_argument(
        "--link",
        metavar="SPEC",
        help="put a bad link before each port, and print the links' ports: "
        "rtt=200ms,down=20k,loss=2%%,cut=4096; `--link help` tells of all there is",
    )
    parser.set_defaults(run=_serve)

    actions = parser.add_subparsers(metavar="COMMAND")
    device = _add(actions, "device", "devices of the running console")
    add_device = _add(device.add_subparsers(required=True, metavar="add"), "add", "add a device")
    add_device.add_argument("id", metavar="ID")
    add_device.add_argument("key", metavar="KEY")
    add_device.add_argument("channel", metavar="CHANNEL")
    add_device.add_argument(
        "--replace", action="store_true", help="give a device that is there this key and channel"
    )
    add_device.set_defaults(run=_device_add)

    package = _add(actions, "package", "packages of the running console")
    add_package = _add(
        package.add_subparsers(required=True, metavar="add"), "add", "store a package"
    )
    add_package.add_argument("file", metavar="FILE", type=Path)
    add_package.set_defaults(run=_package_add)

    request = _add(actions, "request", "ask a device to take a package")
    request.add_argument("id", metavar="ID")
    request.add_argument("fuid", metavar="FUID")
    request.set_defaults(run=_request)

    status = _add(actions, "status", "what is pending for a device, and what it reported")
    status.add_argument("id", metavar="ID")
    status.set_defaults(run=_status)


def _add(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=text)
    # Suppressed default: where --dir is not given here, the one given further left stays.
    parser.add_argument("--dir", type=Path, default=argparse.SUPPRESS, help="the console's folder")
    return parser


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: write a number from 0 to 65535")
    return int(text)


def _directory(arguments: argparse.Namespace) -> Path:
    if arguments.dir is None:
        raise SimError("console: --dir DIR is missing")
    return arguments.dir


def _print(line: Any) -> None:
    print(json.dumps(line, separators=(",", ":"), ensure_ascii=False), flush=True)


def _serve(arguments: argparse.Namespace) -> int:
    # Late imports: other commands of host_sim share this module and need not wait for these.
    from host_sim.console.control import ControlServer, is_running
    from host_sim.console.core import Console
    from host_sim.link import HELP, Link, parse

    if arguments.link == "help":
        print(HELP)
        return 0
    directory = _directory(arguments)
    profile = parse(arguments.link or "")
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s"
    )
    for noisy in ("amqtt", "transitions", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    if is_running(directory):
        raise SimError(f"a console is already running in {directory}")

    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    console = Console(
        directory,
        broker=arguments.broker,
        mqtt_port=arguments.mqtt,
        mqtts_port=arguments.mqtts,
        https_port=arguments.https,
        certificate=arguments.certificate,
        broker_user=arguments.broker_user,
        broker_password=arguments.broker_password,
    )
    with console, contextlib.ExitStack() as links, ControlServer(console):
        ports = dataclasses.asdict(console.ports)
        for name, port in ports.items():
            if arguments.link is not None and port is not None:
                host = "127.0.0.1" if name == "https" else console.mqtt_host
                ports[name] = links.enter_context(Link(host, port, profile)).port
        anchors = {"ca": str(console.ca_pem), "ca_der": str(console.ca_der)}
        ctrl_c.gently(ended.set)
        _print({"event": "ready"} | ports | anchors)
        ended.wait()
    return 0


def _call(arguments: argparse.Namespace, operation: str, *values: str | bool) -> Any:
    from host_sim.console.control import call

    return call(_directory(arguments), operation, *values)


def _device_add(arguments: argparse.Namespace) -> int:
    device = arguments.id, arguments.key, arguments.channel
    _call(arguments, "device_add", *device, arguments.replace)
    return 0


def _package_add(arguments: argparse.Namespace) -> int:
    _print(_call(arguments, "package_add", str(arguments.file.resolve())))
    return 0


def _request(arguments: argparse.Namespace) -> int:
    print(_call(arguments, "request", arguments.id, arguments.fuid), flush=True)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    _print(_call(arguments, "status", arguments.id))
    return 0
