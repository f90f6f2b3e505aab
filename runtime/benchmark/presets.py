"""Presets: the sizes at which DeepLab-LargeFOV's speed was published, and the figures.

The published figures are quoted, with what they were measured on and what they include; they are of other machines and
years, so ours beside them says how far a machine of today is from one of then, not which program is better.
"""

from __future__ import annotations

from dataclasses import dataclass

from .results import Published, StageView

DEEPLAB = (
    "Chen et al., Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs, ICLR 2015, "
    "introduction"
)
ICNET = (
    "Zhao et al., ICNet for Real-Time Semantic Segmentation on High-Resolution Images, ECCV 2018, comparison on {}, "
    "where DeepLab stands so"
)
SEGNET = "Badrinarayanan et al., SegNet, TPAMI 2017, comparison on SUN RGB-D: mean IoU 32.08 for DeepLab-LargeFOV"
LARGEFOV_NOTE = "DeepLab-LargeFOV: VGG-16, stride 8, fc6 of 3x3x1024 with hole 12"


@dataclass(frozen=True)
class Preset:
    """A size and its published figures.

    Attributes:
        name: as `--preset` takes it.
        height, width: of an image in pixels.
        class_count: with the background where the data set has one.
        classes: the name of a set of `atrous convert --classes`, or None for numbered ones.
        milliseconds, per_second: as published; None where the source prints none.
        hardware, note, source: of the published figures.
    """

    name: str
    height: int
    width: int
    class_count: int
    classes: str | None
    milliseconds: float | None
    per_second: float | None
    hardware: str
    note: str
    source: str

    @property
    def title(self) -> str:
        """In a line."""
        return f"{LARGEFOV_NOTE}; {self.height}x{self.width}, {self.class_count} classes"


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "voc",
            513,
            513,
            21,
            "voc",
            None,
            8.0,
            "a GPU of 2014",
            "the network alone; the CRF takes half a second beside it, on a CPU",
            DEEPLAB,
        ),
        Preset(
            "cityscapes", 1024, 2048, 19, "cityscapes", 4000.0, 0.25, "a GPU", "the network", ICNET.format("Cityscapes")
        ),
        Preset("camvid", 360, 480, 11, None, 203.0, 4.9, "a GPU", "the network", ICNET.format("CamVid")),
        Preset("sun-rgbd", 530, 730, 37, None, None, None, "", "accuracy only: no speed was published", SEGNET),
    )
}


def compare_published(preset: Preset, view: StageView | None, device: str, cpu: str, *, seeded: bool) -> Published:
    """The published figure beside ours; ours is the median of the network's stages, copies included."""
    network_ms = with_crf_ms = None
    if view is not None:
        parts = [view.find_stage(name) for name in ("h2d", "compute", "d2h")]
        medians = [stage.series.quantiles[0].value_ms for stage in parts if stage is not None]
        known = [value for value in medians if value is not None]
        network_ms = round(sum(known), 6) if known else _mean_compute(view)
        crf = view.find_stage("crf")
        if crf is not None and network_ms is not None:
            with_crf_ms = round(network_ms + crf.series.typical_ms, 6)
    where = cpu if device == "cpu" else device
    return Published(
        preset=preset.name,
        title=preset.title,
        image_height=preset.height,
        image_width=preset.width,
        classes=preset.class_count,
        published_ms=preset.milliseconds,
        published_per_s=preset.per_second,
        published_hardware=preset.hardware,
        published_note=preset.note,
        source=preset.source,
        ours_ms=network_ms,
        ours_per_s=round(1000 / network_ms, 6) if network_ms else None,
        ours_with_crf_ms=with_crf_ms,
        note=f"ours on {where}" + ("; seeded weights: the speed is real, the labels mean nothing" if seeded else ""),
    )


def _mean_compute(view: StageView) -> float | None:
    """The mean, where there are too few samples for a median (a single one)."""
    compute = view.find_stage("compute")
    return compute.series.mean_ms if compute is not None else None
