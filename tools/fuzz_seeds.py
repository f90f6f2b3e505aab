"""Seeds for the fuzzer: valid images, NumPy arrays, zip files, ONNX graphs and manifests."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable

import numpy as np
from PIL import Image

#: suffix -> Pillow's format, pixel types and options
_IMAGES: dict[str, tuple[str, tuple[str, ...], tuple[dict[str, object], ...]]] = {
    ".avif": ("AVIF", ("RGB",), ({},)),
    ".bmp": ("BMP", ("RGB", "L", "P", "1"), ({},)),
    ".gif": ("GIF", ("P", "L"), ({},)),
    ".jp2": ("JPEG2000", ("RGB", "L"), ({},)),
    ".jpg": ("JPEG", ("RGB", "L", "CMYK"), ({}, {"progressive": True})),
    ".png": ("PNG", ("RGB", "RGBA", "LA", "L", "P", "1", "I;16"), ({},)),
    ".ppm": ("PPM", ("RGB", "L", "1"), ({},)),
    ".tif": ("TIFF", ("RGB", "L", "CMYK", "I;16"), ({}, {"compression": "tiff_lzw"}, {"compression": "packbits"})),
    ".webp": ("WEBP", ("RGB", "RGBA"), ({}, {"lossless": True})),
}
IMAGE_SUFFIXES = tuple(_IMAGES)
SUFFIXES = (*IMAGE_SUFFIXES, ".npy", ".zip", ".onnx", ".json")


def make_seeds(suffix: str) -> list[bytes]:
    """Return valid files of a suffix; an empty list for the suffixes of Caffe's files."""
    if suffix in _IMAGES:
        return _make_images(suffix)
    others: dict[str, Callable[[], list[bytes]]] = {
        ".npy": _make_arrays,
        ".zip": _make_zips,
        ".onnx": _make_graphs,
        ".json": _make_manifests,
    }
    return others[suffix]() if suffix in others else []


def _make_images(suffix: str) -> list[bytes]:
    kind, modes, options = _IMAGES[suffix]
    noise = np.random.default_rng(0).integers(0, 256, (13, 17, 3), np.uint8)
    ramp = (np.indices((24, 32)).sum(0)[..., None] * np.array([3, 2, 1]) % 256).astype(np.uint8)
    seeds = []
    Image.init()
    for pixels in (noise, ramp) if kind in Image.SAVE else ():
        for mode in modes:
            for chosen in options:
                buffer = io.BytesIO()
                Image.fromarray(pixels).convert(mode).save(buffer, kind, **chosen)
                seeds.append(buffer.getvalue())
    return seeds


def _make_arrays() -> list[bytes]:
    seeds = []
    for array in (np.ones((3, 4, 5), np.float32), np.ones((1, 3, 5, 4), np.uint8), np.arange(3.0)):
        for version in ((1, 0), (2, 0), (3, 0)):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, version=version)
            seeds.append(buffer.getvalue())
    return seeds


def _make_zips() -> list[bytes]:
    seeds = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            archive.writestr("net/", "")
            archive.writestr("net/w.caffemodel", bytes(500) + random.Random(0).randbytes(300))
            archive.writestr("__MACOSX/._w.caffemodel", "x")
            archive.comment = b"comment"
        seeds.append(buffer.getvalue())
    return seeds


def _make_graphs() -> list[bytes]:
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", "h", "w", 3])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2, "h", "w"])
    weights = numpy_helper.from_array(rng.standard_normal((2, 3, 3, 3), np.float32), "weights")
    start = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
    ]
    plain = [helper.make_node("Conv", ["planes", "weights"], ["scores"], pads=[1] * 4, name="c")]
    deeper = [
        helper.make_node("Conv", ["planes", "weights"], ["c"], dilations=[2, 2], pads=[2] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Softmax", ["p"], ["scores"], axis=1),
    ]
    graphs = [helper.make_graph(start + rest, "g", [image], [scores], [weights]) for rest in (plain, deeper)]
    opset = [helper.make_opsetid("", 17)]
    return [helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString() for graph in graphs]


def _make_manifests() -> list[bytes]:
    file = {"sha256": "0" * 64, "bytes": 9}
    rule = {"minimum": [17, 17], "multiple": 8, "offset": 1}
    manifest = {
        "schema_version": 1,
        "name": "net",
        "created": "2024-05-01T12:00:00Z",
        "atrous_version": "0.1.0",
        "sources": [
            {"role": "prototxt", "file": "a", "sha256": "0" * 64, "bytes": 1, "format": "V1", "dialect": "deeplab_v1"}
        ],
        "inputs": [{"name": "data", "shape": [1, 3, "height", "width"], "dtype": "float32"}],
        "outputs": [{"name": "scores", "shape": [1, 2, "height", "width"], "dtype": "float32"}],
        "preprocessing": {"color_order": "BGR", "mean": [104.0, 117.0, 123.0], "scale": 1.0, "size_rule": rule},
        "deploy": {"file": "deploy.onnx", "input": "image", "head": "scores", "output": "scores"},
        "classes": ["sky", "sea"],
        "palette": [[0, 0, 0], [0, 0, 255]],
        "crf": {
            "mode": "deeplab",
            "iterations": 5,
            "gaussian": [{"sxy": 3.0, "weight": 3.0}],
            "bilateral": [{"sxy": [20.0, 30.0], "srgb": 10.0, "weight": 4.0}],
        },
        "variants": {"fp16": {"file": "deploy.fp16.onnx", "precision": "fp16", "kept": {}, "verification": {}}},
        "files": {"deploy.onnx": file, "deploy.fp16.onnx": file},
        "verification": [],
        "versions": {"onnx": "1.17.0"},
    }
    return [json.dumps(manifest).encode(), json.dumps({**manifest, "crf": None, "variants": {}}, indent=1).encode()]
