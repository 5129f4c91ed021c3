"""``deploy`` and ``undeploy``: the agent onto a board, and off it again."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from insigh_ota.deploy import firmware, plan, provision
from insigh_ota.deploy.errors import DeployError
from insigh_ota.deploy.plan import Found, Plan, is_module
from insigh_ota.deploy.remote import Board, Copy, Run


def probe(board: Board) -> Found:
    """What is on the board now."""
    return Found(**board.run("probe", **plan.probe_arguments()))


def deploy(
    board: Board,
    terminal: Console,
    *,
    source: bool = False,
    in_firmware: bool = False,
    boot: str | None = None,
    keep_trial: bool = False,
    provisioning: Path | None = None,
) -> dict:
    """Put the agent, boot.py and /ota.json on the board, verify, and reset it.

    in_firmware: the agent is there already, frozen or in ROMFS, so it takes only the rest.
    provisioning: None means the usual file, without which the board keeps what it has.
    Returns what was done, for programs.
    """
    file = provisioning or provision.DEFAULT
    config = provision.read(file) if provisioning or file.exists() else None
    found = probe(board)
    plan.check_flash(found)
    plan.check_transaction(found, keep_trial)
    agent = {} if in_firmware else firmware.agent(source)
    firmware.check_abi(agent, found.mpy)
    told = board.run("status") if in_firmware else {}
    if in_firmware:
        plan.check_firmware(found, told)
    if config is None and "/ota.json" not in found.files:
        raise DeployError(f"{file} is missing: say who the node is with insigh-ota provision")
    todo = plan.make(found, agent, config, boot)
    tell_board(terminal, found)
    if in_firmware:
        terminal.print(f"agent    {told['version']} in the firmware")
    else:
        size = sum(len(content) for content in agent.values())
        form = "sources" if source else ".mpy"
        terminal.print(
            f"agent    {firmware.version()} as {form} in {todo.place}, {len(agent)} files, "
            f"{size / 1024:.0f} KB"
        )
    terminal.print(f"boot.py  {todo.boot}")
    tell_frozen(terminal, found)
    if todo.nothing and not keep_trial:
        terminal.print("[green]all of it was there already[/], verified by SHA-256")
        board.reset()
    else:
        _carry_out(board, terminal, todo, found, keep_trial)
        terminal.print("[green]done[/], verified by SHA-256 on the board")
    anchored = found.anchored
    if not anchored:
        where = escape(" or ".join(found.ca))
        terminal.print(
            f"[yellow]no trust anchor in {where}[/]: insigh-ota ca --host … --port {board.port}"
        )
    terminal.print("the board has been reset and runs")
    return {
        "port": board.port,
        "agent": told["version"] if in_firmware else firmware.version(),
        "place": None if in_firmware else todo.place,
        "boot": todo.boot,
        "copied": len(todo.moved),
        "anchored": anchored,
    }


def tell_board(terminal: Console, found: Found) -> None:
    """One line on what is at the other end."""
    version = ".".join(map(str, found.version))
    abi = f".mpy ABI {found.mpy & 0xFF}" if found.mpy else "no .mpy"
    terminal.print(
        f"board    {escape(found.machine)}, MicroPython {version}, {abi}, "
        f"{found.free >> 10} KB free",
        highlight=False,
    )


def tell_frozen(terminal: Console, found: Found) -> None:
    """A line for each file of the firmware's that runs in place of one on flash."""
    if found.frozen_boot:
        terminal.print(
            "boot.py  [red]frozen into the firmware: it runs in place of the one on flash, and "
            "nothing brings a failed update back[/]"
        )
    if found.frozen("main"):
        terminal.print(
            "main.py  [yellow]frozen into the firmware: it runs in place of the one on flash, and "
            "of any that a package brings[/]"
        )


def _carry_out(
    board: Board, terminal: Console, todo: Plan, found: Found, keep_trial: bool
) -> None:
    """Copy aside, rename, verify, reset; at whatever point it ends, it can be repeated."""
    remove = todo.litter + ["/.ota/state"] * (keep_trial and found.state is not None)
    install = {
        "moved": [(path, firmware.digest(todo.content[path])) for path in todo.moved],
        "stale": todo.stale,
        "keep_boot": todo.keep_boot,
        "all": [(path, firmware.digest(content)) for path, content in todo.content.items()],
    }
    with (
        tempfile.TemporaryDirectory(prefix="deploy-") as scratch,
        Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            console=terminal,
            transient=True,
            disable=not terminal.is_terminal,
        ) as bars,
    ):
        task = bars.add_task("", total=len(todo.copied) + 1)
        steps: list[Run | Copy] = [Run("prepare", {"folders": todo.folders, "remove": remove})]
        for folder, paths in _by_folder(todo.copied).items():
            local = Path(scratch) / f"at{len(steps)}"
            local.mkdir()
            files = []
            for path in paths:
                file = local / (path.rpartition("/")[2] + "~")
                file.write_bytes(todo.content[path])
                files.append(file)
            steps.append(Copy(files, folder))
        steps.append(Run("install", install))
        begun = 0

        def copying(file: Path) -> None:
            nonlocal begun
            bars.update(task, completed=begun, description=file.name.rstrip("~"))
            begun += 1
            if begun == len(todo.copied):
                bars.update(task, completed=begun, description="verifying and installing")

        board.session(steps, copying, reset=True)


def _by_folder(paths: list[str]) -> dict[str, list[str]]:
    folders: dict[str, list[str]] = {}
    for path in paths:
        folders.setdefault(path.rpartition("/")[0], []).append(path)
    return folders


def undeploy(board: Board, terminal: Console) -> None:
    """Take away what deploy, provision and ca have put on the board."""
    found = probe(board)
    if plan.phase(found) in ("commit", "back"):
        plan.check_transaction(found, keep_trial=True)
    places = [place for place in plan.PLACES if found.folder(place)]
    ours = [place for place in places if not plan.foreign_package(found.folder(place))]
    kind = plan.boot_kind(found)
    mine = kind in ("ours", "other version")
    boot_user = mine and "/boot_user.py" in found.files
    folders = plan.agent_folders(*ours)
    remove = [p for p in found.files if p.rpartition("/")[0] in folders and is_module(p)]
    remove += [path for path in found.files if path.endswith("~")]
    remove += ["/.ota", "/ota.json", *found.ca]
    if mine and not boot_user:
        remove.append("/boot.py")
    board.run("remove", reset=True, remove=remove, folders=folders[::-1], boot_user=boot_user)
    terminal.print("the agent, its configuration and its state are gone")
    if boot_user:
        terminal.print("boot.py is what /boot_user.py was")
    elif kind in ("ours extended", "foreign"):
        terminal.print("boot.py has been left: it is not, or not only, ours")
