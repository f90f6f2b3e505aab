"""Pictures of an evaluation: confusion matrix, bands along borders, the worst images. All PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ...dependencies import import_optional
from ..pictures import color_labels, encode_png, make_overlay
from .confusion import VOID, Counts, LabelMap, class_ious

if TYPE_CHECKING:
    from .evaluator import Bad, Evaluation

_INK, _GREY, _RED, _BLUE = "#282828", "#6e6e6e", "#b3362b", "#1f5fa8"
_MAX_NUMBERED = 40  # classes up to which cells carry their number
_MAX_ACROSS = 4  # panels of a heat map in one row
_SHOWN_SPAN = 12.0  # points of mean IoU that its colours tell apart, below the best
_PANEL_WIDTH = 300
_GAP, _LINE = 8, 18
_ERROR = np.array((200, 30, 30), np.float32)


def draw_confusion(counts: Counts, classes: Sequence[str], *, title: str) -> bytes:
    """The confusion matrix, each row in percent of its true class, with IoU and share of pixels at the right.

    Args:
        counts: (classes, classes) int64, row = truth.
        classes: names by label.
        title: of the picture.

    Raises:
        MissingDependencyError: if matplotlib is missing.
    """
    rows = counts.sum(1, keepdims=True)
    shares = np.divide(counts, rows, out=np.full(counts.shape, np.nan), where=rows > 0) * 100
    size = max(4.5, 1.6 + 0.42 * len(classes))
    figure, (axes,) = _make_figure(size + 1.8, size)
    axes.imshow(np.ma.masked_invalid(shares), cmap=_scale(), vmin=0, vmax=100)
    axes.set_xticks(range(len(classes)), classes, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(len(classes)), classes, fontsize=8)
    axes.set_xlabel("labelled as, % of the true class", color=_GREY, fontsize=9)
    axes.set_ylabel("truth", color=_GREY, fontsize=9)
    if len(classes) <= _MAX_NUMBERED:
        for (true, found), share in np.ndenumerate(shares):
            if share >= 0.5:
                colour = "white" if share > 55 else _INK
                axes.text(found, true, f"{share:.0f}", ha="center", va="center", fontsize=7, color=colour)
    total = max(1, int(counts.sum()))
    edge = len(classes) - 0.5
    places = (edge + 1.15, edge + 2.65)  # right ends of the two columns, in cells
    for place, heading in zip(places, ("IoU", "of pixels"), strict=True):
        axes.text(place, -0.85, heading, fontsize=8, color=_GREY, ha="right")
    for index, iou in enumerate(class_ious(counts)):
        share = rows[index, 0] / total
        cells = (f"{iou:.1%}" if np.isfinite(iou) else "-", f"{share:.1%}" if share else "-")
        for place, cell in zip(places, cells, strict=True):
            axes.text(place, index, cell, va="center", ha="right", fontsize=8, color=_INK)
    figure.suptitle(title, x=0.02, ha="left", fontsize=10, color=_INK)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return _save(figure)


def draw_bands(evaluation: Evaluation) -> bytes:
    """Mean IoU against the width of the band around borders, network and CRF, with the whole image's as lines."""
    figure, (axes,) = _make_figure(6.4, 4.0)
    for name, colour, words in (("network", _RED, "network alone"), ("crf", _BLUE, "with the dense CRF")):
        if name not in evaluation.variants:
            continue
        tally = evaluation.variants[name]
        axes.plot(evaluation.widths, np.array(tally.band_ious()) * 100, "o-", color=colour, label=words, markersize=4)
        whole = tally.matrix.mean_iou * 100
        if np.isfinite(whole):
            axes.axhline(whole, color=colour, linewidth=0.8, linestyle=(0, (4, 4)))
            axes.annotate(
                "whole image",
                (evaluation.widths[-1], whole),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
                fontsize=8,
                color=colour,
            )
    reference = {"void": "the void pixels", "labels": "a border between labels"}[evaluation.reference]
    axes.set_xlabel(f"width of the band: pixels from {reference}", color=_GREY, fontsize=9)
    axes.set_ylabel("mean IoU, %", color=_GREY, fontsize=9)
    axes.set_title(f"{evaluation.bundle} on {evaluation.dataset.label}: near borders", loc="left", fontsize=10)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=2)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_xticks(evaluation.widths)
    axes.set_xlim(left=0)
    axes.margins(y=0.12)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return _save(figure)


def draw_worst(evaluation: Evaluation) -> bytes:
    """The worst images, a row each: image, truth, labels of each variant, and where the last variant errs."""
    palette = evaluation.dataset.palette
    names = {"network": "network", "crf": "with CRF"}
    rows = [_draw_bad(bad, palette) for bad in evaluation.worst]
    titles = ["image", "truth", *(names[name] for name in evaluation.variants), "errors"]
    width = max(row.shape[1] for row in rows)
    height = 2 * _LINE + sum(row.shape[0] + _LINE + _GAP for row in rows)
    sheet = Image.new("RGB", (width + 2 * _GAP, height), (255, 255, 255))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for index, title in enumerate(titles):
        draw.text((_GAP + index * (_PANEL_WIDTH + _GAP), 6), title, fill=(40, 40, 40), font=font)
    top = 2 * _LINE
    for bad, row in zip(evaluation.worst, rows, strict=True):
        sheet.paste(Image.fromarray(row), (_GAP, top))
        scores = ", ".join(f"{names[name]} {iou:.1%}" for name, iou in bad.score.mean_iou.items() if iou is not None)
        worst = _name_worst_confusion(bad, evaluation.classes)
        draw.text((_GAP, top + row.shape[0] + 2), f"{bad.score.name}: mean IoU {scores}{worst}", (110, 110, 110), font)
        top += row.shape[0] + _LINE + _GAP
    return encode_png(np.array(sheet))


def draw_errors(image: npt.NDArray[np.uint8], truth: LabelMap, labels: LabelMap) -> npt.NDArray[np.uint8]:
    """The image in grey, wrong pixels in red, void in white: H x W x 3 uint8 RGB."""
    grey = image.mean(axis=2, keepdims=True, dtype=np.float32) * 0.6 + 90  # (H, W, 1)
    picture = np.repeat(np.minimum(grey, 255), 3, axis=2)
    wrong = (labels != truth) & (truth != VOID)
    picture[wrong] = picture[wrong] * 0.25 + _ERROR * 0.75
    picture[truth == VOID] = 255
    rounded: npt.NDArray[np.uint8] = np.rint(picture).astype(np.uint8)
    return rounded


def _draw_bad(bad: Bad, palette: Sequence[tuple[int, int, int]]) -> npt.NDArray[np.uint8]:
    last = list(bad.labels.values())[-1]
    panels = [
        bad.image,
        color_labels(bad.truth, palette),
        *(make_overlay(bad.image, labels, palette) for labels in bad.labels.values()),
        draw_errors(bad.image, bad.truth, last),
    ]
    height = max(1, round(bad.image.shape[0] * _PANEL_WIDTH / bad.image.shape[1]))
    row = np.full((height, len(panels) * (_PANEL_WIDTH + _GAP) - _GAP, 3), 255, np.uint8)
    for index, panel in enumerate(panels):
        method = Image.Resampling.NEAREST if index == 1 else Image.Resampling.LANCZOS
        small = Image.fromarray(np.ascontiguousarray(panel)).resize((_PANEL_WIDTH, height), method)
        left = index * (_PANEL_WIDTH + _GAP)
        row[:, left : left + _PANEL_WIDTH] = np.asarray(small)
    return row


def _name_worst_confusion(bad: Bad, classes: Sequence[str]) -> str:
    """The commonest error of an image in words, if there is one."""
    labels = list(bad.labels.values())[-1]
    wrong = (labels != bad.truth) & (bad.truth != VOID)
    if not wrong.any():
        return ""
    pairs, counts = np.unique(np.stack([bad.truth[wrong], labels[wrong]]), axis=1, return_counts=True)
    true, found = pairs[:, counts.argmax()]
    return f"; mostly {classes[true]} taken for {classes[found]} ({counts.max() / bad.score.judged:.1%} of its pixels)"


def draw_heat_map(
    grid: npt.NDArray[np.float64],
    *,
    rows: Sequence[float],
    columns: Sequence[float],
    panels: Sequence[str],
    row_name: str,
    column_name: str,
    title: str,
    best: tuple[int, int, int] | None = None,
    behind: npt.NDArray[np.float64] | None = None,
) -> bytes:
    """Scores over two parameters, a panel for each value of a third.

    Args:
        grid: (panels, rows, columns) float64 mean IoU; nan where nothing was measured.
        rows: values of the parameter down the panels.
        columns: values of the parameter along them.
        panels: their titles.
        row_name: of the row parameter.
        column_name: of the column parameter.
        title: of the picture.
        best: (panel, row, column) to mark.
        behind: (panels, rows, columns) float64, how far behind the best a point was given up; nan elsewhere.

    Raises:
        MissingDependencyError: if matplotlib is missing.
    """
    if behind is None:
        behind = np.full(grid.shape, np.nan)
    elif np.isfinite(behind).any():
        title += "\ngrey: given up early, so many points behind the best on the images seen by then"
    across = min(len(panels), _MAX_ACROSS)
    down = -(-len(panels) // across)
    width = max(6.8, 1.0 + across * max(1.6, 0.5 * len(columns)))
    figure, all_axes = _make_figure(width, 0.9 + down * (0.7 + 0.42 * len(rows)), across, down)
    known = grid[np.isfinite(grid)] * 100
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    low = max(low, high - _SHOWN_SPAN)  # hopeless corners must not use up the colours
    digits = 1 if high - low > 1 else 2
    for index, axes in enumerate(all_axes):
        if index >= len(panels):
            axes.set_visible(False)
            continue
        axes.imshow(np.where(np.isfinite(behind[index]), 0.92, 1.0), cmap="gray", vmin=0, vmax=1, aspect="auto")
        values = np.ma.masked_invalid(grid[index] * 100)
        axes.imshow(values, cmap=_scale(), vmin=low, vmax=max(high, low + 1e-6), aspect="auto")
        axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns], fontsize=8)
        axes.set_yticks(range(len(rows)), [f"{value:g}" if index % across == 0 else "" for value in rows])
        axes.tick_params(length=0, labelsize=8)
        axes.set_title(panels[index], fontsize=9, color=_INK)
        for (row, column), value in np.ndenumerate(grid[index] * 100):
            if np.isfinite(value):
                colour = "white" if value > low + 0.6 * (high - low) else _INK
                axes.text(column, row, f"{value:.{digits}f}", ha="center", va="center", fontsize=7, color=colour)
            elif np.isfinite(behind[index, row, column]):
                cell = f"\N{MINUS SIGN}{behind[index, row, column] * 100:.{digits}f}"
                axes.text(column, row, cell, ha="center", va="center", fontsize=7, color=_GREY)
        if best is not None and best[0] == index:
            from matplotlib.patches import Rectangle

            axes.add_patch(Rectangle((best[2] - 0.5, best[1] - 0.5), 1, 1, fill=False, ec="#d98e04", lw=2.2))
        for spine in axes.spines.values():
            spine.set_visible(False)
    figure.supylabel(row_name, color=_GREY, fontsize=9)
    figure.supxlabel(column_name, color=_GREY, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, color=_INK)
    return _save(figure)


def _make_figure(width: float, height: float, columns: int = 1, rows: int = 1) -> tuple[Any, Any]:
    """A figure that no window or global state knows of, and its axes in reading order."""
    import_optional("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    return figure, axes


def _scale() -> Any:
    """White to dark blue: readable in grey, and to those who do not see red and green."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("paper", ["#f7f9fc", "#9dbfe0", "#1f5fa8", "#0c2a55"])


def _save(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()
