"""Opens a report in Chromium without a screen: no error on the console, nothing wider than the page at 360, 800 and 1600
pixels, in light and dark; tables sort, the axis switches, the chart can be read; and the page is whole without script.

usage: check_report.py REPORT [--screenshots FOLDER]
"""

import argparse
import html
import json
import pathlib
import re
import subprocess
import sys
import tempfile

WIDTHS = [360, 800, 1600]
# Runs in a page around the report, which is in a frame as wide as the window asked for: Chromium's own windows have a
# least width above that of a telephone.
PROBE = """
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {
  const page = frame.contentDocument, root = page.documentElement, found = {};
  const wide = [...page.querySelectorAll("body *")].filter((e) =>
    !e.closest(".wide") && e.getBoundingClientRect().right > root.clientWidth + 0.5);
  found.overflow = root.scrollWidth - root.clientWidth;
  found.wide = wide.slice(0, 5).map((e) => e.tagName + " " + e.className + " " + e.textContent.slice(0, 40));
  found.background = frame.contentWindow.getComputedStyle(page.body).backgroundColor;
  found.charts = [...page.querySelectorAll("figure")].filter((e) => e.offsetHeight > 100).length;
  const head = page.querySelector(".figures th button");
  found.script = !!page.querySelector(".hover");
  if (found.script) {
    // A report of words alone has no table to sort.
    found.sorts = true;
    if (head) {
      const rows = () => [...head.closest("table").tBodies[0].rows].map((row) => row.cells[0].textContent);
      head.click(); const up = rows(); head.click(); const down = rows();
      found.sorts = up.length < 2 || JSON.stringify(up) === JSON.stringify([...down].reverse());
    }
    const point = (svg, x, y) => svg.dispatchEvent(new frame.contentWindow.PointerEvent("pointermove",
      { clientX: x, clientY: y }));
    const axis = page.querySelector("button.axis"), visible = () => !page.querySelector("figure.linear").hidden;
    if (axis) {
      const before = visible(); axis.click(); found.switches = !before && visible(); axis.click();
      const svg = page.querySelector("figure.log svg"), box = svg.getBoundingClientRect();
      point(svg, box.left + box.width / 2, box.top + 200);
      found.said = page.querySelector("figure.log .hover").textContent;
    }
    // Every other chart tells, where its first part is, what that part is.
    found.silent = [...page.querySelectorAll("figure[data-hints]")].filter((chart) => {
      const svg = chart.querySelector("svg"), box = svg.getBoundingClientRect();
      const [[left, top, right, bottom], text] = JSON.parse(chart.dataset.hints)[0];
      const scale = box.width / svg.viewBox.baseVal.width;
      point(svg, box.left + (left + right) / 2 * scale, box.top + (top + bottom) / 2 * scale);
      return chart.querySelector(".hover").textContent !== text;
    }).length;
    found.read = page.querySelectorAll("figure[data-hints]").length;
  }
  const told = document.createElement("pre");
  told.id = "found"; told.textContent = JSON.stringify(found);
  document.body.append(told);
});
"""


def chromium(profile, *arguments):
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-dev-shm-usage", "--enable-logging=stderr"]
    command += [f"--user-data-dir={profile}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def wrapped(report, width, script):
    # Without "allow-scripts" a frame runs none: the page as a reader without script has it.
    sandbox = "" if script else ' sandbox="allow-same-origin"'
    frame = f'<iframe{sandbox} style="width:{width}px;height:1200px;border:0" srcdoc="{html.escape(report)}"></iframe>'
    return f'<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">{frame}<script>{PROBE}</script></body>'


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("report", type=pathlib.Path)
    parser.add_argument("--screenshots", type=pathlib.Path)
    arguments = parser.parse_args()
    report = arguments.report.read_text()
    raced = 'class="verdict"' in report
    problems = []
    with tempfile.TemporaryDirectory() as temporary:
        temporary = pathlib.Path(temporary)
        pages = [(width, dark, True) for width in WIDTHS for dark in (False, True)] + [(800, False, False)]
        for width, dark, script in pages:
            name = f"{width}-{'dark' if dark else 'light'}{'' if script else '-noscript'}"
            page = temporary / f"{name}.html"
            page.write_text(wrapped(report, width, script))
            options = ["--blink-settings=preferredColorScheme=0"] if dark else []
            done = chromium(temporary / "profile", *options, "--virtual-time-budget=5000", "--dump-dom", page.as_uri())
            told = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.S)
            if not told:
                problems.append(f"{name}: the page did not load: {done.stderr[-500:]}")
                continue
            found = json.loads(html.unescape(told[1]))
            print(f"{name}: {found}")
            said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
            # A frame that may run no script says so on the console; that is what was asked of it.
            said = [line for line in said if script or "allow-scripts" not in line]
            if said:
                problems.append(f"{name}: on the console: {said}")
            if found["overflow"] > 0 or found["wide"]:
                problems.append(f"{name}: wider than the page: {found}")
            if found["charts"] < (3 if raced else 1):
                problems.append(f"{name}: only {found['charts']} charts are seen")
            if found["script"] != script:
                problems.append(f"{name}: the script {'did not run' if script else 'ran'}")
            # A report without a race has no start-up chart to switch.
            if script and raced and not (found.get("switches") and "%" in found.get("said", "")):
                problems.append(f"{name}: switching or reading does not work: {found}")
            if script and not (found["sorts"] and found["read"] and not found["silent"]):
                problems.append(f"{name}: sorting or reading does not work: {found}")
            if arguments.screenshots:
                arguments.screenshots.mkdir(parents=True, exist_ok=True)
                picture = arguments.screenshots / f"{name}.png"
                chromium(temporary / "profile", *options, f"--screenshot={picture}", f"--window-size={max(width, 500)},1200", page.as_uri())
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


sys.exit(main())
