"""What a real browser makes of the page, and that it has nothing to complain of."""

import html
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.continued_evaluation import histories

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)


def in_browser(folder: Path, page: str, width: int, look: str) -> tuple[Any, list[str]]:
    """Opens the page in a frame of this width, and returns what `look` finds and the console.

    `look` is JavaScript: an expression of `view`, the frame's window.
    """
    outer = folder / "outer.html"
    outer.write_text(
        '<!doctype html><meta charset="utf-8"><iframe id="frame" style="border:0" height="900" '
        f'width="{width}" srcdoc="{html.escape(page)}"></iframe><pre id="found"></pre><script>'
        "onload = () => { const view = document.getElementById('frame').contentWindow;"
        f"const found = JSON.stringify({look});"
        "document.getElementById('frame').remove();"
        "document.getElementById('found').textContent = found; };</script>",
        "utf-8",
    )
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    ended = subprocess.run(
        [
            str(BROWSER),
            *flags,
            f"--user-data-dir={folder / 'profile'}",
            "--virtual-time-budget=10000",
            "--window-size=1600,1000",
            "--dump-dom",
            outer.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=240,
    )
    found = ended.stdout.partition('<pre id="found">')[2].partition("</pre>")[0]
    console = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(found) or "null"), console


LOOK = """(() => {
  const page = view.document, root = page.documentElement;
  const before = page.getElementById("metric-1").data[1].y[0];
  const pick = page.getElementById("slice");
  pick.value = "1";
  pick.dispatchEvent(new view.Event("change"));
  const rows = [...page.querySelectorAll("#drift-before .ytick text")];
  return {
    width: view.innerWidth,
    overflow: root.scrollWidth - root.clientWidth,
    drawn: [...page.querySelectorAll(".chart")].map((e) => e.querySelectorAll(".main-svg").length),
    cells: page.querySelectorAll(".heatmaplayer image").length,
    lines: page.querySelectorAll("#metric-1 .scatterlayer .js-line").length,
    other_slice: page.getElementById("metric-1").data[1].y[0] !== before,
    rows: rows.map((e) => e.textContent),
    wide: [...page.querySelectorAll(".chart svg.main-svg")].map((e) => e.clientWidth),
  };
})()"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on the PATH")
@pytest.mark.parametrize("width", [400, 1400])
def test_a_browser_draws_it_in_this_width_without_an_error(
    tmp_path: Path, path: Path, width: int
) -> None:
    found, console = in_browser(tmp_path, path.read_text("utf-8"), width, LOOK)
    assert console == []
    assert found["width"] == width
    assert found["overflow"] <= 0
    assert len(found["drawn"]) == 7 and all(found["drawn"])
    assert max(found["wide"]) <= width
    assert found["cells"] == 3
    assert found["lines"] >= 3
    assert found["other_slice"]
    shown = histories.ODD_COLUMN if width == 1400 else "compan…><i>&"
    assert found["rows"][0] == shown


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on the PATH")
def test_an_error_in_the_page_would_be_seen(tmp_path: Path) -> None:
    _, console = in_browser(tmp_path, "<script>missing()</script>", 400, "view.innerWidth")
    assert "missing is not defined" in console[0]
