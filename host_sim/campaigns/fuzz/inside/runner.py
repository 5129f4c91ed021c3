# ruff: noqa: PTH123, UP031 - MicroPython, as on the node
"""Runs a range of cases of one target and tells the host, a JSON line at a time."""

import binascii
import gc
import io
import json
import sys

import answers
import archives
import messages
import reading
from chance import Chance
from ota.errors import OtaError
from rules import Violation, is_utf8

# What a rare reason costs in the table of outcomes is not the agent's.
_HEAP_SLACK = 4096
_MOST_FAILURES = 10


def _target(name, corpus):
    """(makes a case, reads it) of a target."""
    if name == "headers":
        return archives.header_case, reading.read_headers
    if name == "sequences":
        return archives.sequence_case, reading.read_headers
    if name == "streams":
        return archives.stream_case, reading.read_archive
    if name == "compressed":
        return archives.compressed_case, reading.read_archive
    if name in ("patches", "indexes", "records"):
        import patching  # what it loads takes memory that the other targets need

        if name == "patches":
            return patching.patch_case, patching.read_patch
        if name == "indexes":
            return patching.index_case, patching.read_index
        return patching.record_case, patching.read_record
    if name == "requests":
        return messages.message_case, messages.read_request
    if name == "responses":
        return messages.message_case, answers.answer_reader(corpus)
    return messages.name_case, messages.read_name


def _load(path):
    """The corpus of a target: {kind: [bytes, …]} from lines of `kind base64`."""
    corpus = {}
    with open(path) as file:
        for line in file:
            kind, _, text = line.partition(" ")
            corpus.setdefault(kind, []).append(binascii.a2b_base64(text))
            line = text = None
            gc.collect()  # else what stays would lie scattered over the whole heap
    return corpus


def _tell(**line):
    print(json.dumps(line))


def _outcome(error):
    """A refusal without what varies in it."""
    if not is_utf8(str(error).encode()):
        raise Violation("a reason that no report can carry: %r" % str(error))
    words = ["#" if word[:1].isdigit() else word for word in str(error).split(" ")]
    return " ".join(words[: 7 if words[3:5] == ["bad", "archive,"] else 5])[:60]


def _trace(error):
    text = io.StringIO()
    sys.print_exception(error, text)
    return text.getvalue()


def run(target, seed, first, last, batch, corpus, show=False):
    """Run the cases from first up to, not including, last.

    A line {"at", "heap"} before every `batch` cases, {"failed", "what", "trace"} for each failure,
    {"end", "outcomes"} at the end. show: also {"data"} and {"outcome"} of each case.
    """
    corpus = _load(corpus)
    make, read = _target(target, corpus)
    chance = Chance(seed, target)
    outcomes = {}
    base = 0
    failures = 0
    for case in range(first, last):
        if (case - first) % batch == 0:
            data = None
            gc.collect()
            heap = gc.mem_alloc()
            _tell(at=case, heap=heap)
            if case == first + batch:
                base = heap  # by now everything is imported and has run
            elif base and heap > base + _HEAP_SLACK:
                grown = "the heap grew from %d to %d since case %d" % (base, heap, first + batch)
                _tell(failed=case, what=grown, trace="")
                break
        chance.begin(case)
        data = b""
        try:
            data = make(chance, corpus)
            if show:
                _tell(data=binascii.hexlify(data).decode())
            try:
                ended = outcome = read(data, chance)
            except OtaError as error:
                outcome = _outcome(error)
                ended = _trace(error) if show else None
        except BaseException as error:
            _tell(failed=case, what=repr(error)[:300], trace=_trace(error))
            failures += 1
            if failures == _MOST_FAILURES:
                break
            continue
        if show:
            _tell(outcome=ended)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    _tell(end=case + 1, outcomes=outcomes)
