"""The bundles of `atrous bench --preset`: full-size DeepLab-LargeFOV with seeded weights, made once and kept.

The CRF is the released LargeFOV's own, in DeepLab's mode. The gain of the last layer brings the scores to the spread of
a trained net's, so that softmax and CRF have ordinary work to do.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..runtime import Bundle
    from ..runtime.benchmark.presets import Preset

SEED = 20141222  # the day the paper appeared
SCORE_GAIN = 0.03
_VERSION = 1  # of what is made here; a new one leaves older bundles aside


def cache_folder() -> Path:
    """Where bundles are kept: $XDG_CACHE_HOME/atrous, or ~/.cache/atrous."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atrous" / "bench"


def open_preset_bundle(preset: Preset, folder: Path | None = None) -> Bundle:
    """The preset's bundle from the cache; made there if it is missing or damaged.

    Raises:
        MissingDependencyError: if what converts a net is not installed.
        OutputError: if the cache cannot be written.
    """
    from ..runtime import BundleError, read_bundle

    path = (folder or cache_folder()) / f"largefov-{preset.class_count}-seed{SEED}-v{_VERSION}"
    try:
        bundle = read_bundle(path)
        bundle.verify_files()
        return bundle
    except BundleError:
        make_preset_bundle(preset, path)
        return read_bundle(path)


def make_preset_bundle(preset: Preset, path: Path) -> None:
    """Write the preset's bundle in the place of an older one; raises as `open_preset_bundle`."""
    from ..bundle.files import prepare_folder
    from ..errors import MissingDependencyError

    try:
        from .. import converter
        from ..bundle.crf_parameters import CrfParameters
        from ..bundle.palettes import CLASS_SETS
        from .large_fov import read_large_fov
    except ImportError as error:
        raise MissingDependencyError(
            f"the preset's net is converted, and for that {error.name} is missing: pip install 'atrous[convert]'"
        ) from error
    prepare_folder(path.parent)
    classes, palette = CLASS_SETS[preset.classes] if preset.classes else ((), ())
    options = converter.BundleOptions(
        name=f"DeepLab-LargeFOV, {preset.class_count} classes, seeded weights",
        classes=classes,
        palette=palette,
        crf=CrfParameters(),
        verify=False,
    )
    net = read_large_fov(SEED, labels=preset.class_count, score_gain=SCORE_GAIN)
    converter.write_bundle(net, path, options, replace=True)
