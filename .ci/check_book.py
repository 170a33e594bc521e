"""Looks at the built book in headless Chromium: every page, as wide as a phone and as a screen, in light and in dark.

usage: check_book.py FOLDER    (where index.html is)

A page fails when it is wider than its window, when its text or a diagram's can hardly be told from the ground behind it
(WCAG 2.1, 1.4.3: a contrast of 4.5), when a picture is missing or has no text in its place, or when the browser complains.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

WIDTHS = [360, 1200]
SCHEMES = {"dark": 0, "light": 1}

# Loads each page into a frame of each width, one after the other, and leaves what it found as text in the document.
LOOK = """<!doctype html><meta charset="utf-8"><pre id="found">unfinished</pre><script>
const pages = PAGES, widths = WIDTHS, scheme = SCHEME;
const found = [];
const rgb = text => (text.match(/[0-9.]+/g) || []).map(Number);
const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
const ground = (element, window) => {
    for (let at = element; at; at = at.parentElement) {
        const colour = rgb(window.getComputedStyle(at).backgroundColor);
        if (colour.length === 3 || colour[3] > 0.5) return colour;
    }
    return [255, 255, 255];
};
function look(frame, page, width) {
    const document = frame.contentDocument, window = frame.contentWindow, root = document.documentElement;
    const say = what => found.push(`${page} at ${width} (${scheme}): ${what}`);
    if (!document.querySelector('main h1')) return say('there is no page');
    // mdBook cuts off what is too wide, so the page itself never is: look at its parts.
    for (const part of document.querySelectorAll('main > *'))
        if (part.getBoundingClientRect().right > width) say(`too wide: ${part.textContent.slice(0, 40)}`);
    const dark = ['navy', 'coal', 'ayu'].some(theme => root.classList.contains(theme));
    if (dark !== (scheme === 'dark')) say(`theme is ${root.className}`);
    for (const image of document.querySelectorAll('main img'))
        if (!image.naturalWidth || !image.alt) say(`picture ${image.src} is missing or has no text`);
    for (const figure of document.querySelectorAll('main figure')) {
        if (!figure.getAttribute('aria-label')) say('a figure has no text in its place');
        if (!figure.querySelector('svg') || figure.querySelector('svg').getBoundingClientRect().height < 100)
            say(`the figure "${figure.getAttribute('aria-label')}" is not to be seen`);
    }
    for (const text of document.querySelectorAll('main p, main li, main td, main figure.diagram text')) {
        const style = window.getComputedStyle(text);
        const colour = rgb(text.namespaceURI.endsWith('svg') ? style.fill : style.color);
        const seen = contrast(colour, ground(text, window));
        if (seen < 4.5) { say(`contrast ${seen.toFixed(1)}: ${text.textContent.slice(0, 40)}`); break; }
    }
}
async function all() {
    for (const page of pages) for (const width of widths) {
        const frame = document.createElement('iframe');
        frame.width = width; frame.height = 800;
        await new Promise(done => { frame.onload = done; frame.src = ROOT + page; document.body.append(frame); });
        await new Promise(done => setTimeout(done, 50));
        try { look(frame, page, width); } catch (error) { found.push(`${page} at ${width}: ${error}`); }
        frame.remove();
    }
    document.getElementById('found').textContent = JSON.stringify(found);
}
all();
</script>"""


def look(folder, pages, scheme, setting):
    script = LOOK.replace("PAGES", json.dumps(pages)).replace("WIDTHS", json.dumps(WIDTHS))
    script = script.replace("SCHEME", json.dumps(scheme)).replace("ROOT", json.dumps(folder.as_uri() + "/"))
    with tempfile.TemporaryDirectory() as work:
        file = pathlib.Path(work, "look.html")
        file.write_text(script)
        browser = subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
             f"--user-data-dir={work}/profile", f"--blink-settings=preferredColorScheme={setting}", "--window-size=1300,900",
             "--enable-logging=stderr", "--virtual-time-budget=600000", "--dump-dom", file.as_uri()],
            capture_output=True, text=True, timeout=300)
    answer = re.search(r'<pre id="found">(.*?)</pre>', browser.stdout, re.DOTALL)
    if not answer or answer[1] == "unfinished":
        return [f"the browser did not get to the end ({scheme}): {browser.stderr[-2000:]}"]
    text = answer[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    complaints = [line for line in browser.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(text) + complaints


def main():
    folder = pathlib.Path(sys.argv[1]).resolve()
    left_out = {"print.html", "404.html", "toc.html", "index.html"}
    pages = sorted(path.name for path in folder.glob("*.html") if path.name not in left_out)
    problems = [] if pages else [f"there are no pages in {folder}"]
    for scheme, setting in SCHEMES.items():
        problems += look(folder, pages, scheme, setting)
    for problem in problems:
        print(problem)
    if problems:
        return 1
    print(f"{len(pages)} pages looked at, {len(WIDTHS)} widths, {' and '.join(SCHEMES)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
