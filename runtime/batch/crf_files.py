"""`crf_files`: saved network outputs through the dense CRF to files, resumably: the Python form of `atrous crf`.

Threads instead of processes: one image on each core, and the files of one image together, so that its lattices are
built once. `done.jsonl` and `failures.jsonl` in the output folder are those of `label_files`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ...bundle.crf_parameters import CrfParameters
from ...bundle.files import prepare_folder, remove_leftovers, write_file
from ...bundle.palettes import VOC_COLORS
from ...dependencies import import_crf, read_version
from ...errors import AtrousError, InputError, OutputError
from ..images import read_image
from ..pictures import encode_label_png
from ..pipeline import Pipeline, PipelineReport, Stage
from ..pipeline.engine import count_cores
from ..pipeline.stage import drop_frames
from ..upsampling import upsample_scores
from .arrays import encode_array, read_array
from .crf_pairs import SAVED, ImageUnaries, UnaryFile, pair_files
from .journal import FailureLog, Journal, make_key
from .records import FailedImage
from .todo import find_version

if TYPE_CHECKING:
    from ..crf.kept import KeptCrf

Kind = Literal["probabilities", "scores"]


@dataclass(frozen=True)
class RefinedFile:
    """The record of a refined file, also a line of `done.jsonl`.

    Attributes:
        image, unary: their paths.
        height, width, labels: of the result.
        outputs: the files written, by kind.
        time_ms: milliseconds of reading the array, the CRF and writing; the image and its lattices with the first.
    """

    image: Path
    unary: Path
    height: int
    width: int
    labels: int
    outputs: dict[str, Path]
    time_ms: float


@dataclass
class CrfSummary:
    """Counts of a run: files refined, failed, and finished by an earlier run; and the pipeline's report at its end."""

    refined: int = 0
    failed: int = 0
    skipped: int = 0
    pipeline: PipelineReport | None = None


class CrfObserver:
    """Ignores the events of a run, in the calling thread; inherit from it and override what you need."""

    def started(self, summary: CrfSummary, total: int) -> None:
        """The files are found and nothing is written yet; `summary` is updated during the run."""
        return

    def skipped(self, unary: Path) -> None:
        """A file was finished in an earlier run."""
        return

    def refined(self, file: RefinedFile) -> None:
        """The results of a file are written."""
        return

    def failed(self, file: FailedImage) -> None:
        """A file failed; the run continues."""
        return


@dataclass(frozen=True)
class CrfSettings:
    """Settings of `crf_files` that change results."""

    parameters: CrfParameters
    kind: Kind = "probabilities"
    key: str | None = None
    clip: float = 1e-5
    align_corners: bool = True
    save: tuple[str, ...] = ("labels",)


def crf_files(
    images: str | Path | Sequence[str | Path],
    probabilities: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    parameters: CrfParameters | str = "deeplab-pytorch",
    kind: Kind = "probabilities",
    key: str | None = None,
    clip: float = 1e-5,
    align_corners: bool = True,
    save: Collection[str] = ("labels",),
    resume: bool = True,
    cores: int | None = None,
    observer: CrfObserver | None = None,
) -> CrfSummary:
    """Refine saved probabilities or scores by the dense CRF and write the results to a folder.

    Results equal pydensecrf's with the same settings in every label. A later call skips finished files, unless an
    input, a setting or the size of a result changed. Files that fail are reported in `OUT/failures.jsonl` and to the
    observer; the run continues.

    Args:
        images: a folder of images, whose names without suffix are those of the arrays; or a list of image files.
        probabilities: a folder of `.npy` and `.npz` files; or several, whose results go to `OUT/<folder's name>/`; or,
            beside a list of images, a list of as many files. Arrays are (L, H, W) of any float type.
        out: the output folder, created if missing.
        parameters: settings of the CRF, or a name in `runtime.crf.recipes.RECIPES`.
        kind: "probabilities" from 0 to 1 at the image's size, which need not sum to 1; or "scores" before the softmax,
            also (L, h, w) of a coarser grid.
        key: the name of the array in `.npz` files; None if they hold one.
        clip: lowest probability.
        align_corners: how coarser scores are enlarged: True as Caffe's Interp, False as torch's `interpolate` by
            default.
        save: results to write: "labels", a palette PNG of H x W uint8; "probabilities", `.npy`, (L, H, W) float32.
        resume: skip the files finished in earlier runs; False forgets them.
        cores: CPU cores to use; None for all.
        observer: receives every event.

    Returns:
        The counts of this run.

    Raises:
        InputError: if no files are found, names clash, or an argument is invalid.
        OutputError: if a result or the journal cannot be written, or another run writes to the folder.
        KeyboardInterrupt: at Ctrl-C, after the calls in progress are finished and recorded.
    """
    import_crf()
    from ..crf import DenseCRF
    from ..crf.checks import check_fraction
    from ..crf.image import add_terms

    out, saved = Path(out), tuple(dict.fromkeys(save))
    clip = check_fraction(clip, "clip")
    settings = CrfSettings(_choose_parameters(parameters), kind, key, clip, align_corners, saved)
    add_terms(DenseCRF((1, 1), 1), np.zeros((1, 1, 3), np.uint8), settings.parameters)  # reports wrong terms once
    if kind not in ("probabilities", "scores"):
        raise InputError(f'kind must be "probabilities" or "scores", got {kind!r}')
    if not saved or not set(saved) <= SAVED.keys():
        raise InputError(f"save must name some of {', '.join(SAVED)}, got {saved}")
    groups, orphans = pair_files(images, probabilities, out, saved)
    cores = cores or count_cores()
    summary, observer = CrfSummary(), observer or CrfObserver()
    observer.started(summary, len(orphans) + sum(len(group.unaries) for group in groups))
    prepare_folder(out)
    with Journal(out, again=not resume) as journal, contextlib.closing(FailureLog(out)) as failures:
        for folder in {path.parent for group in groups for unary in group.unaries for path in unary.outputs.values()}:
            remove_leftovers(folder)
        report = _Reporter(summary, failures, observer)
        for path in orphans:
            report.add(path, InputError(f"{path}: there is no image of this name in {images}"))
        stages = [
            Stage("decode", _read),
            Stage("crf", _Refiner(settings, journal, out), max_cores=cores, hint="more cores or fewer iterations"),
        ]
        pipeline = Pipeline(stages, cores=cores, fatal=(OutputError,))
        try:
            with pipeline:
                for outcome in pipeline.run(_skip_finished(groups, journal, settings, out, summary, observer)):
                    results = outcome.value
                    if outcome.error is not None:
                        results = [(unary.path, outcome.error) for unary, _ in outcome.item.unaries]
                    for path, result in results:
                        report.add(path, result)
            journal.check()
        finally:
            summary.pipeline = pipeline.report()
    return summary


@dataclass(frozen=True)
class _Todo:
    """An image and its unaries with their keys in the journal; None for a file without a stat."""

    image: Path
    unaries: list[tuple[UnaryFile, str | None]]


def _skip_finished(
    groups: Iterable[ImageUnaries],
    journal: Journal,
    settings: CrfSettings,
    out: Path,
    summary: CrfSummary,
    observer: CrfObserver,
) -> Iterator[_Todo]:
    described = {**asdict(settings), "parameters": settings.parameters.to_dict(), "atrous": read_version("atrous")}
    settings_key = make_key(described)
    for group in groups:
        todo = _Todo(group.image, [])
        for unary in group.unaries:
            versions = {path: find_version(path) for path in (group.image, unary.path)}
            if None in versions.values():
                todo.unaries.append((unary, None))
                continue
            inputs = [[os.path.abspath(path), *(version or ())] for path, version in versions.items()]
            key = make_key([settings_key, inputs, _name_outputs(unary, out)])
            if journal.is_done(key, unary.outputs.values()):
                summary.skipped += 1
                observer.skipped(unary.path)
            else:
                todo.unaries.append((unary, key))
        if todo.unaries:
            yield todo


def _name_outputs(unary: UnaryFile, out: Path) -> dict[str, str]:
    """The results' paths in the output folder, which may be moved."""
    return {kind: path.relative_to(out).as_posix() for kind, path in unary.outputs.items()}


def _read(item: _Todo) -> tuple[_Todo, npt.NDArray[np.uint8]]:
    return item, read_image(item.image)


class _Refiner:
    """Refines all unaries of an image with one model; each result is written and recorded before the next."""

    def __init__(self, settings: CrfSettings, journal: Journal, out: Path) -> None:
        self._settings, self._journal, self._out = settings, journal, out

    def __call__(self, work: tuple[_Todo, npt.NDArray[np.uint8]], cores: int) -> list[tuple[Path, Any]]:
        from ..crf.kept import KeptCrf

        item, image = work
        kept, results = KeptCrf(threads=cores), list[tuple[Path, Any]]()
        for unary, key in item.unaries:
            try:
                results.append((unary.path, self._refine(kept, item.image, image, unary, key)))
            except OutputError:
                self._journal.check()  # if the folder was removed meanwhile, that is the reason
                raise
            except AtrousError as error:  # of this file alone
                drop_frames(error)
                results.append((unary.path, error))
        return results

    def _refine(
        self, kept: KeptCrf, path: Path, image: npt.NDArray[np.uint8], unary: UnaryFile, key: str | None
    ) -> RefinedFile:
        start_s, settings = time.perf_counter(), self._settings
        height, width = image.shape[:2]
        array = _read_unary(unary.path, (height, width), settings)
        crf = kept.prepare(image, len(array), settings.parameters)
        if settings.kind == "scores":
            crf.set_scores(array, clip=settings.clip)
        else:
            crf.set_unary(array)
        marginals = crf.inference(settings.parameters.iterations, keep=False)
        files = {target: _encode(kind, marginals) for kind, target in unary.outputs.items()}
        self._journal.check()  # write_file would create a removed folder again
        for target, content in files.items():
            write_file(target, content)
        time_ms = round((time.perf_counter() - start_s) * 1000, 3)
        record = RefinedFile(path, unary.path, height, width, len(array), dict(unary.outputs), time_ms)
        if key is not None:
            entry = {**asdict(record), "outputs": _name_outputs(unary, self._out)}
            self._journal.add(key, sum(map(len, files.values())), entry)
        return record


def _read_unary(path: Path, size: tuple[int, int], settings: CrfSettings) -> npt.NDArray[np.float32]:
    """The scores (L, H, W) or (L, h, w) of a file, or the energies (L, H, W) of its probabilities."""
    from ..crf.checks import check_probability_range
    from ..crf.compat.utils import unary_from_softmax

    array = read_array(path, settings.key)
    if array.ndim != 3 or array.dtype.kind != "f" or not array.size:
        raise InputError(f"{path} holds {array.dtype} of shape {array.shape}, expected floats (labels, height, width)")
    if settings.kind == "scores":
        scores = np.ascontiguousarray(array, np.float32)
        if scores.shape[1:] != size and not settings.align_corners:
            scores = upsample_scores(scores, size, size, align_corners=False)
        return scores
    if array.shape[1:] != size:
        raise InputError(
            f"{path} holds probabilities of {array.shape[1]} x {array.shape[2]} pixels, the image has {size[0]} x "
            f'{size[1]}: enlarge them, or save the scores before the softmax and pass kind="scores" (--kind scores)'
        )
    check_probability_range(float(array.min()), float(array.max()))
    return unary_from_softmax(array, clip=settings.clip).reshape(array.shape)


def _encode(kind: str, marginals: npt.NDArray[np.float32]) -> bytes:
    if kind == "labels":
        if len(marginals) > 256:
            raise InputError(f'{len(marginals)} labels do not fit a PNG: save "probabilities"')
        return encode_label_png(marginals.argmax(axis=0).astype(np.uint8), VOC_COLORS)
    return encode_array(marginals)


class _Reporter:
    """Counts and passes on results and errors; writes `failures.jsonl`."""

    def __init__(self, summary: CrfSummary, log: FailureLog, observer: CrfObserver) -> None:
        self._summary, self._log, self._observer = summary, log, observer

    def add(self, path: Path, result: RefinedFile | BaseException) -> None:
        if isinstance(result, RefinedFile):
            self._summary.refined += 1
            self._observer.refined(result)
            return
        self._summary.failed += 1
        line = str(result) if isinstance(result, AtrousError) else f"{type(result).__name__}: {result}"
        line = line if str(path) in line else f"{path}: {line}"
        self._log.add({"unary": str(path), "error": line, "type": type(result).__name__})
        self._observer.failed(FailedImage(path, line))


def _choose_parameters(parameters: CrfParameters | str) -> CrfParameters:
    from ..crf.recipes import RECIPES

    if isinstance(parameters, CrfParameters):
        return parameters
    if parameters not in list(RECIPES):
        raise InputError(f"parameters must be CrfParameters or one of {', '.join(RECIPES)}, got {parameters!r}")
    return RECIPES[parameters]
