"""A package through the modem: whatever its files, its server and its wire do."""

from __future__ import annotations

import pytest

from host_sim.node.node import run_code
from tests.conftest import FIRMWARE, MakeSite
from tests.insighio.fleet import ADAPTER, FIELD, check_updated, field_node, package

SCRIPT = """
import os, sys
os.mkdir("ufs")
import modem
modem.PLACE = "ufs/"
from modem import Modem, faults
from ota_insighio.channel_modem import ModemChannel
from ota_insighio.modem_file import ModemFile
from ota.request import Request

BODY = bytes(range(256)) * 5 + b"end"
urls = []
def fetch(url):
    urls.append(url)
    return 200, BODY

class Client:
    modem_instance = Modem(fetch)
    def connect(self): return True
    disconnect = connect

config = {"control_channel": "c", "device_id": "d"}
fed = []
channel = ModemChannel(Client(), config, lambda: fed.append(1))
channel._attached = True
channel.attach()
request = Request("f1", ".tar.gz", len(BODY))

def keep(name, content):
    with open("ufs/" + name, "wb") as file:
        file.write(content)

def kept():
    return sorted(os.listdir("ufs"))

def pull(file, n=512):
    got = b""
    buffer = bytearray(n)
    while True:
        count = file.readinto(buffer, n)
        if not count:
            return got
        got += buffer[:count]

def opened():
    return ModemFile(channel, "https://server/secret", request)
"""


def on_node(code: str, tmp_path) -> list[str]:
    """What code prints, without what the modem tells."""
    path = [FIRMWARE, ADAPTER, FIELD]
    result = run_code(SCRIPT + code, path=path, cwd=tmp_path)
    assert "secret" not in result.output  # the driver logs what it sends
    lines = result.output.splitlines()
    return [line for line in lines if not line.startswith(("AT:", "log:"))]


def test_it_comes_in_pieces_byte_for_byte(tmp_path) -> None:
    code = """
file = opened()
print(file.status_code, file.length == len(BODY), kept())
print(pull(file) == BODY, file.readinto(bytearray(1), 1), len(fed) > 4)
file.close()
print(kept())
file.delete()
print(kept(), len(urls))
"""
    assert on_node(code, tmp_path) == [
        "200 True ['f1.tar.gz']",
        "True 0 True",
        "['f1.tar.gz']",
        "[] 1",
    ]


def test_files_of_other_packages_go_and_others_stay(tmp_path) -> None:
    code = """
keep("old.tar", b"1")
keep("older.tar.gz", BODY)
keep("cacert.pem", b"2")
opened()
print(kept())
"""
    assert on_node(code, tmp_path) == ["['cacert.pem', 'f1.tar.gz']"]


@pytest.mark.parametrize(
    ("left", "gets"), [("BODY", 0), ("BODY[:-1]", 1), ("BODY + b'x'", 1), ("b''", 1)]
)
def test_only_a_complete_file_is_used_again(tmp_path, left: str, gets: int) -> None:
    code = f"""
keep("f1.tar.gz", {left})
print(pull(opened()) == BODY, len(urls))
"""
    assert on_node(code, tmp_path) == [f"True {gets}"]


@pytest.mark.parametrize(
    "fault",
    [
        {"most": 100},  # CONNECT 100 where 256 were asked for
        {"urc": True},  # +QIURC before each CONNECT
        {"lost_at": 2},  # the rest of a piece never comes
        {"reset_at": 3},  # the modem starts anew and has forgotten what was open
    ],
    ids=str,
)
def test_reads_that_go_wrong(tmp_path, fault: dict) -> None:
    code = f"""
faults.update({fault!r})
print(pull(opened()) == BODY, len(urls))
"""
    assert on_node(code, tmp_path) == ["True 1"]


def test_a_file_that_can_not_be_read_stays_for_the_next_wake(tmp_path) -> None:
    code = """
file = opened()
os.remove("ufs/f1.tar.gz")
try:
    pull(file)
except OSError as error:
    print("failed", error.args[0])
file.close()
keep("f1.tar.gz", BODY)
print(pull(opened()) == BODY, len(urls))
"""
    assert on_node(code, tmp_path) == ["failed 5", "True 1"]


def test_one_that_this_node_has_left_open_is_closed(tmp_path) -> None:
    code = """
pull(opened())  # and the node is reset here
print(pull(opened()) == BODY, len(urls))
"""
    assert on_node(code, tmp_path) == ["True 1"]


@pytest.mark.parametrize(
    ("fault", "out"),
    [
        ({"no_answer": True}, "failed 5 []"),
        ({"short": 300}, "failed 5 []"),
        ({"length": 77}, "200 77 []"),
    ],
    ids=str,
)
def test_downloads_that_go_wrong(tmp_path, fault: dict, out: str) -> None:
    code = f"""
faults.update({fault!r})
try:
    file = opened()
    print(file.status_code, file.length, kept())
except OSError as error:
    print("failed", error.args[0], kept())
"""
    assert on_node(code, tmp_path) == [out]


def test_a_page_of_the_server_is_no_package(tmp_path) -> None:
    code = """
Client.modem_instance.uart._fetch = lambda url: (504, b"x" * len(BODY))
file = opened()
print(file.status_code, kept())
"""
    assert on_node(code, tmp_path) == ["504 []"]


def test_a_message_in_between_is_heard(tmp_path) -> None:
    code = """
uart = Client.modem_instance.uart
file = opened()
file.readinto(bytearray(256), 256)
uart.say('+QMTRECV: 1,0,"channels/c/messages/d/ota","[1,"a"]"')
file.readinto(bytearray(256), 256)
uart.say('+QMTRECV: 1,0,"channels/c/messages/d/cmd","tare"')
file.close()
channel.cb = lambda topic, payload: print(topic.decode(), payload.decode())
print(channel.readable(0))
channel.wait_msg()
print(channel.readable(0), channel.others)
"""
    assert on_node(code, tmp_path) == [
        "True",
        'channels/c/messages/d/ota [1,"a"]',
        "False {b'channels/c/messages/d/cmd': b'tare'}",
    ]


# In whole updates


def test_a_504_leaves_the_request(make_site: MakeSite) -> None:
    site = field_node(make_site, True)
    brought, archive = package(site)
    fuid = site.ask(archive)
    site.console.faults.status = 504
    run = site.run(timeout_s=60)
    assert "log: OTA: later can not download: 504 from the server" in run.output, run.output
    assert site.reports() == []
    assert site.retained()
    site.console.faults.clear()
    site.run(timeout_s=60)
    after = {f"/{name}": content for name, content in brought.items()}
    flag = {"/ota_applied_flag": b"done"}
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    assert site.flash_files() == site.files | after | flag


def test_a_file_of_another_package_is_not_installed(make_site: MakeSite) -> None:
    """The field's updater installed what an earlier attempt had left, under the new id."""
    site = field_node(make_site, True, left={"fa8884d2.tar.gz": b"wrong"})
    brought, archive = package(site)
    fuid = site.ask(archive)
    site.run(timeout_s=60)
    del site.files["/ufs/fa8884d2.tar.gz"]
    check_updated(site, brought, fuid)


def test_a_package_that_is_there_is_not_fetched_again(make_site: MakeSite) -> None:
    """A wake ends in the middle of the download, or the broker is away before the commit."""
    site = field_node(make_site, True)
    brought, archive = package(site)
    fuid = site.ask(archive)
    total = site.run(timeout_s=60).ops
    site = field_node(make_site, True)
    brought, archive = package(site)
    fuid = site.ask(archive)
    run = site.run(cut=total // 2, timeout_s=60)
    assert run.exit_code == 3
    assert f"/ufs/{fuid}.tar.gz" in site.flash_files()
    site.run(wakes=2, timeout_s=60)
    check_updated(site, brought, fuid)
    assert len(site.console.downloads) == 1


def test_a_length_that_is_not_the_announced_one(make_site: MakeSite) -> None:
    site = field_node(make_site, True, {"length": 4711})
    _, archive = package(site)
    fuid = site.ask(archive)
    run = site.run(wakes=2, timeout_s=60)
    assert site.reports() == [{"e": 2, "i": fuid, "m": "can not download"}], run.output
    assert "bytes announced, the server has 4711" in run.output
    assert site.flash_files() == site.files
