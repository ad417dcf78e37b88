# SPDX-License-Identifier: Apache-2.0
"""A real browser without a window, and what can be asked of it: what it wrote on its console, whom it contacted, how its text is set."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
PATIENCE_S = 15.0

needs_chromium = [
    pytest.mark.debian,
    pytest.mark.skipif(
        not (CHROMIUM.exists() and DRIVER.exists()), reason="Debian packages chromium and chromium-driver are not installed"
    ),
]
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
_CONTRASTS = """
function channels(colour) { return colour.match(/[\\d.]+/g).map(Number); }
function over(top, below) { const a = top[3] ?? 1; return [0, 1, 2].map((c) => top[c] * a + below[c] * (1 - a)); }
function luminance(rgb) {
  const [r, g, b] = rgb.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function behind(element) {
  const layers = [];
  for (let each = element; each !== null; each = each.parentElement) layers.push(channels(getComputedStyle(each).backgroundColor));
  return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
}
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  const text = walker.currentNode.textContent.trim();
  if (text === "" || !element.checkVisibility({ visibilityProperty: true }) || element.closest(".heard-only, .skip, noscript")) continue;
  const style = getComputedStyle(element);
  const below = behind(element);
  const ink = over(channels(element instanceof SVGElement ? style.fill : style.color), below);
  const [light, dark] = [luminance(ink), luminance(below)].sort((a, b) => b - a);
  found.push([text.slice(0, 40), (light + 0.05) / (dark + 0.05)]);
}
return found;
"""


class Browser:
    """One browser; its log is kept whole, over all pages."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str, *, width: int = 1100, height: int = 900, scheme: str = "light") -> None:
        self.resize(width, height)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        self.driver.get(url)

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)  # type: ignore[no-untyped-call] # selenium's own

    def text(self, selector: str) -> str:
        """What a reader sees of an element, in one line; nothing of what is hidden."""
        return " ".join(str(self.run(f"return document.querySelector({json.dumps(selector)})?.innerText ?? ''")).split())

    def until(self, said: Callable[[], bool], what: str) -> None:
        """Wait, but not for ever."""
        end = time.monotonic() + PATIENCE_S
        while not said():
            assert time.monotonic() < end, f"the page never showed {what}; it shows: {self.text('body')[:600]}"
            time.sleep(0.1)

    def until_text(self, selector: str, text: str) -> None:
        self.until(lambda: text in self.text(selector), f"'{text}' in {selector}")

    def contacted(self) -> set[str]:
        """Every address that anything was asked of since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]  # type: ignore[no-untyped-call] # selenium's own
        return {message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"}

    def complaints(self) -> list[str]:
        """Everything on the console since the last call: errors, refusals of the policy, failed requests."""
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call] # selenium's own

    def contrasts(self) -> dict[str, float]:
        """Of every visible text with what is behind it (WCAG 2.2, 1.4.3)."""
        return {text: float(ratio) for text, ratio in self.run(_CONTRASTS)}

    def picture(self, path: Path) -> None:
        """The whole page."""
        width, height = self.run("return [window.innerWidth, document.documentElement.scrollHeight]")
        self.resize(width, height)
        self.driver.save_screenshot(str(path))


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        driver.set_page_load_timeout(PATIENCE_S)
        driver.set_script_timeout(PATIENCE_S)
        yield Browser(driver)
    finally:
        driver.quit()
