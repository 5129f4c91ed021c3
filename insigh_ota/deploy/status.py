"""``status``: what runs on a board."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape

from insigh_ota.deploy import firmware, plan
from insigh_ota.deploy.deploy import probe, tell_board, tell_frozen
from insigh_ota.deploy.plan import Found
from insigh_ota.deploy.provision import PLAIN
from insigh_ota.deploy.remote import Board
from insigh_ota.places import WHOSE

_BOOT = {
    "none": "[yellow]none: an update could not be finished after a power cut[/]",
    "stock": "[yellow]the firmware's empty one, not ours[/]",
    "ours": "ours",
    "ours extended": "ours, with lines of your own after it",
    "other version": "ours, of another version",
    "foreign": "[yellow]foreign: an update could not be finished after a power cut[/]",
}
_STATES = {
    "idle": "none open",
    "staged": "an update is being staged",
    "commit": "being installed",
    "trial": "on trial",
    "back": "being rolled back",
}


def status(board: Board, terminal: Console, stay: bool) -> dict:
    """Say what runs, and return it, for programs.

    The node is interrupted for it, and begins anew afterwards unless `stay`. By a soft reset,
    which weighs little in a trial: looking at it must not end it.
    """
    found = probe(board)
    told = board.run("status")
    again = "begins anew" if not stay and board.soft_reset() else "has been reset"
    if not stay and again == "has been reset":
        board.reset()

    def line(name: str, text: str) -> None:
        terminal.print(f"{name:<8} {text}", highlight=False)

    tell_board(terminal, found)
    if found.fat:
        line("flash", "[red]FAT: deploy refuses it[/]")
    elif found.block != plan.ERASE_BLOCK:
        line("flash", f"[red]blocks of {found.block} bytes: deploy refuses it[/]")
    line("agent", _agent(found, told))
    line("boot.py", _BOOT[plan.boot_kind(found)])
    tell_frozen(terminal, found)
    if "/boot_user.py" in found.files:
        line("", "/boot_user.py runs after it")
    if "error" not in told:
        line("config", _config(found, told["config"]))
        if isinstance(told["config"], dict) and not told["config"]["mqtt"]["tls"]:
            line("", PLAIN)
        line("update", _update(told["status"]))
        line("report", _report(told["status"]["undelivered"]))
    if not stay:
        line("", f"the node was interrupted for this and {again}")
    return _facts(found, told)


def _facts(found: Found, told: dict) -> dict[str, Any]:
    """The same for programs; null where the node does not say."""
    config, update = told.get("config"), told.get("status")
    known = isinstance(config, dict)
    return {
        "board": found.machine,
        "micropython": ".".join(map(str, found.version)),
        "mpy": found.mpy & 0xFF if found.mpy else None,
        "free": found.free,
        "filesystem": "FAT" if found.fat else "littlefs",
        "block": found.block,
        "agent": None if "error" in told else told["version"],
        "agent_file": told.get("file"),
        "error": told.get("error"),
        "boot": plan.boot_kind(found),
        "server": config["server"] if known else None,
        "mqtt": config["mqtt"] if known else None,
        "config_error": config if isinstance(config, str) else None,
        "anchored": found.anchored,
        "update": update,
    }


def _agent(found: Found, told: dict) -> str:
    if "error" in told:
        if not any(map(found.folder, plan.PLACES)):
            return "[yellow]none[/]: insigh-ota deploy puts it there"
        return f"[red]does not load: {escape(told['error'])}[/]"
    file = told["file"]
    if file.startswith("/rom/"):
        return f"{told['version']}, in the firmware's ROMFS"
    if not file.startswith("/") and f"/{file}" not in found.files:
        return f"{told['version']}, frozen into the firmware"
    place = ("/" + file.lstrip("/")).rpartition("/")[0]
    names = found.folder(place)
    forms = {name.rpartition(".")[2] for name in names} & {"py", "mpy"}
    form = {"py": "sources", "mpy": ".mpy"}.get("".join(forms), "[yellow].mpy and sources[/]")
    files = firmware.agent(source="mpy" not in forms)
    same = all(found.has(f"{place}/{name}", content) for name, content in files.items())
    same = same and len(names) == len(files)
    whose = f"that of {WHOSE}" if same else f"[yellow]not that of {WHOSE}[/]"
    return f"{told['version']} as {form} in {place}, {whose}"


def _config(found: Found, config: dict | str) -> str:
    if isinstance(config, str):
        return f"[red]{escape(config)}[/]"
    mqtt = config["mqtt"]
    tls = " with TLS" if mqtt["tls"] else ""
    anchor = (
        "" if found.anchored else f", [red]no trust anchor in {escape(' or '.join(found.ca))}[/]"
    )
    where = escape(f"{config['server']}, MQTT {mqtt['host']}:{mqtt['port']}")
    return f"{where}{tls}{anchor}"


def _update(state: dict) -> str:
    text = _STATES.get(state["state"], state["state"])
    if state["file_id"]:
        name = escape(state["file_id"])
        if state["state"] == "trial":
            text += f": {name}, boots counted: {state['boots']}"
            text += f" of {state['boots_most']}" if state.get("boots_most") else ""
        else:
            text += f": {name}, tries counted: {state['boots']}"
    return text


def _report(undelivered: str | None) -> str:
    if undelivered is None:
        return "none waits"
    return f"waits to be delivered: e:{undelivered}"
