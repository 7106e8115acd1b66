"""A real Chromium for tests, and what it has rendered."""

from __future__ import annotations

import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = os.environ.get("BROWSER_PATH") or next(filter(None, map(shutil.which, NAMES)), None)
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=5000",
)
DARK = "--blink-settings=preferredColorScheme=0"
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (Debian: `chromium`)")


class Rendered(HTMLParser):
    """Counts the classes of elements in a rendered page; keeps its texts."""

    def __init__(self, dom: str) -> None:
        super().__init__()
        self.classes: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.links: list[str] = []
        self.styles: list[str] = []
        self.feed(dom)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.styles += [text for key, text in attrs if key == "style" and text]
        self.links += [link for key, link in attrs if key in ("href", "src") and link]
        self.classes += (dict(attrs).get("class") or "").split()

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def render(url: str, profile: Path, dark: bool = False) -> tuple[Rendered, list[str]]:
    """The page as it is once its scripts have run, and what they complained of."""
    done = subprocess.run(
        [
            str(CHROMIUM),
            *OPTIONS,
            *([DARK] if dark else []),
            f"--user-data-dir={profile}",
            "--dump-dom",
            url,
        ],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    return Rendered(done.stdout), [x for x in done.stderr.splitlines() if "CONSOLE" in x]


def screenshot(
    url: str, file: Path, profile: Path, width: int, height: int, dark: bool = False
) -> list[str]:
    """Write a picture of a page; returns what its scripts complained of.

    A window of headless Chromium is at least 500 pixels wide; ``width`` may be less.
    """
    options = [*OPTIONS, f"--window-size={width},{height}", f"--screenshot={file}"]
    if dark:
        options.append(DARK)
    done = subprocess.run(
        [str(CHROMIUM), *options, f"--user-data-dir={profile}", "--hide-scrollbars", url],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    return [x for x in done.stderr.splitlines() if "CONSOLE" in x]
