"""The contact sheet of `atrous probe`: the overlay of each trial with its preprocessing and measures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from ..bundle.palettes import Color
    from ..runtime.probing import Trial
    from ..runtime.segmentation import Image as Picture

_WIDTH, _GAP, _LINES = 360, 10, 3  # of a tile, between tiles, of its caption
_LINE_HEIGHT, _FONT_SIZE, _PRESENT = 15, 12, (200, 60, 20)


def draw_sheet(image: Picture, trials: Sequence[Trial], palette: Sequence[Color], *, columns: int = 4) -> bytes:
    """Draw the trials in their order as a PNG; the bundle's present preprocessing has a red caption.

    Args:
        image: H x W x 3 uint8 RGB, the photo.
        trials: the trials.
        palette: RGB by label.
        columns: number of tiles side by side.
    """
    from ..runtime.pictures import make_overlay
    from ..runtime.resizing import resize_labels

    height = max(1, round(image.shape[0] * _WIDTH / image.shape[1]))
    photo = np.asarray(Image.fromarray(image).resize((_WIDTH, height), Image.Resampling.BOX))
    step = height + _LINES * _LINE_HEIGHT + _GAP
    columns = min(columns, len(trials))
    rows = -(-len(trials) // columns)
    sheet = Image.new("RGB", (columns * (_WIDTH + _GAP) + _GAP, rows * step + _GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_SIZE)
    for index, trial in enumerate(trials):
        left, top = _GAP + index % columns * (_WIDTH + _GAP), _GAP + index // columns * step
        tile = make_overlay(photo, resize_labels(trial.labels, (height, _WIDTH)), palette)
        sheet.paste(Image.fromarray(tile), (left, top))
        for line, text in enumerate(describe_trial(index + 1, trial)):
            place = (left, top + height + 2 + line * _LINE_HEIGHT)
            pen.text(place, text, fill=_PRESENT if trial.is_present else "black", font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def describe_trial(rank: int, trial: Trial) -> tuple[str, str, str]:
    """The caption of a trial: measures, preprocessing, size."""
    rule = trial.preprocessing
    mean = ",".join(f"{value:.4g}" for value in rule.mean)
    note = " (the bundle's)" if trial.is_present else ""
    return (
        f"{rank}. {trial.information:.2f} bits, {trial.confidence:.0%} sure{note}",
        f"{rule.color_order}, mean {mean}, scale {rule.scale:.4g}",
        f"network at {trial.size[0]}x{trial.size[1]} (height x width)",
    )
