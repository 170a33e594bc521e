"""Checks a results folder of `lab compare`: that what it says is complete, agrees with itself and can be looked at.

usage: check_results.py FOLDER [--runs N] [--measured NAME,...] [--emulated] [--render]

  --runs N            N timed samples of every measured contender
  --measured NAME,... these contenders must have run; a skip of one of them is an error
  --emulated          they come from the testbed, and summary, charts and report say so
  --render            draw every chart with rsvg-convert and look at the pixels
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
import zlib

SCHEMA = 1
PROVENANCE = ["date", "cpu", "kernel", "kvm_backend", "cgroup_mode", "load", "workload_sha256", "kernel_sha256"]
# What `vmm run` gives a guest unless told otherwise.
GUEST_MEMORY = 64 << 20
CHARTS = ["startup.svg", "phases.svg", "memory.svg"]

problems = []


def check(holds, problem):
    if not holds:
        problems.append(problem)
    return holds


def read_json(path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        check(False, f"{path.name}: {error}")
        return None


def check_summary(summary, asked):
    check(summary.get("schema") == SCHEMA, f"schema is {summary.get('schema')!r}, not {SCHEMA}")
    for name in PROVENANCE:
        check(summary["provenance"].get(name) not in (None, "", "unknown"), f"provenance does not say its {name}")
    contenders = {contender["name"]: contender for contender in summary["contenders"]}
    for name in asked:
        check(contenders.get(name, {}).get("status") == "measured", f"{name} was not measured: {contenders.get(name)}")
    hashes, checksums = set(), set()
    for name, contender in contenders.items():
        if contender["status"] == "skipped":
            check(contender.get("reason"), f"{name} is skipped without a reason")
            check(contender.get("fix"), f"{name} is skipped without a fix")
            continue
        check(contender["status"] == "measured", f"{name} has the unknown status {contender['status']!r}")
        for figure in ["startup_ns", "total_ns"]:
            values = contender.get(figure) or {}
            ordered = [values.get(key) for key in ["min", "p50", "p90", "max"]]
            ordered = [value for value in ordered if value is not None]
            check(len(ordered) >= 2 and ordered == sorted(ordered) and ordered[0] > 0, f"{name}: {figure} is {values}")
        if contender.get("startup_ns") and contender.get("total_ns"):
            check(contender["startup_ns"]["min"] <= contender["total_ns"]["min"], f"{name} ended before it began")
        # The floor under every VM's start runs no workload.
        if name != "vm-empty":
            hashes.add(contender.get("workload_sha256"))
            checksums.add(contender.get("checksum"))
    measured = [name for name, contender in contenders.items() if contender["status"] == "measured"]
    check(measured, "nobody was measured")
    check(len(hashes) == 1 and None not in hashes, f"the workload's bytes differ or are not known: {hashes}")
    check(len(checksums) == 1 and None not in checksums, f"the checksums differ or are not known: {checksums}")
    for name in {"vm", "container"} & set(measured):
        check(contenders[name]["phases"], f"{name} has no phases")
    if "vm" in measured:
        check_guest_memory(contenders["vm"].get("memory") or {})
    for comparison in summary["comparisons"]:
        low, high = comparison["ci95"]
        check(0 < low <= comparison["ratio"] <= high, f"ratio outside its interval: {comparison}")
    against_process = {comparison["a"] for comparison in summary["comparisons"] if comparison["b"] == "process"}
    if "process" in measured:
        check(set(measured) - {"process"} <= against_process, f"only {against_process} are compared with process")
    check(summary.get("null_test") is not None, "there is no null test")
    return contenders, measured


def check_guest_memory(memory):
    configured, touched = memory.get("guest_configured_bytes"), memory.get("guest_touched_bytes")
    if configured is None or touched is None:
        check(memory.get("note"), "the guest's memory is not known, and no note says why")
        return
    check(configured == GUEST_MEMORY, f"the guest may use {configured} bytes, not the {GUEST_MEMORY} it was given")
    held = (memory.get("unique_bytes") or 0) + (memory.get("shared_bytes") or 0)
    check(0 < touched <= held, f"the guest touched {touched} bytes of the {held} its VMM holds")


def check_emulated(folder, summary):
    check(summary["provenance"].get("emulated") is True, "the summary does not say that the CPU is emulated")
    for name in ["report.html", *("charts/" + chart for chart in CHARTS)]:
        # A caption is broken into lines.
        text = re.sub(r"<[^>]*>|\s+", " ", (folder / name).read_text())
        check("Emulated CPU: ratios only" in " ".join(text.split()), f"{name} does not say that the CPU is emulated")


def check_samples(folder, contenders, measured, runs):
    timed = {}
    for number, line in enumerate((folder / "samples.jsonl").read_text().splitlines(), 1):
        try:
            sample = json.loads(line)
        except ValueError as error:
            check(False, f"samples.jsonl, line {number}: {error}")
            continue
        if sample["purpose"] == "timed":
            timed.setdefault(sample["contender"], []).append(sample)
        first = sample.get("first_byte_ns")
        if first is not None:
            check(sample["start_ns"] < first <= sample["end_ns"], f"samples.jsonl, line {number}: out of order")
    for name in measured:
        samples = timed.get(name, [])
        said = contenders[name]["startup_ns"]["n"]
        check(len(samples) >= said, f"{name}: n is {said}, samples.jsonl has {len(samples)} timed ones")
        fastest = min((s["first_byte_ns"] - s["start_ns"] for s in samples if s.get("first_byte_ns")), default=None)
        check(fastest == contenders[name]["startup_ns"]["min"], f"{name}: min is not the fastest sample, {fastest} ns")
        if runs:
            check(said == runs, f"{name}: {said} timed runs, not {runs}")


def pixels(png):
    """The decompressed picture data: PNG specification, chunks of length, type, data, checksum after 8 bytes."""
    data, at, found = png.read_bytes(), 8, b""
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            found += data[at + 8 : at + 8 + length]
        at += 12 + length
    return zlib.decompress(found)


def check_charts(folder, render):
    for name in CHARTS:
        path = folder / "charts" / name
        try:
            svg = ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError) as error:
            check(False, f"charts/{name}: {error}")
            continue
        check(svg.tag == "{http://www.w3.org/2000/svg}svg", f"charts/{name} is no SVG")
        words = " ".join("".join(svg.itertext()).split())
        check(len(words) > 100, f"charts/{name} has hardly any text: {words!r}")
        check(not re.search(r"\bNaN\b|\binf\b", path.read_text()), f"charts/{name} has a coordinate that is no number")
        if not render:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            png = pathlib.Path(temporary) / "chart.png"
            command = ["rsvg-convert", "--width", "800", "--keep-aspect-ratio", "--output", str(png), str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if check(done.returncode == 0, f"charts/{name}: rsvg-convert: {done.stderr.strip()}"):
                # A blank picture has one or two byte values; text and lines with soft edges have dozens.
                check(len(set(pixels(png))) > 32, f"charts/{name} is drawn blank")


def check_report(folder, contenders):
    path = folder / "report.html"
    if not check(path.is_file(), "there is no report.html"):
        return
    text = path.read_text()
    check(len(text) > 5000, f"report.html has {len(text)} characters only")
    check(text.lower().count("<script") <= 1, "report.html has another script than the one it is known to have")
    # Whatever a browser would fetch: only places in the page itself and data inside it are allowed.
    fetched = re.findall(r"""(?:src|srcset|data|poster|xlink:href)\s*=\s*["']([^"']*)["']""", text)
    fetched += re.findall(r"""<(?:link|use|image)\b[^>]*href\s*=\s*["']([^"']*)["']""", text)
    fetched += re.findall(r"""url\(\s*["']?([^"')]*)""", text) + re.findall(r"@import[^;]*", text)
    outside = [target for target in fetched if not target.startswith(("#", "data:"))]
    check(not outside, f"report.html refers to {outside}")
    check(text.count("<svg") >= len(CHARTS), "report.html does not hold every chart")
    check(text.count("<table") >= len(CHARTS), "report.html does not hold a table for every chart")
    for name in contenders:
        check(name in text, f"report.html does not mention {name}")


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--runs", type=int)
    parser.add_argument("--measured", default="", type=lambda names: [name for name in names.split(",") if name])
    parser.add_argument("--emulated", action="store_true")
    parser.add_argument("--render", action="store_true")
    arguments = parser.parse_args()

    summary = read_json(arguments.folder / "summary.json")
    if summary:
        contenders, measured = check_summary(summary, arguments.measured)
        check_samples(arguments.folder, contenders, measured, arguments.runs)
        check_report(arguments.folder, contenders)
        skipped = [f"{name} ({entry.get('reason')})" for name, entry in contenders.items() if name not in measured]
        print(f"results: measured {', '.join(measured)}; skipped {', '.join(skipped) or 'nobody'}")
    if summary and arguments.emulated:
        check_emulated(arguments.folder, summary)
    check_charts(arguments.folder, arguments.render)
    for problem in problems:
        print(f"error: {arguments.folder.name}: {problem}", file=sys.stderr)
    return 1 if problems else 0


sys.exit(main())
