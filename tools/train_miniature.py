"""Build the miniature: train it, save Caffe files, choose the CRF's parameters, measure it, draw the shipped scenes.

    python -m tools.train_miniature --output scripts/miniature

Each step reads the files of the previous one: the CRF is chosen and the figures are measured with the network converted
from the prototxt and the caffemodel. Training, validation, test and shipped scenes come from separate seeds.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from atrous.scripts import console

if TYPE_CHECKING:
    from atrous.scripts.miniature.settings import MiniatureFiles, Training

    from .miniature.measuring import Predict
    from .miniature.network import MiniatureNet
    from .miniature.training import Recipe

VALIDATION_SEEDS, TEST_SEEDS = 1_000, 4_000
"""First seeds of validation and test scenes; training scenes start at 1,000,000."""

SHIPPED_SCENES = (3012, 3023, 3029, 3032, 3042)
SHIPPED_SIZE = (240, 320)
"""Held-out scenes that ship as pictures, and their (height, width), which needs padding.

They were chosen by eye for variety, before a net had run on them.
"""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for the files.")
@click.option("--iterations", type=click.IntRange(min=1), default=2000, help="Optimizer steps.")
@click.option("--seed", type=click.IntRange(min=0), default=2015, help="Random seed of the initial weights and crops.")
@click.option("--threads", type=click.IntRange(min=1), default=1, help="Threads of training and of the CRF.")
@click.option(
    "--validation-scenes",
    type=click.IntRange(1, 1000),
    default=48,
    help="Number of scenes to choose the CRF's parameters on.",
)
@click.option("--test-scenes", type=click.IntRange(1, 1000), default=200, help="Number of scenes to measure on.")
@click.option("--keep-weights", is_flag=True, help="Reuse the caffemodel and training notes of the folder.")
def command(
    output: Path,
    iterations: int,
    seed: int,
    threads: int,
    validation_scenes: int,
    test_scenes: int,
    keep_weights: bool,
) -> None:
    """Train and measure the miniature network; the data are generated from seeds."""
    import torch

    from atrous.scripts.miniature.settings import MiniatureFiles, read_settings

    from .miniature.measuring import load_network
    from .miniature.training import Recipe

    torch.set_num_threads(threads)
    output.mkdir(parents=True, exist_ok=True)
    files = MiniatureFiles(output)
    if keep_weights:
        if not (files.settings.exists() and files.caffemodel.exists()):
            raise click.UsageError(f"{output} has no miniature to keep the weights of; omit --keep-weights")
        training = read_settings(files.settings).training
    else:
        training = train_weights(files, Recipe(iterations=iterations, seed=seed), threads)
    predict = load_network(files.prototxt, files.caffemodel)
    validation = range(VALIDATION_SEEDS, VALIDATION_SEEDS + validation_scenes)
    test = range(TEST_SEEDS, TEST_SEEDS + test_scenes)
    write_settings(files, predict, training, validation, test, threads)
    write_scenes(files)
    write_scores(files)


def train_weights(files: MiniatureFiles, recipe: Recipe, threads: int) -> Training:
    """Train, and write the prototxt and the V1 caffemodel; returns the training notes."""
    import torch

    from atrous.scripts.miniature.settings import MiniatureFiles, Training

    from .miniature.training import train_net

    start = time.perf_counter()
    recent: list[float] = []
    with console.show_progress("training", recipe.iterations) as advance:

        def report(step: int, loss: float) -> None:
            recent.append(loss)
            advance(1)
            if step % 100 == 0 or step == recipe.iterations:
                click.echo(f"step {step}: loss {sum(recent) / len(recent):.4f}", err=True)
                recent.clear()

        net = train_net(recipe, report)
    minutes = (time.perf_counter() - start) / 60
    prototxt = MiniatureFiles().prototxt
    if files.prototxt.resolve() != prototxt:
        shutil.copyfile(prototxt, files.prototxt)
    save_weights(files, net)
    return Training(
        seed=recipe.seed,
        iterations=recipe.iterations,
        batch=recipe.batch,
        crop=recipe.crop,
        scenes=recipe.iterations * recipe.fresh_scenes,
        threads=threads,
        minutes=round(minutes, 1),
        torch=torch.__version__,
    )


def save_weights(files: MiniatureFiles, net: MiniatureNet) -> None:
    """Write a 2014 caffemodel: V1 layers, DeepLab v1's field numbers (`hole` is 17), four-number shapes."""
    from atrous.converter.files.prototxt import read_prototxt
    from atrous.converter.files.writer import write_caffemodel

    from .miniature.network import fold_blobs

    structure = read_prototxt(files.prototxt)
    write_caffemodel(files.caffemodel, structure, fold_blobs(net), format="V1", dialect="deeplab_v1")


def write_settings(
    files: MiniatureFiles, predict: Predict, training: Training, validation: range, test: range, threads: int
) -> None:
    """Choose the CRF on the validation scenes, measure before and after on both sets, write the JSON."""
    from atrous.bundle.files import write_file
    from atrous.runtime.evaluation.tuning.points import search_factors
    from atrous.runtime.evaluation.tuning.scoring import PointScorer, ScoredImage
    from atrous.scripts.miniature import settings

    from .miniature import measuring, network
    from .scenes import CLASSES, PALETTE

    samples = [
        ScoredImage(str(seed), sample.scene.image, sample.scene.labels, sample.probabilities)
        for seed, sample in zip(validation, measuring.predict_scenes(predict, validation), strict=True)
    ]
    with console.show_progress("choosing the CRF") as advance:
        scorer = PointScorer(samples, workers=threads, advance=advance)
        parameters = search_factors(scorer).find_best().to_parameters()
    with console.show_progress("measuring", len(validation) + len(test)) as advance:
        on_validation, on_test = (
            measuring.measure_figures(predict, seeds, parameters, threads, advance) for seeds in (validation, test)
        )
    whole = settings.Settings(
        schema_version=1,
        name=settings.NAME,
        classes=CLASSES,
        palette=PALETTE,
        mean=network.MEAN_BGR,
        crf=parameters,
        training=training,
        validation=on_validation,
        test=on_test,
        scenes=SHIPPED_SCENES,
    )
    write_file(files.settings, (whole.model_dump_json(indent=2) + "\n").encode())
    for name, figures in (("validation", on_validation), ("test", on_test)):
        before, after = figures.network.mean_iou, figures.crf.mean_iou
        click.echo(f"{name}: mean IoU {before:.2%} from the network, {after:.2%} with the CRF")


def write_scenes(files: MiniatureFiles) -> None:
    """Draw the shipped scenes: pictures as RGB PNG, label maps as palette PNG."""
    from atrous.bundle.files import write_file
    from atrous.runtime.pictures import encode_label_png, encode_png

    from .scenes import PALETTE, draw_scene

    for seed in SHIPPED_SCENES:
        scene = draw_scene(seed, *SHIPPED_SIZE)
        picture, labels = files.scene(seed)
        write_file(picture, encode_png(scene.image))
        write_file(labels, encode_label_png(scene.labels, PALETTE))


def write_scores(files: MiniatureFiles) -> None:
    """Store the network's scores of the shipped scenes, at stride 8 in float16: the demo without torch starts there."""
    import io

    import numpy as np

    from atrous import converter
    from atrous.bundle.files import write_file
    from atrous.runtime import read_image

    from .miniature.network import pad_data, prepare_data

    module = converter.to_torch(converter.read_net(files.prototxt, weights=files.caffemodel))
    stored = {}
    for seed in SHIPPED_SCENES:
        image = read_image(files.scene(seed)[0])
        data = pad_data(prepare_data(image[None])).numpy()
        stored[str(seed)] = converter.run_blobs(module, {"data": data})["fc8_scenes:fc8_scenes"][0].astype(np.float16)
    packed = io.BytesIO()
    np.savez_compressed(packed, **stored)
    write_file(files.scores, packed.getvalue())


if __name__ == "__main__":
    command()
