"""A page in a real browser: scripts in it, and sliders moved."""

from __future__ import annotations

from typing import Any

SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1200,900"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


def script(browser: Any, text: str, *arguments: Any) -> Any:
    """What a script returns; ``one`` finds by a selector, ``all`` what is ``of`` each that is found."""
    short = "const one = (s) => document.querySelector(s);"
    short += " const all = (s, of = (e) => e.textContent) => [...document.querySelectorAll(s)].map(of);"
    return browser.execute_script(f"{short} {text}", *arguments)


def slide(browser: Any, which: str, value: float) -> None:
    """Move a slider, as a hand would."""
    move = "const s = one(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('input'))"
    script(browser, move, which, value)


def seen_by(browser: Any, width: int = 1200, scheme: str = "light", media: str = "") -> None:
    """A window of this width, by day or by night, or on paper, from now on."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
