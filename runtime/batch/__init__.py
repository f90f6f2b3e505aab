"""Label many images into a folder, resumably: the Python form of `atrous segment`.

::

    summary = runtime.batch.label_files("bundle", ["photos", "more/*.jpg"], "labels", kinds=("labels", "overlay"))

`run` labels, `images` finds images and names results, `journal` records what is finished, `video` labels videos.
"""

from __future__ import annotations

from .run import BatchObserver, BatchSummary, FailedImage, LabeledImage, label_files
from .video import VideoObserver, VideoSummary, is_video, label_video

__all__ = [
    "BatchObserver",
    "BatchSummary",
    "FailedImage",
    "LabeledImage",
    "VideoObserver",
    "VideoSummary",
    "is_video",
    "label_files",
    "label_video",
]
