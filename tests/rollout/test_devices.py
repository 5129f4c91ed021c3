"""The CSV of devices: every bad line is named, and no key is."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_sim.errors import SimError
from insigh_ota.rollout.devices import Device, digest, in_order, read


def csv(folder: Path, text: str | bytes) -> Path:
    path = folder / "fleet of München.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_columns_by_place_and_by_name(tmp_path: Path):
    plain = read(csv(tmp_path, "a,key a,c1,esp32\nb,k,c1\n\n"))
    assert plain == [Device("a", "key a", "c1", "esp32"), Device("b", "k", "c1")]
    named = "\ufeffid,board,extra,channel,key,report\r\na,esp32,x,c1,key a,confirmed\r\n"
    assert read(csv(tmp_path, named)) == [Device("a", "key a", "c1", "esp32", "confirmed")]


def test_a_report_by_place(tmp_path: Path):
    assert read(csv(tmp_path, "a,k,c,,confirmed\n")) == [Device("a", "k", "c", "", "confirmed")]
    with pytest.raises(SimError, match="line 2: report 'bla': installed or confirmed"):
        read(csv(tmp_path, "a,k,c\nb,k,c,x,bla\n"))


@pytest.mark.parametrize("credentials", [True, False])
def test_columns_in_any_order(tmp_path: Path, credentials: bool):
    """No key is taken for an id or a board: those are shown."""
    text = "Key,channel,board,Device_ID\nSECRET,c1,esp32,n1\n"
    assert read(csv(tmp_path, text), credentials=credentials) == [
        Device("n1", "SECRET", "c1", "esp32")
    ]


def test_keys_that_are_not_needed_are_not_shown(tmp_path: Path):
    (found,) = read(csv(tmp_path, "n1,SECRET,c1,esp32\n"), credentials=False)
    assert (found.id, found.board) == ("n1", "esp32")
    assert "SECRET" not in repr(found)
    with pytest.raises(SimError, match="name its columns") as caught:
        read(csv(tmp_path, "n1,SECRET\n"), credentials=False)
    assert "SECRET" not in str(caught.value)
    with pytest.raises(SimError, match="both id and device_id name a column"):
        read(csv(tmp_path, "id,device_id,key,channel\n7,n1,SECRET,c1\n"))
    with pytest.raises(SimError, match="no column id") as caught:
        read(csv(tmp_path, "name,key,channel\nn1,SECRET,c1\n"))
    assert [d.id for d in read(csv(tmp_path, "n1\nn2\n"), credentials=False)] == ["n1", "n2"]
    named = "id,board\nn1,esp32\n"
    assert read(csv(tmp_path, named), credentials=False) == [Device("n1", "", "", "esp32")]


def test_every_bad_line_is_named_and_no_key(tmp_path: Path):
    text = (
        "a,SECRET,c\nb,,c\n,SECRET,c\nx/y,SECRET,c\na,SECRET,c\nd,SECRET\ne,SEC\x07RET,c\nf,k,#\n"
    )
    with pytest.raises(SimError) as caught:
        read(csv(tmp_path, text))
    said = str(caught.value)
    assert "nothing was sent" in said and "SEC" not in said
    assert [f"line {n}:" in said for n in range(1, 9)] == [False] + [True] * 7
    assert "stands in line 1 as well" in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no devices"),
        ("id,key,channel\n", "no devices"),
        ("id,board\na,b\n", "no column key, channel"),
        (b"a,k\xff,c\n", "not UTF-8"),
        ('a,"k,c\n', "line 1"),
        ("a;k;c\n", "no key and no channel"),
        ("id,key,channel,report\na,k,c,maybe\n", "installed or confirmed"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, text: str | bytes, says: str):
    with pytest.raises(SimError, match=says):
        read(csv(tmp_path, text))


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(SimError, match="can not be read: No such file"):
        read(tmp_path / "none.csv")


def test_the_order_is_the_seeds_alone():
    fleet = [Device(f"n{n}", "k", "c", f"board{n % 2}") for n in range(40)]
    order = in_order(fleet, "s")
    assert order == in_order(fleet[::-1], "s") != in_order(fleet, "t")
    assert sorted(order) == ["board0", "board1"] and len(order["board0"]) == 20
    # Pinned: a state file has to mean the same with any later Python.
    assert order["board0"][:3] == ["n18", "n0", "n8"]


def test_a_fingerprint_of_all_but_the_keys():
    a, b = Device("a", "k", "c", "x"), Device("b", "k", "c", "x")
    assert digest([a, b]) == digest([b, Device("a", "other", "c", "x")])
    assert digest([a, b]) != digest([a, Device("b", "k", "c", "y")])
    assert digest([a, b]) != digest([a])


@pytest.mark.parametrize("line", ["{0},k,c", "a,{0},c", "a,k,{0}"])
def test_what_no_broker_takes(tmp_path: Path, line: str):
    with pytest.raises(SimError, match=r"line 1: the \w+ is longer than 1024 bytes"):
        read(csv(tmp_path, line.format("x" * 1025)))
    assert read(csv(tmp_path, line.format("x" * 1024)))
