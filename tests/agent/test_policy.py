"""The application's say in when and whether: policy(request) answers go, later, or refuse."""

from __future__ import annotations

import pytest

from host_sim import sample
from tests.conftest import MakeSite

MAIN = """
import machine
import os
import ota

def policy(request):
    print("asked:", request.file_id, request.kind, request.size)
    answer = eval(os.getenv("ANSWER"))
    return answer(request) if callable(answer) else answer

agent = ota.Agent(ota.load_config(), policy=policy)
print("version VERSION:", agent.check(), agent.reason)
machine.deepsleep(1000)
"""
V1, V2 = (MAIN.replace("VERSION", str(n)).encode() for n in (1, 2))


def test_go(make_site: MakeSite):
    """It is asked once, with what the platform said of the package."""
    site = make_site({"main.py": V1})
    site.node.environ = {"ANSWER": "'go'"}
    data = sample.tar_gz({"main.py": V2})
    fuid = site.ask(data)
    run = site.run()
    assert "version 2: confirmed None" in run.output, run.output
    assert run.output.count("asked:") == 1
    assert f"asked: {fuid} .tar.gz {len(data)}\n" in run.output
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]


def test_later_counts_no_attempt_and_costs_nothing(make_site: MakeSite):
    site = make_site({"main.py": V1}, config={"max_attempts": 2})
    site.node.environ = {"ANSWER": "'later'"}
    fuid = site.ask(sample.tar_gz({"main.py": V2}))
    run = site.run(wakes=5)
    assert run.output.count("version 1: later the application's policy") == 5, run.output
    assert run.output.count("asked:") == 5
    assert run.ops == 0
    assert site.console.downloads == []
    assert site.reports() == []
    assert site.retained() == site.console.request_payload(fuid).encode()

    # Both attempts are left: the first of them fails, the second one brings it.
    site.node.environ = {"ANSWER": "'go'"}
    site.console.faults.status, site.console.faults.times = 503, 1
    run = site.run(wakes=2)
    assert "version 2: confirmed" in run.output, run.output
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]


GREEK = "μπαταρία στο 12 %"
REASONS = {
    "plain": ("battery at 12 %", "battery at 12 %"),
    "quotes": ('"it\'s" a {\\} [trap]', '"it\'s" a {\\} [trap]'),
    "unicode": (GREEK, GREEK),
    "lines": ("one\ntwo\tthree\r\n", "one\ntwo\tthree"),
    "no text": (None, "None"),
    "a number": (12, "12"),
    "bytes": (b"\xff", "b'\\xff'"),
    "very long": ("x" * 3000, "x" * 151),
    "very long unicode": ("µ" * 3000, "µ" * 151),
}


@pytest.mark.few(2)
@pytest.mark.parametrize("name", REASONS)
def test_refuse_is_final_and_tells_why(make_site: MakeSite, name: str):
    reason, told = REASONS[name]
    site = make_site({"main.py": V1})
    site.node.environ = {"ANSWER": repr(("refuse", reason))}
    fuid = site.ask(sample.tar_gz({"main.py": V2}))
    run = site.run(wakes=2)
    assert "version 1: failed refused: " in run.output, run.output
    assert "version 1: idle None" in run.output
    assert site.reports() == [{"e": 2, "i": fuid, "m": f"refused: {told}"}]
    assert site.retained() is None
    assert site.console.downloads == []
    assert site.flash_files() == site.files
    assert site.flash_folders() == site.folders


def test_a_refusal_that_can_not_be_told_yet(make_site: MakeSite):
    """It waits on flash, whatever is in it, and is told as it was."""
    reason = 'one\ntwo "three" ' + GREEK
    site = make_site({"main.py": V1}, mqtt_link="")
    site.node.environ = {"ANSWER": repr(("refuse", reason))}
    fuid = site.ask(sample.tar_gz({"main.py": V2}))
    assert site.mqtt_link is not None
    with site:
        # The request comes, and then nothing more goes either way.
        heard = 11 + 4 + len(site.console.topic(sample.DEVICE_ID))
        site.mqtt_link.profile = f"cut={heard + len(site.console.request_payload(fuid)) + 1}"
        run = site.run()
        assert "version 1: later can not connect: " in run.output, run.output
        assert site.reports() == []
        run = site.run()
    assert "version 1: failed refused: one\ntwo" in run.output, run.output
    assert site.reports() == [{"e": 2, "i": fuid, "m": f"refused: {reason}"}]
    assert site.retained() is None


NONSENSE = [
    "1 / 0",
    "lambda r: r.no_such_name",
    "None",
    "True",
    "'GO'",
    "''",
    "b'go'",
    "('refuse',)",
    "('refuse')",
    "['refuse', 'a list']",
    "()",
    "('go', 'now')",
    "('go', True)",
    "('go', -1)",
    "('stay', 12)",
    "(12, 12)",
    "lambda r: bytearray(1 << 40)",
]


def test_a_policy_that_raises_or_answers_nonsense_waits(make_site: MakeSite):
    """Nobody can tell what it meant: waiting loses nothing."""
    site = make_site({"main.py": V1})
    fuid = site.ask(sample.tar_gz({"main.py": V2}))
    for answer in NONSENSE:
        site.node.environ = {"ANSWER": answer}
        run = site.run()
        assert "ota: the policy hook failed, " in run.output, (answer, run.output)
        assert "version 1: later the application's policy" in run.output, answer
        assert run.ops == 0
    assert site.console.downloads == []
    assert site.reports() == []
    site.node.environ = {"ANSWER": "'go'"}
    assert "version 2: confirmed" in site.run().output
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
