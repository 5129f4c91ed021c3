"""200 virtual nodes that update at once, and a page that shows all of them."""

from __future__ import annotations

import statistics
import threading

import pytest
from playwright.sync_api import expect

from host_sim.campaigns.fleet.crew import raise_file_limit
from host_sim.campaigns.fleet.mixed import Mixed, Result
from host_sim.web import WebServer
from tests.brokers import require_mosquitto
from tests.busy import factor
from tests.web.conftest import Open
from tests.web.test_page import CLICKS

NODES = 200


@pytest.mark.alone
@pytest.mark.timeout(1200)
def test_a_click_is_answered_while_200_nodes_update(open_page: Open) -> None:
    require_mosquitto()
    raise_file_limit()
    results: list[Result] = []
    with Mixed(NODES) as crew, WebServer(crew._console) as web:
        page = open_page(web.url)
        expect(page.locator("#rows tr")).to_have_count(NODES)
        work = threading.Thread(target=lambda: results.append(crew.run()))
        work.start()
        try:
            page.get_by_role("button", name="downloading").wait_for(timeout=600_000)
            page.evaluate(CLICKS)
            boxes = page.locator("#rows input")
            before = page.locator("#states").text_content()
            clicks = 0
            while work.is_alive() and clicks < 60:
                boxes.nth(clicks % NODES).click()
                clicks += 1
                page.wait_for_timeout(500)
            assert page.locator("#states").text_content() != before
        finally:
            work.join()
        took = page.evaluate("window.took")
        print(f"{len(took)} clicks, ms: median {statistics.median(took):.0f}, {sorted(took)[-5:]}")
        assert len(took) == clicks > 5
        assert statistics.median(took) < 300 * factor(), took
        assert results and not results[0].wrong, results
        # Each node that had something to fetch has told how it ended, and so does the page.
        done = page.get_by_role("button", name=f"installed on trial {NODES}")
        expect(done).to_be_visible(timeout=30_000)
