"""A copy of a bundle with what labels images, and nothing else."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..errors import BundleError
from .choices import Precision
from .files import write_file
from .folder import Bundle, read_bundle
from .manifest import MANIFEST_NAME, Manifest
from .writing import new_bundle


def pack_bundle(
    source: str | Path, target: str | Path, *, precisions: Collection[Precision] | None = None, replace: bool = False
) -> Bundle:
    """Copy a bundle's manifest and the graphs that run on images; the manifest keeps the record of the verification.

    The copy has no torch model and no `model.onnx`, so it cannot be verified again, given another precision, or run
    with another preprocessing.

    Args:
        source: a bundle.
        target: the folder to write.
        precisions: the variants to keep beside fp32; None for all.
        replace: whether `target` may be a bundle, which is replaced.

    Raises:
        BundleError: if the source is not a bundle, is altered, has no such graph, or lacks a variant.
        OutputError: if the target cannot be written, or is there and is not to be replaced.
    """
    bundle = read_bundle(source)
    packed = select_packed(bundle.manifest, bundle.path, precisions)
    with new_bundle(Path(target), replace=replace) as place:
        for name in packed.files:
            write_file(place / name, bundle.read_file(name))
        write_file(place / MANIFEST_NAME, packed.to_json())
    return read_bundle(target)


def select_packed(manifest: Manifest, path: Path | str, precisions: Collection[Precision] | None = None) -> Manifest:
    """The manifest of the packed bundle, which lists the files to keep; raises BundleError about `path`."""
    graphs = {part.file for part in (manifest.deploy, manifest.run) if part is not None}
    if not graphs:
        raise BundleError("has no network that takes images: there is nothing to pack", path=path)
    kept = set(manifest.variants) if precisions is None else set(precisions) - {"fp32"}
    if missing := kept - manifest.variants.keys():
        raise BundleError(f"has no variant in {min(missing)}: add it with `atrous precision`", path=path)
    variants = {name: variant for name, variant in manifest.variants.items() if name in kept}
    files = sorted(graphs | {variant.file for variant in variants.values()})
    fields = {
        "files": {name: manifest.files[name] for name in files},
        "graphs": {name: facts for name, facts in manifest.graphs.items() if name in files},
        "variants": variants,
    }
    return manifest.model_copy(update=fields)
