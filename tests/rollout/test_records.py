"""What a message says, and what that changes."""

from __future__ import annotations

import json

import pytest

from insigh_ota.rollout.gates import Tally
from insigh_ota.rollout.records import FINAL, Phase, Record, Sign, count, signs

REQUEST = b'[{"n":"e","v":0},{"n":"i","vs":"f1"},{"n":"t","vs":".tar"},{"n":"s","v":5}]'


def heard(leaf: str, payload: bytes, retained: bool = False) -> list:
    return signs(leaf, payload, "f1", retained=retained)


@pytest.mark.parametrize(
    ("payload", "sign"),
    [
        (b"", Sign.GONE),
        (b'[{"n":"e","v":1},{"n":"i","vs":"f1"}]', Sign.APPLIED),
        (b'[{"n":"i","v":"f1"},{"n":"e","vs":"1"}]', Sign.APPLIED),
        (b'[{"n":"e","v":2},{"n":"i","vs":"f1"},{"n":"m","vs":"x"}]', Sign.FAILED),
        (REQUEST, Sign.SENT),
        (REQUEST.replace(b"f1", b"f2"), Sign.OTHER),
    ],
)
def test_the_ota_topic(payload: bytes, sign: Sign):
    assert [one for one, _ in heard("ota", payload)] == [sign]


@pytest.mark.parametrize(
    "payload",
    [
        b"x",
        b"{}",
        b"[1]",
        b'[{"n":"e","v":1},{"n":"i","vs":"f2"}]',
        b"[" * 9999,
        b"\xff",
        b'[{"n":"e","vs":"%s"},{"n":"i","vs":"f1"}]' % (b"1" * 5000),
        b'[{"n":"e","v":[1]},{"n":"i","vs":"f1"}]',
    ],
)
def test_what_says_nothing(payload: bytes):
    assert not heard("ota", payload) and not heard("stat", payload)


def test_a_request_that_is_retained_and_a_report_that_is():
    assert heard("ota", REQUEST, retained=True) == [(Sign.RETAINED, "")]
    assert not heard("ota", b'[{"n":"e","v":1},{"n":"i","vs":"f1"}]', retained=True)


def test_the_stat_topic():
    assert heard("stat", REQUEST) == [(Sign.BEGUN, "")]
    end = b'[{"n":"e","v":1},{"n":"i","vs":"f1"},{"n":"c","vb":%s}]'
    assert heard("stat", end % b"true") == [(Sign.CONFIRMED, "")]
    assert heard("stat", end % b"false") == [(Sign.BEGUN, "")]  # on trial
    assert not heard("stat", b"") and not heard("stat", REQUEST.replace(b"f1", b"f2"))


def record(phase: Phase) -> Record:
    return Record(phase, 1.0, 1.0)


def test_an_update_as_it_goes():
    one = record(Phase.SENDING)
    steps = (
        (Sign.SENT, Phase.ASKED),
        (Sign.RETAINED, Phase.ASKED),
        (Sign.GONE, Phase.TAKEN),
        (Sign.APPLIED, Phase.INSTALLED),
        (Sign.GONE, Phase.INSTALLED),
        (Sign.FAILED, Phase.FAILED),
        (Sign.APPLIED, Phase.FAILED),
    )
    for now, (sign, phase) in enumerate(steps):
        one.hear(sign, float(now))
        assert one.phase is phase


@pytest.mark.parametrize("phase", sorted(FINAL))
@pytest.mark.parametrize("sign", Sign)
def test_an_end_is_an_end(phase: Phase, sign: Sign):
    one = record(phase)
    assert not one.hear(sign, 9.0) and one == record(phase)


def test_silent_with_the_request_there_or_taken():
    off, took, begun = (record(Phase.ASKED) for _ in range(3))
    off.hear(Sign.OVERDUE, 9.0)
    took.hear(Sign.OVERDUE_GONE, 9.0)
    begun.hear(Sign.BEGUN, 8.0)
    begun.hear(Sign.OVERDUE, 9.0)
    assert [one.phase for one in (off, took, begun)] == [Phase.SILENT, Phase.LOST, Phase.LOST]
    off.hear(Sign.APPLIED, 10.0)
    assert off.phase is Phase.INSTALLED


def test_a_node_that_tries_again_is_not_silent():
    one = record(Phase.ASKED)
    one.hear(Sign.BEGUN, 5.0)
    assert one.hear(Sign.BEGUN, 8.0) and (one.phase, one.since) == (Phase.TAKEN, 8.0)


def test_our_own_clear_is_not_the_nodes():
    one = record(Phase.WITHDRAWING)
    assert not one.hear(Sign.GONE, 2.0) and not one.begun
    one.hear(Sign.CLEARED, 3.0)
    assert one.phase is Phase.WITHDRAWN
    one.hear(Sign.FAILED, 4.0, "rolled back")  # it had committed before
    assert one.phase is Phase.FAILED


def test_a_record_is_written_and_read():
    one = Record(Phase.FAILED, 1.5, 2.5, 'a "quote"\n<script> ü', True, False, True, True)
    assert Record.from_json(json.loads(json.dumps(one.as_json()))) == one
    for wrong in (["gone", 1, 1, 0, ""], ["good", 1], ["good", "x", 1, 0, ""]):
        with pytest.raises((ValueError, TypeError)):
            Record.from_json(wrong)


def test_how_it_counts():
    tally = Tally(9)
    ends = (
        (Phase.FAILED, "rolled back"),
        (Phase.FAILED, "not enough space"),
        (Phase.LOST, ""),
        (Phase.SILENT, ""),
        (Phase.WITHDRAWN, ""),
        (Phase.ASKED, ""),
        (Phase.GOOD, ""),
    )
    for phase, text in ends:
        count(tally, Record(phase, 0, 0, text))
    assert tally == Tally(9, asked=6, good=1, done=5, grave=1, slight=1, lost=1, absent=1)
    seen = Tally(9)
    count(seen, Record(Phase.FAILED, 0, 0, "rolled back", seen=True))
    assert seen == Tally(9, asked=1, done=1)
