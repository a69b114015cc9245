"""Show a page in headless Chromium, in frames of several widths, and tell what is wrong with it there."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PROBE = """<script>addEventListener("load", () => {
const root = document.documentElement, all = selector => [...document.querySelectorAll(selector)];
all("details").forEach(each => each.open = true);
all("img").forEach(each => each.loading = "eager");
const coming = all("img").filter(e => !e.complete);  // decode() may wait for a frame that virtual time leaves out
Promise.all(coming.map(e => new Promise(done => e.onload = e.onerror = done))).then(() => parent.postMessage({
  width: innerWidth, client: root.clientWidth, scroll: root.scrollWidth,
  images: all("img").length, broken: all("img").filter(e => !e.complete || !e.naturalWidth).map(e => e.alt),
  small: all("SELECTOR").filter(e => e.clientWidth < LEAST).map(e => e.alt),
  outside: all("main *").filter(e => !e.closest(".scroll *, svg *") && e.getBoundingClientRect().right > innerWidth + 1)
    .map(e => e.outerHTML.slice(0, 80)),
  over: all("figure").filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.id)}, "*"));
});</script></body>"""
FRAMES = """<!DOCTYPE html><body><pre id="found"></pre><script>const found = [];
addEventListener("message", e => { found.push(e.data);
  document.getElementById("found").textContent = JSON.stringify(found); });</script>FRAMES</body>"""
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --enable-logging=stderr --v=0 --virtual-time-budget=8000 --dump-dom"
)


def browse(source, folder, widths=(1280, 390), selector="img", least_px=90):
    """Return what was broken, small, outside the page or over its neighbor at each width, and what the console said."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH: the page was not looked at in a browser")
    probe = PROBE.replace("LEAST", str(least_px)).replace("SELECTOR", selector)
    folder.joinpath("page.html").write_text(source.replace("</body>", probe), encoding="utf-8")
    frames = "".join(f'<iframe src="page.html" width="{width}" height="900"></iframe>' for width in widths)
    folder.joinpath("frames.html").write_text(FRAMES.replace("FRAMES", frames), encoding="utf-8")
    for attempt in range(3):  # its virtual time sometimes ends before a picture is decoded
        profile = f"--user-data-dir={folder / f'profile{attempt}'}"
        seen, console, problem = _look([CHROMIUM, *FLAGS.split(), profile, (folder / "frames.html").as_uri()])
        if set(seen) == set(widths):
            return seen, console
    # it is there: in continuous integration the page must be looked at
    return (pytest.fail if os.environ.get("CI") else pytest.skip)(f"Chromium did not show the page; {problem}")


def _look(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {}, [], repr(error)
    found = re.search(r'<pre id="found">(\[.*?\])</pre>', done.stdout, re.S)
    seen = {each["width"]: each for each in json.loads(html.unescape(found.group(1)))} if found else {}
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return seen, console, f"it ended with code {done.returncode}: {done.stderr[-500:]}"
