"""The page in chromium: what a person sees and does, with a mouse, a keyboard, and a phone."""

from __future__ import annotations

import base64
import random
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from host_sim import sample
from host_sim.console import Console
from host_sim.console.process_broker import reserved
from host_sim.sample import DEVICE_ID
from host_sim.site import Site
from host_sim.web import WebServer
from insigh_ota.package.build import build
from insigh_ota.package.sources import Selection
from tests.busy import factor
from tests.web.conftest import Open
from tests.web.fake import FakeConsole

PACKAGE = sample.tar_gz({"main.py": sample.main_py(2), "noise.bin": bytes(range(256)) * 40})
EVIL = "<img src=x onerror=window.hacked=1>"
# A page that listens in: each text that a state's badge shows, in order.
_WATCH = """() => {
  window.seen = [];
  new MutationObserver(() => {
    for (const badge of document.querySelectorAll("#rows .badge"))
      if (window.seen.at(-1) !== badge.textContent) window.seen.push(badge.textContent);
  }).observe(document.querySelector("#rows"), {subtree: true, childList: true,
    characterData: true});
}"""
_DROP = """([name, content]) => {
  const data = new DataTransfer();
  const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
  data.items.add(new File([bytes], name));
  for (const type of ["dragenter", "dragover", "drop"])
    document.body.dispatchEvent(
      new DragEvent(type, {dataTransfer: data, bubbles: true, cancelable: true}));
}"""


def drop(page: Page, name: str, content: bytes) -> None:
    """Drop a file somewhere on the page."""
    page.evaluate(_DROP, [name, base64.b64encode(content).decode()])


def row(page: Page, device_id: str):
    """A device's row."""
    return page.get_by_role("row").filter(has=page.get_by_text(device_id, exact=True))


def fleet(fake: FakeConsole, count: int) -> list[str]:
    """So many devices in some state each."""
    states = ("idle", "confirmed", "rolled back", "failed", "overdue", "requested")
    ids = [f"node-{n:05}" for n in range(count)]
    for n, device_id in enumerate(ids):
        fake.set(device_id, state=states[n % len(states)], last_contact=time.time() - n)
    return ids


# -- a node that updates while somebody watches ---------------------------------------------


@pytest.mark.parametrize("report, end", [("installed", "installed on trial"), ("confirmed",) * 2])
def test_an_update_is_watched(tmp_path: Path, open_page: Open, report: str, end: str) -> None:
    with (
        Console(tmp_path / "console", reports=report) as console,
        Site(tmp_path, console, config={"report": report}) as site,
        WebServer(console) as web,
    ):
        console.faults.drip = 6_000
        noise = random.Random(1).randbytes(30_000)
        package = sample.tar_gz({"main.py": sample.main_py(2), "noise.bin": noise})
        page = open_page(web.url)
        expect(page.get_by_text("none yet: add one")).to_be_attached()
        expect(row(page, DEVICE_ID)).to_contain_text("idle")
        page.evaluate(_WATCH)
        drop(page, "app 2.tar.gz", package)
        expect(page.locator("#packages li")).to_contain_text("app 2.tar.gz")
        page.get_by_role("button", name=f"Request for {DEVICE_ID}").click()
        expect(row(page, DEVICE_ID)).to_contain_text("requested")
        node = threading.Thread(target=site.run)
        node.start()
        try:
            expect(row(page, DEVICE_ID).locator(".badge")).to_have_text(end, timeout=120_000)
        finally:
            node.join()
        seen = page.evaluate("window.seen")
        percents = [int(text.split()[1]) for text in seen if text.startswith("downloading")]
        assert seen[0] in ("idle", "requested") and seen[-1] == end
        assert len(set(percents)) > 2 and percents == sorted(percents), seen
        if report == "installed":
            assert "confirmed" not in seen
        expect(row(page, DEVICE_ID).locator(".version")).to_have_text("app 2")
        expect(row(page, DEVICE_ID).locator(".contact")).to_contain_text(["ago", "now"][1])
        wire = page.locator("#timeline")
        for text in ("asked to take", "downloads", "request cleared", "applied"):
            expect(wire).to_contain_text(text)


def test_a_request_is_withdrawn(tmp_path: Path, open_page: Open) -> None:
    with Console(tmp_path / "console") as console, WebServer(console) as web:
        console.add_devices([(f"node-{n}", "a key", "a-channel") for n in range(3)])
        fuid = console.add_package(PACKAGE, "app.tar.gz").fuid
        console.request_many(["node-0", "node-1"], fuid)
        page = open_page(web.url)
        page.get_by_role("button", name="Cancel the request of node-0").click()
        expect(row(page, "node-0")).to_contain_text("idle")
        expect(row(page, "node-1")).to_contain_text("requested")
        assert not console.retained("node-0") and console.retained("node-1")
        page.get_by_label("Select all 3 devices").check()
        page.get_by_role("button", name="Cancel 1 request").click()
        expect(row(page, "node-1")).to_contain_text("idle")
        assert not console.retained("node-1")


# -- packages -------------------------------------------------------------------------------


def test_a_package_is_chosen_and_inspected(
    web: WebServer, fake: FakeConsole, open_page: Open
) -> None:
    page = open_page(web.url)
    package = build(
        Selection({"main.py": b"x = 1\n", EVIL: b"data"}, deleted={"old.py"}),
        sequence=7,
        board=EVIL,
        window=13,
    )
    page.locator("#file").set_input_files(
        {"name": "app.tgz", "mimeType": "application/gzip", "buffer": package}
    )
    expect(page.locator("#said")).to_contain_text("app.tar.gz is added")
    page.get_by_role("button", name="Inspect app.tar.gz").click()
    shown = page.get_by_role("dialog", name="app.tar.gz")
    for text in ("main.py", EVIL, "old.py", "deleted", "Sequence", "8 KB", "Restart points"):
        expect(shown).to_contain_text(text)
    page.keyboard.press("Escape")
    expect(shown).to_be_hidden()
    assert page.evaluate("window.hacked") is None


@pytest.mark.parametrize(
    "name, content, line",
    [
        ("holiday.tar.gz", b"GIF89a and so on", "holiday.tar.gz: no tar archive"),
        ("empty.tar.gz", b"", "empty.tar.gz: the file is empty"),
        (EVIL + ".zip", PACKAGE, EVIL),
        ("huge.tar.gz", bytes(3 << 20), "too large: 2,048 KB at most"),
    ],
)
def test_a_bad_file_gets_a_line(
    fake: FakeConsole, open_page: Open, name: str, content: bytes, line: str
) -> None:
    with WebServer(fake, upload_limit=2 << 20) as web:
        page = open_page(web.url)
        expect(page.locator("#link")).to_have_text("live")
        drop(page, name, content)
        expect(page.locator("#refused")).to_contain_text(line)
        assert not fake.packages() and page.evaluate("window.hacked") is None
        drop(page, "good.tar.gz", PACKAGE)
        expect(page.locator("#packages li")).to_have_count(1)
        expect(page.locator("#refused")).to_be_hidden()


# -- one, some, all -------------------------------------------------------------------------


def test_one_some_and_all_are_asked(web: WebServer, fake: FakeConsole, open_page: Open) -> None:
    ids = fleet(fake, 30)
    fuid = fake.add_package(PACKAGE, "app.tar.gz").fuid
    page = open_page(web.url)
    expect(page.get_by_role("button", name="Request", exact=True)).to_be_disabled()
    page.get_by_role("button", name=f"Request for {ids[0]}").click()
    expect(row(page, ids[0])).to_contain_text("requested")
    for device_id in ids[1:4]:
        page.get_by_label(f"Select {device_id}").check()
    page.get_by_role("button", name="Request for 3 devices").click()
    expect(row(page, ids[3])).to_contain_text("requested")
    page.get_by_label("Select all 30 devices").check()
    page.get_by_role("button", name="Request for 30 devices").click()
    # So many are asked about first.
    page.get_by_role("button", name="Leave it").click()
    assert len(fake.orders) == 2
    page.get_by_role("button", name="Request for 30 devices").click()
    sure = page.get_by_role("dialog")
    expect(sure).to_contain_text(f"Ask 30 devices to take app.tar.gz ({fuid})?")
    sure.get_by_role("button", name="Request for 30 devices").click()
    expect(page.locator("#said")).to_contain_text("requested for 30 devices")
    page.get_by_role("button", name="Cancel 30 requests").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel 30 requests").click()
    expect(page.locator("#said")).to_contain_text("withdrawn")
    assert [(what, len(whom), which) for what, whom, which in fake.orders] == [
        ("request", 1, fuid),
        ("request", 3, fuid),
        ("request", 30, fuid),
        ("cancel", 30, None),
    ]


def test_all_means_what_the_list_shows(web: WebServer, fake: FakeConsole, open_page: Open) -> None:
    ids = fleet(fake, 30)
    fake.add_package(PACKAGE, "app.tar.gz")
    page = open_page(web.url)
    page.get_by_role("button", name="failed 5").click()
    expect(page.locator("#rows tr")).to_have_count(5)
    page.get_by_label("Select all 5 matches").check()
    page.get_by_role("button", name="Request for 5 devices").click()
    expect(page.locator("#said")).to_contain_text("requested for 5 devices")
    assert fake.orders[0][1] == ids[3::6]
    # They are in another state now, and in no list of failed ones, but still selected.
    expect(page.locator("#none")).to_have_text("No device matches.")
    expect(page.locator("#picked")).to_have_text("5 selected devices not in this list")
    page.get_by_role("button", name="all 30").click()
    page.get_by_label("Search devices").fill("00007")
    expect(page.locator("#rows tr")).to_have_count(1)


def test_what_goes_wrong_is_said(web: WebServer, fake: FakeConsole, open_page: Open) -> None:
    fleet(fake, 2)
    fake.add_package(PACKAGE, "app.tar.gz")
    page = open_page(web.url)
    button = page.get_by_role("button", name="Request for node-00000")
    expect(button).to_be_enabled()
    fake.removed.add("node-00000")
    button.click()
    expect(page.locator("#said")).to_contain_text("node-00000' is not known")


# -- data is never HTML ---------------------------------------------------------------------


def test_texts_are_no_html(web: WebServer, fake: FakeConsole, open_page: Open) -> None:
    texts = (EVIL, "<script>window.hacked=1</script>", '"><svg onload=window.hacked=1>', "a b'\"&")
    for n, text in enumerate(texts):
        fake.set(f"{text}", state="failed", message=text, version=text, fuid=text, attempts=n)
    fake.add_package(PACKAGE, f"{EVIL}.tar.gz")
    page = open_page(web.url)
    expect(page.locator("#rows tr")).to_have_count(len(texts))
    drop(page, f"{EVIL}'\".tar.gz", PACKAGE)
    expect(page.locator("#packages li")).to_have_count(2)
    page.get_by_role("button", name=f"Inspect {EVIL}.tar.gz").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name=f"Request for {EVIL}").click()
    expect(row(page, EVIL)).to_contain_text("requested")
    page.locator("#search").fill(EVIL)
    for place in ("#rows", "#timeline", "#packages", "#package"):
        expect(page.locator(place)).to_contain_text(EVIL)
    assert page.locator("#rows img, #timeline img, #packages img, svg, main script").count() == 0
    assert page.evaluate("window.hacked") is None


# -- the connection -------------------------------------------------------------------------


def test_a_lost_connection_is_told_and_heals(fake: FakeConsole, open_page: Open) -> None:
    fleet(fake, 3)
    with WebServer(fake) as web:
        port = int(web.url.rstrip("/").rsplit(":", 1)[1])
        page = open_page(web.url)
        expect(page.locator("#link")).to_have_text("live")
        expect(page.locator("#lost")).to_be_hidden()
    with reserved(port):  # else another program may be given it meanwhile
        expect(page.locator("#lost")).to_contain_text("was lost at")
        expect(page.locator("#link")).to_have_text("not connected")
        page.get_by_role("button", name="Cancel the request of node-00000").or_(
            page.locator("#pause")
        ).first.click()
        fake.set("node-00001", state="downloading", percent=77)
        fake.set("new", state="idle")
        with WebServer(fake, port):
            expect(page.locator("#link")).to_have_text("live")
            expect(page.locator("#lost")).to_be_hidden()
            expect(row(page, "node-00001")).to_contain_text("downloading 77 %")
            expect(page.locator("#rows tr")).to_have_count(4)


def test_the_token_is_asked_for(fake: FakeConsole, open_page: Open) -> None:
    fleet(fake, 1)
    with WebServer(fake, token="a token of the test") as web:
        port = int(web.url.rstrip("/").rsplit(":", 1)[1])
        page = open_page(web.url, width=400)
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_have_text("That is not the token.")
        page.get_by_label("Token").fill("a token of the test")
        page.keyboard.press("Enter")
        expect(page.locator("#link")).to_have_text("live")
        assert page.url == web.url and page.evaluate("document.cookie") == ""
        other = open_page(f"{web.url}?token=a%20token%20of%20the%20test")
        expect(other.locator("#link")).to_have_text("live")
        assert other.url == web.url
    # Another console at the same place does not know the cookie of this one.
    with reserved(port), WebServer(fake, port, token="another token, longer"):
        expect(page.get_by_label("Token")).to_be_visible()


# -- with a phone, with a keyboard, in the dark ---------------------------------------------


@pytest.mark.parametrize("width", [320, 400, 768, 1024, 1240, 1280])
def test_nothing_is_wider_than_the_page(
    web: WebServer, fake: FakeConsole, open_page: Open, width: int
) -> None:
    fleet(fake, 12)
    fake.set("on-trial", state="installed on trial")
    long = "a-device-with-a-name-of-all-the-letters-that-there-are-" * 3
    fake.set(long, state="downloading", percent=100, version=long, fuid=long, message="x" * 200)
    fake.add_package(PACKAGE, "a_package_with_a_long_name_" * 4 + ".tar.gz")
    page = open_page(web.url, width=width)
    expect(row(page, long)).to_be_visible()
    page.get_by_label("Select node-00001").check()
    drop(page, "a-long-name-" * 10 + ".tar.gz", b"no package")
    expect(page.locator("#refused")).to_be_visible()
    inside, outside = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert inside <= outside
    spilt = page.evaluate(
        """() => [...document.querySelectorAll("#rows .badge, #rows button, #rows input")].filter(
          (each) => each.getBoundingClientRect().right >
            each.closest("td").getBoundingClientRect().right + 1).map((each) => each.outerHTML)"""
    )
    assert not spilt, spilt
    page.get_by_role("button", name="Inspect").click()
    box = page.get_by_role("dialog").bounding_box()
    assert box and box["x"] >= 0 and box["x"] + box["width"] <= width


def tab_to(page: Page, test: str) -> None:
    """Press Tab until the element that has the focus matches."""
    for _ in range(80):
        page.keyboard.press("Tab")
        found, ring = page.evaluate(
            """(test) => { const at = document.activeElement;
            const ring = getComputedStyle(at.closest(".drop") ?? at);
            return [at.matches(test), at === document.body || ring.outlineStyle !== "none"] }""",
            test,
        )
        assert ring, "the focus is not seen"
        if found:
            return
    raise AssertionError(f"Tab does not come to {test}")


def test_a_keyboard_is_enough(web: WebServer, fake: FakeConsole, open_page: Open) -> None:
    ids = fleet(fake, 14)
    page = open_page(web.url)
    # Else the choosers are intercepted only once the key is on its way.
    page.on("filechooser", lambda _: None)
    expect(page.locator("#rows tr")).to_have_count(14)
    tab_to(page, ".skip")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "devices"
    tab_to(page, "#file")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(
        {"name": "app.tar.gz", "mimeType": "application/gzip", "buffer": PACKAGE}
    )
    expect(page.locator("#packages li")).to_have_count(1)
    tab_to(page, "#packages button")
    page.keyboard.press("Enter")
    expect(page.locator("#contents")).to_be_visible()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.textContent") == "Inspect"
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.reload()
    expect(page.locator("#rows tr")).to_have_count(14)
    tab_to(page, "#all")
    page.keyboard.press("Space")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("Ask 14 devices")
    page.keyboard.press("Tab")
    tab_to(page, "#sure-yes")
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_contain_text("requested for 14 devices")
    assert fake.orders[0][1] == ids
    # What changes under the hands keeps the focus.
    tab_to(page, f"[aria-label='Cancel the request of {ids[2]}']")
    page.keyboard.press("Enter")
    expect(row(page, ids[2])).to_contain_text("idle")
    assert page.evaluate("document.activeElement.ariaLabel") == f"Request for {ids[2]}"


def test_each_control_has_a_name(web: WebServer, fake: FakeConsole, open_page: Open) -> None:
    fleet(fake, 3)
    fake.add_package(PACKAGE, "app.tar.gz")
    page = open_page(web.url)
    expect(page.locator("#rows tr")).to_have_count(3)
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    told = [
        (node["role"]["value"], node["name"]["value"])
        for node in nodes
        if any(p["name"] == "focusable" for p in node.get("properties", []))
        and node["role"]["value"] != "RootWebArea"
    ]
    assert len(told) > 15 and all(name for _, name in told), told
    for live in ("#said", "#link"):
        assert page.locator(live).get_attribute("role") == "status"
    assert page.locator("#lost").get_attribute("role") == "alert"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out(web: WebServer, fake: FakeConsole, open_page: Open, scheme: str) -> None:
    for state in ("idle", "requested", "downloading", "installed on trial", "confirmed"):
        fake.set(state, state=state, percent=5, version="1", fuid="2", message="why")
    for state in ("rolled back", "failed", "overdue"):
        fake.set(state, state=state, attempts=3, last_contact=1.0)
    page = open_page(web.url, color_scheme=scheme)
    expect(page.locator("#rows tr")).to_have_count(8)
    # By painting text and ground: colours here are mixed from others.
    faint = page.evaluate(
        """() => {
          const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
          const paint = (colours) => {
            canvas.clearRect(0, 0, 1, 1);
            for (const each of colours) { canvas.fillStyle = each; canvas.fillRect(0, 0, 1, 1); }
            return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
          };
          const light = (rgb) => {
            const [r, g, b] = rgb.map((v) => v / 255)
              .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const wrong = [];
          for (const at of document.querySelectorAll("body *")) {
            const own = [...at.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
            if (!own || !at.checkVisibility() || at.disabled) continue;
            if (at.matches(".hidden, .skip, option")) continue;
            const grounds = [];
            for (let up = at; up; up = up.parentElement)
              grounds.unshift(getComputedStyle(up).backgroundColor);
            const a = light(paint(grounds));
            const b = light(paint([...grounds, getComputedStyle(at).color]));
            const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            if (ratio < 4.5) wrong.push([at.className, at.textContent.slice(0, 30), ratio]);
          }
          return wrong;
        }"""
    )
    assert not faint, faint


# -- many -----------------------------------------------------------------------------------


def busy(fake: FakeConsole, ids: list[str], ended: threading.Event) -> Callable[[], None]:
    """All of them report a new percent, five times a second, until it ends."""

    def run() -> None:
        percent = 0
        while not ended.wait(0.2):
            percent = (percent + 1) % 101
            for device_id in ids:
                fake.set(device_id, state="downloading", percent=percent, last_contact=time.time())

    return run


#: Notes what each click of a person took until it was painted, in ms.
CLICKS = """() => {
  window.took = [];
  addEventListener("click", (event) => {
    requestAnimationFrame(() => setTimeout(() =>
      window.took.push(performance.now() - event.timeStamp)));
  }, {capture: true});
}"""


def test_200_devices_leave_the_page_quick(
    web: WebServer, fake: FakeConsole, open_page: Open
) -> None:
    ids = fleet(fake, 200)
    fake.add_package(PACKAGE, "app.tar.gz")
    page = open_page(web.url)
    expect(page.locator("#rows tr")).to_have_count(200)
    page.evaluate(CLICKS)
    ended = threading.Event()
    work = threading.Thread(target=busy(fake, ids, ended))
    work.start()
    try:
        expect(page.locator(".badge", has_text="downloading")).to_have_count(200)
        for n in range(15):
            page.get_by_label(f"Select {ids[n * 13]}").click()
            expect(page.locator("#request")).to_contain_text(f"Request for {n + 1} device")
        before = page.locator("#rows").text_content()
        changed = "before => document.querySelector('#rows').textContent !== before"
        page.wait_for_function(changed, arg=before)
    finally:
        ended.set()
        work.join()
    took = page.evaluate("window.took")
    print("clicks, ms:", [round(ms) for ms in took])
    assert len(took) == 15 and statistics.median(took) < 300 * factor(), took


@pytest.mark.slow
def test_10_000_devices_are_found(web: WebServer, fake: FakeConsole, open_page: Open) -> None:
    ids = fleet(fake, 10_000)
    fuid = fake.add_package(PACKAGE, "app.tar.gz").fuid
    page = open_page(web.url)
    expect(page.get_by_role("button", name="all 10,000")).to_be_visible(timeout=120_000)
    expect(page.locator("#part")).to_have_text("1–250 of 10,000")
    page.evaluate(CLICKS)
    ended = threading.Event()
    work = threading.Thread(target=busy(fake, ids[:1000], ended))
    work.start()
    try:
        page.get_by_role("button", name="Later").click()
        expect(page.locator("#part")).to_have_text("251–500 of 10,000")
        assert page.locator("#rows tr").count() == 250
        page.locator("#search").fill("node-0999")
        expect(page.locator("#rows tr")).to_have_count(10)
        page.locator("#search").fill("")
        page.get_by_label("Select all 10,000 devices").click()
        page.get_by_role("button", name="Request for 10,000 devices").click()
        page.get_by_role("dialog").get_by_role("button", name="Request for").click()
        expect(page.locator("#said")).to_contain_text(
            "requested for 10,000 devices", timeout=120_000
        )
    finally:
        ended.set()
        work.join()
    assert [(what, len(whom), which) for what, whom, which in fake.orders] == [
        ("request", 10_000, fuid)
    ]
    took = page.evaluate("window.took")
    print("clicks, ms:", [round(ms) for ms in took])
    assert statistics.median(took) < 500 * factor(), took


def test_the_timeline_can_be_held(web: WebServer, fake: FakeConsole, open_page: Open) -> None:
    fake.set("node", message="first")
    page = open_page(web.url)
    expect(page.locator("#timeline li")).to_have_count(1)
    page.get_by_role("button", name="Pause").click()
    fake.set("node", message="second")
    expect(page.get_by_role("button", name="Go on (1 new)")).to_be_visible()
    expect(page.locator("#timeline")).not_to_contain_text("second")
    page.get_by_role("button", name="Go on (1 new)").click()
    expect(page.locator("#timeline li").first).to_contain_text("second")
