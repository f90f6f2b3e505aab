"""The report as Markdown and JSON: results, targets, and the cases that were not measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .cases import TARGETS, Row

BEGIN, END = "<!-- figures of bench_gpu -->", "<!-- end of the figures -->"
COLUMNS = (
    ("net", "net", ""),
    ("library", "library", ""),
    ("precision", "precision", ""),
    ("size", "", ""),
    ("batch", "batch", "d"),
    ("compute ms", "compute_ms", ".3f"),
    ("latency ms", "latency_ms", ".3f"),
    ("p99 ms", "latency_p99_ms", ".3f"),
    ("images/s", "images_per_s", ".1f"),
    ("TFLOP/s", "tflops", ".1f"),
    ("of ceiling", "share", ".0%"),
    ("error", "error", ".1e"),
    ("labels equal", "equal_labels", ".2%"),
)


def build_report(
    results: Mapping[str, Mapping[str, Any]], machine: Mapping[str, Any], *, is_fake: bool = False
) -> dict[str, Any]:
    """Merge the workers' results.

    Args:
        results: worker -> content of its file: "rows", "ceilings" or "skipped".
        machine: description of the machine.
        is_fake: whether times are simulated.
    """
    ceilings = dict(results.get("matmul", {}).get("ceilings", {}))
    rows = [dict(row) for result in results.values() for row in result.get("rows", [])]
    for row in rows:
        ceiling = ceilings.get(row["precision"])
        row["share"] = row["tflops"] / ceiling if ceiling and row.get("tflops") else None
    measured = [row for row in rows if "skipped" not in row]
    disagreeing = [row for row in measured if not row["agrees"]]
    targets = [target.judge(measured, ceilings) for target in TARGETS]
    failed = results.get("tests", {}).get("tests", {}).get("failed", [])
    return {
        "schema_version": 1,
        "simulated": is_fake,
        "machine": dict(machine),
        "ceilings_tflops": ceilings,
        "rows": rows,
        "tests": dict(results.get("tests", {}).get("tests", {})),
        "caffe_parser": dict(results.get("caffe_parser", {})),
        "skipped": {name: result["skipped"] for name, result in results.items() if "skipped" in result},
        "targets": targets,
        "agrees": bool(measured) and not disagreeing,
        "passed": bool(measured) and not disagreeing and not failed and all(target["passed"] for target in targets),
    }


def write_report(report: Mapping[str, Any], folder: Path) -> None:
    """Write gpu-performance.json and gpu-performance.md atomically."""
    for name, text in (
        ("gpu-performance.json", json.dumps(report, indent=1) + "\n"),
        ("gpu-performance.md", write_markdown(report)),
    ):
        part = folder / f"{name}.part"
        part.write_text(text)
        part.replace(folder / name)


def write_markdown(report: Mapping[str, Any]) -> str:
    """Format the report as Markdown."""
    machine = ", ".join(f"{name} {value}" for name, value in report["machine"].items())
    lines = [f"Measured on: {machine}."]
    if report["simulated"]:
        lines.append("**Simulated: the times below come from a fake driver and mean nothing.**")
    rates = ", ".join(f"{name} {rate:.1f}" for name, rate in report["ceilings_tflops"].items())
    lines += ["", f"Matrix products, the ceiling (TFLOP/s): {rates or 'not measured'}.", "", "## Targets", ""]
    lines += ["| target | wanted | found | |", "|---|---|---|---|"]
    for target in report["targets"]:
        found = "-" if target["found"] is None else f"{target['found']:.3g}"
        verdict = {True: "reached", False: "MISSED", None: "not measured"}[target["passed"]]
        lines.append(f"| {target['target']} | {target['wanted']} | {found} | {verdict} |")
    lines += ["", "## Figures", "", write_table([row for row in report["rows"] if "skipped" not in row])]
    lines += _describe_tests(report["tests"])
    parser = report["caffe_parser"]
    if "error" in parser:
        verdict = "agrees" if parser["agrees"] else "DISAGREES"
        lines += ["", f"NVIDIA's own Caffe parser, fc8: {verdict}, error {parser['error']:.1e}."]
    missing = [f"{name}: {reason}" for name, reason in report["skipped"].items()]
    missing += [
        f"{row['library']}, {row['net']} {row['precision']} {row['batch']} x {row['height']}x{row['width']}: "
        f"{row['skipped']}"
        for row in report["rows"]
        if "skipped" in row
    ]
    if missing:
        lines += ["", "## Not measured", "", *(f"- {line}" for line in missing)]
    return "\n".join(lines) + "\n"


def update_page(report: Mapping[str, Any], page: Path) -> None:
    """Replace what is between the two comments of a Markdown page by the report; see `split_page`."""
    before, after = split_page(page)
    part = page.with_name(f"{page.name}.part")
    part.write_text(f"{before}{BEGIN}\n\n{write_markdown(report)}\n{END}{after}", encoding="utf-8")
    part.replace(page)


def split_page(page: Path) -> tuple[str, str]:
    """Return what is before and after the figures of a page; ValueError if it does not mark their place."""
    before, start, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"{page} lacks the lines {BEGIN} and {END}")
    return before, after


def _describe_tests(tests: Mapping[str, Any]) -> list[str]:
    if not tests:
        return []
    failed = tests["failed"]
    line = f"{tests['passed']} passed, {len(failed)} failed, {tests['skipped']} skipped"
    cut = "; the time was up before the others ran" if tests["cut"] else ""
    return ["", f"Tests marked `gpu`: {line}{cut}.", *(f"- FAILED: {name}" for name in failed)]


def write_table(rows: Sequence[Row]) -> str:
    """Format the rows as a Markdown table, sorted by net, shape and compute time."""
    ordered = sorted(
        rows,
        key=lambda row: (row["net"], row["height"] * row["width"], row["batch"], row.get("compute_ms") or 1e9),
    )
    lines = ["| " + " | ".join(title for title, _, _ in COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in ordered:
        cells = []
        for title, name, form in COLUMNS:
            value = f"{row['height']}x{row['width']}" if title == "size" else row.get(name)
            cells.append("-" if value is None else format(value, form) if form else str(value))
        marked = " (disagrees)" if not row["agrees"] else ""
        lines.append("| " + " | ".join(cells) + marked + " |")
    return "\n".join(lines)
