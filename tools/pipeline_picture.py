"""Plot of a pipeline report: the workers' time by stage, and the bounds of the rate beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atrous.runtime.pipeline import PipelineReport

_SHARES = (
    ("busy_share", "at work", "#2a6f97"),
    ("core_wait_share", "waits for a core", "#f2b134"),
    ("starved_share", "waits for input", "#d9d9d9"),
    ("blocked_share", "next queue is full", "#c8553d"),
)

_FAR = 8  # bounds above this multiple of the rate are left out


def draw_busy_shares(report: PipelineReport, path: Path) -> None:
    """Write the plot in the format of the suffix."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(10.5, 0.5 * len(report.stages) + 1.9), width_ratios=(3, 2), layout="constrained"
    )
    names = [f"{stage.name}\n{stage.item_ms:.3g} ms, {_count(stage.most_workers)}" for stage in report.stages]
    places = range(len(names))
    ends = [0.0] * len(names)
    for field, label, color in _SHARES:
        shares = [100 * getattr(stage, field) for stage in report.stages]
        left.barh(places, shares, left=ends, color=color, label=label, height=0.7)
        ends = [end + share for end, share in zip(ends, shares, strict=True)]
    left.set(yticks=places, yticklabels=names, xlim=(0, 100), xlabel="share of the workers' time, %")
    left.invert_yaxis()
    left.legend(loc="upper center", bbox_to_anchor=(0.5, 1.18), ncols=4, frameon=False, fontsize=8)
    bounds = {name: bound for name, bound in report.bounds_per_s.items() if bound < _FAR * report.rate_per_s}
    bars = right.barh(range(len(bounds)), list(bounds.values()), color="#a9bcd0", height=0.7)
    right.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
    right.set(yticks=range(len(bounds)), yticklabels=list(bounds), xlabel="items per second, upper bound by resource")
    right.margins(x=0.12)
    right.axvline(report.rate_per_s, color="#c8553d")
    right.set_title(f"measured: {report.rate_per_s:.1f} per second", fontsize=9, color="#c8553d")
    right.invert_yaxis()
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _count(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"
