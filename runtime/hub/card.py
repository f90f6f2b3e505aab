"""The model card of a bundle: Markdown with the metadata block that the Hugging Face Hub reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...bundle.crf_parameters import CrfParameters
from ...bundle.folder import Bundle
from ...bundle.manifest import Manifest, Preprocessing
from ...errors import InputError
from ..benchmark.results import BenchResult, Subject

CARD_NAME = "README.md"

#: task of `atrous run` -> the Hub's pipeline tag
_PIPELINE_TAGS = {"classification": "image-classification", "points": "keypoint-detection", "image": "image-to-image"}


def write_card(
    bundle: Bundle,
    *,
    license: str,
    repository: str | None = None,
    benchmark: BenchResult | None = None,
    evaluation: Path | None = None,
) -> str:
    """The card of a bundle.

    Args:
        bundle: the bundle; all facts come from its manifest.
        license: of the weights, as the Hub names licenses, such as "other"; a bundle does not know it.
        repository: "ORG/NAME" on the Hub, for the commands; None to name a local folder.
        benchmark: a result of `atrous bench` on this bundle.
        evaluation: the evaluation.json of `atrous evaluate` on this bundle.

    Raises:
        InputError: if a result is of another bundle, or evaluation.json cannot be read.
    """
    manifest = bundle.manifest
    parts = [
        _write_metadata(manifest, license),
        f"# {manifest.name}",
        f"A Caffe network, converted by [atrous](https://github.com/atrous-ml/atrous) {manifest.atrous_version} on "
        f"{manifest.created:%Y-%m-%d}.",
        _write_use(manifest, repository),
        "## Sources\n\n"
        + _write_table(
            ("file", "what", "format", "Caffe", "bytes", "SHA-256"),
            ((s.file, s.role, s.format, s.dialect, s.bytes, f"`{s.sha256}`") for s in manifest.sources),
        ),
        _write_input(manifest.preprocessing) if manifest.preprocessing else "",
        _write_classes(manifest.classes),
        _write_crf(manifest.crf) if manifest.crf else "",
        _write_verification(manifest),
        _write_evaluation(manifest, evaluation) if evaluation else "",
        _write_benchmark(bundle, benchmark) if benchmark else "",
        "## Trust\n\nONNX graphs and the manifest are data. `model.py` is code: `atrous verify` and the torch backend "
        "run it, so use them only if you trust the source. The manifest lists the SHA-256 of every file.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _write_metadata(manifest: Manifest, license: str) -> str:
    task = manifest.run.task if manifest.run else None
    tag = "image-segmentation" if manifest.deploy else _PIPELINE_TAGS.get(task or "")
    tags = ["caffe", "onnx", *(["dense-crf"] if manifest.crf else [])]
    fields = {"license": license, "library_name": "atrous", "pipeline_tag": tag, "tags": tags}
    lines = [f"{name}: {json.dumps(value)}" for name, value in fields.items() if value]  # JSON is valid YAML
    return "\n".join(["---", *lines, "---"])


def _write_use(manifest: Manifest, repository: str | None) -> str:
    folder = repository.rpartition("/")[2] if repository else manifest.name
    fetch = f"atrous fetch hf:{repository} -o {folder}\n" if repository else ""
    command = "segment" if manifest.deploy else "run"
    python = (
        f'from atrous import runtime\n\nwith runtime.load("{folder}") as segmenter:\n'
        '    labels = segmenter(runtime.read_image("photo.jpg"))  # H x W uint8\n'
        if manifest.deploy
        else f'from atrous import runtime\n\nwith runtime.load_runner("{folder}") as runner:\n'
        '    result = runner(runtime.read_image("photo.jpg"))\n'
    )
    shell = f'pip install "atrous[cpu]"\n{fetch}atrous {command} {folder} photo.jpg -o out\n'
    return f"## Use\n\n```bash\n{shell}```\n\n```python\n{python}```"


def _write_input(preprocessing: Preprocessing) -> str:
    mean = ", ".join(f"{value:g}" for value in preprocessing.mean)
    lines = [
        f"- channels {preprocessing.color_order}, value = (pixel - mean) x {preprocessing.scale:g}, mean {mean}",
        f"- made for {preprocessing.made_for.size[0]} x {preprocessing.made_for.size[1]} (height x width)"
        if preprocessing.made_for
        else "",
        "`deploy.onnx` takes `image`, N x H x W x 3 uint8 RGB, and contains these steps.",
    ]
    return "## Input\n\n" + "\n".join(line for line in lines[:2] if line) + f"\n\n{lines[2]}"


def _write_classes(classes: Sequence[str]) -> str:
    if not classes:
        return ""
    names = ", ".join(f"{index} {name}" for index, name in enumerate(classes))
    return f"## Classes\n\n{names}"


def _write_crf(crf: CrfParameters) -> str:
    rows = [("position", term.sxy, "", term.weight) for term in crf.gaussian]
    rows += [("position and color", term.sxy, term.srgb, term.weight) for term in crf.bilateral]  # type: ignore[misc]
    return (
        f"## Dense CRF\n\nMode `{crf.mode}`, {crf.iterations} iterations.\n\n"
        f"{_write_table(('term', 'sxy (pixels)', 'srgb (gray levels)', 'weight'), rows)}"
    )


def _write_verification(manifest: Manifest) -> str:
    rows: list[tuple[object, ...]] = [
        (c.stage, c.reference, c.blobs, _round(c.worst_error), c.tolerance, "yes" if c.passed else "no")
        for c in manifest.verification
    ]
    if not rows:
        return "## Verification\n\nThe stages of this bundle were not compared."
    table = _write_table(("stage", "compared with", "blobs", "largest error", "tolerance", "passed"), rows)
    text = f"## Verification\n\nErrors are relative to max(1, largest absolute value) of a blob.\n\n{table}"
    if manifest.variants:
        variants = ((name, variant.file, len(variant.kept)) for name, variant in manifest.variants.items())
        text += "\n\n" + _write_table(("precision", "file", "nodes kept in a wider type"), variants)
    return text


def _round(error: float | str) -> str:
    return error if isinstance(error, str) else f"{error:.2g}"


def _write_evaluation(manifest: Manifest, path: Path) -> str:
    try:
        content = json.loads(path.read_bytes())
        name, dataset, images = content["bundle"], content["dataset"]["title"], content["evaluated"]
        rows = [
            (variant, *(f"{figures[key]:.2%}" for key in ("mean_iou", "pixel_accuracy")))
            for variant, figures in content["variants"].items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: is not an evaluation.json of atrous evaluate: {error}") from error
    if name != manifest.name:
        raise InputError(f'{path}: is of the bundle "{name}", not "{manifest.name}"')
    return (
        f"## Quality\n\n{dataset}, {images} images.\n\n{_write_table(('labels', 'mean IoU', 'pixel accuracy'), rows)}"
    )


def _write_benchmark(bundle: Bundle, benchmark: BenchResult) -> str:
    subjects = [subject for subject in benchmark.subjects if subject.bundle == bundle.manifest.name and subject.stages]
    if not subjects:
        raise InputError(f'the benchmark has no stage times of the bundle "{bundle.manifest.name}"')
    columns = ("backend", "precision", "threads", "image", "median ms an image")
    rows = (
        (s.backend, s.precision, s.threads, f"{s.image_height} x {s.image_width}", _find_median(s)) for s in subjects
    )
    heading = f"{benchmark.environment.cpu.name}, {benchmark.created:%Y-%m-%d}, from the image file to labels."
    return f"## Speed\n\n{heading}\n\n{_write_table(columns, rows)}"


def _find_median(subject: Subject) -> str:
    assert subject.stages is not None
    for stage in subject.stages.stages:
        if stage.name == "end_to_end":
            return next(
                (f"{q.value_ms:.1f}" for q in stage.series.quantiles if q.q == 0.5 and q.value_ms is not None), ""
            )
    return ""


def _write_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
