"""Bundles of small nets, written and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atrous.bundle.manifest import Manifest, parse_manifest
from atrous.converter import BundleOptions, write_bundle

from ..nets import DEEPLAB, read_seeded

FILES = {"deploy.onnx", "manifest.json", "model.onnx", "model.py", "model.safetensors"}


def read_manifest(folder: Path) -> Manifest:
    """As the runtime reads it: strictly."""
    return parse_manifest((folder / "manifest.json").read_bytes())


def write(folder: Path, text: str = DEEPLAB, **options: Any) -> Manifest:
    write_bundle(read_seeded(text), folder, BundleOptions(**options))
    return read_manifest(folder)
