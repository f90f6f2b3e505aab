"""The bundles of `atrous bench --preset`: full-size DeepLab-LargeFOV with random weights, made once and cached.

The CRF is the released LargeFOV's, in DeepLab's mode. The gain of the last layer gives the scores the spread of a
trained net's, so that softmax and CRF have ordinary work to do.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..runtime import Bundle
    from ..runtime.benchmark.plan import Preset

SEED = 20141222  # the day the paper appeared
SCORE_GAIN = 0.03
_VERSION = 1  # of these bundles; a new number leaves older bundles unused


def open_preset_bundle(preset: Preset) -> Bundle:
    """The preset's bundle from $XDG_CACHE_HOME/atrous or ~/.cache/atrous; made if it is missing or damaged.

    Raises:
        MissingDependencyError: if a library that converts a net is not installed.
        OutputError: if the cache cannot be written.
    """
    from ..runtime import BundleError, read_bundle

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atrous" / "bench"
    path = cache / f"largefov-{preset.classes}-seed{SEED}-v{_VERSION}"
    try:
        bundle = read_bundle(path)
        bundle.verify_files()
        return bundle
    except BundleError:
        make_preset_bundle(preset, path)
        return read_bundle(path)


def make_preset_bundle(preset: Preset, path: Path) -> None:
    """Write the preset's bundle, replacing an older one; raises as `open_preset_bundle`."""
    from ..bundle.files import prepare_folder
    from ..errors import MissingDependencyError

    try:
        from .. import converter
        from ..bundle.crf_parameters import CrfParameters
        from ..bundle.palettes import CLASS_SETS
        from .large_fov import read_large_fov
    except ImportError as error:
        raise MissingDependencyError(
            f"converting the preset's net needs {error.name}: pip install 'atrous[convert]'"
        ) from error
    prepare_folder(path.parent)
    name = f"DeepLab-LargeFOV, {preset.classes} classes, seeded weights"
    classes, palette = CLASS_SETS[preset.class_names] if preset.class_names else ((), ())
    options = converter.BundleOptions(name=name, classes=classes, palette=palette, crf=CrfParameters(), verify=False)
    net = read_large_fov(SEED, labels=preset.classes, score_gain=SCORE_GAIN)
    converter.write_bundle(net, path, options, replace=True)
