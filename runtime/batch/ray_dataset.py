"""`label_dataset`: a Ray Dataset of images to one with labels, for people who have their images in Ray."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...dependencies import import_optional
from ...errors import AtrousError, InputError
from ..images import decode_image, read_image
from ..loading import load, load_without_network
from ..pictures import encode_label_png
from ..pipeline import Pipeline
from ..pipeline.segmentation import make_stages
from ..ray_pool import RayNodes
from ..segmentation import Segmentation
from ..segmenter import Segmenter
from .streams import is_stream, read_stream

if TYPE_CHECKING:
    from ray.data import Dataset

_ROWS = 32  # in a batch
_NETWORK_ROWS = 8


def label_dataset(
    dataset: Dataset,
    bundle: str | Path,
    *,
    column: str = "bytes",
    nodes: RayNodes | None = None,
    crf_on: Literal["same", "others"] = "same",
    crf_cores: int = 1,
    **load_options: Any,
) -> Dataset:
    """Add labels to a dataset of images; lazily, as Ray's own operations.

    Two columns are added: `labels`, the bytes of a palette PNG of H x W uint8 labels, or None if the image failed, and
    `error`, a line of text, or None. Results are written and resumed by Ray's own means, such as `write_parquet` or
    `write_webdataset`; `label_on_ray` is the form with files that resumes.

    Args:
        dataset: a `ray.data.Dataset` with a column of images, such as `ray.data.read_binary_files(...)`,
            `read_parquet`, or `read_webdataset(..., decoder=None)`.
        bundle: a bundle's folder, the same on all nodes.
        column: the column: bytes of image files, or their paths or addresses as text.
        nodes: resources of the actors; `address` is not used.
        crf_on: "same" runs network and CRF in one actor, which balances them. "others" runs the network in actors with
            the GPUs and the CRF in tasks on any CPU nodes, with the network's low-resolution scores sent between them
            as float16 (177 kB for an image of 513 x 513, of 21 labels). Rounding them changes few labels.
        crf_cores: CPU cores of a CRF task, with `crf_on="others"`.
        load_options: further arguments of `runtime.load`.

    Raises:
        InputError: if an argument is invalid.
        MissingDependencyError: if Ray is not installed.
    """
    import_optional("ray")
    import_optional("pyarrow")
    from ray.data import ActorPoolStrategy

    if crf_on not in ("same", "others"):
        raise InputError(f'crf_on is "same" or "others", not "{crf_on}"')
    nodes = nodes or RayNodes()
    cores = nodes.cores or 1
    common: dict[str, Any] = {"bundle": str(Path(bundle).absolute()), "column": column, "options": load_options}
    pool: dict[str, Any] = {
        "compute": ActorPoolStrategy(size=nodes.actors or 1),
        "num_cpus": cores,
        "num_gpus": nodes.gpus or None,
        "batch_format": "pandas",
    }
    arguments = {**common, "cores": cores}
    if crf_on == "same":
        return dataset.map_batches(_LabelRows, batch_size=_ROWS, fn_constructor_kwargs=arguments, **pool)
    scored = dataset.map_batches(_ScoreRows, batch_size=_NETWORK_ROWS, fn_constructor_kwargs=arguments, **pool)
    return scored.map_batches(
        _refine_rows,
        batch_size=_NETWORK_ROWS,
        fn_kwargs={**common, "cores": crf_cores},
        num_cpus=crf_cores,
        batch_format="pandas",
    )


def _read(value: Any) -> Any:
    """The pixels, H x W x 3 uint8 RGB, of bytes, or of a path or address."""
    if isinstance(value, bytes | bytearray | memoryview):
        return decode_image(bytes(value), "a row of the dataset")
    if not isinstance(value, str):
        raise InputError(f"the column has {type(value).__name__}: it needs bytes of image files, or paths as text")
    return decode_image(read_stream(value), value) if is_stream(value) else read_image(value)


class _LabelRows:
    """An actor with the whole pipeline."""

    def __init__(self, bundle: str, column: str, cores: int, options: Mapping[str, Any]) -> None:
        self._column, self._cores = column, cores
        self._segmenter = load(bundle, threads=cores, **options)

    def __call__(self, rows: Any) -> Any:
        """Label a batch, a pandas.DataFrame."""
        palette = self._segmenter.bundle.manifest.palette

        def finish(item: Any, image: Any, result: Segmentation) -> bytes:
            return encode_label_png(result.labels, palette)

        stages = make_stages(self._segmenter, read=_read, finish=finish, cores=self._cores)
        with Pipeline(stages, cores=self._cores) as pipeline:
            results = list(pipeline.run(rows[self._column]))
        for result in results:
            if result.error is not None and not isinstance(result.error, AtrousError):
                raise result.error
        rows["labels"] = [result.value for result in results]
        rows["error"] = [None if result.error is None else str(result.error) for result in results]
        return rows


class _ScoreRows:
    """An actor with the network; its column `_scores` has pickled float16 scores, or the text of an error."""

    def __init__(self, bundle: str, column: str, cores: int, options: Mapping[str, Any]) -> None:
        self._column = column
        self._segmenter = load(bundle, threads=cores, **options)
        if self._segmenter.head == "labels":
            raise InputError("this bundle's head gives labels only: it has no scores for a CRF elsewhere")

    def __call__(self, rows: Any) -> Any:
        """Score a batch."""
        rows["_scores"] = [pickle.dumps(self._score(value)) for value in rows[self._column]]
        return rows

    def _score(self, value: Any) -> Any:
        try:
            feeds = self._segmenter.prepare(_read(value))
            if not feeds:
                return "is too large for one run of the network: use label_on_ray, or crf_on='same'"
            return self._segmenter.run_network(feeds).astype(np.float16)
        except AtrousError as error:
            return str(error)


_refiners: dict[tuple[str, str], Segmenter] = {}


def _refine_rows(rows: Any, bundle: str, column: str, cores: int, options: Mapping[str, Any]) -> Any:
    """A task: the CRF and the labels of a batch of scored rows. The bundle is kept for the next task of the process."""
    key = (bundle, repr(options))
    if key not in _refiners:
        _refiners[key] = load_without_network(bundle, threads=cores, **options)
    segmenter = _refiners[key]
    labels: list[bytes | None] = []
    errors: list[str | None] = []
    for value, content in zip(rows[column], rows["_scores"], strict=True):
        scores = pickle.loads(content)  # written by `_ScoreRows`
        failed = isinstance(scores, str)
        errors.append(scores if failed else None)
        if failed:
            labels.append(None)
            continue
        result = segmenter.finish(_read(value), scores.astype(np.float32), threads=cores)
        labels.append(encode_label_png(result.labels, segmenter.bundle.manifest.palette))
    rows["labels"], rows["error"] = labels, errors
    return rows.drop(columns="_scores")
