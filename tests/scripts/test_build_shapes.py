"""`atrous build`: sizes, batches and profiles of an engine."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from atrous.scripts import build_shapes
from atrous.scripts.memory_option import read_bytes

from ..runtime.bundles import write_bundle
from .building import run, run_json


@pytest.mark.parametrize(
    ("text", "size"),
    [("4G", 4 << 30), ("4GiB", 4 << 30), ("500m", 500 << 20), ("1.5k", 1536), ("12", 12), ("x", None)],
)
def test_bytes(text: str, size: int | None) -> None:
    assert read_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "batch"), [("1", (1, 1, 1)), ("8", (8, 8, 8)), ("1:8", (1, 8, 8)), ("1:4:8", (1, 4, 8))]
)
def test_batches(text: str, batch: tuple[int, int, int]) -> None:
    assert build_shapes.read_batch(text) == batch


def test_profiles_are_joined() -> None:
    from atrous.bundle.size_rule import SizeRule

    rule = SizeRule(minimum=(513, 513), multiple=8, offset=1)
    free = (-1, -1, -1, 3)
    made = build_shapes.make_profiles("image", free, rule, (1, 2, 4), [(9, 9)], ([(5, 6)], [(7, 8)], [(9, 10)]))
    assert [profile["image"].describe() for profile in made] == [
        "1x9x9x3..4x9x9x3 (opt 2x9x9x3)",
        "1x5x6x3..4x9x10x3 (opt 2x7x8x3)",
    ]
    usual = build_shapes.make_profiles("image", free, rule, (1, 1, 1), [], ([], [], []))
    assert usual[0]["image"].describe() == "1x513x513x3"
    four = build_shapes.make_profiles("image", (4, -1, -1, 3), rule, (4, 4, 4), [(9, 9)], ([], [], []))
    assert four[0]["image"].describe() == "4x9x9x3"
    with pytest.raises(click.UsageError, match="4 images per run only"):
        build_shapes.make_profiles("image", (4, -1, -1, 3), rule, (1, 4, 4), [(9, 9)], ([], [], []))
    assert build_shapes.make_profiles("image", (1, 9, 9, 3), rule, (1, 1, 1), [], ([], [], [])) == ()
    assert build_shapes.make_profiles("image", (4, 9, 9, 3), rule, None, [], ([], [], [])) == ()
    with pytest.raises(click.UsageError, match="4 images per run only"):
        build_shapes.make_profiles("image", (4, 9, 9, 3), rule, (1, 1, 1), [], ([], [], []))
    with pytest.raises(click.UsageError, match="takes 1x9x9x3 only"):
        build_shapes.make_profiles("image", (1, 9, 9, 3), rule, (1, 1, 1), [(9, 9)], ([], [], []))


@pytest.mark.parametrize(
    ("shape", "sizes", "words"),
    [
        ((-1, 24, 24, 3), ("--shape", "513"), "513x513 pixels are given, the network takes only 24x24"),
        (
            (-1, 24, 24, 3),
            ("--shape", "24", "--shape", "24x25"),
            "24x25 pixels are given",
        ),
        ((-1, 24, 24, 3), ("--min", "12", "--opt", "24", "--max", "24"), "12x12 pixels are given"),
        ((-1, 24, -1, 3), ("--min", "24x9", "--opt", "24x9", "--max", "25x9"), "takes only 24xW"),
        ((-1, -1, 24, 3), ("--shape", "513"), "takes only Hx24"),
    ],
)
def test_sizes_that_the_network_does_not_take(
    tmp_path: Path, shape: tuple[int, ...], sizes: tuple[str, ...], words: str
) -> None:
    """The profile had the network's own size instead, with exit code 0."""
    folder = write_fixed_bundle(tmp_path, shape)
    done = run(folder, "--dry-run", "--tensorrt", "10", *sizes)
    assert done.exit_code == 2
    assert words in done.output


def test_a_network_of_one_size_needs_no_sizes(tmp_path: Path) -> None:
    folder = write_fixed_bundle(tmp_path, (-1, 24, 24, 3))
    for sizes in ((), ("--shape", "24")):
        planned = run_json(folder, "--dry-run", "--tensorrt", "10", "--batch", "1:4", *sizes)
        assert planned["profiles"] == [{"image": {"min": [1, 24, 24, 3], "opt": [4, 24, 24, 3], "max": [4, 24, 24, 3]}}]


def write_fixed_bundle(folder: Path, shape: tuple[int, ...]) -> Path:
    """A bundle whose manifest fixes sizes of its input."""
    bundle = write_bundle(folder / "fixed")
    manifest = json.loads((bundle / "manifest.json").read_text())
    (graph,) = manifest["graphs"].values()
    graph["inputs"]["image"]["shape"] = shape
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return bundle
