"""Label many images into a folder, resumably: the Python form of `atrous segment`.

::

    summary = runtime.batch.label_files("bundle", ["photos", "more/*.jpg"], "labels", kinds=("labels", "overlay"))

`run` labels, `images` finds images and names results, `journal` records what is finished.
"""

from __future__ import annotations

from .run import BatchObserver, BatchSummary, FailedImage, LabeledImage, label_files

__all__ = ["BatchObserver", "BatchSummary", "FailedImage", "LabeledImage", "label_files"]
