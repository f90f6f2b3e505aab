"""Pictures of an evaluation as PNG bytes: confusion matrix, bands, worst images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ...dependencies import import_optional
from ..pictures import color_labels, encode_png, make_overlay
from .confusion import VOID, Counts, LabelMap, class_ious
from .evaluator import VARIANT_TITLES, Evaluation, WorstImage

INK, GRAY, _RED, _BLUE = "#282828", "#6e6e6e", "#b3362b", "#1f5fa8"
_LINES = {"network": _RED, "crf": _BLUE}
_MAX_NUMBERED = 40  # classes of a matrix with numbers in its cells
_PANEL_WIDTH = 300
_GAP, _LINE = 8, 18
_ERROR = np.array((200, 30, 30), np.float32)


def draw_confusion(counts: Counts, classes: Sequence[str], *, title: str) -> bytes:
    """Draw (classes, classes) counts, each row in percent of its true class, with IoU and share of pixels."""
    rows = counts.sum(1, keepdims=True)
    shares = np.divide(counts, rows, out=np.full(counts.shape, np.nan), where=rows > 0) * 100
    size = max(4.5, 1.6 + 0.42 * len(classes))
    figure, (axes,) = make_figure(size + 1.8, size)
    axes.imshow(np.ma.masked_invalid(shares), cmap=make_blues(), vmin=0, vmax=100)
    axes.set_xticks(range(len(classes)), classes, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(len(classes)), classes, fontsize=8)
    axes.set_xlabel("labeled as, % of the true class", color=GRAY, fontsize=9)
    axes.set_ylabel("truth", color=GRAY, fontsize=9)
    if len(classes) <= _MAX_NUMBERED:
        for (true, found), share in np.ndenumerate(shares):
            if share >= 0.5:
                color = "white" if share > 55 else INK
                axes.text(found, true, f"{share:.0f}", ha="center", va="center", fontsize=7, color=color)
    total = max(1, int(counts.sum()))
    edge = len(classes) - 0.5
    places = (edge + 1.15, edge + 2.65)  # right ends of the two columns, in cells
    for place, heading in zip(places, ("IoU", "of pixels"), strict=True):
        axes.text(place, -0.85, heading, fontsize=8, color=GRAY, ha="right")
    for index, iou in enumerate(class_ious(counts)):
        share = rows[index, 0] / total
        cells = (f"{iou:.1%}" if np.isfinite(iou) else "-", f"{share:.1%}" if share else "-")
        for place, cell in zip(places, cells, strict=True):
            axes.text(place, index, cell, va="center", ha="right", fontsize=8, color=INK)
    figure.suptitle(title, x=0.02, ha="left", fontsize=10, color=INK)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return save_figure(figure)


def draw_bands(evaluation: Evaluation) -> bytes:
    """Plot mean IoU against the width of the band, network and CRF, with that of whole images as lines."""
    figure, (axes,) = make_figure(6.4, 4.0)
    for name, tally in evaluation.variants.items():
        color, ious = _LINES[name], np.array(tally.band_ious()) * 100
        axes.plot(evaluation.widths, ious, "o-", color=color, label=VARIANT_TITLES[name], markersize=4)
        whole = tally.matrix.mean_iou * 100
        if np.isfinite(whole):
            axes.axhline(whole, color=color, linewidth=0.8, linestyle=(0, (4, 4)))
            end, style = (evaluation.widths[-1], whole), {"ha": "right", "fontsize": 8, "color": color}
            axes.annotate("whole image", end, xytext=(0, 3), textcoords="offset points", **style)
    reference = {"void": "the void pixels", "labels": "a border between labels"}[evaluation.reference]
    axes.set_xlabel(f"width of the band: pixels from {reference}", color=GRAY, fontsize=9)
    axes.set_ylabel("mean IoU, %", color=GRAY, fontsize=9)
    axes.set_title(f"{evaluation.bundle} on {evaluation.dataset.label}: near borders", loc="left", fontsize=10)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=2)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_xticks(evaluation.widths)
    axes.set_xlim(left=0)
    axes.margins(y=0.12)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return save_figure(figure)


def draw_worst(evaluation: Evaluation) -> bytes:
    """Draw the worst images, one row each: image, truth, labels of each variant, errors of the last variant."""
    palette = evaluation.dataset.palette
    names = {"network": "network", "crf": "with CRF"}
    rows = [_draw_row(bad, palette) for bad in evaluation.worst]
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
    """The image in gray, wrong pixels in red, void in white: H x W x 3 uint8 RGB."""
    gray = image.mean(axis=2, keepdims=True, dtype=np.float32) * 0.6 + 90  # (H, W, 1)
    picture = np.repeat(np.minimum(gray, 255), 3, axis=2)
    wrong = (labels != truth) & (truth != VOID)
    picture[wrong] = picture[wrong] * 0.25 + _ERROR * 0.75
    picture[truth == VOID] = 255
    rounded: npt.NDArray[np.uint8] = np.rint(picture).astype(np.uint8)
    return rounded


def _draw_row(bad: WorstImage, palette: Sequence[tuple[int, int, int]]) -> npt.NDArray[np.uint8]:
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


def _name_worst_confusion(bad: WorstImage, classes: Sequence[str]) -> str:
    """The most frequent error of an image in words, if any."""
    labels = list(bad.labels.values())[-1]
    wrong = (labels != bad.truth) & (bad.truth != VOID)
    if not wrong.any():
        return ""
    pairs, counts = np.unique(np.stack([bad.truth[wrong], labels[wrong]]), axis=1, return_counts=True)
    true, found = pairs[:, counts.argmax()]
    return f"; mostly {classes[true]} labeled {classes[found]} ({counts.max() / bad.score.judged:.1%} of its pixels)"


def make_figure(width: float, height: float, columns: int = 1, rows: int = 1) -> tuple[Any, Any]:
    """A figure without window or global state, and its axes in reading order."""
    import_optional("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    return figure, axes


def make_blues() -> Any:
    """White to dark blue: readable in gray, and with red-green color blindness."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("paper", ["#f7f9fc", "#9dbfe0", "#1f5fa8", "#0c2a55"])


def save_figure(figure: Any) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()
