"""Each planted fault can still be planted: the code that it edits is there, once."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

from tests.mutants import Mutant

TESTS = Path(__file__).parents[1]


def found(value: object) -> Iterator[Mutant]:
    """The faults in a module's value."""
    if isinstance(value, Mutant):
        yield value
    elif isinstance(value, (list, tuple, set)):
        for each in value:
            yield from found(each)
    elif isinstance(value, dict):
        yield from found(list(value.values()))
    elif hasattr(value, "values") and hasattr(value, "marks"):  # a pytest.param
        yield from found(tuple(value.values))


def faults() -> list[Mutant]:
    users = [path for path in TESTS.rglob("*.py") if "Mutant" in path.read_text()]
    names = [".".join(path.relative_to(TESTS.parent).with_suffix("").parts) for path in users]
    modules = [importlib.import_module(name) for name in names if name != __name__]
    return list({id(m): m for each in modules for m in found(list(vars(each).values()))}.values())


def test_each_fault_can_be_planted(tmp_path: Path):
    """What is drawn of the slow tests may not be those that plant it."""
    wrong = []
    every = faults()
    for number, fault in enumerate(every):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            fault.plant(folder)
        except ValueError as error:
            wrong.append(f"{fault.name}: {error}")
    assert len(every) > 80
    assert not wrong, "\n".join(wrong)
