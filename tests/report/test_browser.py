"""Both pages in a real browser: what HTML alone cannot tell. Needs the packages chromium and chromium-driver."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedlmg_client import page as client_page
from fedlmg_server.report import page
from tests.client.tiny_cache import make_cache
from tests.report.tiny import HOSTILE, make_workspace

webdriver = pytest.importorskip("selenium.webdriver")
if not (CHROMIUM := shutil.which("chromium")) or not (DRIVER := shutil.which("chromedriver")):
    pytest.skip("no chromium and chromedriver here", allow_module_level=True)

CONTRAST = """
const numbers = c => { const p = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  p.fillStyle = c; p.fillRect(0, 0, 1, 1); return [...p.getImageData(0, 0, 1, 1).data]; };
const light = c => { const f = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  return .2126 * f(c[0]) + .7152 * f(c[1]) + .0722 * f(c[2]); };
const behind = e => { let layers = [];
  for (; e; e = e.parentElement) layers.push(numbers(getComputedStyle(e).backgroundColor));
  return layers.reverse().reduce((b, l) => b.map((v, i) => v + (l[i] - v) * l[3] / 255), [255, 255, 255]); };
const texts = [...document.querySelectorAll('body *')]
  .filter(e => [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()));
return texts.map(e => { const a = light(numbers(getComputedStyle(e).color)), b = light(behind(e));
  return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.tagName, e.className, e.textContent.slice(0, 20)]; })
  .filter(each => each[0] < 4.5);
"""


@pytest.fixture(scope="module")
def browser() -> Iterator:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    texts = {
        "server": page.render(folder, make_workspace(folder)),
        "client": client_page.render(make_cache(folder / "cache")),
    }
    for name, html in texts.items():
        (folder / f"{name}.html").write_text(html)
    return {name: folder / f"{name}.html" for name in texts}


def emulate(browser, width: int = 1100, scheme: str = "light") -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@pytest.mark.parametrize("name", ["server", "client"])
def test_page_loads_without_errors_and_asks_the_network_for_nothing(browser, pages: dict[str, Path], name: str):
    browser.get_log("performance")

    browser.get(pages[name].as_uri())

    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert browser.get_log("browser") == []
    assert [url for url in asked if not url.startswith(("data:", "file:"))] == []
    assert len([url for url in asked if url.startswith("file:")]) == 1


@pytest.mark.parametrize("name", ["server", "client"])
def test_phone_needs_no_sideways_scrolling(browser, pages: dict[str, Path], name: str):
    emulate(browser, width=360)

    browser.get(pages[name].as_uri())

    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("name", ["server", "client"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_ground(browser, pages: dict[str, Path], name: str, scheme: str):
    emulate(browser, scheme=scheme)

    browser.get(pages[name].as_uri())

    assert browser.execute_script(CONTRAST) == []


@pytest.mark.parametrize("name", ["server", "client"])
def test_every_picture_is_drawn_and_has_a_text(browser, pages: dict[str, Path], name: str):
    browser.get(pages[name].as_uri())

    pictures = browser.execute_script("return [...document.images].map(i => [i.alt, i.naturalWidth])")
    assert [alt for alt, width in pictures if not alt or not width] == []


def test_scores_open_from_the_keyboard(browser, pages: dict[str, Path]):
    emulate(browser)
    browser.get(pages["server"].as_uri())
    browser.execute_script("document.querySelector('.strips input').focus()")

    browser.switch_to.active_element.send_keys(" ")

    assert "87.5 % for this class" in browser.find_element("css selector", ".scores").text


def test_everything_that_scrolls_is_reached_by_tab(browser, pages: dict[str, Path]):
    browser.get(pages["server"].as_uri())

    unreachable = browser.execute_script(
        "return [...document.querySelectorAll('.scroll')].filter(e => e.tabIndex != 0 || !e.ariaLabel).length"
    )
    assert unreachable == 0


def test_shown_table_is_that_of_the_results(browser, pages: dict[str, Path]):
    browser.get(pages["server"].as_uri())

    rows = browser.execute_script("return [...document.querySelectorAll('tr')].map(r => r.innerText)")
    assert [HOSTILE, "50.0", "62.7", "+12.7"] in [re.split(r"\s+", row)[:4] for row in rows]
