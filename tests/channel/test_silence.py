"""Silence proves nothing: what a node does while the broker has not sent what it retains."""

from __future__ import annotations

import json

import pytest

from host_sim import sample
from tests.channel.late_broker import REQUEST, LateBroker
from tests.channel.test_patience import BEGIN, at, remember
from tests.conftest import MakeSite

OTHER = b'[{"n":"e","v":0},{"n":"i","vs":"other"},{"n":"t","vs":".tar"},{"n":"s","v":10240}]'
OWED = f"""
from ota.install.transaction import exists, save
import machine

if machine.reset_cause() != 4 or not exists("/owed"):
    open("/owed", "w").close()
    save("NAME", TEXT)
{BEGIN}
for _ in range(3):
    tell(agent.check())
machine.deepsleep(1000)
"""


def owing(name: str, text: str) -> str:
    return OWED.replace("NAME", name).replace("TEXT", repr(text))


@pytest.mark.slow
def test_an_owed_report_does_not_leave_its_request(make_site: MakeSite):
    """Else the request that it ends would be heard later, done again, and told again."""
    with LateBroker("suback pong", 800) as broker:
        site = at(make_site, broker, owing("report", "2 fa8884d2 not enough space"))
        remember(site, 5, 50)
        broker.retained = REQUEST
        site.run(cause="deepsleep", timeout_s=60)
        report = b'[{"n":"e","v":2},{"n":"i","vs":"fa8884d2"},{"n":"m","vs":"not enough space"}]'
        assert broker.published == [b"", report]
        assert broker.retained == b""


def test_what_was_wiped_takes_no_place(make_site: MakeSite):
    """A request that is to be put back, and a newer one that the broker has not sent yet."""
    with LateBroker("suback pong", 800) as broker:
        site = at(make_site, broker, owing("request", REQUEST.hex()))
        remember(site, 5, 50)
        broker.retained = OTHER
        site.run(cause="deepsleep", timeout_s=60)
        assert broker.retained == OTHER


SERVE = """
import ota
ota.Agent(ota.load_config()).serve()
"""


@pytest.mark.slow
def test_a_node_that_stays_counts_its_attempts(make_site: MakeSite):
    """A package that is not there is told of, though each new connection begins with silence."""
    with LateBroker("suback pong", 300) as broker:
        site = at(make_site, broker, SERVE, retry_s=1)
        broker.retained = OTHER
        site.run(timeout_s=20)
        reports = [json.loads(p) for p in broker.published if p]
        assert [r[0]["v"] for r in reports] == [2], reports


@pytest.mark.slow
def test_a_broker_that_is_later_than_any_patience(make_site: MakeSite):
    """serve() hears its request, and never again before the commit: not fetched for ever."""
    with LateBroker("suback pong", 1800) as broker:
        site = at(make_site, broker, SERVE, timeout_s=1, max_attempts=2)
        package = site.console.add_package(sample.tar({"a.txt": b"a" * 3000}), "p.tar")
        broker.retained = site.console.request_payload(package.fuid).encode()
        site.run(timeout_s=25)
        assert len(site.console.downloads) == 3
        assert broker.retained == b""
        reports = [json.loads(payload) for payload in broker.published if payload]
        assert [report[0]["v"] for report in reports] == [2]
