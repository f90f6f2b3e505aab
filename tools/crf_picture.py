"""Draws the results of bench_crf: `python -m tools.crf_picture PICTURE.png RESULTS.json...`.

One group of bars per setting: milliseconds of pydensecrf and of this project by threads, labeled with the ratio.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
from pathlib import Path
from typing import Any

from atrous.bundle.files import write_file
from atrous.dependencies import import_optional

COLORS = {"pydensecrf": "#9a9a9a", "atrous 1t": "#7fb3d5", "atrous 2t": "#1f5f8b"}


def read_cases(files: list[Path]) -> list[dict[str, Any]]:
    """The cases of all files, in their order."""
    return [case for file in files for case in json.loads(file.read_text())["cases"]]


def draw_cases(cases: list[dict[str, Any]], clock: str) -> bytes:
    """Write a PNG with one group of bars per case; `clock` is "wall_s" or "cpu_s"."""
    import_optional("matplotlib").use("Agg")
    plt = importlib.import_module("matplotlib.pyplot")
    names = [name for name in cases[0][clock] if clock == "wall_s" or name != "atrous 2t"]
    figure, axes = plt.subplots(figsize=(9, 0.9 + 0.42 * len(cases)), layout="constrained")
    height = 0.8 / len(names)
    for row, case in enumerate(cases):
        for place, name in enumerate(names):
            milliseconds = case[clock][name] * 1e3
            y = row + place * height - 0.4
            label = name if row == 0 else None
            axes.barh(y, milliseconds, height * 0.9, color=COLORS.get(name, "#123"), label=label, align="edge")
            ratio = case[clock]["pydensecrf"] / case[clock][name]
            time = f" {milliseconds:.{0 if milliseconds > 10 else 1}f} ms"
            text = time if name == "pydensecrf" else f"{time}, {ratio:.1f} x"
            axes.text(milliseconds, y + height * 0.45, text, va="center", fontsize=6.5)
    axes.set_yticks(range(len(cases)), [describe(case) for case in cases], fontsize=7.5)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds of " + ("wall time" if clock == "wall_s" else "CPU") + ", lattices included")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.15)
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150)
    plt.close(figure)
    return buffer.getvalue()


def describe(case: dict[str, Any]) -> str:
    """The setting in a few characters."""
    size = f"{case['height']}x{case['width']}x{case['labels']}"
    return f"{size}  ({case['sxy']:g}, {case['srgb']:g})  {case['iterations']} updates"


def main(arguments: list[str] | None = None) -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--clock", choices=["wall_s", "cpu_s"], default="wall_s")
    options = parser.parse_args(arguments)
    write_file(options.picture, draw_cases(read_cases(options.results), options.clock))


if __name__ == "__main__":
    main()
