"""A short run of the fuzzer, and the proof that it finds what it is for."""

from __future__ import annotations

import io
import re
import tarfile
import zlib
from pathlib import Path

import pytest

from host_sim import __main__ as command
from host_sim.campaigns.fuzz import corpus
from host_sim.campaigns.fuzz.campaign import Fuzzer
from host_sim.campaigns.fuzz.cli import share_out
from host_sim.campaigns.fuzz.device import TARGETS
from host_sim.errors import SimError
from host_sim.node import flash
from tests.mutants import Mutant

DOCUMENT = Path(__file__).parents[2] / "docs" / "fuzzing.md"
READER, INFLATE, HTTPS = "ota/tarfile_lite.py", "ota/package/inflate.py", "ota/https.py"
PAX = "ota/package/pax.py"
PLAN, WANTED = "ota/package/plan.py", "ota/package/wanted.py"
VETTING, REQUEST = "ota/package/vetting.py", "ota/request.py"

# Of each target, how many ways to end a run of some thousand cases has to meet: if the mutations
# lose their depth, most cases end alike.
LEAST_OUTCOMES = {
    "headers": 15,
    "sequences": 15,
    "streams": 15,
    "compressed": 9,
    "requests": 9,
    "responses": 13,
    "names": 5,
    "patches": 3,
    "indexes": 3,
    "records": 3,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "cases"), [("mpy", 16_000), pytest.param("py", 6_000, marks=pytest.mark.slow)]
)
def test_a_short_run(form: str, cases: int):
    """Both forms of the agent; other cases for each."""
    with Fuzzer(compiled=form == "mpy") as fuzzer:
        tallies = fuzzer.run(share_out(cases), seed=len(form), jobs=1)
    assert [str(failure) for tally in tallies for failure in tally.failures] == []
    assert {tally.target for tally in tallies} == set(TARGETS)
    assert sum(tally.cases for tally in tallies) == cases
    for tally in tallies:
        assert sum(tally.outcomes.values()) == tally.cases
        assert len(tally.outcomes) >= LEAST_OUTCOMES[tally.target], tally.outcomes
        assert 0 < tally.outcomes["read"] < tally.cases * 0.6, tally.outcomes


@pytest.fixture(scope="module")
def fuzzer():
    with Fuzzer() as shared:
        yield shared


@pytest.mark.check
def test_patches_indexes_and_records(fuzzer: Fuzzer):
    """The agent and the packager make the same of them, or both refuse."""
    cases = {"patches": 12_000, "indexes": 5_000, "records": 3_000}
    tallies = fuzzer.run(cases, seed=2, jobs=1)
    assert [str(failure) for tally in tallies for failure in tally.failures] == []
    for tally in tallies:
        assert tally.cases == sum(tally.outcomes.values()) == cases[tally.target]
        assert tally.outcomes["read"] > tally.cases / 4
        assert len(tally.outcomes) >= LEAST_OUTCOMES[tally.target], tally.outcomes


@pytest.mark.slow
def test_a_case_is_the_same_alone_and_among_others(fuzzer: Fuzzer):
    whole = fuzzer.part("sequences", 5, 0, 60)
    halves = fuzzer.part("sequences", 5, 0, 31)
    halves.add(fuzzer.part("sequences", 5, 31, 60))
    assert halves.outcomes == whole.outcomes
    for target in TARGETS:
        first, again = (fuzzer.replay(f"{target}/5/31") for _ in range(2))
        assert first == again
        assert first.outcome
        others = {
            fuzzer.replay(f"{target}/{seed}/{case}").data for seed, case in ((5, 32), (6, 31))
        }
        assert first.data not in others


def test_the_corpus_is_sound():
    """What is mutated is, unmutated, what CPython reads."""
    built = corpus.build()
    for data in built["streams"]["plain"]:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            assert archive.getmembers()
    for data in built["compressed"]["item"]:
        if data[:4] == b"\x1f\x8b\x08\0" and data[8:9] == b"\x78":  # microfreezer's
            assert zlib.crc32(data[8:-4]) == int.from_bytes(data[-4:], "big")
            data = data[8:-4]
        plain = b""
        while data:
            inflater = zlib.decompressobj(47)
            plain += inflater.decompress(data)
            assert inflater.eof
            data = inflater.unused_data
        with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
            assert archive.getmembers()


# -- the proof can fail --------------------------------------------------------------------------

FAULTS = [
    (
        Mutant(
            "PAX length believed",
            "a record that is shorter than it says is indexed beyond its end",
            "sequences",
            (
                (PAX, " or left > reader.left", ""),
                (PAX, "while left > 0:", "while False:"),
            ),
        ),
        "IndexError",
    ),
    (
        Mutant(
            "content beyond the size",
            "a member is read to the end of the archive",
            "headers",
            ((READER, "        if n > self.left:\n            n = self.left\n", ""),),
        ),
        "content",
    ),
    (
        Mutant(
            "the end is asked for again and again",
            "an archive that ends inside a member is waited for",
            "headers",
            (
                (
                    READER,
                    'if not n:\n                raise bad("ends inside a member")\n'
                    "            left -= n",
                    "left -= n",
                ),
            ),
        ),
        "Hang",
    ),
    (
        Mutant(
            "a little memory kept",
            "the reader remembers every archive",
            "headers",
            (
                (READER, "class TarReader:", "_kept = []\n\n\nclass TarReader:"),
                (READER, "        self.globals = {}\n", "        _kept.append(None)\n" * 2
                 + "        self.globals = {}\n"),
            ),
        ),
        "the heap grew",
    ),
    (
        Mutant(
            "early end of the deflate data",
            "DeflateIO's EOFError goes up",
            "compressed",
            ((INFLATE, "except (EOFError, OSError) as error", "except OSError as error"),),
        ),
        "EOFError",
    ),
    (
        Mutant(
            "parent folders",
            "a part `..` is a name like any other",
            "names",
            ((VETTING, 'if part == b"..":', 'if part == b"...":'),),
        ),
        "not normalised",
    ),
    (
        Mutant(
            "what lies in a protected folder",
            "only the protected path itself is refused",
            "names",
            ((VETTING, 'path[end : end + 1] in ("", "/")', 'path[end : end + 1] == ""'),),
        ),
        "a protected path",
    ),
    (
        Mutant(
            "pack of anything",
            "elements of the pack are taken for objects",
            "requests",
            ((REQUEST, "if not isinstance(entry, dict):", "if entry is None:"),),
        ),
        "AttributeError",
    ),
    (
        Mutant(
            "connection left open",
            "an answer that makes no sense leaves the socket open",
            "responses",
            (
                (
                    HTTPS,
                    "        except BaseException:\n            wire.close()\n",
                    "        except BaseException:\n",
                ),
            ),
        ),
        "left open",
    ),
    (
        Mutant(
            "a patch that goes on",
            "what a patch has behind its file is left out",
            "patches",
            (
                (WANTED, "            if self._patch:\n", "            if False:\n"),
                (WANTED, "if not self._left and self._patch:", "if False:"),
            ),
        ),
        "the packager makes something else",
    ),
    (
        Mutant(
            "a place outside the package",
            "places of an index are believed",
            "indexes",
            ((PLAN, "if not 0 < self._at <= self._most:", "if False:"),),
        ),
        "outside the package",
    ),
    (
        Mutant(
            "a record that is longer than its header",
            "a record is waited for behind the end of its header",
            "records",
            (
                (
                    PLAN,
                    "            if not n:\n                raise bad(",
                    "            if False:\n                raise bad(",
                ),
            ),
        ),
        "writes nothing",
    ),
]  # fmt: skip


@pytest.mark.few(2)
@pytest.mark.parametrize(("mutant", "what"), FAULTS, ids=[m.name for m, _ in FAULTS])
def test_each_planted_fault_is_found(mutant: Mutant, what: str, tmp_path: Path):
    """Within no more cases than the short run has of that target."""
    cases = share_out(16_000)[mutant.scenario]
    with Fuzzer(mutant.plant(tmp_path)) as fuzzer:
        failures = fuzzer.part(mutant.scenario, 1, 0, cases).failures
        assert failures
        assert what in failures[0].what
        if what != "the heap grew":  # that takes many
            assert fuzzer.replay(failures[0].replay).failure == failures[0]


# What the reader does with a damaged record of a PAX header.
_DAMAGED = '            raise bad("damaged PAX header")\n        matters = '
SILENT = [
    (
        "a loop that asks for nothing",
        ((PAX, _DAMAGED, "            continue\n        matters = "),),
        "hangs: no sign of life",
        'File "ota.package.pax", ',
    ),
    (
        "a crash of the interpreter",
        (
            (
                PAX,
                _DAMAGED,
                "            import uctypes\n\n"
                "            uctypes.bytearray_at(0, 8)[0]\n        matters = ",
            ),
        ),
        "the interpreter ended with status -11",
        "",
    ),
]


@pytest.mark.parametrize(
    ("name", "edits", "what", "shown"), SILENT, ids=[row[0] for row in SILENT]
)
@pytest.mark.slow
def test_silence_is_a_failure_too(name: str, edits: tuple, what: str, shown: str, tmp_path: Path):
    mutant = Mutant(name, name, "sequences", edits)
    with Fuzzer(mutant.plant(tmp_path), limit_s=3) as fuzzer:
        (failure,) = fuzzer.part("sequences", 1, 0, 2_000).failures
        assert failure.what.startswith(what)
        # Where the signal comes in the middle of a collection there is no memory for a traceback.
        for _ in range(3):
            replay = fuzzer.replay(failure.replay)
            assert replay.data
            assert replay.failure
            if shown in replay.failure.trace:
                return
    raise AssertionError(replay.failure)


def test_the_document_lists_targets_and_faults():
    text = DOCUMENT.read_text()
    assert re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", text, re.MULTILINE) == list(TARGETS)
    faults = re.findall(r"^\| (.+) \| `(\w+)` \|$", text, re.MULTILINE)
    assert faults == [(m.fault, m.scenario) for m, _ in FAULTS] + [
        (name, "sequences") for name, *_ in SILENT
    ]


# -- the command ---------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, str]:
    code = command.main(["fuzz", "--jobs", "1", *arguments])
    return code, capsys.readouterr().out


def test_the_command(capsys: pytest.CaptureFixture):
    code, out = run(capsys, "--cases", "500", "--seed", "3", "--target", "names")
    assert code == 0
    assert "seed 3, corpus " in out
    assert re.search(r"^\| names: .*\| 500 \|.*\| 0 \|$", out, re.MULTILINE)


def test_the_command_tells_of_a_failure_and_shows_it(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    mutant = next(m for m, _ in FAULTS if m.name == "parent folders")
    monkeypatch.setattr(flash, "FIRMWARE", mutant.plant(tmp_path))
    code, out = run(capsys, "--cases", "2000", "--target", "names")
    assert code == 1
    replay = re.search(r"^FAILED (names/1/\d+): Violation", out, re.MULTILINE)
    assert replay, out
    code, out = run(capsys, "--replay", replay[1])
    assert code == 1
    assert "000000  " in out
    assert "Violation: not normalised" in out
    monkeypatch.undo()
    code, out = run(capsys, "--replay", replay[1])
    assert code == 0
    assert "Refused: can not apply: " in out


def test_wrong_arguments_are_one_clear_line(fuzzer: Fuzzer, capsys: pytest.CaptureFixture):
    for wrong in ("names/1", "names/1/x", "nothing/1/1", ""):
        with pytest.raises(SimError, match="write TARGET/SEED/CASE"):
            fuzzer.replay(wrong)
    assert run(capsys, "--cases", "0")[0] == 2
