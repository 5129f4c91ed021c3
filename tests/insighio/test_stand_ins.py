"""The stand-ins behave as the field's classes do today: results, None, exceptions, times.

What they were compared with is in docs/insighio-stand-ins.md.
"""

from __future__ import annotations

import io
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_sim.console import Console
from host_sim.modem import Modem
from host_sim.sample import DEVICE_ID
from host_sim.site import Site
from tests.channel.test_control_channel import fake_broker
from tests.conftest import MakeSite
from tests.insighio.checks import MODEM_CHECKS, WIFI_CHECKS
from tests.insighio.stand_ins import MODEM_UART, POWER_KEY, tree
from tests.secrecy import WatchedSite

NOTHING = "No control message received"


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    with Console(tmp_path / "console") as made:
        yield made


def tar(files: dict[str, bytes]) -> bytes:
    """Plain members only, which is what the field's extraction reads."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


# Class by class


@pytest.mark.parametrize("check", MODEM_CHECKS, ids=lambda check: check.name)
def test_the_driver(tmp_path: Path, console: Console, check) -> None:
    files = tree("cellular")
    with Modem(ca=console.ca_pem, settle_s=0.2) as modem:
        site = Site(tmp_path, console, files, node={"uarts": {MODEM_UART: modem.port}})
        assert check.run(site, modem) == check.want


@pytest.mark.few(3)
@pytest.mark.parametrize("check", WIFI_CHECKS, ids=lambda check: check.name)
def test_the_client_on_wifi(tmp_path: Path, console: Console, check) -> None:
    site = Site(tmp_path, console, tree("wifi"))
    assert check.run(site, None) == check.want


# The whole node


def field_site(make_site: MakeSite, network: str, modem: Modem | None, **settings) -> WatchedSite:
    node = {"uarts": {MODEM_UART: modem.port}} if modem else {}
    site = make_site(tree(network, listen_ms=300, **settings), node=node, mpy=False)
    site.plain_on_purpose = True  # the field falls back to HTTP
    return site


@pytest.mark.parametrize("network", ["wifi", "cellular"])
def test_the_field_updates_itself(make_site: MakeSite, network: str) -> None:
    with Modem(registration_s=10) as modem:
        site = field_site(make_site, network, modem if network == "cellular" else None)
        new = {"lib/new.py": b"NEW = 1\n" * 300}
        fuid = site.ask(tar(new), "package.tar")
        run = site.run(timeout_s=60)
        assert run.names() == ["boot", "reset", "boot", "sleep", "flash"], run.output
        assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
        assert site.retained() is None
        assert site.flash_files()["/lib/new.py"] == new["lib/new.py"]
        assert not modem.files


def test_its_boot_py_runs_behind_ours(make_site: MakeSite) -> None:
    with Modem() as modem:
        files = tree("cellular", ours=True)
        site = make_site(files, node={"uarts": {MODEM_UART: modem.port}}, mpy=False)
        assert b"recovery" in site.files["/boot.py"]
        run = site.run(timeout_s=60)
    assert "[boot] Voltage OK" in run.output
    assert NOTHING in run.output


def test_a_watchdog_of_ten_seconds_and_six_kilobytes_a_second(make_site: MakeSite) -> None:
    """The driver feeds it through a long download, and while the file comes over the wire."""
    with Modem(bytes_per_s=6000, uart_bytes_per_s=6000, power_key=POWER_KEY) as modem:
        settings = {"_LIGHT_SLEEP_ON": True, "_WD_PERIOD": 10}
        site = field_site(make_site, "cellular", modem, **settings)
        site.ask(tar({"lib/new.bin": bytes(120_000)}), "package.tar")
        run = site.run(timeout_s=120, max_boots=1)
    assert run.names() == ["boot", "reset", "boot_limit", "flash"], run.output
    assert modem.now > 20_000
    assert len(site.flash_files()["/lib/new.bin"]) == 120_000


def test_what_the_field_can_not_download_is_asked_for_again(make_site: MakeSite) -> None:
    with Modem() as modem:
        modem.fail("AT+QHTTPGET", 504)
        site = field_site(make_site, "cellular", modem)
        fuid = site.ask(tar({"a": b"a"}), "package.tar")
        site.run(timeout_s=60)
        assert site.reports() == [{"e": 2, "i": fuid, "m": "can not download"}]
        assert site.retained() is not None
        assert site.run(timeout_s=60).names() == ["boot", "reset", "boot", "sleep", "flash"]


def test_a_batch_is_so_many_wakes_without_a_connection(make_site: MakeSite) -> None:
    with Modem() as modem:
        site = field_site(make_site, "cellular", modem, _BATCH_UPLOAD_MESSAGE_BUFFER=5)
        run = site.run(wakes=4, timeout_s=60)
        assert run.names().count("sleep") == 4
        assert not modem.heard
        site.run(timeout_s=60, cause="deepsleep")
        data = [m for m in site.console.messages(DEVICE_ID) if not m.topic.endswith("/stat")]
        assert sum("AT+QMTPUB" in command for command in modem.heard) == 5, data


@pytest.mark.parametrize(
    ("millivolts", "slept"), [("3400", 86_400_000), ("3550", 3_600_000), ("3900", None)]
)
def test_a_weak_battery_sleeps(make_site: MakeSite, millivolts: str, slept: int | None) -> None:
    with Modem() as modem:
        site = field_site(make_site, "cellular", modem)
        site.node.environ["BATTERY_MV"] = "3400"
        assert [e["ms"] for e in site.run().events if e["event"] == "sleep"] == [86_400_000]
        site.node.environ["BATTERY_MV"] = millivolts
        run = site.run(cause="deepsleep")
        (ms,) = (e["ms"] for e in run.events if e["event"] == "sleep")
        if slept:
            assert ms == slept
            assert not modem.heard
        else:
            assert "Battery recovered" in run.output
            assert ms <= 600_000


def test_a_node_that_is_always_on_has_a_watchdog(make_site: MakeSite) -> None:
    """It lives as long as it is fed; a modem that says nothing is waited for, and fed."""
    with Modem(power_key=POWER_KEY) as modem:
        site = field_site(make_site, "cellular", modem, _LIGHT_SLEEP_ON=True, _WD_PERIOD=10)
        modem.fail("AT+QMTSUB", "silence", times=None)
        looked = threading.Semaphore(0)
        site.node.log = lambda text: [looked.release() for _ in range(text.count(NOTHING))]

        def end() -> None:
            for _ in range(3):
                looked.acquire(timeout=20)
            site.node.cut_power()

        ender = threading.Thread(target=end)
        ender.start()
        run = site.run(timeout_s=60)
        ender.join()
    assert "wdt" not in run.names()
    assert run.output.count(NOTHING) >= 3
    assert modem.now > 100_000  # ten times as long as the watchdog waits


def test_a_data_partition_takes_the_flags(make_site: MakeSite) -> None:
    with Modem() as modem:
        files = tree("cellular") | {"data/kept": b""}
        site = make_site(files, node={"uarts": {MODEM_UART: modem.port}}, mpy=False)
        site.run(timeout_s=60, cause="deepsleep")
        output = site.node.exec(
            "import sys\nsys.path.append('/lib')\nimport utils\n"
            "print(utils.writeToFlagFile('/flag', 'x'), utils.readFromFlagFile('/flag'))"
        ).output
    assert "True x" in output
    assert "/data/flag" in site.flash_files()


def test_the_web_upload(make_site: MakeSite) -> None:
    archive = tar({"lib/new.py": b"NEW = 1\n"})
    site = field_site(make_site, "wifi", None)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(archive)

        threading.Thread(target=serve, daemon=True).start()
        site.node.environ["UPLOAD_PORT"] = str(server.getsockname()[1])
        run = site.run(timeout_s=60)
    assert "upload_ota: ({'success': True}, 200)" in run.output
    assert run.names()[:3] == ["boot", "reset", "boot"]
    assert "/lib/new.py" in site.flash_files()


@pytest.mark.slow
def test_the_client_on_wifi_listens_for_ten_seconds(make_site: MakeSite) -> None:
    site = make_site(tree("wifi"), mpy=False)
    begin = time.monotonic()
    run = site.run(timeout_s=60)
    assert NOTHING in run.output
    assert time.monotonic() - begin > 10


@pytest.mark.slow
def test_a_subscription_that_is_not_answered_never_ends(make_site: MakeSite) -> None:
    site = field_site(make_site, "wifi", None)
    with fake_broker(b"\x20\x02\0\0\x40\x02\0\1", close=False) as (port, _):
        site.configure(mqtt={"port": port})
        assert site.run(timeout_s=4).names() == ["boot", "timeout", "flash"]
