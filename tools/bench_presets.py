"""`atrous bench` at the sizes at which DeepLab-LargeFOV's speed was published: `python -m tools.bench_presets voc`.

Makes a full-size bundle with random weights (seed fixed) in `build/bench`, prints the published figures and runs
`atrous bench` without CRF sweep, pipeline and LoadGen; options that follow the name are passed on. The speed is valid,
the labels are meaningless. The CRF is the released LargeFOV's, in DeepLab's mode. The gain of the last layer gives the
scores the spread of a trained net's, so that softmax and CRF have ordinary work to do.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import NamedTuple

from atrous.runtime import BundleError, read_bundle
from atrous.scripts.main import main as run_atrous

from .large_fov import read_large_fov

SEED = 20141222  # the day the paper appeared
SCORE_GAIN = 0.03
FOLDER = Path("build") / "bench"


class Preset(NamedTuple):
    """An image size at which DeepLab-LargeFOV's speed was published, and the published figures."""

    image_height: int
    image_width: int
    classes: int  # with the background where the data set has one
    class_names: str | None  # a set of `atrous convert --classes`; None: numbered classes
    published_ms: float | None  # None: the source prints none
    published_per_s: float | None
    note: str
    source: str


_ICNET = "Zhao et al., ICNet, ECCV 2018, comparison on {}, row DeepLab"
_VOC_NOTE = "network on a GPU of 2014; the CRF takes another half second on a CPU"
_DEEPLAB = "Chen et al., ICLR 2015, introduction"
_SEGNET = "Badrinarayanan et al., SegNet, TPAMI 2017, comparison on SUN RGB-D: mean IoU 32.08"
PRESETS = {
    "voc": Preset(513, 513, 21, "voc", None, 8.0, _VOC_NOTE, _DEEPLAB),
    "cityscapes": Preset(1024, 2048, 19, "cityscapes", 4000.0, 0.25, "network on a GPU", _ICNET.format("Cityscapes")),
    "camvid": Preset(360, 480, 11, None, 203.0, 4.9, "network on a GPU", _ICNET.format("CamVid")),
    "sun-rgbd": Preset(530, 730, 37, None, None, None, "accuracy only: no speed was published", _SEGNET),
}


def open_preset_bundle(preset: Preset, folder: Path = FOLDER) -> Path:
    """The preset's bundle in a folder; made if it is missing or damaged."""
    path = folder / f"largefov-{preset.classes}-seed{SEED}"
    try:
        read_bundle(path).verify_files()
    except BundleError:
        make_preset_bundle(preset, path)
    return path


def make_preset_bundle(preset: Preset, path: Path) -> None:
    """Write the preset's bundle, replacing an older one."""
    from atrous import converter
    from atrous.bundle.crf_parameters import CrfParameters
    from atrous.bundle.palettes import CLASS_SETS

    path.parent.mkdir(parents=True, exist_ok=True)
    name = f"DeepLab-LargeFOV, {preset.classes} classes, seeded weights"
    classes, palette = CLASS_SETS[preset.class_names] if preset.class_names else ((), ())
    options = converter.BundleOptions(name=name, classes=classes, palette=palette, crf=CrfParameters(), verify=False)
    net = read_large_fov(SEED, labels=preset.classes, score_gain=SCORE_GAIN)
    converter.write_bundle(net, path, options, replace=True)


def main(arguments: list[str] | None = None) -> int:
    """Make the bundle, print the published figures and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=PRESETS)
    options, others = parser.parse_known_args(arguments)
    preset = PRESETS[options.preset]
    command = ["bench", str(open_preset_bundle(preset)), "--size", f"{preset.image_height}x{preset.image_width}"]
    command += ["--no-crf-sweep", "--pipeline-rounds", "0", "--scenario", "none", *others]
    figures = [f"{preset.published_ms:g} ms"] if preset.published_ms else []
    figures += [f"{preset.published_per_s:g} images/s"] if preset.published_per_s else []
    print(f"published: {', '.join([*figures, preset.note])} ({preset.source})")
    print(shlex.join(["atrous", *command]), flush=True)
    return run_atrous(command)


if __name__ == "__main__":
    raise SystemExit(main())
