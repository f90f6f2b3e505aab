"""Benchmark images: a data set's, a folder's, or the miniature's scenes, resized where a size is given."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..runtime.benchmark.plan import Sample

if TYPE_CHECKING:
    from ..runtime import Manifest


def load_samples(
    manifest: Manifest, *, images: Path | None, labels: Path | None, size: tuple[int, int] | None, count: int
) -> tuple[str, list[Sample]]:
    """Load at most `count` images of one size.

    A folder's, scenes drawn at `size` (height, width), the miniature's own, or scenes at the size the net was made for.
    """
    from ..runtime.images import MAX_PIXELS

    if images is not None:
        if labels is None:
            return load_folder(images, count)
        return _keep_one_size(str(images), _load_folders(manifest, images, labels), count)
    if size is not None:
        if size[0] * size[1] > MAX_PIXELS:
            raise click.UsageError(f"--size {size[0]}x{size[1]} has more than {MAX_PIXELS} pixels")
        return f"{count} scenes at {size[0]}x{size[1]}", resize_scenes(size, count)
    from .miniature.settings import is_miniature

    if is_miniature(manifest):
        return "the miniature's held-out scenes", load_miniature(count)
    made_for = manifest.preprocessing.made_for if manifest.preprocessing is not None else None
    if made_for is not None:
        return f"{count} scenes at {made_for.size[0]}x{made_for.size[1]}", resize_scenes(made_for.size, count)
    raise click.UsageError("no images to measure with: give --images FOLDER (and --labels FOLDER), or --size HxW")


def load_folder(images: Path, count: int) -> tuple[str, list[Sample]]:
    """At most `count` images of a folder, of its most common size, and what they are."""
    return _keep_one_size(str(images), _load_images(images), count)


def load_miniature(count: int) -> list[Sample]:
    """The miniature's held-out scenes with their exact labels."""
    from ..runtime import read_image
    from ..runtime.evaluation.datasets.label_files import read_label_image
    from .miniature.settings import MiniatureFiles, read_settings

    files = MiniatureFiles()
    pairs = [files.scene(seed) for seed in read_settings(files.settings).scenes][:count]
    return [
        Sample(picture.name, picture.read_bytes(), read_image(picture), read_label_image(truth))
        for picture, truth in pairs
    ]


def resize_scenes(size: tuple[int, int], count: int) -> list[Sample]:
    """The miniature's scenes resized to a size, every second round mirrored, without labels."""
    import numpy as np
    from PIL import Image

    from .miniature.settings import MiniatureFiles, read_settings

    files = MiniatureFiles()
    seeds = read_settings(files.settings).scenes
    samples = []
    for index in range(count):
        turn, place = divmod(index, len(seeds))
        with Image.open(files.scene(seeds[place])[0]) as opened:
            resized = opened.convert("RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR)
        image = np.ascontiguousarray(np.asarray(resized)[:, :: -1 if turn % 2 else 1])
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG", compress_level=1)
        samples.append(Sample(f"scene-{seeds[place]}" + (f"-{turn}" if turn else ""), buffer.getvalue(), image))
    return samples


def _load_folders(manifest: Manifest, images: Path, labels: Path) -> list[Sample]:
    from ..runtime.evaluation.datasets.folders import open_folders

    dataset = open_folders(images, labels, manifest.classes, manifest.palette)
    loaded = ((pair.image, dataset.load(pair)) for pair in dataset.pairs)
    return [Sample(path.name, path.read_bytes(), example.image, example.truth) for path, example in loaded]


def _load_images(folder: Path) -> list[Sample]:
    from ..runtime import read_image
    from ..runtime.batch.images import list_images

    paths = [found.image for found in list_images([str(folder)])]
    return [Sample(path.name, path.read_bytes(), read_image(path)) for path in paths]


def _keep_one_size(name: str, samples: list[Sample], count: int) -> tuple[str, list[Sample]]:
    """The images of the most common size, since latencies must be of one size; the name gets a note on the others."""
    sizes = Counter(sample.image.shape[:2] for sample in samples)
    (height, width), common = sizes.most_common(1)[0]
    kept = [sample for sample in samples if sample.image.shape[:2] == (height, width)]
    if len(sizes) > 1:
        name += f" ({common} of {len(samples)} images are {height}x{width}, the others are left out)"
    return name, kept[:count]
