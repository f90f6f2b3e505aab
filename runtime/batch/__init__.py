"""Label many images into a folder, resumably: the Python form of `atrous segment`.

::

    summary = runtime.batch.label_files("bundle", ["photos", "more/*.jpg"], "labels", kinds=("labels", "overlay"))

`run` labels, `images` finds images and names results, `shards` divides them among processes, `journal` records what is
finished, `merge` checks and joins the records of shards, `storage` knows object stores, `ray` and `ray_dataset` label
on a Ray cluster, `planning` predicts runs, `video` labels videos, `crf_files` refines saved
outputs of any network by the dense CRF.
"""

from __future__ import annotations

from ..ray_pool import RayNodes
from .crf_files import CrfObserver, CrfSummary, RefinedFile, crf_files
from .merge import MergeSummary, merge_runs
from .ray import RaySummary, label_on_ray
from .ray_dataset import label_dataset
from .records import BatchObserver, BatchSummary, FailedImage, LabeledImage
from .run import label_files
from .video import VideoObserver, VideoSummary, is_video, label_video

__all__ = [
    "BatchObserver",
    "BatchSummary",
    "CrfObserver",
    "CrfSummary",
    "FailedImage",
    "LabeledImage",
    "MergeSummary",
    "RayNodes",
    "RaySummary",
    "RefinedFile",
    "VideoObserver",
    "VideoSummary",
    "crf_files",
    "is_video",
    "label_dataset",
    "label_files",
    "label_on_ray",
    "label_video",
    "merge_runs",
]
