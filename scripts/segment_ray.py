"""`atrous segment --ray`: images labeled on a Ray cluster, by `runtime.batch.label_on_ray`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import console

if TYPE_CHECKING:
    from ..runtime.ray_pool import RayNodes


def segment_on_ray(bundle: Path, images: Any, out: str, nodes: RayNodes, as_json: bool, options: dict[str, Any]) -> int:
    """Label images, print counts, and return the exit code."""
    from ..runtime.batch import FailedImage, label_on_ray

    advances: list[Callable[[int], None]] = []
    with contextlib.ExitStack() as progress:

        def start(total: int) -> None:
            advances.append(progress.enter_context(console.show_progress("segmenting", total, unit="images")))

        def fail(image: FailedImage) -> None:
            console.print_warning(f"atrous segment: {image.error}")

        summary = label_on_ray(
            bundle,
            images,
            out,
            nodes=nodes,
            started=start,
            advance=lambda steps: advances[0](steps),
            failed=fail,
            **options,
        )
    failed = len(summary.failures)
    if as_json:
        report = {"bundle": bundle, "out": out, **dataclasses.asdict(summary)}
        console.print_json("segment", report)
    else:
        rate = f", {summary.labeled / summary.duration_s:.1f} a second" if summary.labeled else ""
        failing = f", {failed} failed (see the shards' failures)" if failed else ""
        skipped = f", {summary.skipped} were done before" if summary.skipped else ""
        actors = f"{summary.actors} actors of {summary.cores} cores" + (
            f", {summary.gpus:g} GPU" if summary.gpus else ""
        )
        console.print_line(f"{summary.labeled} labeled{failing}{skipped} by {actors}{rate} -> {out}")
        console.print_line(f"atrous merge {out} checks and joins the records of the {summary.shards} shards")
    return (1 if summary.labeled or summary.skipped else 2) if failed else 0
