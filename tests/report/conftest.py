"""One browser for all tests of the page; where there is none, they say so."""

import json
import shutil

import pytest
from browser import SWITCHES, seen_by

from explain.report import write


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is in the dev extra")
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no Chromium with its driver: apt-get install chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for switch in (*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    try:
        running = webdriver.Chrome(options=options, service=Service(driver))
    except WebDriverException as error:
        pytest.skip(f"Chromium does not start here: {error.msg}")
    yield running
    running.quit()


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a page of these answers; what the browser complained of and asked for is held to nothing at the end."""

    path = tmp_path / "it.html"

    def open_page(told, **more):
        write(told, path, progress=False, **more)
        seen_by(browser)
        browser.get(path.as_uri())
        return browser

    yield open_page
    assert browser.get_log("browser") == []
    logged = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [found["params"] for found in logged if found["method"] == "Network.requestWillBeSent"]
    own = {found["request"]["url"] for found in asked if found["documentURL"] == path.as_uri()}
    assert {url for url in own if not url.startswith("data:")} == {path.as_uri()}
