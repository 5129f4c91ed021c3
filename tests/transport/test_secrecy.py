"""The search that every end-to-end test ends with does find what it looks for."""

from __future__ import annotations

import pytest

from host_sim import sample
from host_sim.sample import DEVICE_KEY
from tests.conftest import MakeSite
from tests.secrecy import holds_key

SLEEP = "import machine\nmachine.deepsleep(1)\n"


@pytest.mark.parametrize(
    "code",
    [
        "print(ota.load_config())\n",
        "with open('/log.txt', 'w') as f:\n    f.write('dk=' + ota.load_config()['device_key'])\n",
        # Written, then removed: flash remembers.
        "import os\nf = open('/t', 'w'); f.write(ota.load_config()['device_key'] * 9); f.close()\n"
        "os.remove('/t')\n",
        "raise ValueError(ota.load_config()['device_key'])\n",
    ],
    ids=["printed", "in a file", "in a freed block", "in an exception"],
)
def test_a_leak_is_found(make_site: MakeSite, code: str):
    site = make_site({"main.py": ("import ota\n" + code + SLEEP).encode()})
    site.run()
    leaks = site.leaks()
    assert leaks
    site.leaks = lambda: []  # found as it should be; the test's own end need not fail


def test_shapes_of_the_key_are_recognised():
    assert holds_key(f"https://x/?dk={DEVICE_KEY}&cid=1")
    assert holds_key(DEVICE_KEY.replace("-", ""))
    assert not holds_key(sample.DEVICE_ID)


@pytest.mark.parametrize("text", ["can not", "no URL"])
def test_a_foreign_transport_may_quote_the_url_in_its_error(make_site: MakeSite, text: str):
    """What a hook raises is reported by its type, never by its text."""
    main = f"""
import ota
def open_stream(url):
    raise ValueError("{text} " + url)
agent = ota.Agent(ota.load_config(), open_stream=open_stream)
print("check:", agent.check(), agent.reason)
"""
    site = make_site({"main.py": (main + SLEEP).encode()}, config={"max_attempts": 1})
    site.ask(sample.tar_gz({"x.py": b"x"}))
    assert "check: failed can not download: ValueError" in site.run().output
    assert site.reports()[0]["m"] == "can not download: ValueError"
