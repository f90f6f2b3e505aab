"""A bundle's network for NVIDIA DeepStream: `model.onnx` and the settings of the element nvinfer, without the CRF.

nvinfer subtracts the mean and feeds float NCHW, so it takes `model.onnx`, not `deploy.onnx`. Its keys are described in
NVIDIA's documentation of Gst-nvinfer.
"""

from __future__ import annotations

from pathlib import Path

from ...bundle.files import prepare_folder, write_file
from ...bundle.folder import read_bundle
from ...bundle.section import Sides
from ...errors import InputError, OutputError

SETTINGS = "nvinfer.txt"
_MODEL = "model.onnx"
_LABELS = "labels.txt"
_SEGMENTATION = 2  # network-type
_NO_THRESHOLD = -1e30  # scores may be negative; every pixel gets a class


def export_deepstream(
    source: str | Path, target: str | Path, *, size: Sides | None = None, batch: int = 1, replace: bool = False
) -> tuple[str, ...]:
    """Write `nvinfer.txt`, `model.onnx` and `labels.txt` into a folder, and return their names.

    Args:
        source: a bundle that labels RGB images, with its model.onnx.
        target: the folder.
        size: (height, width) in pixels that DeepStream scales frames to; None for the size the net was made for.
        batch: images in a run, such as the number of streams.
        replace: whether files of these names may be replaced.

    Raises:
        BundleError: if the source labels no RGB images, or is packed.
        InputError: if the size is unknown or one that the net does not take without padding.
        OutputError: if a file is there and is not to be replaced, or cannot be written.
    """
    bundle = read_bundle(source)
    manifest, preprocessing = bundle.manifest, bundle.preprocessing
    height, width = size or preprocessing.usual_size or (0, 0)
    if height < 1:
        raise InputError(f"{bundle.path}: the net was made for no size: give one with --size")
    padded = preprocessing.size_rule.padded_size(height, width)
    if padded != (height, width):
        raise InputError(
            f"the net pads {height}x{width} to {padded[0]}x{padded[1]}: give --size {padded[0]}x{padded[1]}"
        )
    settings = {
        "onnx-file": _MODEL,
        "labelfile-path": _LABELS,
        "batch-size": batch,
        "infer-dims": f"3;{height};{width}",
        "network-mode": 0,  # float32
        "network-type": _SEGMENTATION,
        "net-scale-factor": preprocessing.scale,
        "offsets": ";".join(map(str, preprocessing.mean)),  # in the order of the colors
        "model-color-format": 1 if preprocessing.color_order == "BGR" else 0,
        "output-blob-names": bundle.deploy.blob or manifest.outputs[0].name,
        "num-detected-classes": len(manifest.classes),
        "segmentation-threshold": _NO_THRESHOLD,
        "segmentation-output-order": 0,  # NCHW
        "output-tensor-meta": 1,  # also attach the scores, for a CRF of one's own
        "gie-unique-id": 1,
    }
    text = "[property]\n" + "".join(f"{key}={value}\n" for key, value in settings.items())
    contents = {_MODEL: bundle.read_file(_MODEL), _LABELS: ";".join(manifest.classes).encode(), SETTINGS: text.encode()}
    folder = prepare_folder(target)
    for name in contents:
        if (folder / name).exists() and not replace:
            raise OutputError("is there already: give --force to replace it", path=folder / name)
    for name, content in contents.items():
        write_file(folder / name, content)
    return tuple(contents)
