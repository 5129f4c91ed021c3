"""What all command lines share: groups that load a command when it is called, errors, `--json`.

A command is a `click.Command`, defined once, beside what it does. `insigh-ota` and the older
`python -m host_sim`, `python -m insigh_ota.package` and `python -m insigh_ota.deploy` are groups
of the same commands.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import select
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem, shell_complete

from host_sim.errors import SimError
from insigh_ota.places import NO_SIMULATOR

if TYPE_CHECKING:
    from rich.console import Console

#: The interpreter, and what reads and makes images of its flash.
_SIMULATOR = ("micropython_run", "littlefs")
#: `-h` as well; commands inherit it of their group.
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
#: Where a group notes which of its commands runs, for the line of an error.
_RUNNING = "host_sim.command"


class Number(click.FloatRange):
    """Within a range; `nan` is in none, and would turn a limit off."""

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """As click's own."""
        number = super().convert(value, param, ctx)
        if number != number:
            self.fail(f"{value!r} is no number", param, ctx)
        return number


def check_simulator(what: str = "") -> None:
    """Raise SimError where the simulator is not installed; what: an option that needs it."""
    needed = _SIMULATOR[1:] if os.environ.get("MICROPYTHON") else _SIMULATOR
    if not all(map(importlib.util.find_spec, needed)):
        raise SimError(f"{what} {NO_SIMULATOR}".lstrip())


@dataclass(frozen=True)
class Entry:
    """A command that is imported when it is called.

    `place` is `module:attribute`; `help` is its line in the group's help, which loads nothing.
    `simulator`: it can do nothing without.
    """

    place: str
    help: str
    simulator: bool = False


Sections = Mapping[str, Mapping[str, Entry]]


class Lazy(click.Group):
    """A group whose commands stand in sections, and are imported when they are called."""

    def __init__(self, *args: Any, sections: Sections, **kwargs: Any) -> None:
        super().__init__(*args, context_settings=SETTINGS, **kwargs)
        self.sections = sections
        self.entries = {
            name: entry for section in sections.values() for name, entry in section.items()
        }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of the help."""
        return list(self.entries)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command, loaded now. Raises SimError for one that needs an absent simulator."""
        entry = self.entries.get(name)
        if entry is None:
            return None
        ctx.meta[_RUNNING] = name
        if entry.simulator and not ctx.resilient_parsing:
            check_simulator()
        module, _, attribute = entry.place.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The sections."""
        width = max(map(len, self.entries))
        for title, entries in self.sections.items():
            with formatter.section(title):
                rows = [(name.ljust(width), entry.help) for name, entry in entries.items()]
                formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The names that begin so; nothing is loaded for it."""
        found = [
            CompletionItem(name, help=entry.help)
            for name, entry in self.entries.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)


def run(
    command: click.Command,
    words: Sequence[str] | None = None,
    *,
    program: str,
    speaker: str | None = None,
) -> int:
    """Run a command line; returns its exit code.

    words: None means those of this process; speaker: who says an expected error, None: the
    command itself. Such an error, and a wrong usage, is told on stderr, and the code is 2.
    """
    from insigh_ota.deploy.errors import DeployError
    from insigh_ota.package.errors import PackageError

    words = list(sys.argv[1:] if words is None else words)
    context = None
    try:
        context = command.make_context(program, list(words))
        with context:
            code = command.invoke(context)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        print(_one_line(error, _called(command, program, words)), file=sys.stderr)
        return 2
    except (DeployError, PackageError, SimError) as error:
        running = context.meta.get(_RUNNING) if context else None
        name = speaker or running or program
        # Some errors begin with the command's name by themselves.
        print(f"{name}: {str(error).removeprefix(f'{name}: ')}", file=sys.stderr)
        return 2
    except (EOFError, click.Abort):
        print("stopped: no answer", file=sys.stderr)
        return 2
    except BrokenPipeError:
        if not _stdout_is_gone():
            raise
        return 1


def _called(command: click.Command, program: str, words: Sequence[str]) -> str:
    """The program and the words that name a command; click's parser does not say it."""
    path = [program]
    for word in words:
        if isinstance(command, click.Group):
            context = click.Context(command, resilient_parsing=True)
            if found := command.get_command(context, word):
                command = found
                path.append(word)
    return " ".join(path)


def _one_line(error: click.ClickException, place: str) -> str:
    """What is wrong and where help is, of an error that click would tell in four lines."""
    context = getattr(error, "ctx", None)
    place = context.command_path if context else place
    text = " ".join(error.format_message().split()).rstrip(".")
    # A guess of what was meant ends as a question does.
    then = " See" if text.endswith(("?", "?)")) else "; see"
    return f"{place}: {text[:1].lower()}{text[1:]}{then} {place} --help"


def _stdout_is_gone() -> bool:
    """Whether nobody reads stdout any more, as behind `| head`; then nothing more goes there."""
    # stdout itself knows nothing of it any more, where it has just failed.
    poll = select.poll()
    poll.register(1, 0)
    if not any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return True


def complete(command: click.Command, program: str) -> int | None:
    """Answer the shell where it asks what a word may become; None where it does not ask."""
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    asked = os.environ.get(variable)
    return shell_complete(command, {}, program, variable, asked) if asked else None


def options(**given: Any) -> SimpleNamespace:
    """All options of a command as one object; those that can be repeated as lists."""
    return SimpleNamespace(**{k: list(v) if isinstance(v, tuple) else v for k, v in given.items()})


class Checked(click.ParamType):
    """A text that a function of ours takes; its SimError is a wrong usage."""

    def __init__(self, name: str, take: Callable[[str], Any]) -> None:
        self.name, self._take = name, take

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """What the function makes of it."""
        if not isinstance(value, str):
            return value
        try:
            return self._take(value)
        except SimError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """A file's name."""
        return [CompletionItem(incomplete, type="file")]


def _named(text: str) -> Path:
    """An empty one would be the folder that one happens to be in."""
    if not text:
        raise SimError("no name given")
    return Path(text)


def _place(text: str) -> Path:
    from host_sim import files

    return files.place(text)


#: Any path; one that is not empty; one of a file to write, looked at before hours of work.
PATH = click.Path(path_type=Path)
NAMED = Checked("path", _named)
PLACE = Checked("file", _place)

#: For a command that prints data; see :class:`Output`.
json_option = click.option(
    "--json", "as_json", is_flag=True, help="JSON on stdout, what is for people on stderr"
)


class Output:
    """Where a command with `--json` prints: `terminal` is for people, `data` for programs."""

    def __init__(self, as_json: bool, *, highlight: bool = True) -> None:
        from rich.console import Console

        self.as_json = as_json
        self.terminal: Console = Console(stderr=as_json, soft_wrap=True, highlight=highlight)

    def data(self, **line: Any) -> None:
        """One line of JSON, if it is asked for."""
        if self.as_json:
            print(json.dumps(line, ensure_ascii=False), flush=True)
